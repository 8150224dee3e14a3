"""The text encoder beside an index: an ONNX export by which words are encoded without loading the models.

It stands for a model as long as the files in the model's folder are those of which it was made, by their size and time.
Where that is not certain, where the index is of another image model, and where onnxruntime is not installed, the models
are loaded, as without it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from turkish_clip.errors import InputError, one_line
from turkish_clip.folders import KEPT_TEXT_ENCODER, TEXT_ENCODER
from turkish_clip.onnx.runtime import OnnxError, OnnxTextEncoder
from turkish_clip.onnx.text_side import OnnxTextSide
from turkish_clip.reading import Caution, Kind
from turkish_clip.records import read_record, write_record
from turkish_clip.resolve import absolute, files_of, local_folder, resolve_models
from turkish_clip.search.storage import ImageIndexError, exclusive_write, folder_of
from turkish_clip.text_side import log_cautions

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder

log = logging.getLogger("turkish_clip")
Precision = Literal["float32", "int8", "none"]
RECORD = f"{TEXT_ENCODER}.json"
HASH_LETTERS = 12  # of the weights' hash, in the folder's name, as KEPT_TEXT_ENCODER has it
RUNNING, WRITING = ("onnxruntime", "tokenizers"), ("onnx", "onnxscript", "onnxruntime")  # the libraries for either
MAX_MODELS = 8  # places of the same model that are known


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model that has the kept weights.

    Attributes:
        folder: absolute folder of the text encoder or pair; of a Hub id that of its commit in the cache.
        image_model: Hub id or absolute folder of the image model that it was used with; empty for a pair.
        files: size and mtime_ns of the files in `folder` when it was loaded.
        cautions: the kinds of what is to be said of the model, whatever the texts.
    """

    folder: str
    image_model: str
    files: dict[str, list[int]]
    cautions: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class KeptTextEncoder:
    """The content of text-encoder.json in an index.

    Attributes:
        precision: "float32" or "int8"; "none" where no text encoder is to be kept.
        folder: of the export, in the index; empty for none.
        text_weights_sha256: of the text encoder.
        image_weights_sha256: of the image model that it was used with.
        bytes: size of the export.
        models: that have these weights, the one used last at the end.
    """

    FORMAT: ClassVar[int] = 1

    precision: str
    folder: str = ""
    text_weights_sha256: str = ""
    image_weights_sha256: str = ""
    bytes: int = 0
    models: list[KnownModel] = field(default_factory=list)

    def is_of(self, encoder: DualEncoder) -> bool:
        """Returns whether it was made of the weights of an encoder."""
        mine = (self.text_weights_sha256, self.image_weights_sha256)
        return mine == (encoder.text_weights_sha256, encoder.image_weights_sha256)

    def with_model(self, model: KnownModel) -> KeptTextEncoder:
        """Returns the record with one more model."""
        others = [
            known for known in self.models if (known.folder, known.image_model) != (model.folder, model.image_model)
        ]
        return replace(self, models=[*others, model][-MAX_MODELS:])


def kept_text_side(
    uri: str,
    image_weights_sha256: str,
    model: str,
    image_model: str | None,
    *,
    revision: str | None = None,
    image_revision: str | None = None,
    few_texts: bool = True,
) -> OnnxTextSide | None:
    """Opens the text encoder beside an index if it is that of the models that would be loaded, and logs their cautions.

    Args:
        uri: of the index.
        image_weights_sha256: of the index's image model.
        model: as in `resolve_models`, and likewise image_model, revision and image_revision.
        image_model: None takes what `resolve_models` takes.
        revision: of the model on the Hub.
        image_revision: of the image model.
        few_texts: as `for_few_texts` of `OnnxTextEncoder`.

    Returns:
        None where the models are to be loaded.
    """
    place = folder_of(uri)
    kept = None if place is None else _read(place)
    if (
        place is None
        or kept is None
        or not kept.folder
        or kept.image_weights_sha256 != image_weights_sha256
        or not _are_there(RUNNING)
    ):
        return None
    try:
        folder = local_folder(model, revision)
        spec = None if folder is None else resolve_models(folder, image_model, None, image_revision)
    except InputError:
        return None  # loading it says why
    if spec is None:
        return None
    images = {absolute(spec.image)} | ({""} if image_model is None else set())
    known = [
        one for one in kept.models if (one.folder, one.files) == (spec.folder, spec.files) and one.image_model in images
    ]
    if not known:
        return None
    try:
        encoder = _opened(place, kept, few_texts=few_texts)
    except OnnxError as error:
        log.warning(
            "the text encoder beside %s is left out: %s; turkish-clip index makes it again",
            uri,
            one_line(error, 400).removesuffix("; export again"),
        )
        return None
    name = spec.text if Path(model).is_dir() else model
    log_cautions(Caution(cast(Kind, kind), (name,)) for kind in known[-1].cautions)
    return OnnxTextSide(
        encoder,
        name,
        known[-1].image_model or name,
        kept.text_weights_sha256,
        kept.image_weights_sha256,
        spec.record.temperature if spec.record is not None else None,
    )


def exported_text_side(
    folder: Path, uri: str, image_weights_sha256: str, image_name: str, *, few_texts: bool = True
) -> OnnxTextSide:
    """Opens an ONNX export that was named as the model for the words of an index.

    Args:
        folder: of the export.
        uri: of the index.
        image_weights_sha256: of the index's image model.
        image_name: Hub id or folder of it.
        few_texts: as in `kept_text_side`.

    Raises:
        OnnxError: it does not open.
        ImageIndexError: it is of another image model than the index, or does not say of which.
    """
    from turkish_clip.dual_encoder import MINIATURE_SHA256

    encoder = OnnxTextEncoder(folder, for_few_texts=few_texts)
    named = encoder.image_model
    if named is None or named.weights_sha256 != image_weights_sha256:
        got = "one that does not name the weights of its image model"
        if named is not None and named.weights_sha256:
            got = f"one for other weights ({named.id})"
        raise ImageIndexError(
            f"expected a text encoder for the image model that {uri} was made with ({image_name}), got {folder}, "
            f"{got}; give the model that it was made from, or export that of the index"
        )
    if image_weights_sha256 == MINIATURE_SHA256:
        log_cautions([Caution("miniature", (str(folder),))])
    return OnnxTextSide(
        encoder, str(folder), named.id, encoder.weights_sha256, image_weights_sha256, encoder.temperature
    )


def keep_text_encoder(uri: str, encoder: DualEncoder, precision: Precision | None = None) -> KeptTextEncoder | None:
    """Writes the text encoder beside an index, unless it is there, and removes one of other weights.

    Args:
        uri: of the index.
        encoder: with which the index was made or brought up to date.
        precision: "none" keeps no text encoder, also from now on; None takes what the index has, else "float32".

    Returns:
        What is kept; None where nothing is: on object storage, without the libraries, or for a model that was not in a
        folder, or not yet settled there, before it was loaded.

    Raises:
        OnnxError: the model can't be exported.
        ImageIndexError: another process writes to the index.
        OSError: the disk is full, or the like.
    """
    place = folder_of(uri)
    if place is None:
        return None
    with exclusive_write(str(place)):
        before = _read(place)
        wanted = precision or (before.precision if before is not None else "float32")
        if wanted == "none":
            if before is None or before.precision != wanted:
                write_record(place / RECORD, KeptTextEncoder(precision=wanted))
            _remove_others(place, "")
            return None
        model = _known_model(encoder)
        if model is None or not _are_there(WRITING):
            return None
        if before is not None and before.precision == wanted and before.is_of(encoder) and _is_whole(place, before):
            kept = before
        else:
            kept = _exported(place, encoder, wanted)
        kept = kept.with_model(model)
        if kept != before:
            write_record(place / RECORD, kept)
        _remove_others(place, kept.folder)
    return kept


def remember_model(uri: str, encoder: DualEncoder) -> None:
    """Adds a model that was loaded to those of which the text encoder beside an index is, if it has the same weights.

    A copy of the model, one that was moved or of which the record was written anew, is loaded once. What can't be
    written is left as it is.

    Args:
        uri: of the index.
        encoder: that was loaded to search it.
    """
    place = folder_of(uri)
    before = None if place is None else _read(place)
    if place is None or before is None or not before.folder or not before.is_of(encoder):
        return
    model = _known_model(encoder)
    if model is None:
        return
    if not before.models or before.models[-1] != model:
        try:
            with exclusive_write(str(place)):
                write_record(place / RECORD, before.with_model(model))
        except (InputError, OSError) as error:
            log.debug("%s: %s", uri, error)


def _exported(place: Path, encoder: DualEncoder, precision: str) -> KeptTextEncoder:
    from turkish_clip.onnx.export import export_loaded

    int8 = precision == "int8"
    name = f"{TEXT_ENCODER}-{encoder.text_weights_sha256[:HASH_LETTERS]}" + ("-int8" if int8 else "")
    written = export_loaded(encoder, place / name, int8=int8)
    return KeptTextEncoder(
        precision=precision,
        folder=name,
        text_weights_sha256=encoder.text_weights_sha256,
        image_weights_sha256=encoder.image_weights_sha256,
        bytes=written.bytes,
    )


def _known_model(encoder: DualEncoder) -> KnownModel | None:
    """Returns what is known of a loaded model; None if its folder was not there before, or had just been changed."""
    spec = encoder.spec
    folder, files = spec.folder, spec.files
    if not Path(spec.text).is_dir():  # on the Hub: the files of a commit do not change, but more of them are fetched
        cached = local_folder(spec.text, spec.revision)
        fetched = bool(spec.record and spec.record.weights_sha256 == encoder.text_weights_sha256)
        if cached is None or not (folder == absolute(str(cached)) or (not folder and fetched)):
            return None
        folder, files = absolute(str(cached)), files_of(cached)
    if not folder or files is None:
        return None
    kinds: list[str] = [caution.kind for caution in encoder.model_cautions]
    return KnownModel(folder=folder, image_model=absolute(spec.image), files=files, cautions=kinds)


def _read(place: Path) -> KeptTextEncoder | None:
    """Returns the record in an index; None if there is none, or it is damaged or of another format."""
    if not (place / RECORD).is_file():
        return None
    try:
        kept = read_record(KeptTextEncoder, place / RECORD, "index again")
    except InputError as error:
        log.debug("%s", error)
        return None
    return kept if not kept.folder or KEPT_TEXT_ENCODER.fullmatch(kept.folder) else None


def _opened(place: Path, kept: KeptTextEncoder, *, few_texts: bool = True) -> OnnxTextEncoder:
    """Opens the export in an index.

    Raises:
        OnnxError: it does not open, or is of other weights than the record.
    """
    encoder = OnnxTextEncoder(place / kept.folder, for_few_texts=few_texts)
    if encoder.weights_sha256 != kept.text_weights_sha256:
        raise OnnxError(f"expected the weights that {RECORD} names in {encoder.folder}, got others")
    return encoder


def _is_whole(place: Path, kept: KeptTextEncoder) -> bool:
    """Returns whether the export is there in its size, and opens."""
    folder = place / kept.folder
    if not folder.is_dir() or sum(path.stat().st_size for path in folder.iterdir()) != kept.bytes:
        return False
    try:
        _opened(place, kept)
    except OnnxError:
        return False
    return True


def _remove_others(place: Path, name: str) -> None:
    """Removes the exports in an index but the one of a name."""
    for path in place.iterdir():
        if KEPT_TEXT_ENCODER.fullmatch(path.name) and path.name != name and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _are_there(libraries: Iterable[str]) -> bool:
    return all(find_spec(library) is not None for library in libraries)
