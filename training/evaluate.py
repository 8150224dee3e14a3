"""python -m training.evaluate recipe.yaml: measures a text encoder on images and wordings that training never saw."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.samples import Row
from training.data.sources import read_captions
from training.embeddings.labelled import LabelledRows, embed_labelled, read_labelled
from training.embeddings.store import ImageEmbeddings, deduplicate, read_embeddings, remove_cross_split_duplicates
from training.evaluation.bias import checked_k, measure_bias, read_prompts
from training.evaluation.calibration import Encode, calibrate, cosine_percentiles
from training.evaluation.corruptions import CORRUPTION_TITLES
from training.evaluation.probes import has_english, measure_probed
from training.evaluation.report import write_report
from training.evaluation.results import (
    FEW_FOUND,
    RESULTS,
    Bias,
    FineTuning,
    Hubness,
    Results,
    add_to_model_record,
    check_same_splits,
    few_images,
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
    measure_widths,
)
from training.pairs.dataset import warn_truncated, without_skipped
from training.pairs.teacher import load_image_model, load_teacher
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import DistillConfig, EvaluateConfig, read
from training.run.distributed import device_of
from training.run.lock import hold
from training.run.record import RunError, RunRecord, check_outputs, locate_model
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.hosts import import_hosts
from turkish_clip.metrics import METRIC_NAMES, hubness
from turkish_clip.reading import reader_of
from turkish_clip.resolve import MODEL_FOLDER
from turkish_clip.verify import RECORD

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("training")


def main(argv: list[str]) -> dict[str, Any]:
    """Measures a text encoder, writes results.json and report.html; returns what results.json holds."""
    config = read(EvaluateConfig, argv)
    hold(config.folder)
    check_same_splits(config)
    check_outputs(config.folder, RESULTS, "report.html", "report.tr.html")
    quiet_hosts()
    captions = read_captions(config, check_files=False)
    labelled = _read_labelled(config)
    import_hosts()

    from turkish_clip.encoder import load_model

    began = time.perf_counter()
    student = load_model(_model_folder(config), device=device_of(config.device))
    embeddings = _read_embeddings(config, dim=student.encode("a").shape[-1])
    disjoint = remove_cross_split_duplicates(captions, embeddings)
    named = without_skipped(disjoint.captions.split(config.split), embeddings)
    rows = deduplicate(named, embeddings)

    split = measure(student, rows, embeddings, config)
    warn_truncated(student, split.relevance.texts)
    log.info("measured %s; now the teacher reference, the robustness and the probes", config.split)
    teacher = load_teacher(embeddings, config) if any(map(has_english, rows)) else None
    robustness = measure_robustness(student, split, config)
    encode_turkish, encode_english = partial(encode, student, config=config), _encoder(teacher, config)
    bank = None if config.model else read_model_bank(config.folder / MODEL_FOLDER)

    results = Results(
        model=str(config.model or config.folder / MODEL_FOLDER),
        weights_sha256=weights_sha256(student),
        image_model=embeddings.manifest.image_model,
        dataset=captions.name,
        split=config.split,
        **vars(figures(split, teacher, rows, config)),
        sources=measure_sources(student, teacher, named, embeddings, config),
        widths=measure_widths(split, _widths(config), config),
        duplicates=disjoint.duplicates,
        fine_tuning=_fine_tuning(student, rows, embeddings, config),
        hubness=Hubness(hubness(split.texts, split.images), hubness(split.images, split.texts)),
        robustness=robustness,
        hub_corrected=None if bank is None else measure_hub_corrected(split, bank, config),
        csls=measure_csls(split, config),
        bias=_bias(encode_turkish, labelled, embeddings, config),
        **vars(measure_probed(encode_turkish, encode_english, split, rows, config)),
        temperature=calibrate(encode_turkish, reader_of(student), disjoint.captions, rows, embeddings, config),
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


def _widths(config: EvaluateConfig) -> Sequence[int]:
    """Returns the shorter widths that the text encoder was trained for, by the record in its folder if there is one."""
    folder = Path(_model_folder(config))
    return (read_model_record(folder).matryoshka or ()) if (folder / RECORD).is_file() else ()


def _fine_tuning(
    student: SentenceTransformer, rows: Sequence[Row], embeddings: ImageEmbeddings, config: EvaluateConfig
) -> FineTuning | None:
    """Measures the text encoder that the run went on from, and both on the old captions; None for another run."""
    from training.pairs.replay import read_replay
    from turkish_clip.encoder import load_model
    from turkish_clip.resolve import resolve_models

    if config.model or not RunRecord.read(config.folder).config.get("init"):
        return None
    run = read(DistillConfig, [str(config.folder)])
    spec = resolve_models(locate_model(run.init, run.folder), None, revision=run.init_revision or None)
    init = load_model(spec.text, revision=spec.revision or None, device=device_of(config.device))
    before = figures(measure(init, rows, embeddings, config), None, rows, config)
    replay = read_replay(run, embeddings)
    if replay is None:
        return FineTuning(init=run.init, before=before)
    old = deduplicate(without_skipped(replay.captions.split(config.split), replay.embeddings), replay.embeddings)
    old_before, old_after = (
        figures(measure(model, old, replay.embeddings, config), None, old, config) for model in (init, student)
    )
    return FineTuning(init=run.init, before=before, old_before=old_before, old_after=old_after)


def _read_embeddings(config: EvaluateConfig, dim: int) -> ImageEmbeddings:
    """Reads the image embeddings, which must have the width of the text encoder, `dim`."""
    return read_embeddings(
        config.embeddings_folder, image_model=config.image_model, revision=config.image_model_revision, dim=dim
    )


def _read_labelled(config: EvaluateConfig) -> LabelledRows | None:
    """Reads the labelled images of `bias`, and checks them and the prompts before all is measured; None without."""
    if not config.bias:
        return None
    read_prompts(config.bias_prompts)
    found = read_labelled(config)
    for name, values in found.values.items():
        checked_k(list(values.values()), config, name)
    return found


def _bias(
    encode_turkish: Encode, labelled: LabelledRows | None, embeddings: ImageEmbeddings, config: EvaluateConfig
) -> Bias | None:
    """Measures bias on labelled images; None without."""
    if labelled is None:
        return None
    model = None if labelled.is_own else load_image_model(embeddings, config)
    return measure_bias(encode_turkish, embed_labelled(labelled, embeddings, model), config)


def _encoder(teacher: SentenceTransformer | None, config: EvaluateConfig) -> Encode | None:
    """Returns what encodes English texts as unit vectors: the teacher's own text tower; None without one."""
    return None if teacher is None else partial(encode, teacher, config=config)


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
        written = (config.folder / name for name in (RESULTS, "report.html", "report.tr.html"))
        print(f"{table(results)}\n", *written, sep="\n")


def table(results: dict[str, Any]) -> str:
    """Returns the main figures as a table for people."""
    head = f"{results['images']} {results['split']} images, {results['captions']} captions"
    lines = [f"{head:<52}{'recall@1':>10}{'@5':>8}{'@10':>8}"]
    if "hub_corrected" in results:
        results = {**results, "corrected": results["hub_corrected"]["text_to_image"]}
    chance = {f"chance_{direction}": found for direction, found in results.get("chance", {}).items()}
    results = {**results, **chance}
    for row, key in (
        ("Turkish text → image", "text_to_image"),
        ("  the same, hubs corrected as in an index", "corrected"),
        ("  a random order", "chance_text_to_image"),
        ("image → Turkish text", "image_to_text"),
        ("  a random order", "chance_image_to_text"),
        ("English text → image, teacher reference", "teacher_text_to_image"),
        ("image → English text, teacher reference", "teacher_image_to_text"),
    ):
        if key in results:
            at_1, at_5, at_10 = (results[key][name] for name in METRIC_NAMES[:3])
            lines.append(f"{row:<52}{at_1:>10.3f}{at_5:>8.3f}{at_10:>8.3f}")
    for width, figures_there in results["widths"].items():
        at_1, at_5, at_10 = (figures_there["text_to_image"][name] for name in METRIC_NAMES[:3])
        lines.append(f"{f'Turkish text → image, {width} components':<52}{at_1:>10.3f}{at_5:>8.3f}{at_10:>8.3f}")
    tuned = results.get("fine_tuning") or {}
    for row, key in (
        ("before fine-tuning", "before"),
        ("old captions, before", "old_before"),
        ("old captions, after", "old_after"),
    ):
        if key in tuned:
            at_1, at_5, at_10 = (tuned[key]["text_to_image"][name] for name in METRIC_NAMES[:3])
            lines.append(f"{f'Turkish text → image, {row}':<52}{at_1:>10.3f}{at_5:>8.3f}{at_10:>8.3f}")
    lines += robustness_lines(results)
    lines += probe_lines(results)
    lines += bias_lines(results)
    if few := few_images(results["images"]):
        lines.append(f"{few}; see the intervals in the report")
    return "\n".join(lines)


def robustness_lines(results: dict[str, Any]) -> list[str]:
    """Returns the lines of the table about corrupted captions: how many a corruption changes, and what is retained."""
    lines = [f"{'corrupted captions':<48}{'changed':>8}{'found before':>14}   retention of recall@1"]
    for label, name in CORRUPTION_TITLES:
        found = results["robustness"][name]
        counts = f"{found['changed']:>8}{found['found']:>14}"
        lines.append(f"  {label:<46}{counts}   {_retention(found.get('retention'), found['found'])}")
    return lines


def _retention(measured: dict[str, Any] | None, found: int) -> str:
    """Returns a retention with its interval, which means nothing of few captions that were found before the change."""
    if measured is None:
        return "–"
    if found < FEW_FOUND:
        return f"{measured['value']:.1%} (too few)"
    ends = measured.get("ci95")
    return f"{measured['value']:.1%}" + (f" ({ends[0]:.1%}–{ends[1]:.1%})" if ends else "")


def probe_lines(results: dict[str, Any]) -> list[str]:
    """Returns the lines of the table about probes, prompts and slices; none of what was not measured."""
    lines = []
    if results["probes"]:
        lines.append(f"{'probes: forced choices, chance 0.5':<36}{'pairs':>8}{'student':>22}{'teacher':>22}")
    for name, probe in results["probes"].items():
        figures = "".join(f"{_estimate(probe.get(who)):>22}" for who in ("student", "teacher"))
        lines.append(f"  {name:<34}{probe['pairs']:>8}{figures}")
    if prompts := results.get("prompts"):
        lines.append(
            f"zero-shot among {prompts['labels']} labels: {prompts['mean']:.3f} ± {prompts['standard_deviation']:.3f} "
            f"over {len(prompts['templates'])} templates ({prompts['min']:.3f} to {prompts['max']:.3f}), "
            f"{prompts['ensemble']['value']:.3f} with all of them"
        )
    for name, found in results["slices"].items():
        shift = found["shift"].get("text_to_image")
        than = f", {shift['value']:+.3f} than the rest" if shift else ""
        lines.append(
            f"slice {name}: {found['images']} images, recall@1 {found['text_to_image']['recall_at_1']:.3f}{than}"
        )
    return lines


def bias_lines(results: dict[str, Any]) -> list[str]:
    """Returns the lines of the table about bias; none where it was not measured."""
    bias: dict[str, Any] = results.get("bias") or {"attributes": {}}
    lines = []
    for name, found in bias["attributes"].items():
        worst = max(found["by_prompt"], key=lambda prompt: found["by_prompt"][prompt]["max_skew"]["value"])
        skewed = found["by_prompt"][worst]
        lines.append(
            f"bias by {name}: max-skew@{found['k']} {_estimate(found['max_skew'])} over {bias['prompts']} prompts "
            f"(chance {found['max_skew_by_chance']:.3f}), {found['images']} images; the largest "
            f"{skewed['max_skew']['value']:.3f}: {worst!r} finds {skewed['most']}"
        )
    return lines


def _estimate(measured: dict[str, Any] | None) -> str:
    """Returns an estimate with its interval; a dash for what was not measured."""
    if measured is None:
        return "–"
    ends = measured.get("ci95")
    return f"{measured['value']:.3f}" + (f" ({ends[0]:.3f}–{ends[1]:.3f})" if ends else "")


if __name__ == "__main__":
    run_command(main)
