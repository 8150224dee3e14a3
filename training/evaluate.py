"""python -m training.evaluate recipe.yaml: measures a text encoder on images and wordings that training never saw."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from training.data.samples import Row
from training.data.sources import read_captions
from training.embeddings.store import ImageEmbeddings, deduplicate, read_embeddings, remove_cross_split_duplicates
from training.evaluation.calibration import calibrate, cosine_percentiles
from training.evaluation.report import write_report
from training.evaluation.results import (
    Hubness,
    Results,
    add_to_model_record,
    check_same_splits,
    read_model_bank,
    read_model_record,
)
from training.evaluation.retrieval import (
    Split,
    encode,
    figures,
    measure,
    measure_csls,
    measure_hub_corrected,
    measure_robustness,
    measure_sources,
)
from training.pairs.dataset import warn_truncated, without_skipped
from training.pairs.targets import load_teacher
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import EvaluateConfig, read
from training.run.distributed import device_of
from training.run.record import RunError
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.metrics import METRIC_NAMES, hubness
from turkish_clip.resolve import MODEL_FOLDER

log = logging.getLogger("training")
FEW_IMAGES = 100


def main(argv: list[str]) -> dict[str, Any]:
    """Measures a text encoder, writes results.json and report.html; returns what results.json holds."""
    config = read(EvaluateConfig, argv)
    check_same_splits(config)
    quiet_hosts()
    captions = read_captions(config)

    from turkish_clip.encoder import load_model

    began = time.perf_counter()
    student = load_model(_model_folder(config), device=device_of(config.device))
    embeddings = _read_embeddings(config, dim=student.encode("a").shape[-1])
    disjoint = remove_cross_split_duplicates(captions, embeddings)
    named = without_skipped(disjoint.captions.split(config.split), embeddings)
    rows = deduplicate(named, embeddings)

    split = measure(student, rows, embeddings, config)
    warn_truncated(student, split.relevance.texts)
    log.info("measured %s; now the teacher reference and the robustness", config.split)
    teacher = load_teacher(embeddings, config) if any(row.english for row in rows) else None
    robustness = measure_robustness(student, split, config)
    bank = None if config.model else read_model_bank(config.folder / MODEL_FOLDER)

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
        hub_corrected=None if bank is None else measure_hub_corrected(split, bank, config),
        csls=measure_csls(split, config),
        temperature=calibrate(partial(encode, student, config=config), disjoint.captions, rows, embeddings, config),
        cosines=cosine_percentiles(split.relevance, split.texts, split.images),
        wall_seconds={"evaluate": round(time.perf_counter() - began, 2)},
    )
    values = _write(results, rows, split, config)
    _show(values, config)
    return values


def _model_folder(config: EvaluateConfig) -> str:
    """Returns the configured model, or the folder of the run's own after checking that it is there, with its record."""
    folder = config.folder / MODEL_FOLDER
    if not config.model and not folder.is_dir():
        raise RunError(f"expected a trained model in {folder}, got none; run training.distill first, or name --model")
    if not config.model:
        read_model_record(folder)
    return config.model or str(folder)


def _read_embeddings(config: EvaluateConfig, dim: int) -> ImageEmbeddings:
    """Reads the image embeddings, which must have the width of the text encoder, `dim`."""
    return read_embeddings(
        config.embeddings_folder, image_model=config.image_model, revision=config.image_model_revision, dim=dim
    )


def _write(results: Results, rows: Sequence[Row], split: Split, config: EvaluateConfig) -> dict[str, Any]:
    """Writes results.json, report.html and, of the run's own model, its record; returns what results.json holds."""
    results.write(config.folder)
    if not config.model:
        add_to_model_record(config.folder / MODEL_FOLDER, results)
    values = results.as_json()
    write_report(config, values, rows, split)
    return values


def _show(results: dict[str, Any], config: EvaluateConfig) -> None:
    """Prints the results as one JSON object, or as a table with the paths of the files."""
    if config.json:
        print_result(results, as_json=True)
    else:
        print(f"{table(results)}\n\n{config.folder / 'results.json'}\n{config.folder / 'report.html'}")


def table(results: dict[str, Any]) -> str:
    """Returns the main figures as a table for people."""
    head = f"{results['images']} {results['split']} images, {results['captions']} captions"
    lines = [f"{head:<52}{'recall@1':>10}{'@5':>8}{'@10':>8}"]
    if "hub_corrected" in results:
        results = {**results, "corrected": results["hub_corrected"]["text_to_image"]}
    for row, key in (
        ("Turkish text → image", "text_to_image"),
        ("  the same, hubs corrected as in an index", "corrected"),
        ("image → Turkish text", "image_to_text"),
        ("English text → image, teacher reference", "teacher_text_to_image"),
        ("image → English text, teacher reference", "teacher_image_to_text"),
    ):
        if key in results:
            at_1, at_5, at_10 = (results[key][name] for name in METRIC_NAMES[:3])
            lines.append(f"{row:<52}{at_1:>10.3f}{at_5:>8.3f}{at_10:>8.3f}")
    retention = ", ".join(f"{name} {corrupted['retention']:.1%}" for name, corrupted in results["robustness"].items())
    lines.append(f"retention of recall@1: {retention}")
    if results["images"] < FEW_IMAGES:
        lines.append(f"only {results['images']} images: the figures are uncertain; see the intervals in the report")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
