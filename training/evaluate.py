"""python -m training.evaluate recipe.yaml: what the text encoder finds among images and wordings it never saw."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

from training.data.sources import read_captions
from training.embeddings.store import deduplicate, remove_cross_split_duplicates
from training.evaluation.results import Hubness, Results, add_to_model_record, check_same_splits
from training.evaluation.retrieval import encode, figures, measure, measure_robustness, measure_sources
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import EvaluateConfig, read
from training.run.record import RunError
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.metrics import hubness
from turkish_clip.resolve import MODEL_FOLDER

log = logging.getLogger("training")
FEW_IMAGES = 100


def main(argv: list[str]) -> dict[str, Any]:
    """Measures a text encoder, writes results.json and report.html; returns what results.json holds."""
    config = read(EvaluateConfig, argv)
    check_same_splits(config)
    quiet_hosts()
    captions = read_captions(config)

    from training.distillation.dataset import warn_truncated, with_embeddings
    from training.distillation.targets import load_teacher
    from training.embeddings.store import read_embeddings
    from training.evaluation.calibration import calibrate, cosine_percentiles
    from training.evaluation.report import write_report
    from training.run.distributed import device_of
    from turkish_clip.encoder import load_model

    began = time.perf_counter()
    device = device_of(config.device)
    student = load_model(_model_folder(config), device=device)
    embeddings = read_embeddings(
        config.embeddings_folder,
        image_model=config.image_model,
        revision=config.image_model_revision,
        dim=student.encode("a").shape[-1],
    )
    disjoint = remove_cross_split_duplicates(captions, embeddings)
    captions, named = disjoint.captions, with_embeddings(disjoint.captions.split(config.split), embeddings)
    rows = deduplicate(named, embeddings)

    split = measure(student, rows, embeddings, config)
    warn_truncated(student, split.relevance.texts)
    log.info("measured %s; now the image model's own text tower, and robustness", config.split)
    teacher = load_teacher(embeddings, config) if any(row.english for row in rows) else None
    robustness = measure_robustness(student, split, config)

    results = Results(
        model=str(config.model or config.folder / MODEL_FOLDER),
        weights_sha256=weights_sha256(student),
        image_model=embeddings.manifest.image_model,
        dataset=captions.name,
        split=config.split,
        **vars(figures(split, teacher, rows, config)),
        sources=measure_sources(student, teacher, named, embeddings, config),
        duplicates=disjoint.duplicates,
        hubness=Hubness(hubness(split.texts, split.images), hubness(split.images, split.texts)),
        robustness=robustness,
        temperature=calibrate(partial(encode, student, config=config), captions, rows, embeddings, config),
        cosines=cosine_percentiles(split.relevance, split.texts, split.images),
        wall_seconds={"evaluate": round(time.perf_counter() - began, 2)},
    )
    results.write(config.folder)
    if not config.model:
        add_to_model_record(config.folder / MODEL_FOLDER, results)
    found = results.as_json()
    write_report(config, found, rows, split)
    _show(found, config)
    return found


def _show(results: dict[str, Any], config: EvaluateConfig) -> None:
    """Prints the results: as one JSON object, or as a table and where the rest is."""
    if config.json:
        print_result(results, as_json=True)
    else:
        print(f"{table(results)}\n\n{config.folder / 'results.json'}\n{config.folder / 'report.html'}")


def table(results: dict[str, Any]) -> str:
    """The main figures, for people."""
    head = f"{results['images']} {results['split']} images, {results['captions']} captions"
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
    kept = ", ".join(f"{name} {found['retention']:.1%}" for name, found in results["robustness"].items())
    lines.append(f"retention of recall@1: {kept}")
    if results["images"] < FEW_IMAGES:
        lines.append(f"only {results['images']} images: these figures say little; see the intervals in the report")
    return "\n".join(lines)


def _model_folder(config: EvaluateConfig) -> str:
    if config.model:
        return config.model
    folder: Path = config.folder / "model"
    if not folder.is_dir():
        raise RunError(f"expected a trained model in {folder}, got none; run training.distill first, or name --model")
    return str(folder)


if __name__ == "__main__":
    run_command(main)
