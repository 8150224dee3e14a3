"""python -m training.evaluate recipe.yaml: what the text encoder finds among pictures and wordings it never saw."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.atomic import write_json
from training.captions import Row, read_captions
from training.command import print_result, quiet_hosts, run_command
from training.config import EvaluateConfig, read
from training.perturb import PERTURBATIONS
from training.run_record import RunError, weights_sha256
from turkish_clip.metrics import Relevance, Retrieval, Vectors, unit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.targets import Targets

log = logging.getLogger("training")


def main(argv: list[str]) -> dict[str, Any]:
    """Measures a text encoder, writes results.json and report.html; returns what results.json holds."""
    config = read(EvaluateConfig, argv)
    quiet_hosts()
    captions = read_captions(config)

    from training.device import device_of
    from training.pairs import say_what_is_cut, with_targets
    from training.report import write_report
    from training.targets import read_targets
    from turkish_clip.encoder import load_model

    began = time.perf_counter()
    device = device_of(config.device)
    targets = read_targets(config.targets_folder, image_model=config.image_model)
    rows = with_targets(captions.split(config.split), targets)
    student = load_model(_model_folder(config), device=device)
    _check_width(student, targets)

    split = measure(student, rows, targets, config)
    say_what_is_cut(student, split.relevance.texts, student.max_seq_length or 0)
    log.info("measured %s; now the image model's own text tower, and robustness", config.split)
    teacher = measure_teacher(rows, split, config, device)
    robustness = measure_robustness(student, split, config)

    results = {
        "model": str(config.model or config.folder / "model"),
        "weights_sha256": weights_sha256(student),
        "image_model": targets.manifest.image_model,
        "dataset": captions.name,
        "split": config.split,
        "images": len(rows),
        "captions": len(split.relevance.texts),
        "text_to_image": dataclasses.asdict(split.text_to_image),
        "image_to_text": dataclasses.asdict(split.image_to_text),
        **teacher,
        "robustness": robustness,
        "wall_seconds": {"evaluate": round(time.perf_counter() - began, 2)},
    }
    write_json(config.folder / "results.json", results)
    write_report(config, results, rows, split)
    print_result(results, config.json)
    return results


@dataclass(frozen=True)
class Split:
    """One split, encoded and measured: unit float32 vectors of its distinct texts and of its pictures."""

    relevance: Relevance
    texts: Vectors
    pictures: Vectors
    text_to_image: Retrieval
    image_to_text: Retrieval


def measure(student: SentenceTransformer, rows: Sequence[Row], targets: Targets, config: EvaluateConfig) -> Split:
    """Both directions, with intervals."""
    relevance = Relevance.of([row.captions for row in rows])
    pictures = targets.unit_rows([row.image_id for row in rows])
    texts = encode(student, relevance.texts, config)
    samples = config.bootstrap_samples
    return Split(
        relevance,
        texts,
        pictures,
        relevance.text_to_image(texts, pictures, bootstrap_samples=samples),
        relevance.image_to_text(texts, pictures, bootstrap_samples=samples),
    )


def measure_teacher(rows: Sequence[Row], split: Split, config: EvaluateConfig, device: str) -> dict[str, Any]:
    """The image model's own text tower on the same pictures' English captions: the ceiling.

    Returns:
        teacher_text_to_image and teacher_image_to_text; empty where there are no English captions for every picture,
        or the image model has no text tower.
    """
    from turkish_clip.encoder import load_model

    if not all(row.english for row in rows):
        return {}
    teacher = load_model(config.image_model, revision=config.image_model_revision, device=device)
    if not teacher.supports("text"):
        return {}
    relevance = Relevance.of([row.english for row in rows])
    texts = encode(teacher, relevance.texts, config)
    samples = config.bootstrap_samples
    forth = relevance.text_to_image(texts, split.pictures, bootstrap_samples=samples)
    back = relevance.image_to_text(texts, split.pictures, bootstrap_samples=samples)
    return {
        "teacher_captions": len(relevance.texts),
        "teacher_text_to_image": dataclasses.asdict(forth),
        "teacher_image_to_text": dataclasses.asdict(back),
    }


def measure_robustness(student: SentenceTransformer, split: Split, config: EvaluateConfig) -> dict[str, Any]:
    """Text→image with each caption typed otherwise; `kept` is the share of the clean recall@1 that is left."""
    clean = split.text_to_image.recall_at_1
    results = {}
    for name, perturb in PERTURBATIONS.items():
        texts = encode(student, [perturb(text) for text in split.relevance.texts], config)
        found = split.relevance.text_to_image(texts, split.pictures, bootstrap_samples=config.bootstrap_samples)
        results[name] = {**dataclasses.asdict(found), "kept": found.recall_at_1 / clean if clean else 0.0}
    return results


def encode(model: SentenceTransformer, texts: list[str], config: EvaluateConfig) -> Vectors:
    """The (n, dim) float32 unit vectors of texts."""
    return unit(model.encode(texts, batch_size=config.text_batch_size, show_progress_bar=len(texts) > 20_000))


def _model_folder(config: EvaluateConfig) -> str:
    if config.model:
        return config.model
    folder: Path = config.folder / "model"
    if not folder.is_dir():
        raise RunError(f"expected a trained model in {folder}, got none; run training.distill first, or name --model")
    return str(folder)


def _check_width(student: SentenceTransformer, targets: Targets) -> None:
    width = student.encode("a").shape[-1]
    if width != targets.manifest.dim:
        raise RunError(
            f"expected a text encoder of width {targets.manifest.dim}, that of the targets in {targets.folder}, "
            f"got {width}; evaluate it with the targets of its own image model"
        )


if __name__ == "__main__":
    run_command(main)
