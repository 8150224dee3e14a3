"""The table of a comparison of models: which rows it has, compare.json and compare.html."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from training.evaluation.published import read_hub_ids
from training.evaluation.report import fill_page
from training.run.config import CompareConfig
from training.run.provenance import Machine, library_versions, machine
from training.run.record import RunError, locate_model
from training.studies.ablation import TEMPLATES
from training.studies.model_figures import (
    IMAGE,
    MEMORY,
    QUALITY,
    QUERY,
    SIZE,
    Candidate,
    CaptionedTest,
    ModelRow,
    measure_alone,
    measure_quality,
    measure_times,
    open_both,
    sha256_of_files,
    size_on_disk,
)
from training.studies.model_process import INT8, ONNX, PYTORCH, ModelSubject
from turkish_clip.errors import InputError, one_line
from turkish_clip.onnx.runtime import RECORD as EXPORT_RECORD
from turkish_clip.onnx.runtime import OnnxRecord, is_export
from turkish_clip.records import read_record, write_record
from turkish_clip.resolve import local_folder, resolve_models

log = logging.getLogger("training")
COMPARISON, PAGE = "compare.json", "compare.html"
EXPORTED = "exports"
FORM_OF = {"onnx": ONNX, "int8": INT8}
FORM_OF_PRECISION = {"float32": ONNX, "int8": INT8}
ALL = (QUALITY, SIZE, MEMORY, QUERY, IMAGE)
MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The content of compare.json.

    Attributes:
        test: name of the captions; empty without any.
        split: that was measured.
        images: of the test.
        captions: of the test.
        measured: what rows depend on beside their model: hash of the test, options and versions of libraries.
        machine: on which they were measured.
        rows: one for each model and form, in the order of the command.
    """

    FORMAT: ClassVar[int] = 1

    test: str
    split: str
    images: int
    captions: int
    measured: dict[str, str]
    machine: Machine
    rows: list[ModelRow]


def compare(config: CompareConfig) -> Comparison:
    """Measures the models that are not yet measured; writes compare.json and compare.html after each.

    Raises:
        SourceError: the test can't be read.
    """
    test = CaptionedTest.read(config)
    before = _earlier(config, test)
    kept = {(row.model, row.form): row for row in before.rows} if before is not None else {}
    candidates = _candidates(config)

    def write() -> Comparison:
        result = _comparison(config, test, [candidate.row for candidate in candidates])
        write_record(config.folder / COMPARISON, result)
        write_page(config.folder / PAGE, result)
        return result

    with ExitStack() as stack:
        for number, candidate in enumerate(candidates, 1):
            name = f"{candidate.row.model}, {candidate.row.form}"
            earlier = kept.get(candidate.key)
            if candidate.subject is not None and earlier is not None and _is_same(candidate, earlier):
                candidate.row = replace(earlier, not_measured=dict(earlier.not_measured))
                if earlier.is_complete:
                    log.info("%d of %d: %s: kept", number, len(candidates), name)
                    continue
            log.info("%d of %d: %s", number, len(candidates), name)
            try:
                _measure(candidate, test, config, stack)
            except InputError as error:
                log.warning("%s is not measured: %s", name, error)
                candidate.row = candidate.row.without(*_missing(candidate.row), why=one_line(error, None))
            write()
        measure_times(candidates, config)
    return write()


def _measure(candidate: Candidate, test: CaptionedTest | None, config: CompareConfig, stack: ExitStack) -> None:
    """Measures all but the times, of which the process stays open; what an interrupted command has is kept.

    Raises:
        InputError: the model can't be loaded or exported.
    """
    if candidate.subject is None:
        return
    _export(candidate, config)
    if candidate.row.text_memory is None:
        measure_alone(candidate, config)
    had_quality = candidate.row.text_to_image is not None
    process = open_both(candidate, config, stack)
    if not had_quality:
        measure_quality(candidate, test, config)
    _weigh(candidate, has_images=process is not None and process.opened.has_images)


def _weigh(candidate: Candidate, *, has_images: bool) -> None:
    """Gives a row the sizes and the hash of its files, which are on this machine once it was loaded."""
    subject, row = candidate.subject, candidate.row
    if subject is None:
        return
    sources = _sources(candidate, subject, row.image_model)
    if subject.onnx:
        folder = Path(subject.model)
        files = [path for path in folder.iterdir() if path.is_file()]
        of_images = sum(path.stat().st_size for path in files if path.name.startswith(("image_model", "preprocessor")))
        text: int | None = sum(path.stat().st_size for path in files) - of_images
        image = of_images if has_images else None
    else:
        text = size_on_disk(Path(sources[0])) if sources[0] else None
        image = size_on_disk(Path(sources[1])) if sources[1] else None
        if has_images and not row.image_model:
            image = 0
            sources = (sources[0], "")
    candidate.row = replace(row, text_bytes=text, image_bytes=image, files_sha256=sha256_of_files(*sources))
    if text is None:
        candidate.row = candidate.row.without(SIZE, why="its files are in no folder of this machine")


def _sources(candidate: Candidate, subject: ModelSubject, image_model: str) -> tuple[str, str]:
    """Returns the folders that a row depends on, of both sides: of an export that is made here those of its model.

    Args:
        candidate: of the row.
        subject: what it loads.
        image_model: that PyTorch has loaded.
    """
    if any(candidate.files):
        return candidate.files
    if subject.onnx:
        return subject.model, ""
    return _files(subject, image_model if candidate.row.form == PYTORCH else _image_name(subject))


def _files(subject: ModelSubject, image_model: str) -> tuple[str, str]:
    """Returns the folders of a model that PyTorch loads; empty for those that are not on this machine."""
    spec = resolve_models(subject.model, subject.image_model or None)
    image = local_folder(image_model, spec.image_revision or None) if image_model else None
    return spec.folder, "" if image is None else str(image)


def _missing(row: ModelRow) -> list[str]:
    """Returns what a row has no figure of."""
    found = {
        QUALITY: row.text_to_image,
        SIZE: row.text_bytes,
        MEMORY: row.text_memory,
        QUERY: row.query_ms,
        IMAGE: row.image_ms,
    }
    return [name for name, value in found.items() if value is None]


def _is_same(candidate: Candidate, earlier: ModelRow) -> bool:
    """Returns whether a kept row is of the weights that the candidate would be loaded from."""
    subject = candidate.subject
    if subject is None or not earlier.files_sha256:
        return False
    try:
        files = _sources(candidate, subject, earlier.image_model)
    except InputError:  # it is no longer there
        return False
    return sha256_of_files(*files) == earlier.files_sha256


def _candidates(config: CompareConfig) -> list[Candidate]:
    """Returns the rows of the table before anything is measured: models, their exports, then the baselines."""
    found = []
    for name in config.models:
        located = locate_model(name, config.folder)
        image = locate_model(config.image_model, config.folder)
        if is_export(Path(located)):
            found.append(_of_export(name, located, config))
            continue
        found.append(_candidate(name, PYTORCH, _subject(located, image, config)))
        found += [_candidate(name, FORM_OF[kind], _subject(located, image, config)) for kind in config.exports]
    if config.baselines:
        for name, how in read_hub_ids().items():
            subject = _subject(how["id"], how.get("image_model", ""), config) if "id" in how else None
            found.append(_candidate(name, PYTORCH, subject, how.get("why", "")))
    return found


def _candidate(name: str, form: str, subject: ModelSubject | None, why: str = "") -> Candidate:
    row = ModelRow(model=name, form=form)
    return Candidate(row if subject is not None else row.without(*ALL, why=why), subject)


def _of_export(name: str, folder: str, config: CompareConfig) -> Candidate:
    """Returns the row of an export that was named; a damaged one is not measured."""
    subject = replace(_subject(folder, "", config), onnx=True)
    try:
        record = read_record(OnnxRecord, Path(folder) / EXPORT_RECORD, "export again")
    except InputError as error:
        return _candidate(name, ONNX, None, one_line(error, None))
    return _candidate(name, FORM_OF_PRECISION[record.precision], subject)


def _subject(model: str, image_model: str, config: CompareConfig) -> ModelSubject:
    device = "" if config.device == "auto" else config.device
    return ModelSubject(
        model=model, image_model=image_model, onnx=False, text_alone=False, threads=config.threads, device=device
    )


def _export(candidate: Candidate, config: CompareConfig) -> None:
    """Exports the model of a row that is of another form, with both sides where both can be.

    Raises:
        InputError: not even the text side can be exported.
    """
    subject = candidate.subject
    if subject is None or subject.onnx or candidate.row.form == PYTORCH:
        return
    from turkish_clip.onnx.export import export_onnx

    named = re.sub(r"[^\w.-]+", "-", candidate.row.model).strip("-.") or "model"
    int8 = candidate.row.form == INT8
    base = config.folder / EXPORTED / f"{named}-{'onnx-int8' if int8 else 'onnx'}"
    candidate.files = _files(subject, _image_name(subject))
    for side, folder in (("both", base), ("text", base.with_name(f"{base.name}-text"))):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _warnings_alone():
                export_onnx(subject.model, folder, side=side, int8=int8, image_model=subject.image_model or None)
        except InputError as error:
            if side == "text":
                raise
            log.info("only the text side of %s is exported: %s", candidate.row.model, error)
            continue
        candidate.subject = replace(subject, model=str(folder), onnx=True)
        return


@contextmanager
def _warnings_alone() -> Iterator[None]:
    """Keeps what libraries tell of each layer that they export out of the log."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.setLevel(level)


def _image_name(subject: ModelSubject) -> str:
    spec = resolve_models(subject.model, subject.image_model or None)
    return "" if spec.image_is_guessed else spec.image


def _comparison(config: CompareConfig, test: CaptionedTest | None, rows: Sequence[ModelRow]) -> Comparison:
    return Comparison(
        test=config.source_names if test is not None else "",
        split=config.split,
        images=len(test.rows) if test is not None else 0,
        captions=len(test.relevance.texts) if test is not None else 0,
        measured=_measured(config, test),
        machine=machine(),
        rows=list(rows),
    )


def _measured(config: CompareConfig, test: CaptionedTest | None) -> dict[str, str]:
    """Returns what rows depend on beside their model."""
    names = ("split", "bootstrap_samples", "query", "repeats", "image_batch_size", "threads", "device")
    options = {name: str(getattr(config, name)) for name in names}
    versions = library_versions()
    libraries = {name: versions[name] for name in ("python", "turkish-clip", "sentence-transformers", "torch")}
    return {"test_sha256": test.sha256 if test is not None else "", **options, **libraries}


def _earlier(config: CompareConfig, test: CaptionedTest | None) -> Comparison | None:
    """Returns what the folder has of the same test, options and machine; None, with a line, for others.

    Raises:
        RunError: compare.json is damaged.
    """
    path = config.folder / COMPARISON
    if not os.path.lexists(path):
        return None
    before = read_record(Comparison, path, "delete it to measure again", RunError)
    now = _comparison(config, test, [])
    if before.measured != now.measured or before.machine != now.machine:
        changed = [name for name, value in now.measured.items() if before.measured.get(name) != value] or ["machine"]
        log.info("all is measured again, by %s other than those of %s", ", ".join(changed), path)
        return None
    return before


def write_page(path: Path, result: Comparison) -> None:
    """Writes compare.html atomically.

    Args:
        path: of the page.
        result: of the comparison.
    """
    reasons: dict[str, int] = {}
    rows = []
    for row in result.rows:
        for why in row.not_measured.values():
            reasons.setdefault(why, len(reasons) + 1)
        rows.append({"row": asdict(row), "notes": {name: reasons[why] for name, why in row.not_measured.items()}})
    fill_page(
        path, TEMPLATES / "compare.html.jinja", result=result, rows=rows, reasons=list(reasons), mebibyte=MEBIBYTE
    )


def table(result: Comparison) -> list[str]:
    """Returns the table for people as lines, with the reasons for what was not measured below."""
    name_width = max((len(row.model) for row in result.rows), default=5)
    heads = ("t→i @1", "@10", "i→t @1", "@10", "MB text", "MB image", "MB memory", "both", "ms query", "ms image")
    lines = [f"{'model':<{name_width}}  {'form':<10}" + "".join(f"{head:>11}" for head in heads)]
    reasons: dict[str, str] = {}
    for row in result.rows:
        cells = [
            *_recalls(row.text_to_image),
            *_recalls(row.image_to_text),
            _size(row.text_bytes),
            "in text" if row.image_bytes == 0 else _size(row.image_bytes),
            _size(row.text_memory),
            _size(row.memory),
            *("–" if value is None else f"{value:.2f}" for value in (row.query_ms, row.image_ms)),
        ]
        lines.append(f"{row.model:<{name_width}}  {row.form:<10}" + "".join(f"{cell:>11}" for cell in cells))
        whys: dict[str, list[str]] = {}
        for what, why in row.not_measured.items():
            whys.setdefault(why, []).append(what)
        for why, whats in whys.items():
            reasons[f"not measured of {row.model}, {row.form}: {', '.join(whats)}"] = why
    return [*lines, *(f"{what}: {why}" for what, why in reasons.items())]


def _recalls(found: Any) -> Iterable[str]:
    return ("–", "–") if found is None else (f"{found.recall_at_1:.3f}", f"{found.recall_at_10:.3f}")


def _size(value: int | None) -> str:
    return "–" if value is None else f"{value / MEBIBYTE:.1f}"
