"""The losses and regression targets of each objective, against naive computations."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import run_killed
from sentence_transformers import SentenceTransformer
from transformers.models.clip.modeling_clip import CLIPOutput

from training import distill, embed_images
from training.data.samples import Row
from training.data.sources import read_captions
from training.data.store import Rows
from training.distillation.losses import (
    ClipLoss,
    bank_loss,
    clip_loss,
    contrastive_loss,
    label_loss,
    loss_for,
    negatives_loss,
    structure_loss,
)
from training.distillation.sharding import BatchSharding, StepState
from training.embeddings.store import read_embeddings
from training.pairs.bank import Bank
from training.pairs.dataset import load_pairs
from training.pairs.labels import Labels
from training.pairs.targets import regression_targets
from training.run.config import DistillConfig, read
from training.run.objectives import OBJECTIVES, Objective
from training.run.provenance import sha256_of
from training.run.source import SourceError
from training.small_models.clip_dataset import equal_rows
from turkish_clip.metrics import unit


def naive_contrastive_loss(texts: np.ndarray, images: np.ndarray, scale: float) -> float:
    """CLIP's loss in loops, with other captions of the same image left out of each sum."""
    count, total = len(texts), 0.0
    for i in range(count):
        others = [j for j in range(count) if j == i or not np.allclose(images[i], images[j], atol=1e-6)]
        own = math.exp(scale * float(texts[i] @ images[i]))
        total -= math.log(own / sum(math.exp(scale * float(texts[i] @ images[j])) for j in others))
        total -= math.log(own / sum(math.exp(scale * float(texts[j] @ images[i])) for j in others))
    return total / (2 * count)


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = unit(rng.standard_normal((5, 8)))[[0, 1, 2, 0, 3]]  # the first and the fourth caption have one image
    return unit(rng.standard_normal((5, 8))), images


def test_the_contrastive_loss_is_clips_without_false_negatives(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    texts, images = vectors
    loss = contrastive_loss(torch.from_numpy(texts), torch.from_numpy(images), torch.tensor(5.0))
    assert loss.item() == pytest.approx(naive_contrastive_loss(texts, images, 5.0), rel=1e-5)


def test_captions_that_are_all_of_images_need_no_mask(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    texts, images = vectors
    labels = Labels(*map(torch.from_numpy, (images, images, np.zeros(5, np.float32)))).joined()
    values = []
    for all_imaged in (False, True):
        tower: Any = FixedTextTower(texts)
        state = StepState(BatchSharding(5, 5))
        loss = loss_for(tower, OBJECTIVES["contrastive"], state, all_imaged=all_imaged)
        values.append(loss([{"table": 0, "rows": list(range(5))}], labels).item())
    assert values[0] == values[1] == pytest.approx(naive_contrastive_loss(texts, images, 1 / 0.07), rel=1e-4)


def test_the_bank_loss_by_hand() -> None:
    """Cosines 1 with the own image, 0 and 0.6 with the others of the bank; the own image's row counts once."""
    texts = torch.tensor([[1.0, 0.0]])
    bank = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    same = torch.tensor([[False, True, False]])
    expected = math.log(math.exp(2) + math.exp(0) + math.exp(1.2)) - 2
    assert bank_loss(texts, texts, bank, torch.tensor(2.0), same).tolist() == pytest.approx([expected])


def test_the_negatives_loss_by_hand() -> None:
    """The image has a cosine of 1 with the caption, and of 0.6 with its false caption."""
    texts, false_texts = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    loss = negatives_loss(texts, false_texts, texts, torch.tensor(5.0))
    assert loss.tolist() == pytest.approx([-math.log(1 / (1 + math.exp(-5 * 0.4)))])


def test_the_structure_loss_by_hand() -> None:
    """Cosines of the pairs 0.6, 0, 0.8 for the captions, and 0.6, 1, 0.6 for their targets."""
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    assert structure_loss(texts, targets).item() == pytest.approx((0 + 1 + 0.04) / 3)
    assert structure_loss(texts[:1], targets[:1]).item() == 0


class FixedTextTower(torch.nn.Module):
    """A text tower that gives captions and false captions by their number."""

    def __init__(self, *tables: np.ndarray) -> None:
        super().__init__()
        self.tables = torch.nn.ParameterList([torch.from_numpy(table) for table in tables])

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"sentence_embedding": self.tables[features["table"]][features["rows"]]}

    def get_embedding_dimension(self) -> int:
        return int(self.tables[0].shape[1])


class Batch:
    """Nine captions of eight images, three of them without an image and four with a false caption, and a loss."""

    def __init__(self, objective: Objective, widths: tuple[int, ...] = (), **sharding: int) -> None:
        rng = np.random.default_rng(3)
        self.texts, self.false_texts = (unit(rng.standard_normal((9, 8))) for _ in range(2))
        self.bank = unit(rng.standard_normal((11, 8)))[[*range(11), 4]]  # an image that is in the store twice
        self.image_of = np.array([0, 4, -1, 2, 0, -1, 9, 7, -1])
        self.images = np.where(self.image_of[:, None] >= 0, self.bank[self.image_of], 0).astype(np.float32)
        self.targets = unit(rng.standard_normal((9, 8)))
        self.has_false = np.array([1, 1, 0, 0, 1, 0, 0, 1, 0], np.float32)
        self.objective, self.widths = objective, widths
        self.step_state = StepState(BatchSharding(9, 9, **sharding))
        self.tower = FixedTextTower(self.texts, self.false_texts)
        self.loss: Any = loss_for(
            self.tower,  # type: ignore[arg-type]
            objective,
            self.step_state,
            bank=Bank(self.bank, 64, 0) if objective.bank else None,
            widths=widths,
        )
        self.loss.progress = 0.99

    def labels(self, rows: Any = slice(None)) -> torch.Tensor:
        parts = (self.targets, self.images, self.has_false)
        labels = Labels(*(torch.from_numpy(part[rows]) for part in parts))
        return labels.joined() if self.objective.needs_images else labels.targets

    def of(self, rows: list[int]) -> torch.Tensor:
        columns = [{"table": number, "rows": rows} for number in range(1 + bool(self.objective.negatives))]
        loss: torch.Tensor = self.loss(columns, self.labels(rows))
        return loss

    def gradients(self) -> list[torch.Tensor]:
        return [torch.zeros(1) if p.grad is None else p.grad for p in self.loss.parameters()]

    def naive(self, *, against_images: bool = True) -> float:
        """The loss in loops over captions, by the formulas in the docstrings."""
        losses = []
        for width in (8, *self.widths):
            arrays = (self.texts, self.false_texts, self.bank, self.images, self.targets)
            texts, false_texts, bank, images, targets = (unit(array[:, :width]) for array in arrays)
            objective, scale, total = self.objective, 1 / 0.07, 0.0
            for row in range(9):
                total += objective.mse * (1 - float(texts[row] @ targets[row])) / 9
                own = scale * float(texts[row] @ images[row])
                if against_images and self.image_of[row] >= 0:
                    others = [vector for vector in bank if not np.allclose(vector, images[row], atol=1e-6)]
                    logits = [own, *(scale * float(texts[row] @ vector) for vector in others)]
                    total += objective.bank * (math.log(sum(map(math.exp, logits))) - own) / 9
                if self.has_false[row]:
                    other = scale * float(false_texts[row] @ images[row])
                    total += objective.negatives * math.log(1 + math.exp(other - own)) / 9
                for column in range(9):
                    difference = float(texts[row] @ texts[column] - targets[row] @ targets[column])
                    total += objective.structure * (row != column) * difference**2 / 72
            if against_images:
                imaged = self.image_of >= 0
                in_batch = naive_contrastive_loss(texts[imaged], images[imaged], scale)
                total += objective.contrastive * in_batch * imaged.mean()
            losses.append(total)
        return float(np.mean(losses))


SEVERAL_LOSSES = [name for name, objective in OBJECTIVES.items() if objective.needs_images or objective.needs_batch]


@pytest.mark.parametrize("widths", [(), (5, 3)])
@pytest.mark.parametrize("name", SEVERAL_LOSSES)
def test_the_loss_of_each_objective(name: str, widths: tuple[int, ...]) -> None:
    batch = Batch(OBJECTIVES[name], widths)
    for progress in (0.0, 0.99):
        batch.loss.progress = progress
        against_images = progress >= batch.objective.contrastive_after
        value = batch.of(list(range(9)))
        assert value.item() == pytest.approx(batch.naive(against_images=against_images), rel=1e-4)
    value.backward()
    assert (batch.loss.logit_scale.grad is not None) == batch.objective.needs_images


def test_shorter_widths_of_a_plain_regression() -> None:
    config = DistillConfig(captions="x", run="x", matryoshka=(8, 5, 3, 5))  # the full width is always trained
    batch = Batch(OBJECTIVES["mse"], config.shorter_widths(8))
    assert batch.loss.widths == (5, 3)
    assert batch.of(list(range(9))).item() == pytest.approx(batch.naive(), rel=1e-5)


@pytest.mark.parametrize("name", SEVERAL_LOSSES)
@pytest.mark.parametrize(("world_size", "micro_batches"), [(2, 1), (4, 3)])
def test_shards_give_the_loss_and_gradients_of_one_process(
    name: str, world_size: int, micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks one after the other; with a loss that compares captions, a micro-batch is a batch of its own."""
    objective, widths = OBJECTIVES[name], (3,)
    shards = list(BatchSharding(9, 9, world_size, 0, micro_batches).shard_rows(list(range(9))))
    whole = Batch(objective, widths)
    total = 0.0
    for number in range(micro_batches) if objective.needs_batch else [0]:
        rows = sorted(range(9)) if not objective.needs_batch else list(range(9))[number::micro_batches]
        whole.step_state.sharding = BatchSharding(len(rows), len(rows))
        loss = whole.of(rows) * len(rows) / 9
        loss.backward()
        total += loss.item()

    summed, losses = None, 0.0
    for rank in range(world_size):
        batch = Batch(objective, widths, world_size=world_size, rank=rank, micro_batches=micro_batches)
        for micro_batch in range(micro_batches):
            batch.step_state.micro_batch = micro_batch
            every = shards[micro_batch * world_size : (micro_batch + 1) * world_size]
            monkeypatch.setattr("torch.distributed.all_gather", partial(gather_from, batch, every))
            loss = batch.of(every[rank]) / (world_size * micro_batches)
            loss.backward()
            losses += loss.item()
        own = batch.gradients()
        summed = own if summed is None else [one + other for one, other in zip(summed, own)]
    for one, other in zip(summed or [], whole.gradients()):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert losses == pytest.approx(total, rel=1e-4)


def gather_from(batch: Batch, every: list[list[int]], gathered: list[torch.Tensor], _: torch.Tensor) -> None:
    """Fills in what the ranks with these rows would send, in place of torch.distributed.all_gather."""
    for rows, size, shard in zip(every, batch.step_state.sizes, gathered):
        shard.zero_()
        shard[:size] = torch.cat([torch.from_numpy(batch.texts[rows]), batch.labels(rows)], dim=1)[:size]


def test_bf16_does_not_take_similar_images_for_the_same() -> None:
    """Two images of cosine 0.9995, which bf16 rounds to 1, are negatives of each other."""
    angle = math.acos(0.9995)
    images = np.array([[1, 0], [math.cos(angle), math.sin(angle)]], np.float32)
    tower = FixedTextTower(images[::-1].copy())
    bank = Bank(images, 64, 0)
    loss = loss_for(tower, OBJECTIVES["bank"], StepState(BatchSharding(2, 2)), bank=bank)  # type: ignore[arg-type]
    labels = Labels(*map(torch.from_numpy, (images, images, np.zeros(2, np.float32)))).joined()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss([{"table": 0, "rows": [0, 1]}], labels).item()
    assert value == pytest.approx(math.log(1 + math.exp((1 - 0.9995) / 0.07)), rel=1e-3)


def test_images_with_equal_captions_are_no_negatives() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    captions = [[1, 5, 2], [1, 6, 7], [1, 5, 2], [1, 8, 2]]
    expected = []
    for own in range(4):
        summed = [other for other in range(4) if other == own or captions[other] != captions[own]]
        for scores in (logits[own], logits[:, own]):
            expected.append(np.log(np.exp(scores[summed]).sum()) - scores[own])
    outputs = CLIPOutput(logits_per_text=torch.from_numpy(logits))
    assert clip_loss(outputs, equal_rows(torch.tensor(captions))).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_hard_negatives_are_chosen_against_by_images_and_have_none_themselves() -> None:
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [2.0, 5.0], [4.0, 1.0]]).log()  # odds, so that sums are fractions
    captions = torch.tensor([[1, 7], [1, 8], [1, 9], [1, 8]])  # two hard negatives, of which one is true of image 2
    texts_to_images = [3 / (3 + 1), 2 / (0 + 2)]
    images_to_texts = [3 / (3 + 0 + 2 + 4), 2 / (1 + 2 + 5)]
    expected = -np.mean(np.log(texts_to_images + images_to_texts))
    outputs = CLIPOutput(logits_per_text=logits)
    assert clip_loss(outputs, equal_rows(captions)).item() == pytest.approx(expected, rel=1e-5)


def test_images_choose_their_labels_among_all() -> None:
    """At a temperature of 0.07, odds of 1 : 2 : 4 are cosines of 0, 0.07 ln 2 and 0.07 ln 4."""
    low, high = 0.07 * math.log(2), 0.07 * math.log(4)
    images = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    vectors = torch.tensor([[0, 0, 1.0], [low, high, 0], [high, 0, 0]])
    present = torch.tensor([[False, True, True], [False, True, False], [False, False, False]])
    first = -(math.log(2 / 7) + math.log(4 / 7)) / 2  # its odds: 1, 2, 4
    second = -math.log(4 / 6)  # its odds: 1, 4, 1; the third has no label
    assert label_loss(images, present, vectors).item() == pytest.approx((first + second) / 2, rel=1e-5)
    none = torch.zeros(3, 3, dtype=torch.bool)
    assert label_loss(images, none, vectors).item() == 0


def test_the_loss_of_pretraining_adds_that_of_labels() -> None:
    logits, images, vectors = torch.eye(3, 2), torch.eye(2), torch.eye(2)
    outputs = CLIPOutput(logits_per_text=logits, image_embeds=images)
    labels = torch.tensor([[0, 1, 0], [1, 0, 0], [2, 0, 0]])  # two captions and a hard negative; one image has a label
    of_labels = label_loss(images, torch.tensor([[True, False], [False, False]]), vectors)
    both = ClipLoss(vectors, 0.5)(outputs, labels).item()
    assert both == pytest.approx(clip_loss(outputs, labels[:, 0]).item() + 0.5 * of_labels.item())
    assert ClipLoss(vectors[:0], 0.0)(outputs, labels[:, :1]).item() == clip_loss(outputs, labels[:, 0]).item()


@pytest.fixture(scope="module")
def embeddings(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("embeddings")
    embed_images.main(f"--captions {captioned_folder} --image_model {tiny_clip} --run {run} --device cpu".split())
    return run / "embeddings"


def arguments(source: Path, clip: Path, embeddings: Path, run: Path, objective: str) -> list[str]:
    return (
        f"--captions {source} --image_model {clip} --embeddings {embeddings} --run {run} --objective {objective} "
        "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 "
        "--batch_size 16 --epochs 2 --evaluations 4 --device cpu"
    ).split()


def test_the_regression_targets_of_each_objective(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    stored = read_embeddings(embeddings)
    english = {"a": ("a red house", "two yellow suns"), "b": ("a blue bird",)}
    ids = ["train-00000", "train-00001"]
    rows = [Row(name, None, ("bir",), english[key], "train") for name, key in zip(ids, english)]
    model = SentenceTransformer(str(tiny_clip), device="cpu")
    raw = np.stack([model.encode(list(texts)).mean(axis=0) for texts in english.values()])
    texts = np.stack([unit(model.encode(list(texts))).mean(axis=0) for texts in english.values()])
    images = stored.unit_rows(ids)
    expected = {
        "mse": images,
        "mse_text": unit(texts),
        "mse_both": unit((images + texts) / 2),
        "mse_text_raw": raw,
        "centred": unit(images - images.mean(axis=0)),
        "contrastive": images,
    }
    for objective, targets in expected.items():
        for _ in range(2):  # the second time from the file beside the image embeddings
            argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path, objective)
            np.testing.assert_allclose(
                regression_targets(Rows.of(rows, tmp_path), stored, read(DistillConfig, argv)), targets, atol=1e-5
            )
    without = [replace(rows[0], english=()), rows[1]]
    config = read(DistillConfig, arguments(captioned_folder, tiny_clip, embeddings, tmp_path, "mse_text"))
    with pytest.raises(SourceError, match=r"expected English captions for objective 'mse_text', got none for 1 of 2"):
        regression_targets(Rows.of(without, tmp_path), stored, config)


def test_the_regression_targets_of_translations(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = read_embeddings(embeddings)
    english = [("a red house", "two yellow suns"), ("a blue bird", "a red house", "a fish"), ("a fish",)]
    turkish = [("kırmızı bir ev", "iki sarı güneş"), ("mavi bir kuş", "kırmızı bir ev"), ("bir balık",)]
    places = [(0, 1), (), (0,)]
    rows = [
        Row(f"train-{n:05d}", None, *texts, "train", translations=translations)
        for n, (*texts, translations) in enumerate(zip(turkish, english, places))
    ]
    model = SentenceTransformer(str(tiny_clip), device="cpu")
    embedded = {text: model.encode([text])[0] for texts in english for text in texts}
    house, suns, fish = (embedded[text] for text in ("a red house", "two yellow suns", "a fish"))
    mean = unit(np.stack([embedded[text] for text in english[1]])).mean(axis=0)
    argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path, "mse_translation")
    with caplog.at_level("WARNING", logger="training"):
        targets = regression_targets(Rows.of(rows, tmp_path), stored, read(DistillConfig, argv))
    np.testing.assert_allclose(targets, unit(np.stack([house, suns, mean, mean, fish])), atol=1e-5)
    assert "2 of 5 captions have no English original" in caplog.text
    argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path, "mse_translation_raw")
    raw = regression_targets(Rows.of(rows, tmp_path), stored, read(DistillConfig, argv))
    np.testing.assert_allclose(raw[[0, 1, 4]], [house, suns, fish], atol=1e-5)


def test_each_caption_has_the_regression_target_of_its_translation(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path, "mse_translation")
    config, stored = read(DistillConfig, argv), read_embeddings(embeddings)
    captions = read_captions(config)
    pairs = load_pairs(captions, stored, config)
    targets = regression_targets(captions.split("train"), stored, config)
    numbers = [7, 0, 3]
    for number, target in zip(numbers, pairs.train[numbers]["label"]):
        np.testing.assert_array_equal(target, targets[number])
    assert len(targets) == len(pairs.texts)


@pytest.mark.slow
def test_killed_with_the_contrastive_loss_and_resumed_gives_the_same_weights(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    def argv(name: str) -> list[str]:
        objective = "mse_then_contrastive_negatives"
        return [*arguments(captioned_folder, tiny_clip, embeddings, tmp_path / name, objective), "--matryoshka=8"]

    whole = distill.main(argv("whole"))
    run_killed("training.distill", "training.distillation.losses:TrackProgress.on_step_begin", 15, argv("killed"))
    resumed = distill.main([*argv("killed"), "--resume"])
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    steps = [int(path.name.split("-")[1]) for path in (tmp_path / "whole" / "checkpoints").glob("checkpoint-*")]
    last = [tmp_path / name / "checkpoints" / f"checkpoint-{max(steps)}" for name in ("whole", "killed")]
    assert sha256_of(last[0] / "model.safetensors") == sha256_of(last[1] / "model.safetensors")
    states = [json.loads((folder / "trainer_state.json").read_text(encoding="utf-8")) for folder in last]
    scales = [state["stateful_callbacks"]["TrackProgress"]["attributes"]["logit_scale"] for state in states]
    assert scales[0] == scales[1] != pytest.approx(math.log(1 / 0.07), abs=1e-7)


def test_a_raw_objective_saves_a_linear_head_without_normalisation(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path, "mse_text_raw"))
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Dense"]
