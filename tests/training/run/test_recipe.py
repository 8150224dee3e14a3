"""Recipes and options: precedence, the nearest known field, ranges, --help, no torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.run.config import (
    AblateConfig,
    BenchmarkConfig,
    DistillConfig,
    EmbedConfig,
    EvaluateConfig,
    LeakageConfig,
    PretrainConfig,
    PublishConfig,
    read,
)
from training.run.provenance import GitState, machine
from training.run.recipe import RECIPES, ConfigError
from training.run.record import RunInputs, RunRecord

BASE = ["--captions", "x", "--run", "r"]
CONFIGS = (
    AblateConfig,
    BenchmarkConfig,
    DistillConfig,
    EmbedConfig,
    EvaluateConfig,
    LeakageConfig,
    PretrainConfig,
    PublishConfig,
)


def test_defaults_then_recipe_then_options(tmp_path: Path) -> None:
    recipe = tmp_path / "model.yaml"
    recipe.write_text("captions: images\nepochs: 7\nbatch_size: 9\ncaption_columns: [a, b]\n", encoding="utf-8")
    config = read(DistillConfig, [str(recipe), "--batch-size", "11", "seed=5", "--bf16"])
    assert (config.epochs, config.batch_size, config.seed, config.bf16) == (7.0, 11, 5, True)
    assert config.caption_columns == ("a", "b")
    assert config.max_tokens == DistillConfig(captions="x", run="r").max_tokens
    assert config.run == "runs/model"


def test_the_default_learning_rate_depends_on_the_backbone() -> None:
    assert DistillConfig(captions="x", run="r").peak_learning_rate == 5e-4
    assert DistillConfig(captions="x", run="r", backbone="scratch").peak_learning_rate == 1e-3
    assert DistillConfig(captions="x", run="r", backbone="static").peak_learning_rate == 0.1
    assert DistillConfig(captions="x", run="r", backbone="static", init="y").peak_learning_rate == 0.01
    assert DistillConfig(captions="x", run="r", init="y").peak_learning_rate == 5e-5
    assert DistillConfig(captions="x", run="r", backbone="scratch", learning_rate=2e-4).peak_learning_rate == 2e-4


def test_fields_of_the_source_have_aliases() -> None:
    config = read(PretrainConfig, ["images=images", "captions_columns=captions_en", "run=r"])
    assert (config.captions, config.caption_columns) == ("images", ("captions_en",))


def test_the_same_options_serve_all_commands() -> None:
    options = [*BASE, "--backbone", "scratch", "--bf16", "--image_batch_size", "3", "--epochs", "2"]
    assert read(EmbedConfig, options).image_batch_size == 3
    assert read(DistillConfig, options).epochs == 2
    assert read(EvaluateConfig, options).run == "r"


def test_one_recipe_serves_all_commands() -> None:
    for config_type in (EmbedConfig, DistillConfig, EvaluateConfig):
        assert read(config_type, ["demo"]).captions == "mini"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_reads(path: Path) -> None:
    read(PretrainConfig if "patch_size:" in path.read_text(encoding="utf-8") else DistillConfig, [str(path)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*BASE, "--epoch", "3"], "did you mean 'epochs'"),
        ([*BASE, "--epochs", "many"], "expected a number for 'epochs' in the command line, got 'many'"),
        ([*BASE, "--batch_size", "2.5"], "expected a whole number for 'batch_size'"),
        ([*BASE, "--seed", "-1"], "expected 'seed' to be 0 to 4294967295, got -1"),
        (
            [*BASE, "--seed", "9" * 23],
            "expected 'seed' to be 0 to 4294967295, got 9{23}; change it in the recipe or by",
        ),
        ([*BASE, "--seed", "4294967296"], "expected 'seed' to be 0 to 4294967295, got 4294967296"),
        ([*BASE, "--batch_size", "1" + "0" * 20], "expected 'batch_size' to be at most 9007199254740991, got 10{20};"),
        ([*BASE, "--matryoshka", f"8,{'9' * 17}"], "expected 'matryoshka' to be at most 9007199254740991, got 9{17};"),
        (
            [*BASE, "--bf16", "maybe"],
            "expected true, false or auto after --bf16, or nothing, got 'maybe', which is no recipe",
        ),
        (["demo", "--compile", "evet"], "expected true or false after --compile, or nothing, got 'evet'"),
        (
            [*BASE, "--resume", "2"],
            "expected true or false after --resume, or nothing, got '2', .* write --resume true",
        ),
        ([*BASE, "--bf16=maybe"], "expected true, false or auto for 'bf16' in the command line, got 'maybe'"),
        ([*BASE, "--ascii_probability", "2"], "expected 'ascii_probability' to be 0 to 1, got 2.0"),
        ([*BASE, "--device", "tpu"], "one of auto, cpu, cuda, mps, got 'tpu'"),
        ([*BASE, "--epochs"], "expected a value after --epochs"),
        (["--captions", "--run", "r"], "expected a value after --captions, got --run"),
        ([*BASE, "--epochs", "inf"], "expected a number for 'epochs'"),
        ([*BASE, "--scratch_hidden", "100"], "'scratch_hidden' to be a multiple of 32, got 100"),
        (["no-such-recipe"], "built-in recipes are demo, mini-autoencoder, mini-clip, mini-decoder"),
        (["demo", "mini-clip"], "expected one recipe, got 'demo' and 'mini-clip'"),
        (["--run", "r"], "expected 'captions' to name"),
        (["--captions", "x"], "expected 'run' to name"),
    ],
)
def test_bad_options_are_named_with_what_is_allowed(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(DistillConfig, argv)


def test_a_recipe_may_follow_a_true_or_false_option(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("captions: images\n", encoding="utf-8")
    for argv in (["--bf16", "demo"], ["--json", str(tmp_path / "mine.yaml"), "--bf16"], ["--bf16", "on", "demo"]):
        assert read(DistillConfig, argv).bf16
    for argv in (["demo"], ["--bf16", "auto", "demo"], ["demo", "bf16=AUTO"]):
        assert read(DistillConfig, argv).bf16 is None
    assert read(DistillConfig, ["demo", "--bf16", "no"]).bf16 is False


def test_several_seeds_and_sizes_are_checked_each() -> None:
    with pytest.raises(ConfigError, match="expected 'seeds' to be 0 to 4294967295, got 4294967296; change it"):
        read(AblateConfig, [*BASE, "--seeds", "0,4294967296"])
    with pytest.raises(ConfigError, match="expected 'sizes' to be at least 0, got -5"):
        read(AblateConfig, [*BASE, "--sizes", "0,-5"])


def test_leakage_without_a_list() -> None:
    with pytest.raises(
        ConfigError, match="expected 'benchmark' to name a list of .*, got nothing; add --benchmark FILE"
    ):
        read(LeakageConfig, BASE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epcohs: 3", "got 'epcohs'; did you mean 'epochs'"),
        ("- a\n- b", "got a list"),
        ("epochs: [1", "expected YAML in UTF-8"),
        ("epochs: {a: 1}", "expected a number for 'epochs'"),
        ("caption_columns: {a: 1}", "for 'caption_columns'"),
        ("seed: true", "expected a whole number for 'seed'"),
        ("seed: 1:30", "expected a whole number for 'seed' in .*, got '1:30'; correct it there"),
        ("epochs: 1:30", "expected a number for 'epochs' in .*, got '1:30'; correct it there"),
        ("seed: 0x10", "expected a whole number for 'seed' in .*, got '0x10'"),
        (f"seed: {'9' * 5000}", "expected a whole number for 'seed' in .*, got '9{79} … .5002 letters.; correct it"),
        (f"epochs: {'9' * 5000}", "expected a number for 'epochs' in .*, got '9{79} … .5002 letters.; correct it"),
        ("seed: 1\nepochs: 2\nseed: 3", "expected YAML .*, got: 'seed' a second time; keep one of them in .*line 3"),
        ("captions: a\nimages: b", "expected 'captions' once in .*, got it a second time as 'images'; keep one"),
        ("images: b\ncaptions: a", "expected 'captions' once in .*, got it a second time as 'captions'; keep one"),
        ("sources: [{captions: a, weight: 1, weight: 2}]", "got: 'weight' a second time"),
        ("[1]: 2", "got: a list as the name of a field"),
        (f"caption_columns: {'[' * 3000}", "got: more than 8 lists in each other in .*line 1, column"),
        (f"caption_columns: {'{a: ' * 3000}", "got: more than 8 lists in each other"),
        (f"caption_columns:\n {' -' * 3000}", "got: more than 8 lists in each other"),
        ("a: &a [x]\ncaption_columns: *a", "got: a reference; write its value out"),
        ("captions: !!python/object/apply:os.getcwd []", "got: the tag .*os.getcwd; leave it out"),
        ("captions: !!binary aGk=", "got: the tag .*binary; leave it out"),
        ("captions: a\n---\ncaptions: b", "expected YAML in UTF-8"),
        ("captions: \x1b[2J", "expected YAML in UTF-8"),
        ('captions: "a\\0b"', r"expected 'captions' in .* without the character NUL, got 'a\\x00b'; correct it there"),
        ('captions: x\nrun: "\\0"', "expected 'run' in .* without the character NUL"),
        ('captions: x\ncaption_columns: [a, "b\\0"]', "expected 'caption_columns' in .* without the character NUL"),
        ("captions: ~", "expected text for 'captions'"),
    ],
)
def test_errors_in_a_recipe_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read(DistillConfig, [str(path), *BASE])
    assert "bad.yaml" in str(caught.value)


def test_no_path_of_a_source_or_on_the_command_line_holds_nul(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text('sources: [{captions: "a\\0"}, {captions: b}]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="expected 'captions' in a record of sources .* without the character NUL"):
        read(DistillConfig, [str(path), "--run", "unused"])
    with pytest.raises(ConfigError, match="expected 'embeddings' in the command line .* without the character NUL"):
        read(DistillConfig, [*BASE, "--embeddings", "a\0b"])


@pytest.mark.parametrize("text", ["no", "off", "null_island", "010", "1:30", "1e10", "2024-01-31", "1_000", "yes"])
def test_a_name_is_the_text_that_was_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(f"captions: {text}\nrun: {text}\ncaption_columns: [{text}, b]\nbf16: no\n", encoding="utf-8")
    config = read(DistillConfig, [str(path)])
    assert (config.captions, config.run, config.caption_columns, config.bf16) == (text, text, (text, "b"), False)


def test_sizes_that_are_no_multiples() -> None:
    with pytest.raises(ConfigError, match="multiple of patch_size 8, got 60"):
        read(PretrainConfig, [*BASE, "--image_size", "60"])
    with pytest.raises(ConfigError, match="'vision_hidden' to be a multiple of 32, got 48"):
        read(PretrainConfig, [*BASE, "--vision_hidden", "48"])


@pytest.mark.parametrize("config_type", CONFIGS)
def test_help_shows_what_each_option_allows_and_its_default(
    config_type: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        read(config_type, ["--help"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    entries = [" ".join(entry.split()) for entry in printed.split("\n  --")[1:]]
    fields = dataclasses.fields(config_type)
    assert [entry.split()[0] for entry in entries] == [field.name for field in fields]
    for entry, field in zip(entries, fields):
        low, high, choices = (field.metadata[name] for name in ("low", "high", "choices"))
        allowed = f" (one of {', '.join(filter(None, choices))})" if choices else ""
        if low is not None:
            allowed = f" (at least {low})" if high is None else f" ({low} to {high})"
        defaults = field.default if isinstance(field.default, tuple) else (field.default,)
        default = ", ".join(map(str, defaults)).replace("False", "false").replace("None", "auto") or "empty"
        assert entry.endswith(f"{field.metadata['text']}{allowed} [{default}]")


def test_help_wraps_an_option_with_its_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read(DistillConfig, ["--help"])
    printed = capsys.readouterr().out
    assert (
        "  --objective NAME                 regression target and losses (training/run/objectives.py) (one of\n"
        "                                   mse, mse_text, mse_both, mse_text_raw, mse_translation,\n"
    ) in printed
    assert (
        "  --max_tokens INTEGER             tokens per caption; longer captions are cut (8 to 8192) [128]\n" in printed
    )
    assert "  --resume                         continue from the last checkpoint of the run [false]\n" in printed
    assert (
        "  --tf32                           multiply float32 numbers as TF32 on a GPU, losses apart; auto:\n"
        "                                   where the GPU has it [auto]\n"
    ) in printed


@pytest.mark.parametrize("command", ["embed_images", "distill", "evaluate", "pretrain", "demo"])
def test_help_and_imports_do_not_load_torch(command: str) -> None:
    program = (
        f"import sys, turkish_clip; from training.{command} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'datasets', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_a_run_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    RunRecord(
        status="finished",
        config={"captions": "x", "an_old_option": 1},
        inputs=RunInputs(captions_sha256=""),
        git=GitState("0" * 40),
        libraries={},
        machine=machine(),
    ).write(tmp_path)
    with pytest.raises(
        ConfigError, match=r"expected a run of this version in .*got the unknown option 'an_old_option'; "
    ):
        read(EvaluateConfig, [str(tmp_path)])
