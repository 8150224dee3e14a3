"""Resolves which models to load, from names, the environment and model records, and checks that they are reachable."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from turkish_clip.errors import InputError, one_line
from turkish_clip.records import read_record

if TYPE_CHECKING:
    from turkish_clip.verify import ModelRecord

MODEL_VARIABLE, IMAGE_MODEL_VARIABLE = "TURKISH_CLIP_MODEL", "TURKISH_CLIP_IMAGE_MODEL"
STOCK_IMAGE_MODEL = "clip-ViT-B-32"
RUN_RECORD, MODEL_FOLDER = "run.json", "model"  # in the folder of a training run, which may be given as a model
HOST = "sentence-transformers"  # the owner of Hub models that are named without one, such as clip-ViT-B-32
MODEL_FILES = ("modules.json", "config.json")  # every model has one of them
MAX_FILES = 1000  # in a model's folder
SETTLED_NS = 2 * 10**9  # the coarsest times of file systems (FAT): within it a change may leave a file's time as it is
NEWER = "update turkish-clip, or train and publish again"  # for a model's record of another version


class ModelError(InputError):
    """A backbone or model that can't be loaded, or does not fit the model that it is paired with."""


class NoModelError(ModelError):
    """No model was named, or what was named is an ONNX export or has a record of another format."""


class UnreachableError(ModelError):
    """A model that is neither a folder nor in the Hub's cache, while the Hub does not answer."""


@dataclass(frozen=True)
class ModelSpec:
    """Which models to load.

    Attributes:
        text: Hub id or folder of the text encoder, or of a pair.
        image: Hub id or folder of the image model; empty for a pair.
        revision: of `text` on the Hub; empty means the newest.
        image_revision: of `image` on the Hub; empty means the newest.
        record: the record beside the text encoder's or pair's weights; None if there is none.
        image_is_guessed: whether the image model is STOCK_IMAGE_MODEL because none is named anywhere.
        folder: absolute folder of `text` on this machine, for a Hub id that of its commit in the cache; empty if it is
            not here.
        files: size and time of the files in `folder` before anything was loaded (`files_of`).
    """

    text: str
    image: str
    revision: str
    image_revision: str
    record: ModelRecord | None = None
    image_is_guessed: bool = False
    folder: str = ""
    files: dict[str, list[int]] | None = None


def resolve_models(
    model: str | Path | None,
    image_model: str | Path | None,
    revision: str | None = None,
    image_revision: str | None = None,
) -> ModelSpec:
    """Resolves which models to load, from the arguments, the environment, and the record beside the model.

    Args:
        model: Hub id or folder of a pair or a text encoder, or a training run; None takes TURKISH_CLIP_MODEL.
        image_model: Hub id or folder; None takes TURKISH_CLIP_IMAGE_MODEL, then the one that the record names.
        revision: branch, tag or commit of the model on the Hub; None takes the newest.
        image_revision: of the image model; None takes the recorded one if the image model is the recorded one.

    Raises:
        NoModelError: none is named, or it is an ONNX export, or its record is of another format.
        UnreachableError: the model is no folder, and the Hub does not answer.
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
            f"expected a model, got {text}, an ONNX export, which encodes texts alone, to search an index by words or "
            "in turkish_clip.onnx; give the model that it was made from"
        )
    check_reachable(text, revision)
    run = _run_of(Path(text))
    if run is not None and run == Path(text):
        text = str(run / MODEL_FOLDER)
    record = _record_beside(text, revision)
    named = dict(record.image_model) if record is not None else {}
    place = run or (Path(text) if Path(text).is_dir() else None)
    if place is not None and named.get("id") and not named.get("revision"):  # with a revision, it is on the Hub
        named["id"] = image_model_folder(place, named["id"])
    chosen = image_model or os.environ.get(IMAGE_MODEL_VARIABLE) or named.get("id")
    image = str(chosen or STOCK_IMAGE_MODEL)
    if image_revision is None and image == named.get("id"):
        image_revision = named.get("revision")
    record = record and replace(record, image_model=named)
    folder = local_folder(text, revision)
    return ModelSpec(
        text,
        image,
        revision or "",
        image_revision or "",
        record,
        image_is_guessed=not chosen,
        folder="" if folder is None else absolute(str(folder)),
        files=None if folder is None else files_of(folder),
    )


def absolute(name: str) -> str:
    """Returns a model's name, a folder as its absolute path."""
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name


def files_of(folder: Path) -> dict[str, list[int]] | None:
    """Returns size and mtime_ns of each file in a model's folder, by which a change of it shows.

    Returns:
        By path in the folder, without hidden files; None where a later change might not show, since a file was changed
        a moment ago, or the folder holds more than `MAX_FILES`.
    """
    found: dict[str, list[int]] = {}
    latest = time.time_ns() - SETTLED_NS
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            path = Path(place, name)
            try:
                status = path.stat()
            except OSError:
                return None
            found[path.relative_to(folder).as_posix()] = [status.st_size, status.st_mtime_ns]
            if len(found) > MAX_FILES or status.st_mtime_ns > latest:
                return None
    return found


def _run_of(model: Path) -> Path | None:
    """Returns the training run that a folder is or whose model it is; None if it is neither."""
    runs = [model, model.absolute().parent] if model.name == MODEL_FOLDER else [model]
    return next((run for run in runs if (run / RUN_RECORD).is_file()), None)


def image_model_folder(beside: Path, folder: str) -> str:
    """Finds the image model of a run or a model's folder from its recorded relative path.

    It is looked for in the folders above, and in the current one, which comes first only if the run is below it: in
    another checkout, the same path may hold a model of other weights. A path at which there is no model is returned as
    it is: it may be a Hub id.

    Args:
        beside: the run folder, or the model's.
        folder: of the image model, as the record names it.
    """
    here = Path.cwd()
    as_named = Path(os.path.normpath(beside.absolute()))  # the path to it may contain links
    parents = [*as_named.parents, *beside.resolve().parents]
    for place in [here, *parents] if here in parents else [*parents, here]:
        if any((place / folder / name).is_file() for name in MODEL_FILES):
            return folder if place == here else str(place / folder)
    return folder


def _record_beside(text: str, revision: str | None) -> ModelRecord | None:
    """Reads the record beside a model's weights; returns None if there is none.

    Raises:
        NoModelError: it is damaged, or of another format.
    """
    from turkish_clip.verify import ModelRecord, find_record

    try:
        path = find_record(text, revision)
    except Exception:  # noqa: BLE001 - a model needs no record, and loading it reports any other fault
        return None
    return read_record(ModelRecord, path, NEWER, NoModelError) if path.exists() else None


def check_reachable(name: str, revision: str | None = None) -> None:
    """Checks that a name is a folder or a model in the Hub's cache, or else that the Hub answers.

    Whether the Hub has the model is left to loading it.

    Args:
        name: Hub id or folder of a model.
        revision: branch, tag or commit on the Hub; None takes the newest.

    Raises:
        UnreachableError: it is neither, and can't be a Hub id, or the Hub does not answer or has no such model.
    """
    if is_on_this_machine(name, revision):
        return
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise UnreachableError(
            f"expected a model, got {name}, which is no folder in {Path.cwd()} and not in the Hub's cache, while "
            "HF_HUB_OFFLINE is set; check the path, which counts from there, or unset it"
        )
    api = HfApi()
    try:
        found = api.file_exists(_names(name)[0], MODEL_FILES[0], revision=revision or None)
        missing = not found and "/" in name and not api.repo_exists(name)
    except HfHubHTTPError:
        return  # the Hub answered; loading reports that there is no such model, or no access to it
    except Exception as error:
        raise UnreachableError(
            f"expected a model, got {name}, which is no folder in {Path.cwd()}, and no answer from the "
            f"Hub ({constants.ENDPOINT}): {one_line(error)}; check the path, which counts from there, or the connection"
        ) from error
    if missing:
        raise UnreachableError(
            f"expected a model, got {name}, which is no folder in {Path.cwd()}, and the Hub has no such model or does "
            "not show it; check the path, which counts from there, or the id and HF_TOKEN"
        )


def _names(name: str) -> list[str]:
    """Returns the Hub ids that a name may mean."""
    return [name] if "/" in name else [f"{HOST}/{name}", name]


def is_on_this_machine(name: str, revision: str | None = None) -> bool:
    """Returns whether a name is a folder, or a model in the Hub's cache.

    Args:
        name: Hub id or folder of a model.
        revision: branch, tag or commit on the Hub; None takes the newest.

    Raises:
        UnreachableError: it is no folder and can't be a Hub id.
    """
    return Path(name).exists() or local_folder(name, revision) is not None


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """Returns the folder of a model on this machine: of a Hub id that of its commit in the cache, None if it has none.

    Args:
        name: Hub id or folder of a model.
        revision: branch, tag or commit on the Hub; None takes the newest that is cached.

    Raises:
        UnreachableError: it is no folder and can't be a Hub id.
    """
    if Path(name).exists():
        return Path(name) if Path(name).is_dir() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    caches = {None, os.environ.get("SENTENCE_TRANSFORMERS_HOME")}  # the Hub's own, and the host's
    try:
        cached = [
            try_to_load_from_cache(repository, file, cache_dir=cache, revision=revision or None)
            for repository in _names(name)
            for cache in caches
            for file in MODEL_FILES
        ]
    except HFValidationError as error:
        raise UnreachableError(
            f"expected a model, got {name}, which is no folder in {Path.cwd()}; check the path"
        ) from error
    return next((Path(path).parent for path in cached if isinstance(path, str)), None)
