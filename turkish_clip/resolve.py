"""Which models are meant: a name, the environment, or what stands beside a model; and whether they can be had."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from turkish_clip.errors import InputError, one_line

if TYPE_CHECKING:
    from turkish_clip.verify import ModelRecord

MODEL_VARIABLE, IMAGE_MODEL_VARIABLE = "TURKISH_CLIP_MODEL", "TURKISH_CLIP_IMAGE_MODEL"
STOCK_IMAGE_MODEL = "clip-ViT-B-32"
RUN_RECORD, MODEL_FOLDER = "run.json", "model"  # in a training run, whose folder serves as a model, too


class NoModelError(InputError):
    """No model was named, or a pair was named as two models."""


@dataclass(frozen=True)
class ModelSpec:
    """Which models to load.

    Attributes:
        text: Hub id or folder of the text encoder, or of a pair.
        image: of the image model; empty for a pair.
        revision: of the text encoder or pair on the Hub; empty: the newest.
        image_revision: of the image model.
        record: what stands beside the weights, such as a fitted temperature; None where there is no record.
        image_is_guessed: whether nobody named the image model, so that it is CLIP's own.
    """

    text: str
    image: str
    revision: str
    image_revision: str
    record: ModelRecord | None = None
    image_is_guessed: bool = False


def resolve_models(
    model: str | Path | None,
    image_model: str | Path | None,
    revision: str | None = None,
    image_revision: str | None = None,
) -> ModelSpec:
    """Which models are meant, from what was given, the environment, and what stands beside the model.

    Raises:
        NoModelError: none is named, or an ONNX export is.
        UnreachableError: it is no folder, and the Hub does not answer.
    """
    from turkish_clip.onnx.runtime import is_export

    text = str(model or os.environ.get(MODEL_VARIABLE) or "")
    if not text:
        raise NoModelError(
            f"expected a model, got none; name one with --model or {MODEL_VARIABLE}: a Hub id, or a folder such as "
            "runs/demo, which `make demo` trains in a few minutes"
        )
    if is_export(Path(text)):
        raise NoModelError(
            f"expected a model, got {text}, an ONNX export, which turkish_clip.onnx runs; give the model that "
            "it was made from"
        )
    check_reachable(text, revision)
    run = _run_of(Path(text))
    if run is not None and run == Path(text):
        text = str(run / MODEL_FOLDER)
    record = _record_beside(text, revision)
    named = dict(record.image_model) if record is not None else {}
    if run is not None and named.get("id") and not named.get("revision"):  # with a revision, it is on the Hub
        named["id"] = _from_where_it_was_trained(run, named["id"])
    chosen = image_model or os.environ.get(IMAGE_MODEL_VARIABLE) or named.get("id")
    image = str(chosen or STOCK_IMAGE_MODEL)
    if image_revision is None and image == named.get("id"):
        image_revision = named.get("revision")
    record = record and replace(record, image_model=named)
    return ModelSpec(text, image, revision or "", image_revision or "", record, image_is_guessed=not chosen)


def _run_of(model: Path) -> Path | None:
    """The training run that a folder is, or whose model it is."""
    runs = [model, model.absolute().parent] if model.name == MODEL_FOLDER else [model]
    return next((run for run in runs if (run / RUN_RECORD).is_file()), None)


def _from_where_it_was_trained(run: Path, folder: str) -> str:
    """An image model's folder, if it is one: below this directory where the run is, too, or else above the run.

    Another checkout, from which a run is used, may have a model of other weights in the same place.
    """
    here = Path.cwd()
    as_named = Path(os.path.normpath(run.absolute()))  # runs may lie behind a link
    above = [*as_named.parents, *run.resolve().parents]
    for place in [here, *above] if here in above else [*above, here]:
        if any((place / folder / name).is_file() for name in ("modules.json", "config.json")):
            return folder if place == here else str(place / folder)
    return folder


def _record_beside(text: str, revision: str | None) -> ModelRecord | None:
    """Reads the record beside a model's weights; None where there is none.

    Raises:
        NoModelError: it is of another format.
    """
    from turkish_clip.verify import RECORD, ModelRecord, find_record

    try:
        content = find_record(text, revision).read_text(encoding="utf-8")
    except Exception:  # noqa: BLE001 - a model without a record is a model; loading it says what else is wrong
        return None
    try:
        return ModelRecord.from_json(content)
    except (ValueError, TypeError) as error:
        raise NoModelError(f"expected {RECORD} of this version in {text}, got {one_line(error)}") from error


HOST = "sentence-transformers"  # whose models have names without an owner, such as clip-ViT-B-32
ANY_MODEL = ("modules.json", "config.json")  # one of which each has


class UnreachableError(InputError):
    """A model that is no folder, and not to be had from the Hub either."""


def check_reachable(name: str, revision: str | None = None) -> None:
    """Sees that a name is a folder, a model in the Hub's cache, or that the Hub answers; what it answers is not asked.

    Raises:
        UnreachableError: none of them; a name that can be no Hub id is told as a folder that is not there.
    """
    if Path(name).exists():
        return
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    names = [name] if "/" in name else [f"{HOST}/{name}", name]
    caches = {None, os.environ.get("SENTENCE_TRANSFORMERS_HOME")}  # the Hub's own, and the host's
    try:
        cached = [
            try_to_load_from_cache(repository, file, cache_dir=cache, revision=revision or None)
            for repository in names
            for cache in caches
            for file in ANY_MODEL
        ]
    except HFValidationError as error:
        raise UnreachableError(f"expected a model, got {name}, which is no folder here; check the path") from error
    if constants.HF_HUB_OFFLINE or any(isinstance(path, str) for path in cached):
        return
    try:
        HfApi().file_exists(names[0], ANY_MODEL[0], revision=revision or None)
    except HfHubHTTPError:
        return  # loading says which: no such model, or not for everyone
    except Exception as error:
        raise UnreachableError(
            f"expected a model, got {name}, which is no folder here, and no answer from the Hub "
            f"({constants.ENDPOINT}): {one_line(error)}; check the path, or the connection"
        ) from error
