"""python -m training.evaluate recipe.yaml: what the text encoder finds among pictures and wordings it never saw."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.captions import read_captions
from training.command import print_result, quiet_hosts, run_command
from training.config import EvaluateConfig, read
from training.duplicates import keep_apart, once
from training.perturb import PERTURBATIONS
from training.rows import Row
from training.run_record import RunError, check_no_run, sources_in
from training.source import Source
from turkish_clip.atomic import write_json
from turkish_clip.metrics import Relevance, Retrieval, Vectors, hubness, ranks, unit
from turkish_clip.towers import weights_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.targets import Targets

log = logging.getLogger("training")
FEW_PICTURES = 100
# What decides which pictures of a source are its test pictures.
SPLIT_FIELDS = ("split_seed", "test_share", "validation_share")
SOURCE_SPLIT_FIELDS = ("split_column", "id_column", "image_column", "captions_config", "captions_revision")


def main(argv: list[str]) -> dict[str, Any]:
    """Measures a text encoder, writes results.json and report.html; returns what results.json holds."""
    config = read(EvaluateConfig, argv)
    _check_run(config)
    quiet_hosts()
    captions = read_captions(config)

    from training.calibrate import calibrate
    from training.device import device_of
    from training.pairs import say_what_is_cut, with_targets
    from training.report import write_report
    from training.targets import read_targets
    from training.teacher import load_teacher
    from training.temperature import cosine_percentiles
    from turkish_clip.encoder import load_model

    began = time.perf_counter()
    device = device_of(config.device)
    student = load_model(_model_folder(config), device=device)
    targets = read_targets(
        config.targets_folder,
        image_model=config.image_model,
        revision=config.image_model_revision,
        dim=student.encode("a").shape[-1],
    )
    apart = keep_apart(captions, targets)
    captions, named = apart.captions, with_targets(apart.captions.split(config.split), targets)
    rows = once(named, targets)

    split = measure(student, rows, targets, config)
    say_what_is_cut(student, split.relevance.texts)
    log.info("measured %s; now the image model's own text tower, and robustness", config.split)
    teacher = load_teacher(targets, config) if any(row.english for row in rows) else None
    robustness = measure_robustness(student, split, config)

    results = {
        **about(student, targets, captions.name, config),
        **figures(split, teacher, rows, config),
        **measure_sources(student, teacher, named, targets, config),
        **apart.as_json(),
        "hubness": {
            "text_to_image": hubness(split.texts, split.pictures),
            "image_to_text": hubness(split.pictures, split.texts),
        },
        "robustness": robustness,
        **calibrate(partial(encode, student, config=config), captions, rows, targets, config),
        "cosines": cosine_percentiles(split.relevance, split.texts, split.pictures),
        "wall_seconds": {"evaluate": round(time.perf_counter() - began, 2)},
    }
    write_json(config.folder / "results.json", results)
    write_report(config, results, rows, split)
    show(results, config)
    return results


def about(student: SentenceTransformer, targets: Targets, dataset: str, config: EvaluateConfig) -> dict[str, Any]:
    """Which weights were measured, on what."""
    return {
        "model": str(config.model or config.folder / "model"),
        "weights_sha256": weights_sha256(student),
        "image_model": targets.manifest.image_model,
        "dataset": dataset,
        "split": config.split,
    }


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


def figures(
    split: Split, teacher: SentenceTransformer | None, rows: Sequence[Row], config: EvaluateConfig
) -> dict[str, Any]:
    """The figures of some pictures and their captions, the teacher's beside them where it can be measured."""
    return {
        "images": len(split.pictures),
        "captions": len(split.relevance.texts),
        "text_to_image": dataclasses.asdict(split.text_to_image),
        "image_to_text": dataclasses.asdict(split.image_to_text),
        **(measure_teacher(teacher, rows, split, config) if teacher is not None else {}),
    }


def measure_sources(
    student: SentenceTransformer,
    teacher: SentenceTransformer | None,
    rows: Sequence[Row],
    targets: Targets,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Each of several sources by itself, as it would be in a table of published results; nothing for a single one."""
    sources = {}
    for source in config.sources:
        own = once([row for row in rows if row.source == source.captions], targets)
        if own:
            sources[source.captions] = figures(measure(student, own, targets, config), teacher, own, config)
    return {"sources": sources} if sources else {}


def measure_teacher(
    teacher: SentenceTransformer, rows: Sequence[Row], split: Split, config: EvaluateConfig
) -> dict[str, Any]:
    """The image model's own text tower on the same pictures' English captions.

    Returns:
        teacher_captions, teacher_text_to_image and teacher_image_to_text; empty where a picture has no English caption.
    """
    without = sum(not row.english for row in rows)
    if without:
        log.info("no ceiling: %d of %d pictures have no English caption", without, len(rows))
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
    """Text→image with each caption typed otherwise.

    Returns:
        Per spelling the figures of all captions, the share that it changed, and `kept`: of the changed ones' clean
        recall@1 the share that is left.
    """
    relevance = split.relevance
    clean = ranks(split.texts, split.pictures, relevance.pictures_of) == 1
    results = {}
    for name, perturb in PERTURBATIONS.items():
        typed = [perturb(text) for text in relevance.texts]
        texts = encode(student, typed, config)
        found = relevance.text_to_image(texts, split.pictures, bootstrap_samples=config.bootstrap_samples)
        changed = np.array([one != other for one, other in zip(typed, relevance.texts)])
        hit = ranks(texts, split.pictures, relevance.pictures_of) == 1
        results[name] = {
            **dataclasses.asdict(found),
            "changed": float(changed.mean()),
            "kept": float(hit[changed].sum() / clean[changed].sum())
            if clean[changed].any()
            else float(not changed.any()),
        }
    return results


def encode(model: SentenceTransformer, texts: list[str], config: EvaluateConfig) -> Vectors:
    """The (n, dim) float32 unit vectors of texts."""
    return unit(model.encode(texts, batch_size=config.text_batch_size, show_progress_bar=len(texts) > 20_000))


def show(results: dict[str, Any], config: EvaluateConfig) -> None:
    """Prints the results: as one JSON object, or as a table and where the rest is."""
    if config.json:
        print_result(results, as_json=True)
    else:
        print(f"{table(results)}\n\n{config.folder / 'results.json'}\n{config.folder / 'report.html'}")


def table(results: dict[str, Any]) -> str:
    """The main figures, for people."""
    head = f"{results['images']} {results['split']} pictures, {results['captions']} captions"
    lines = [f"{head:<52}{'recall@1':>10}{'@5':>8}{'@10':>8}"]
    for label, key in (
        ("Turkish text → image", "text_to_image"),
        ("image → Turkish text", "image_to_text"),
        ("English text → image, the image model's own tower", "teacher_text_to_image"),
        ("image → English text, the image model's own tower", "teacher_image_to_text"),
    ):
        if key in results:
            found = results[key]
            lines.append(
                f"{label:<52}{found['recall_at_1']:>10.3f}{found['recall_at_5']:>8.3f}{found['recall_at_10']:>8.3f}"
            )
    kept = ", ".join(f"{name} {found['kept']:.1%}" for name, found in results["robustness"].items())
    lines.append(f"recall@1 kept when typed otherwise: {kept}")
    if results["images"] < FEW_PICTURES:
        lines.append(f"only {results['images']} pictures: these figures say little; see the intervals in the report")
    return "\n".join(lines)


def _model_folder(config: EvaluateConfig) -> str:
    if config.model:
        return config.model
    folder: Path = config.folder / "model"
    if not folder.is_dir():
        raise RunError(f"expected a trained model in {folder}, got none; run training.distill first, or name --model")
    return str(folder)


def _check_run(config: EvaluateConfig) -> None:
    """Sees that the split is the one that the run was trained beside, and that its results are not another model's.

    Raises:
        RunError: the run was trained with other splits of this source, or the model is not the run's.
    """
    path = config.folder / "run.json"
    if not path.is_file():
        return
    if config.model:
        check_no_run(config.folder, config.model, f" --targets {config.targets_folder}")
    trained = json.loads(path.read_text(encoding="utf-8"))["config"]
    before = sources_in(trained)
    if [source["captions"] for source in before] != [source.captions for source in config.all_sources]:
        return
    compared: list[tuple[dict[str, Any], Source, tuple[str, ...]]] = [(trained, config, SPLIT_FIELDS)]
    compared += [(then, now, SOURCE_SPLIT_FIELDS) for then, now in zip(before, config.all_sources)]
    for then, now, fields in compared:
        for name in fields:
            if then.get(name, "") != getattr(now, name):
                raise RunError(
                    f"expected the splits that {config.folder} was trained with, got {name} = {getattr(now, name)!r} "
                    f"instead of {then.get(name)!r}, which could measure on training pictures; use the same, or the "
                    "same recipe"
                )


if __name__ == "__main__":
    run_command(main)
