"""The READMEs: their figures are the measured ones, what they name exists, and what they show runs."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from training.release import readme
from training.run import config
from training.run.record import RunError
from turkish_clip.cli import entry
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.encoder import load_model
from turkish_clip.generate.decoder import DecoderRecord, SmallDecoder, save_decoder
from turkish_clip.verify import RECORD, ModelRecord

ROOT = Path(__file__).parents[2]
DOCS = (
    "README.md",
    "CONTRIBUTING.md",
    "turkish_clip/README.md",
    "training/README.md",
    "tests/README.md",
    "findings/README.md",
)
SHOWN = ("README.md", "turkish_clip/README.md")  # whose examples run after `make demo`
CONFIGS = {
    "embed_images": config.EmbedConfig,
    "import_embeddings": config.ImportConfig,
    "distill": config.DistillConfig,
    "evaluate": config.EvaluateConfig,
    "publish": config.PublishConfig,
    "pretrain": config.PretrainConfig,
    "benchmark": config.BenchmarkConfig,
    "leakage": config.LeakageConfig,
    "compare_models": config.CompareConfig,
    "ablate": config.AblateConfig,
    "continual": config.ContinualConfig,
}
COMPLETION = {"install-completion", "show-completion"}  # of turkish-clip itself, without a subcommand
OTHERS = {
    *COMPLETION,
    "help",
    "version",
    "lang",
    "nproc-per-node",
    "standalone",
    "dist",
    "import-mode",
}  # of all, torchrun and pytest
LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")
COMMANDS: Any = typer.main.get_command(entry.app)


@pytest.fixture(params=DOCS)
def doc(request: pytest.FixtureRequest) -> Path:
    return ROOT / request.param


def blocks(path: Path, *languages: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and content, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [(language, content) for language, content in found if language in languages]


def shell_lines(path: Path) -> list[list[str]]:
    """The words of every command in the shell blocks of a page."""
    lines = "".join(content for _, content in blocks(path, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def inline_commands(path: Path) -> list[list[str]]:
    """The words of every command of ours in the sentences of a page."""
    sentences = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [shlex.split(code) for code in re.findall(r"`((?:python -m training\.|turkish-clip )[^`]+)`", sentences)]


def training_command(words: list[str]) -> tuple[str, list[str]]:
    """The name of a command of training, or none, and its options; a recipe or run folder is left out."""
    name = next((word.removeprefix("training.") for word in words if word.startswith("training.")), "")
    given = words[words.index(f"training.{name}") + 1 :] if name else []
    return name, given[1:] if given and not given[0].startswith("-") and "=" not in given[0] else given


def options_of(command: Any) -> set[str]:
    """The options of a subcommand of turkish-clip, as they are typed."""
    names = (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    return {name for name in names if name.startswith("-")} | {"--help"}


def fields_of(*kinds: type) -> set[str]:
    """The options of commands of training, without dashes."""
    fields = [field for kind in kinds for field in dataclasses.fields(kind)]
    return {name for field in fields for name in (field.name, *field.metadata["aliases"])}


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_block_is_what_the_measured_file_says() -> None:
    results = json.loads(readme.MEASURED.read_text(encoding="utf-8"))
    assert readme.block(results) in readme.README.read_text(encoding="utf-8")


def test_the_block_names_the_lowest_retention() -> None:
    results = json.loads(readme.MEASURED.read_text(encoding="utf-8"))
    results["robustness"]["typo"]["retention"]["value"] = 0.1234
    assert "the hardest (one typo in each caption) keeps 12.3 %" in readme.block(results)


def test_the_block_is_rewritten_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = json.loads(readme.MEASURED.read_text(encoding="utf-8"))
    results["text_to_image"]["recall_at_1"] = 0.123
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    shutil.copy(readme.README, tmp_path / "README.md")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "MEASURED", tmp_path / "measured.json")
    written = readme.main([str(tmp_path)])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| 0.123 (" in written
    assert written in text
    original = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.partition(readme.BEGIN)[0] == original.partition(readme.BEGIN)[0]
    assert text.partition(readme.END)[2] == original.partition(readme.END)[2]


def test_without_a_demo(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run make demo first"):
        readme.main([str(tmp_path)])


def test_readme_is_short_and_leads_to_the_other_pages() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert {*DOCS, "training/LOG.md"} - {"README.md"} <= set(LINK.findall(text))


def test_links_lead_somewhere(doc: Path) -> None:
    for link in LINK.findall(doc.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = doc.parent / name if name else doc
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), link


def test_make_targets_and_commands_of_training_exist(doc: Path) -> None:
    text = doc.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in re.findall(r"(?:^|`)make ([a-z -]+)", text, re.MULTILINE):
        for target in words.split():
            assert f"\n{target}:" in makefile, words
    for command in set(re.findall(r"-m training\.([a-z_.]+\w)", text)) - {"NAME"}:
        assert (ROOT / "training" / f"{command.replace('.', '/')}.py").is_file(), command


def test_options_of_training_exist(doc: Path) -> None:
    """Those of each command line by its own configuration, as the command itself reads it."""
    for words in [*shell_lines(doc), *inline_commands(doc)]:
        name, options = training_command(words)
        typed = {re.split("[= ]", word.lstrip("-"))[0] for word in options if word.startswith("--") or "=" in word}
        if name in CONFIGS:
            assert typed <= fields_of(*CONFIGS.values()) | {"help"}, words
            if words in shell_lines(doc) and "help" not in typed:
                missing = ({"run", "captions"} & fields_of(CONFIGS[name])) - typed
                config.read(CONFIGS[name], [*options, *(f"--{option}=x" for option in sorted(missing))])


def test_subcommands_and_their_options_exist(doc: Path) -> None:
    for words in [*shell_lines(doc), *inline_commands(doc)]:
        if words[0] == "turkish-clip" and words[1].lstrip("-") not in ("SUBCOMMAND", *OTHERS):
            typed = {word for word in words[2:] if re.match("--?[a-z]", word)}
            assert typed <= options_of(COMMANDS.commands[words[1]]), words


def test_options_in_sentences_exist(doc: Path) -> None:
    named = set(re.findall(r"`--([a-z][\w-]*)", doc.read_text(encoding="utf-8")))
    known = fields_of(*CONFIGS.values()) | OTHERS
    known |= {name.lstrip("-") for command in COMMANDS.commands.values() for name in options_of(command)}
    assert named <= known


def test_options_that_messages_advise_exist() -> None:
    known = fields_of(*CONFIGS.values()) | OTHERS | {"field", "porcelain", "untracked-files"}  # of git
    known |= {name.lstrip("-") for command in COMMANDS.commands.values() for name in options_of(command)}
    for path in [*(ROOT / "training").rglob("*.py"), *(ROOT / "turkish_clip").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        named = {name for text in words for name in re.findall(r"(?<![\w-])--([a-z][\w-]*)", text)}
        assert named - {name for name in named if name.replace("-", "_") in known} <= known, path


def test_python_compiles_and_json_is_json(doc: Path) -> None:
    for language, content in blocks(doc, "python", "json"):
        ast.parse(content) if language == "python" else json.loads(content)


def test_the_words_are_the_standard_ones() -> None:
    for name in SHOWN:
        assert not re.search(r"\b[Pp]ictures?\b", (ROOT / name).read_text(encoding="utf-8"))


def test_troubleshooting_quotes_messages_of_the_code() -> None:
    page = (ROOT / "turkish_clip" / "README.md").read_text(encoding="utf-8").partition("## Troubleshooting")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) >= 15
    sources = sorted((ROOT / "turkish_clip").rglob("*.py"))
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for part in (part.strip() for message in messages for part in message.split("…")):
        assert any(part in text for text in texts), part


@pytest.fixture
def after_make_demo(
    tmp_path: Path,
    text_folder: Path,
    tiny_bert: Path,
    tiny_clip: Path,
    captioned_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A directory with what a checkout has after `make demo`, from the tiny models."""
    run = tmp_path / "runs" / "demo"
    shutil.copytree(text_folder, run / "model")
    (run / "run.json").touch()
    record = ModelRecord(
        kind="text", dim=16, max_tokens=128, weights_sha256="", image_model={"id": "training/mini/clip", "revision": ""}
    )
    (run / "model" / RECORD).write_text(record.to_json(), encoding="utf-8")
    shutil.copytree(captioned_folder, run / "data")
    shutil.copytree(tiny_bert, run / "backbone")
    mini = tmp_path / "training" / "mini"
    shutil.copytree(tiny_clip, mini / "clip")
    (mini / "decoder").mkdir()
    weights = weights_sha256(load_model(tiny_clip, device="cpu"))
    save_decoder(SmallDecoder(DecoderRecord(dim=16, channels=(8,), image_weights_sha256=weights)), mini / "decoder")
    autoencoder = pytest.importorskip("diffusers").VQModel(
        block_out_channels=(8,), latent_channels=4, sample_size=16, num_vq_embeddings=4, norm_num_groups=4
    )
    autoencoder.save_pretrained(mini / "autoencoder", safe_serialization=True)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURKISH_CLIP_MODEL", "")  # which the pages set; what was there comes back at the end
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    monkeypatch.setattr("turkish_clip.exports.immich.WIDTHS", {"XLM-Roberta-Large-Vit-B-32": 16})  # of the tiny models
    return tmp_path


@pytest.mark.parametrize("page", SHOWN)
def test_what_a_page_shows_runs(page: str, after_make_demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python in one session, and the commands that need no network and end by themselves."""
    session: dict[str, Any] = {}
    ran = []
    for language, content in blocks(ROOT / page, "python", "sh"):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(content, page, "exec"), session)
            continue
        for line in content.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["export"]:
                name, _, value = words[1].partition("=")
                monkeypatch.setenv(name, value.replace("$PWD", str(after_make_demo)))
            elif words[0] == "turkish-clip" and words[1] not in ("app", "verify"):
                _run_subcommand([*words[1:], *([] if {"--csv", "--json"} & {*words} else ["--json"])])
                ran.append(words[1])
            elif words[0] == "python" and words[1].startswith("examples/"):
                monkeypatch.setattr(sys, "argv", words[1:])
                with contextlib.redirect_stdout(io.StringIO()):
                    runpy.run_path(words[1], run_name="__main__")
    assert {"index", "search", "classify", "compare", "filter"} <= set(ran)


def _run_subcommand(words: list[str]) -> None:
    """Runs a subcommand; what it prints as JSON has the keys of the page's table."""
    files = {word: sorted(map(str, Path().glob(word))) for word in words if "*" in word}
    argv = [name for word in words for name in files.get(word, [word])]
    result = CliRunner().invoke(entry.app, argv)
    assert result.exit_code == 0, (words, result.output, result.exception)
    if "--csv" in words:
        return
    page = (ROOT / "turkish_clip" / "README.md").read_text(encoding="utf-8").partition("### JSON")[2]
    row = re.search(rf"^\| `{words[0]}` \|(.+)$", page, re.MULTILINE)
    assert row is not None
    named, printed = set(re.findall(r"`(\w+)`", row[1])), json.loads(result.stdout)
    onnx = {
        "format",
        "model",
        "revision",
        "precision",
        "weights_sha256",
        "tokenizer_sha256",
        "dim",
        "max_tokens",
        "normalised",
        "prompt",
        "image_model",
    }
    assert isinstance(printed.pop("warnings"), list)  # in every command
    assert set(printed) - (onnx if words[0] == "export" else set()) <= named
    lists = [printed[key] for key in ("hits", "images", "flagged") if isinstance(printed.get(key), list)]
    assert all(set(item) <= named for items in lists for item in items[:1] if isinstance(item, dict))
