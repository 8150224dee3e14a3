"""Distillation on several ranks: it gives the result of one process, and one rank writes and prints errors."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from launching import in_own_network, launched
from safetensors.numpy import load_file

from training import distill, embed_images
from training.run.command import run_command
from training.run.config import DistillConfig
from training.run.distributed import (
    ProcessError,
    all_or_none,
    broadcast_from_main,
    device_of,
    is_lost_peer,
    join_process_group,
    main_process_first,
    world_size,
)
from training.small_models.models import write_scratch_backbone
from turkish_clip import InputError
from turkish_clip.encoder import load_model

ERROR = "error: "


@pytest.fixture(scope="module")
def recipe(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a small distillation without dropout, whose random masks depend on the number of processes."""
    folder = tmp_path_factory.mktemp("several")
    source = f"--captions {captioned_folder} --image_model {tiny_clip} --device cpu".split()
    embed_images.main([*source, f"run={folder}"])
    config = DistillConfig(captions="x", run="x", scratch_layers=1, scratch_hidden=32, max_tokens=32)
    rows = [json.loads(line) for line in (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    captions = [caption for row in rows for caption in row["captions"]]
    backbone = write_scratch_backbone(folder / "backbone", captions, config)
    settings = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    settings["attention_probs_dropout_prob"] = 0.0
    (backbone / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    more = f"--embeddings {folder / 'embeddings'} --backbone {backbone} --max_tokens 32 --batch_size 22 --epochs 2"
    return [*source, *more.split(), *"--evaluations 3 --learning_rate 1e-3".split()]


@pytest.fixture(scope="module")
def single_process(recipe: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary and run folder of that distillation on one process."""
    run = tmp_path_factory.mktemp("alone")
    return {**distill.main([*recipe, f"run={run}"]), "run": run}


def last_weights(run: Path) -> dict[str, Any]:
    """Returns the weights of the last step; `model/` holds those of the best."""
    last = max((run / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return {
        f"{file.parent.name} {k}": v for file in sorted(last.rglob("*.safetensors")) for k, v in load_file(file).items()
    }


def assert_same(run: Path, other: Path, tolerance: float = 1e-5) -> None:
    one, two = last_weights(run), last_weights(other)
    assert one.keys() == two.keys()
    for name, weights in one.items():
        np.testing.assert_allclose(two[name], weights, atol=tolerance, rtol=0, err_msg=name)
    curves = [
        [json.loads(line) for line in (path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        for path in (run, other)
    ]
    losses = [[entry["loss"] for entry in curve if "loss" in entry] for curve in curves]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    rates = [[entry["learning_rate"] for entry in curve if "loss" in entry] for curve in curves]
    assert rates[0] == rates[1]


def test_two_processes_end_as_one_and_see_each_row_once(
    recipe: list[str], single_process: dict[str, Any], tmp_path: Path
) -> None:
    done = launched(["tests/helpers/recording.py", str(tmp_path), *recipe, f"run={tmp_path / 'two'}", "--json"])
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # one rank prints it
    assert two["best_validation_mrr"] == pytest.approx(single_process["best_validation_mrr"], abs=1e-3)
    assert_same(single_process["run"], tmp_path / "two")
    record = json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))
    assert (record["machine"]["world_size"], record["status"]) == (2, "finished")

    seen = [(tmp_path / f"rows-{number}.jsonl").read_text(encoding="utf-8").splitlines() for number in (0, 1)]
    captions = single_process["training_captions"]
    steps = -(-captions // 22)
    assert [len(lines) for lines in seen] == [2 * steps, 2 * steps]
    assert captions % 22 > 1  # the last batch of the epoch is smaller
    for epoch in (0, 1):
        batches = [rows for lines in seen for rows in [json.loads(line) for line in lines] if rows[0] == epoch]
        rows = Counter(row for _, batch in batches for row in batch)
        assert rows == Counter(range(captions))


def test_micro_batches_end_as_whole_batches(recipe: list[str], single_process: dict[str, Any], tmp_path: Path) -> None:
    distill.main([*recipe, "--gradient_accumulation", "3", f"run={tmp_path}"])
    assert_same(single_process["run"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--objective mse_contrastive",
        "--objective mse_contrastive --gradient_accumulation 2",
        "--objective mse_then_contrastive --batch_size 19 --length_window 2",
        "--gradient_accumulation 3 --length_window 3",
        "--objective mse_bank_structure --matryoshka 8",
        "--objective mse_bank_negatives --gradient_accumulation 2",
        "--backbone static --static_from scratch --learning_rate 1e-3",
    ],
)
def test_two_processes_end_as_one_with_options(recipe: list[str], tmp_path: Path, options: str) -> None:
    words = [*recipe, *options.split()]
    distill.main([*words, f"run={tmp_path / 'one'}"])
    done = launched(["-m", "training.distill", *words, f"run={tmp_path / 'two'}"])
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_accelerate_launch_ends_as_one_process(
    recipe: list[str], single_process: dict[str, Any], tmp_path: Path
) -> None:
    launcher = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    words = [sys.executable, "-m", *launcher.split(), "--dynamo_backend", "no", "-m", "training.distill"]
    done = in_own_network([*words, *recipe, "--run", str(tmp_path / "two")])
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))["machine"]["world_size"] == 2
    assert_same(single_process["run"], tmp_path / "two")


@pytest.mark.slow
def test_a_compiled_encoder_ends_as_one_that_is_not(
    recipe: list[str], single_process: dict[str, Any], tmp_path: Path
) -> None:
    distill.main([*recipe, "--compile", f"run={tmp_path}"])
    assert_same(single_process["run"], tmp_path)
    assert load_model(tmp_path / "model", device="cpu").encode(["mavi bir kuş"]).shape == (1, 16)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_run_goes_on_after_a_rank_is_killed(recipe: list[str], tmp_path: Path, number: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert launched(["-m", "training.distill", *recipe, f"run={whole}"]).returncode == 0
    steps = len((whole / "log.jsonl").read_text(encoding="utf-8").splitlines())
    nth = str(steps // 2 + 2)  # after a checkpoint, within the second epoch
    words = ["tests/helpers/killing.py", "training.distill", "torch.optim:AdamW.step", nth, *recipe, f"run={killed}"]
    done = launched(words, KILLED_RANK=str(number))
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith(ERROR)]
    assert len(errors) <= 1  # the launcher may end the other rank before it has printed that its peer is lost
    assert all("expected all 2 processes to go on, got one that ended" in line for line in errors)
    assert not (killed / "model").exists()

    assert launched(["-m", "training.distill", *recipe, f"run={killed}", "--resume"]).returncode == 0
    assert_same(whole, killed, tolerance=0)
    assert json.loads((killed / "run.json").read_text(encoding="utf-8"))["status"] == "finished"


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(
    recipe: list[str], single_process: dict[str, Any], tmp_path: Path
) -> None:
    run = f"run={tmp_path / 'killed'}"
    launched(["tests/helpers/killing.py", "training.distill", "torch.optim:AdamW.step", "13", *recipe, run])
    launched(
        ["tests/helpers/killing.py", "training.distill", "torch.optim:AdamW.step", "4", *recipe, run, "--resume"],
        processes=3,
    )
    distill.main([*recipe, run, "--resume"])
    assert_same(single_process["run"], tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--captions nowhere", "expected a folder, table or Hub data set, got 'nowhere'"),
        ("--batch_size 1", r"expected 'batch_size' of at least 2 (2 processes × gradient_accumulation 1), got 1"),
        ("--device cuda", "expected a device that this machine has"),
        ("--capton x", "expected a known field"),
        ("--learning_rate 1e30", "expected finite vectors from the text encoder, got NaN or infinity"),
    ],
)
def test_bad_input_is_one_line(recipe: list[str], tmp_path: Path, options: str, line: str) -> None:
    done = launched(["-m", "training.distill", *recipe, *options.split(), f"run={tmp_path / 'run'}"])
    assert done.returncode != 0  # the launcher's exit code is 1
    assert done.stdout == ""
    errors = [text for text in done.stderr.splitlines() if text.startswith(ERROR)]
    assert len(errors) == 1
    assert line in errors[0]
    assert "exitcode  : 2" in done.stderr  # that of our processes, as the launcher reports it
    assert "[rank" not in done.stderr  # no traceback
    if "rate" not in options:
        assert list(tmp_path.iterdir()) == []


JOINT_ACTIONS = """
import sys, time
from pathlib import Path
from training.run.command import run_command
from training.run.distributed import *
from turkish_clip import InputError
from turkish_clip.encoder import load_model

def main(argv):
    folder = Path(argv[0])
    join_process_group("cpu")
    number = rank()
    def read():
        (folder / f"{number} began").touch()
        if number == 0:
            time.sleep(0.5)
            (folder / "drawn").touch()
        return (folder / "drawn").exists() and (number > 0 or not (folder / "1 began").exists())
    assert main_process_first(read)
    assert broadcast_from_main(lambda: {"number": number}) == {"number": 0}
    assert all_or_none(lambda: number) == number
    def open_file():
        if number == 1:
            raise InputError("expected a folder, got a file; name one")
    all_or_none(open_file)
    (folder / "beyond").touch()

run_command(main, several_processes=True)
"""


@pytest.mark.slow
def test_ranks_act_together_and_the_one_that_failed_prints_the_reason(tmp_path: Path) -> None:
    done = launched(["--no-python", sys.executable, "-c", JOINT_ACTIONS, str(tmp_path)], processes=3)
    errors = [line for line in done.stderr.splitlines() if line.startswith(ERROR)]
    assert errors == [f"{ERROR}expected a folder, got a file; name one"]
    assert "AssertionError" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0 began", "1 began", "2 began", "drawn"]


def test_a_single_process_acts_without_a_group() -> None:
    join_process_group("cpu")
    assert all_or_none(lambda: 1) == main_process_first(lambda: 1) == broadcast_from_main(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        main_process_first(lambda: 1 // 0)


def test_ranks_that_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert world_size() == 2
    with pytest.raises(
        ProcessError, match="expected 2 processes to meet at :, got .*; start them with torchrun or acc"
    ):
        join_process_group("cpu")


def test_a_launcher_that_shards_the_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProcessError, match="expected a launcher that starts plain processes, got ACCELERATE_USE_FSDP"):
        join_process_group("cpu")


def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert device_of("auto") == device_of("cuda") == "cuda"
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert device_of("auto") == "cuda:1"
    assert device_of("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(InputError, match="expected a GPU for each process, got 2 for 3 processes on this machine"):
        device_of("cuda")


@pytest.mark.parametrize(
    ("words", "is_lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242", True),
        ("Read error [127.0.0.1]:4242: Connection reset by peer", True),
        ("write: Broken pipe", True),
        ("shapes differ", False),
    ],
)
def test_a_lost_peer_is_recognised_by_the_words_of_gloo(
    words: str, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_lost_peer(RuntimeError(words))  # a single process has no peer
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert is_lost_peer(RuntimeError(words)) is is_lost


def fails(argv: list[str]) -> NoReturn:
    raise InputError("expected a folder, got a file; name one")


@pytest.mark.parametrize(
    ("rank", "several", "message"),
    [
        ("0", True, "error: expected a folder, got a file; name one\n"),
        ("1", True, ""),
        ("0", False, "error: expected one process, got 2; start it without a launcher (training.distill alone runs"),
        ("1", False, ""),
    ],
)
def test_one_rank_prints_an_error(
    rank: str, several: bool, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        run_command(fails, [], several_processes=several)
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert printed.count("\n") == bool(message)
