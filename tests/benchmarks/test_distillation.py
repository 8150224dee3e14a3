"""Ratios of distillation at full size: BERT-base and CLIP ViT-B/32 from their configurations, random weights.

`make bench` prints them. Each ratio is of two measurements in one run, taken in turn.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from PIL import Image
from ratios import report, seconds_of
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import MSELoss
from transformers import BertConfig, BertModel

from training.distillation.callbacks import SaveLog, SetEpoch, with_progress_bar
from training.distillation.checkpoints import SealCheckpoints, seal
from training.distillation.setup import training_arguments
from training.mini.captions import turkish_caption
from training.mini.scene import random_scene
from training.pairs.augment import Augmentation
from training.run.config import DistillConfig
from training.small_models.vocabularies import learn_wordpiece
from turkish_clip import build_text_encoder, open_image
from turkish_clip.metrics import unit

pytestmark = pytest.mark.bench

BATCH = 128  # the default of training.distill
IMAGES = 64
CAPTIONS_PER_IMAGE = 4
ROUNDS = 3
FREE_BATCH, FREE_REPEATS = 256, 60
STEP_BATCH = 32  # smaller, so that what the trainer adds to a step weighs more


@pytest.fixture(scope="module")
def captions() -> list[str]:
    rng = random.Random(0)
    scenes = [random_scene(rng) for _ in range(IMAGES)]
    return [turkish_caption(scene, rng) for scene in scenes for _ in range(CAPTIONS_PER_IMAGE)]


def photographs(folder: Path, size: tuple[int, int]) -> list[Path]:
    """As many JPEGs as IMAGES, eight of them different."""
    paths = [folder / f"{number}.jpg" for number in range(8)]
    for number, path in enumerate(paths):
        Image.effect_noise(size, 20 + number).convert("RGB").save(path, quality=90)
    return [paths[number % 8] for number in range(IMAGES)]


@pytest.fixture(scope="module")
def text_encoder_folder(captions: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert-base")
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=32000)).save_pretrained(folder)
    learn_wordpiece(captions, 2000, 128).save_pretrained(folder)
    return folder


def trainer_of(
    folder: Path,
    transform: Callable[[dict[str, Any]], dict[str, Any]],
    captions: Sequence[str],
    runs: Path,
    *,
    batch_size: int = BATCH,
    bf16: bool = False,
    loader_processes: int = 0,
) -> SentenceTransformerTrainer:
    """A trainer as training.distill makes it, with one epoch over the captions."""
    config = DistillConfig(
        captions="x", run="x", epochs=1, batch_size=batch_size, device="cpu", evaluations=1, bf16=bf16
    )
    student = build_text_encoder(folder, dim=512, device="cpu")
    student.model_card_data.widget = [{"text": "karda oynayan iki köpek"}]
    arguments = training_arguments(config, runs, len(captions), evaluates=False, loader_processes=loader_processes)
    arguments.save_strategy = "no"
    images = [number // CAPTIONS_PER_IMAGE for number in range(len(captions))]
    rows = {"caption": list(captions), "image": images, "row": list(range(len(captions)))}
    rows["length"] = [len(caption) for caption in captions]
    trainer = SentenceTransformerTrainer(
        model=student,
        args=arguments,
        train_dataset=Dataset.from_dict(rows).with_transform(transform),
        loss=MSELoss(student),
        callbacks=[SetEpoch(lambda epoch: None), SaveLog(runs / "log.jsonl")],
    )
    return with_progress_bar(trainer)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("size", [(640, 480), (4000, 3000)], ids=["data-set", "phone"])
def test_an_epoch_with_stored_targets_against_the_tower_in_the_loop(
    captions: list[str],
    text_encoder_folder: Path,
    image_model: SentenceTransformer,
    tmp_path: Path,
    size: tuple[int, int],
    bf16: bool,
) -> None:
    files = photographs(tmp_path, size)
    augmentation = Augmentation(0.1, 0.2, 0.1, 0.1, 0)

    def image_vectors(numbers: Sequence[int]) -> torch.Tensor:
        images = [open_image(files[number], min_side=224) for number in numbers]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            vectors = image_model.encode(images, batch_size=BATCH, show_progress_bar=False)
        return torch.from_numpy(unit(vectors))

    stored = image_vectors(range(IMAGES))

    def look_up(batch: dict[str, Any]) -> dict[str, Any]:
        return {"caption": augmentation.apply(batch["caption"], batch["row"]), "label": list(stored[batch["image"]])}

    def in_the_loop(batch: dict[str, Any]) -> dict[str, Any]:
        labels = list(image_vectors(batch["image"]))
        return {"caption": augmentation.apply(batch["caption"], batch["row"]), "label": labels}

    ours, other = [], []
    for number in range(ROUNDS):
        for transform, times in ((look_up, ours), (in_the_loop, other)):
            trainer = trainer_of(text_encoder_folder, transform, captions, tmp_path / f"{number}", bf16=bf16)
            times.append(seconds_of(trainer.train))
    dtype = "bfloat16" if bf16 else "float32"
    what = f"a distillation epoch with stored image embeddings, {size[0]}×{size[1]} JPEGs, {dtype}"
    assert report(what, "the image tower in the loop", ours, other) > 1


def test_a_training_step_against_a_bare_loop(captions: list[str], text_encoder_folder: Path, tmp_path: Path) -> None:
    embeddings = torch.from_numpy(unit(torch.randn(IMAGES, 512).numpy()))

    def look_up(batch: dict[str, Any]) -> dict[str, Any]:
        return {"caption": batch["caption"], "label": list(embeddings[batch["image"]])}

    def bare(student: SentenceTransformer, steps: int) -> None:
        """The least that trains: tokenize, forward, loss, backward, AdamW."""
        optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, fused=True)  # the trainer's own choice
        student.train()
        for step in range(steps):
            rows = range(step * STEP_BATCH, (step + 1) * STEP_BATCH)
            features = student.preprocess([captions[row] for row in rows])
            labels = embeddings[[row // CAPTIONS_PER_IMAGE for row in rows]]
            loss = torch.nn.functional.mse_loss(student(features)["sentence_embedding"], labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    steps = len(captions) // STEP_BATCH
    ours, other = [], []
    order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0)).tolist()
    captions = [captions[number] for number in order]
    for number in range(ROUNDS + 1):
        trainer = trainer_of(text_encoder_folder, look_up, captions, tmp_path / f"{number}", batch_size=STEP_BATCH)
        ours.append(seconds_of(trainer.train) / steps)
        del trainer
        student = build_text_encoder(text_encoder_folder, dim=512, device="cpu")
        other.append(seconds_of(lambda student=student: bare(student, steps)) / steps)
    ours, other = ours[1:], other[1:]  # the first round warms up
    assert report("a training step by the trainer", "a bare loop", ours, other) > 1 / 1.5


@pytest.fixture(scope="module")
def free_student_folder(captions: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone that costs next to nothing: what is left is what a trainer adds."""
    folder = tmp_path_factory.mktemp("free")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=2000, **shape)).save_pretrained(folder)
    learn_wordpiece(captions, 2000, 128).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("processes", [0, 1])
def test_a_free_student_by_the_trainer_against_a_bare_loop(
    processes: int, captions: list[str], free_student_folder: Path, tmp_path: Path
) -> None:
    """The bare loop augments, tokenises and computes in turn, as one process must."""
    embeddings = torch.from_numpy(unit(torch.randn(IMAGES, 512).numpy()))
    augmentation = Augmentation(0.1, 0.2, 0.1, 0.1, 0)
    order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0)).tolist()
    captions = [captions[number] for number in order] * FREE_REPEATS

    def look_up(batch: dict[str, Any]) -> dict[str, Any]:
        labels = list(embeddings[torch.tensor(batch["image"]) % IMAGES])
        return {"caption": augmentation.apply(batch["caption"], batch["row"]), "label": labels}

    def bare(student: SentenceTransformer) -> None:
        optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, fused=True)
        student.train()
        for start in range(0, len(captions), FREE_BATCH):
            rows = range(start, start + FREE_BATCH)
            features = student.preprocess(augmentation.apply([captions[row] for row in rows], rows))
            labels = embeddings[[row // CAPTIONS_PER_IMAGE % IMAGES for row in rows]]
            loss = torch.nn.functional.mse_loss(student(features)["sentence_embedding"], labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    ours, other = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(ROUNDS + 1):
            runs = tmp_path / f"{number}"
            trainer = trainer_of(
                free_student_folder, look_up, captions, runs, batch_size=FREE_BATCH, loader_processes=processes
            )
            ours.append(seconds_of(trainer.train) / len(captions))
            student = build_text_encoder(free_student_folder, dim=512, device="cpu")
            other.append(seconds_of(lambda student=student: bare(student)) / len(captions))
    finally:
        torch.set_num_threads(threads)
    what = f"a caption of a student that costs nothing, {processes} loader processes"
    assert report(what, "a bare loop", ours[1:], other[1:]) > 1 / 4


class TimedSealing(SealCheckpoints):
    """Keeps for how long each call of it stopped the training."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_save(self, *given: Any, **more: Any) -> None:
        self.seconds.append(seconds_of(lambda: super(TimedSealing, self).on_save(*given, **more)))


def test_what_a_checkpoint_stops(captions: list[str], text_encoder_folder: Path, tmp_path: Path) -> None:
    """The sums of a checkpoint's files are made in a thread; writing the files is the trainer's and stays."""
    embeddings = torch.from_numpy(unit(torch.randn(IMAGES, 512).numpy()))

    def look_up(batch: dict[str, Any]) -> dict[str, Any]:
        return {"caption": batch["caption"], "label": list(embeddings[batch["image"]])}

    rows = captions[: 4 * STEP_BATCH]
    stopped, summed, steps = [], [], []
    for number in range(ROUNDS + 1):
        trainer = trainer_of(text_encoder_folder, look_up, rows, tmp_path / f"{number}", batch_size=STEP_BATCH)
        trainer.args.save_strategy, trainer.args.save_steps, trainer.args.max_steps = "steps", 2, 4
        with TimedSealing() as sealing:
            trainer.add_callback(sealing)
            steps.append(seconds_of(trainer.train) / 4)
        stopped.append(sealing.seconds[0])
        checkpoint = max((tmp_path / f"{number}").glob("checkpoint-*"))
        summed.append(seconds_of(lambda checkpoint=checkpoint: seal(checkpoint)))
        shutil.rmtree(tmp_path / f"{number}")
    print(f"a step with its share of a checkpoint every 2: {min(steps):.2f} s")
    assert report("sealing a BERT-base checkpoint, for the training", "summed in line", stopped[1:], summed[1:]) > 10
