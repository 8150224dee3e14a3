"""Contrastive training of a small CLIP from scratch: on any captioned folder, reproducible and resumable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import run_killed
from PIL import Image
from sentence_transformers import SentenceTransformer

from training import distill, pretrain
from training.data.sources import read_captions
from training.run.config import PretrainConfig, read
from training.run.provenance import sha256_of
from training.run.recipe import ConfigError
from training.run.record import RunError
from training.run.source import SourceError
from training.small_models.clip_dataset import ClipBatches, augmented, captions_with_negatives
from training.small_models.clip_training import reading_negatives
from training.small_models.models import build_processor, save_clip
from turkish_clip.encoder import as_texts
from turkish_clip.errors import InputError
from turkish_clip.metrics import unit

SMALL = (
    "--image_size 32 --vision_layers 1 --vision_hidden 32 --text_layers 1 --text_hidden 32 --vocabulary 530 "
    "--caption_tokens 24 --dim 16 --epochs 6 --batch_size 16 --evaluations 4 --device cpu"
)


def arguments(source: Path, run: Path, *more: str) -> list[str]:
    return f"images={source} captions_columns=captions_en --run {run} {SMALL}".split() + list(more)


@pytest.fixture(scope="module")
def finished(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("clip-run")
    pretrain.main(arguments(captioned_folder, run))
    return run


def test_the_saved_model_encodes_texts_and_images(finished: Path) -> None:
    model = SentenceTransformer(str(finished / "model"), device="cpu")
    assert model.modalities == ["text", "image"]
    assert model.encode(["a red house"]).shape == (1, 16)
    results = json.loads((finished / "model" / "results.json").read_text(encoding="utf-8"))
    assert results["test"]["images"] == 10
    losses = [
        json.loads(line).get("loss") for line in (finished / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    losses = [float(loss) for loss in losses if loss is not None]
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_files_in_another_process(
    finished: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "training.pretrain", *arguments(captioned_folder, tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    for name in ("model.safetensors", "tokenizer.json"):
        assert sha256_of(tmp_path / "model" / name) == sha256_of(finished / "model" / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "nth"),
    [
        ("torch.optim:AdamW.step", 5),
        ("torch.optim:AdamW.step", 9),
        ("transformers:Trainer._save_rng_state", 2),
        ("training.small_models.models:save_clip", 1),
        ("training.small_models.clip_training:evaluate_clip", 1),
    ],
)
def test_killed_and_resumed_gives_the_same_weights(
    finished: Path, captioned_folder: Path, tmp_path: Path, target: str, nth: int
) -> None:
    argv = arguments(captioned_folder, tmp_path)
    run_killed("training.pretrain", target, nth, argv)
    with pytest.raises(RunError, match="add --resume"):
        pretrain.main(argv)
    pretrain.main([*argv, "--resume"])
    weights = "model/model.safetensors"
    assert sha256_of(tmp_path / weights) == sha256_of(finished / weights)


def test_weights_in_float16_load_as_float32(finished: Path, captioned_folder: Path, tmp_path: Path) -> None:
    pretrain.main(arguments(captioned_folder, tmp_path, "--half", "true"))
    weights = "model/model.safetensors"
    assert (tmp_path / weights).stat().st_size < 0.6 * (finished / weights).stat().st_size
    half, whole = (SentenceTransformer(str(run / "model"), device="cpu") for run in (tmp_path, finished))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    texts = ["a red house", "two yellow suns"]
    np.testing.assert_allclose(half.encode(texts), whole.encode(texts), atol=1e-2)


RESNET = "--image_tower resnet --resnet_widths 16,24 --resnet_blocks 1,1"


def test_a_resnet_gives_the_vectors_that_were_trained(
    captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(pretrain, "save_clip", lambda *args, **more: (saved.append(args), save_clip(*args, **more)))
    argv = arguments(captioned_folder, tmp_path, *RESNET.split(), "--half", "true")
    results = pretrain.main(argv)
    ((trained, processor, folder),) = saved
    assert results["test"]["images"] == 10
    model = SentenceTransformer(str(folder), device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    texts, images = ["a red house above a blue bird", "two suns"], [Image.new("RGB", (40, 32), "red")] * 2
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = trained.eval()(**inputs)
    for found, vectors in ((model.encode(as_texts(model, texts)), expected.text_embeds),
                           (model.encode(images), expected.image_embeds)):  # fmt: skip
        assert unit(found) == pytest.approx(vectors.numpy(), abs=5e-3)  # of float16
    assert "Its image tower is a ResNet" in (folder / "README.md").read_text(encoding="utf-8")
    assert (folder.stat().st_mode & 0o777) == 0o755
    stages = [module for module in model.modules() if type(module).__name__ == "ResNetStage"]
    assert [stage.layers[-1].layer[-1].convolution.out_channels for stage in stages] == [16, 24]


@pytest.mark.slow
def test_a_killed_resnet_goes_on_to_the_same_weights(captioned_folder: Path, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        argv = arguments(captioned_folder, tmp_path / name, *RESNET.split())
        if name == "killed":
            run_killed("training.pretrain", "torch.optim:AdamW.step", 5, argv)
            argv.append("--resume")
        pretrain.main(argv)
    whole, killed = (sorted((tmp_path / name / "model").rglob("*.safetensors")) for name in ("whole", "killed"))
    assert [sha256_of(path) for path in whole] == [sha256_of(path) for path in killed]
    assert len(whole) == 4  # two towers, two projections


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--image_tower resnext", "expected 'image_tower' to be one of vit, resnet, got 'resnext'"),
        ("--resnet_widths 30,60", "expected 'resnet_widths' as multiples of 4 from 8 to 8192, got"),
        ("--resnet_blocks 1,2", "expected 'resnet_blocks' as 4 numbers from 1 to 64, one for each of"),
        (
            "--image_tower resnet --image_size 16",
            "expected 'image_size' of at least 32, as 4 stages of a resnet need it",
        ),
    ],
)
def test_sizes_that_do_not_fit(more: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain.main(["--captions", "x", "--run", str(tmp_path), *more.split()])


@pytest.mark.parametrize("command", [pretrain, distill])
def test_several_gpus_in_one_process_are_refused(
    command: Any, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    argv = f"--captions {captioned_folder} --run {tmp_path} --device cuda".split()
    with pytest.raises(InputError, match=r"expected one GPU for this process, got 2; set CUDA_VISIBLE_DEVICES=0"):
        command.main(argv)


def test_a_finished_run_is_printed_again_and_not_repeated(
    finished: Path, captioned_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = pretrain.main(arguments(captioned_folder, finished, "--resume", "--json"))
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(again))


def test_images_that_do_not_open_are_listed(captioned_folder: Path, tmp_path: Path) -> None:
    import shutil

    source = tmp_path / "source"
    shutil.copytree(captioned_folder, source)
    (source / "train" / "00001.png").write_bytes(b"no")
    with pytest.raises(SourceError, match="1 × a file that is not an image"):
        pretrain.main(arguments(source, tmp_path / "strict"))
    pretrain.main(arguments(source, tmp_path / "run", "--max_skipped_fraction", "0.1", "--epochs", "0.5"))
    skipped = (tmp_path / "run" / "skipped.jsonl").read_text(encoding="utf-8")
    assert '"train-00001"' in skipped


def test_shorter_captions_come_first_and_longer_ones_next(tmp_path: Path) -> None:
    texts = ["a red house by day", "a house", "a red house", "house in snow, at night"]
    options = ["--captions", "nothing", "--run", str(tmp_path), "--epochs", "4", "--shortest_first", "0.5"]
    options += ["--longest_next", "0.25"]
    config = read(PretrainConfig, [*options, "--image_size", "8", "--patch_size", "8"])
    images = np.zeros((64, 3, 8, 8), np.uint8)
    processor = build_processor(texts, config)
    batches = ClipBatches(images, [dict.fromkeys(texts, ())] * 64, processor, config)
    seen = []
    for epoch in range(4):
        batches.set_epoch(epoch)
        ids = batches.collate(list(range(64)))["input_ids"]
        seen.append(set(processor.tokenizer.batch_decode(ids, skip_special_tokens=True)))
    assert seen[0] == seen[1] == {"a house", "a red house"}
    assert len(seen[2]) == 2
    assert seen[3] == seen[0] | seen[2]


@pytest.fixture
def with_negatives(tmp_path: Path) -> Path:
    """Three images: negatives in the places of the captions, as many as they like, and none."""
    rows = [
        {"captions_en": ["a red house", "a house"], "false": ["a blue house", ""]},
        {"captions_en": ["two cats", "cats"], "false": ["two dogs", "three cats", "a dog"]},
        {"captions_en": ["a tree"]},
    ]
    for number, row in enumerate(rows):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
        row |= {"file_name": f"{number}.png", "split": "train"}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def test_negatives_are_read_beside_their_captions(with_negatives: Path, tmp_path: Path) -> None:
    options = f"--captions {with_negatives} --caption_columns captions_en --run {tmp_path / 'run'} --test_fraction 0"
    config = read(PretrainConfig, [*options.split(), "--validation_fraction", "0", "--negative_columns", "false"])
    read_rows = list(read_captions(reading_negatives(config)).rows)
    assert [captions_with_negatives(row, hard=True) for row in read_rows] == [
        {"a red house": ("a blue house",), "a house": ()},
        {"two cats": ("two dogs", "three cats", "a dog"), "cats": ("two dogs", "three cats", "a dog")},
        {"a tree": ()},
    ]
    assert captions_with_negatives(read_rows[1], hard=False) == {"two cats": (), "cats": ()}


def test_a_batch_has_the_negatives_below_its_captions(tmp_path: Path) -> None:
    captions: list[dict[str, tuple[str, ...]]] = [{"a red house": ("a blue house",)}, {"a tree": ()}, {"a cat": ("a",)}]
    options = ["--captions", "nothing", "--run", str(tmp_path), "--image_size", "8", "--patch_size", "8"]
    config = read(PretrainConfig, options)
    texts = ["a red house", "a tree", "a cat", "a blue house", "a"]
    processor = build_processor(texts, config)
    batch = ClipBatches(np.zeros((3, 3, 8, 8), np.uint8), captions, processor, config).collate([0, 1, 2])
    assert processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == texts
    assert batch["pixel_values"].shape == (3, 3, 8, 8)
    assert batch["labels"].shape == (5, 1)
    assert batch["labels"].unique().numel() == 5


def test_a_batch_has_the_labels_of_its_images(tmp_path: Path) -> None:
    options = ["--captions", "nothing", "--run", str(tmp_path), "--image_size", "8", "--patch_size", "8"]
    config = read(PretrainConfig, [*options, "--label_weight", "1"])
    captions: list[dict[str, tuple[str, ...]]] = [{"a house": ()}, {"a tree": ("a",)}, {"a cat": ()}]
    processor = build_processor(["a house"], config)
    labels = [["house", "red"], [], ["cat"]]
    batches = ClipBatches(np.zeros((3, 3, 8, 8), np.uint8), captions, processor, config, labels)
    assert batches.label_names == ["cat", "house", "red"]
    rows = batches.collate([2, 1, 0])["labels"][:, 1:].tolist()
    assert rows == [[1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]]  # the last is the hard negative
    vectors = batches.label_vectors()
    assert vectors.shape == (3, config.dim)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3))


def test_labels_change_the_weights(captioned_folder: Path, finished: Path, tmp_path: Path) -> None:
    pretrain.main(arguments(captioned_folder, tmp_path, "--label_weight", "1"))
    assert sha256_of(tmp_path / "model" / "model.safetensors") != sha256_of(finished / "model" / "model.safetensors")


def test_negatives_change_the_weights(with_negatives: Path, tmp_path: Path) -> None:
    weights = []
    for name, more in (("without", []), ("with", ["--negative_columns", "false"])):
        options = f"--captions {with_negatives} --caption_columns captions_en --run {tmp_path / name} {SMALL}".split()
        pretrain.main([*options, "--epochs", "1", "--test_fraction", "0", "--validation_fraction", "0", *more])
        weights.append(sha256_of(tmp_path / name / "model" / "model.safetensors"))
    assert weights[0] != weights[1]


def test_augmentation_of_strength_zero_changes_nothing_and_none_mirrors() -> None:
    images = torch.rand(2, 3, 16, 16)
    assert torch.allclose(augmented(images, torch.zeros(2, 6)), images, atol=1e-5)
    left = torch.zeros(1, 3, 16, 16)
    left[..., :4] = 1
    amounts = torch.tensor(np.random.default_rng(0).uniform(-1, 1, size=(64, 6)), dtype=torch.float32)
    moved = augmented(left.expand(64, -1, -1, -1), amounts)
    assert (moved[..., :8].mean((1, 2, 3)) > moved[..., 8:].mean((1, 2, 3))).all()


def test_the_run_record_holds_the_results(finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    assert record["summary"]["test"]["text_to_image"]["ci95"]
