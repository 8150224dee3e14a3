"""The options that several subcommands have, and functions that open the models, indexes and images they name."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turkish_clip.errors import InputError, one_line
from turkish_clip.folders import INDEX_FOLDER
from turkish_clip.resolve import IMAGE_MODEL_VARIABLE, MODEL_VARIABLE
from turkish_clip.text_files import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.folders import LeftOut
    from turkish_clip.metrics import Vectors
    from turkish_clip.search.dates import Taken
    from turkish_clip.search.files import SkippedFile
    from turkish_clip.search.index import ImageIndex
    from turkish_clip.search.tables import IndexMetadata
    from turkish_clip.search.text_encoder import KeptTextEncoder, Precision
    from turkish_clip.text_side import TextSide
    from turkish_clip.zero_shot import ImageClassifier

log = logging.getLogger("turkish_clip")
MODEL_HELP = "text encoder, image-text pair or training run: a Hub id or a folder"


def load(
    model: str | None,
    image_model: str | None,
    device: str | None,
    *,
    revision: str | None = None,
    image_revision: str | None = None,
) -> DualEncoder:
    """Loads the models, with the progress bars and warnings of the libraries off.

    Args:
        model: Hub id or folder of a text encoder, an image-text pair or a training run; None takes TURKISH_CLIP_MODEL.
        image_model: Hub id or folder; None takes TURKISH_CLIP_IMAGE_MODEL, then the one that the model names.
        device: a torch device; None takes the best that there is.
        revision: branch, tag or commit of the model on the Hub.
        image_revision: branch, tag or commit of the image model.

    Raises:
        NoModelError: no model is named anywhere.
        UnreachableError: one is no folder, and the Hub does not answer.
        ModelError: one can't be loaded, they do not fit together, or this machine has no such device.
    """
    from turkish_clip.dual_encoder import load_dual_encoder
    from turkish_clip.hosts import import_hosts
    from turkish_clip.resolve import check_reachable, resolve_models
    from turkish_clip.verify import quiet

    # These checks come first: importing sentence-transformers takes seconds.
    if model is None:
        resolve_models(None, image_model)
    else:
        check_reachable(model, revision)
    import_hosts()
    quiet()
    return load_dual_encoder(model, image_model, revision=revision, image_revision=image_revision, device=device)


def open_index(
    folder: Path | str,
    at: str | None,
    model: str | None,
    image_model: str | None,
    device: str | None,
    *,
    must_exist: bool = False,
    cluster: str | None = None,
    words_only: bool = False,
) -> ImageIndex:
    """Opens the index of a folder; without a named model, with the models that the index was made with.

    Args:
        folder: the images, or the index itself: a folder or a URI.
        at: folder or URI of the index; None takes `INDEX_FOLDER` inside the folder.
        model: as in `load`, and likewise image_model and device.
        image_model: None takes the index's, then as in `load`.
        device: a torch device; None takes the best that there is.
        must_exist: raise an error where there is no index yet.
        cluster: address of a Ray cluster that searches; None searches in this process.
        words_only: whether the text side of the models is enough, which an ONNX text encoder is.

    Raises:
        ImageIndexError: there is none although it must exist, LanceDB is missing, it is of another image model, or it
            names a model that is not on this machine and was not named.
        ClusterError: Ray is not installed, or no cluster answers at the address.
        InputError: as in `load`.
    """
    from turkish_clip.search.index import ImageIndex

    uri, unloaded = _unloaded(folder, at)
    metadata = unloaded.metadata if unloaded is not None else None
    if must_exist and metadata is None:
        raise _no_index(folder, at, uri)
    revision = image_revision = None
    if model is None and metadata is not None:
        model, revision = metadata.model, metadata.revision
        if image_model is None:
            image_model, image_revision = metadata.image_model or None, metadata.image_revision
            _check_here(uri, "--image-model", image_model, image_revision)
        _check_here(uri, "--model", model, revision)
    workers = None
    if cluster is not None:
        from turkish_clip.cluster import SearchCluster

        workers = SearchCluster(cluster)
    if words_only and unloaded is not None and metadata is not None and device in (None, "cpu"):
        words = _text_side_of(uri, metadata, model, image_model, revision, image_revision)
        if words is not None:
            return unloaded.opened_with(words) if workers is None else ImageIndex.open(uri, words, cluster=workers)
    encoder = load(model, image_model, device, revision=revision, image_revision=image_revision)
    return ImageIndex.open(uri, encoder, cluster=workers)


def open_without_models(folder: str, at: str | None) -> ImageIndex:
    """Opens an index for what needs its vectors alone.

    Args:
        folder: the images, or the index itself: a folder or a URI.
        at: folder or URI of the index; None takes `INDEX_FOLDER` inside the folder.

    Raises:
        ImageIndexError: there is none, LanceDB is missing, or it is of another format.
    """
    uri, index = _unloaded(folder, at)
    if index is None or index.metadata is None:
        raise _no_index(folder, at, uri)
    return index


def _unloaded(folder: Path | str, at: str | None) -> tuple[str, ImageIndex | None]:
    """Returns the place of an index, and the index without models; None where no folder is there."""
    from turkish_clip.search.index import ImageIndex
    from turkish_clip.search.storage import is_uri

    uri = at or _index_of(str(folder))
    return uri, ImageIndex.open(uri) if is_uri(uri) or Path(uri).is_dir() else None


def _no_index(folder: Path | str, at: str | None, uri: str) -> InputError:
    """Returns the error of a folder without an index."""
    from turkish_clip.search.storage import ImageIndexError, is_uri

    if at is None and not is_uri(uri) and not Path(folder).is_dir():
        what = "is a file" if Path(folder).is_file() else "is not there"
        return ImageIndexError(f"expected an indexed folder, got {folder}, which {what}; check the path")
    return ImageIndexError(f"expected an index in {uri}, got none; make one: {index_command(folder, at)}")


def known_images(
    paths: Sequence[Path], model: str | None, image_model: str | None, device: str | None, *, few_texts: bool
) -> tuple[TextSide, Vectors] | None:
    """Takes the vectors of images from the index of a folder above them, and what encodes words without the models.

    Args:
        paths: of the images.
        model: as in `load`, and likewise image_model and device.
        image_model: as in `load`.
        device: as in `load`.
        few_texts: as in `turkish_clip.search.text_encoder.kept_text_side`.

    Returns:
        The text side and the (n, dim) float32 unit vectors of the images; None if the models are to be loaded: there is
        no such index, it is of another image model, has one of the images not as it is now, or keeps no text encoder.

    Raises:
        OnnxError: a named ONNX export does not open.
        ImageIndexError: it is of another image model than the index.
    """
    from turkish_clip.search.storage import holds_index

    above = {} if model is None or device not in (None, "cpu") else dict.fromkeys(paths[0].absolute().parents)
    folder = next((path / INDEX_FOLDER for path in above if holds_index(path / INDEX_FOLDER)), None)
    if folder is None or find_spec("lancedb") is None:
        return None
    from turkish_clip.search.index import ImageIndex

    try:
        index = ImageIndex.open(folder)
        metadata, vectors = index.metadata, index.vectors_of(paths)
    except InputError as error:
        log.debug("%s", error)
        return None
    if metadata is None or vectors is None:
        return None
    words = _text_side_of(str(folder), metadata, model, image_model, None, None, few_texts=few_texts)
    return None if words is None else (words, vectors)


def _text_side_of(
    uri: str,
    metadata: IndexMetadata,
    model: str | None,
    image_model: str | None,
    revision: str | None,
    image_revision: str | None,
    *,
    few_texts: bool = True,
) -> TextSide | None:
    """Returns what encodes words without loading the models: a named ONNX export, or the one beside the index, if any.

    Raises:
        OnnxError: a named export does not open.
        ImageIndexError: it is of another image model.
    """
    from turkish_clip.onnx.runtime import is_export
    from turkish_clip.search.text_encoder import exported_text_side, kept_text_side

    if model is None:
        return None
    weights = metadata.weights_sha256
    if is_export(Path(model)):
        image_name = metadata.image_model or metadata.model
        return exported_text_side(Path(model), uri, weights, image_name, few_texts=few_texts)
    return kept_text_side(
        uri,
        weights,
        model,
        image_model,
        revision=revision,
        image_revision=image_revision,
        few_texts=few_texts,
    )


def _check_here(uri: str, option: str, model: str | None, revision: str | None) -> None:
    """Checks that a model that an index names is on this machine: whoever made the index could name any on the Hub.

    Raises:
        ImageIndexError: it would be fetched.
    """
    from turkish_clip.resolve import UnreachableError, is_on_this_machine
    from turkish_clip.search.storage import ImageIndexError

    try:
        here = not model or is_on_this_machine(model, revision)
    except UnreachableError as error:
        raise ImageIndexError(
            f"expected the model that the index in {uri} names, got {model}, which is no folder now; if it was moved, "
            f"name it with {option}"
        ) from error
    if not here:
        raise ImageIndexError(
            f"expected the model that the index in {uri} names on this machine, got {model}, which would be fetched "
            f"from the Hub; if that is the one, name it: {option} {model}"
        )


def keep_text_encoder(images: ImageIndex, precision: Precision | None) -> KeptTextEncoder | None:
    """Keeps the text encoder beside an index, as `turkish_clip.search.text_encoder` does; why it can't is a warning.

    Args:
        images: opened with the models.
        precision: "float32", "int8" or "none"; None takes what the index has.
    """
    from turkish_clip.search import text_encoder

    try:
        return text_encoder.keep_text_encoder(images.uri, images.encoder, precision)
    except (InputError, OSError) as error:
        log.warning("no text encoder is kept beside %s: %s", images.uri, one_line(error))
        return None


def remember_model(images: ImageIndex) -> None:
    """Remembers beside an index which models it was searched with, if they were loaded and those that it keeps."""
    from turkish_clip.onnx.text_side import OnnxTextSide

    if not isinstance(images.text_side, OnnxTextSide):
        from turkish_clip.search import text_encoder

        text_encoder.remember_model(images.uri, images.encoder)


def check_index_place(folder: Path, at: str | None) -> None:
    """Checks that the index of a folder can be written, before the models are loaded, which takes seconds.

    Args:
        folder: the images.
        at: folder or URI of the index; None takes `INDEX_FOLDER` inside the folder.

    Raises:
        ImageIndexError: it can't.
    """
    from turkish_clip.search.storage import check_place

    check_place((at or _index_of(str(folder))).removeprefix("file://"))


def _index_of(folder: str) -> str:
    """Returns the place of an image folder's index; of an index or a URI, itself."""
    from turkish_clip.search.storage import holds_index, is_uri

    images = not is_uri(folder) and Path(folder).is_dir() and not holds_index(folder)
    return str(Path(folder) / INDEX_FOLDER) if images else folder


def stale_advice(images: ImageIndex, folder: Path | str, at: str | None) -> str:
    """Returns what to do about indexed files that are not there now.

    Args:
        images: the index.
        folder: as in `index_command`.
        at: as in `index_command`.
    """
    imported = images.imported()
    if not imported:
        return f"{index_command(folder, at, images.folders())} removes what is gone"
    again = shlex.join(["turkish-clip", "index", images.uri, "--from", imported])
    return f"the index was made of {imported}; if they lie elsewhere here, make it again: {again} --prefix OLD=NEW"


def index_command(folder: Path | str, at: str | None, indexed: Sequence[str] = ()) -> str:
    """Returns the command, to be typed, that makes or updates the index that a command was given.

    Args:
        folder: the images, or the index itself.
        at: folder or URI of the index, as it was given.
        indexed: the folders that the index holds.
    """
    from turkish_clip.search.storage import holds_index, is_uri

    uri = str(folder)
    if is_uri(uri) or holds_index(uri) or not Path(uri).is_dir():  # the index itself, or no images
        uri, at = (indexed[0] if len(indexed) == 1 else ""), at or uri
    images = shlex.quote(uri) if uri else "FOLDER"
    return f"turkish-clip index {images}" + (f" --at {shlex.quote(at)}" if at is not None else "")


def has_index(folder: str) -> bool:
    """Returns whether a folder was indexed or is an index; any URI counts as one."""
    from turkish_clip.search.storage import holds_index, is_uri

    uri = _index_of(folder)
    return is_uri(uri) or holds_index(uri)


def images_folder(folder: str) -> Path | None:
    """Returns the folder of images that was named; None if an index was, or nothing that is there."""
    from turkish_clip.search.storage import holds_index, is_uri

    return None if is_uri(folder) or not Path(folder).is_dir() or holds_index(folder) else Path(folder)


def classifier_of(
    labels: str | None,
    examples: Path | None,
    templates: list[str],
    reject_below: float | None,
    encoder: Callable[[], TextSide],
) -> ImageClassifier:
    """Builds a classifier by labels or by examples, after checking them, since loading the models takes seconds.

    Args:
        labels: separated by commas, synonyms by |; None where there are examples.
        examples: a folder with a subfolder of images per label, or None.
        templates: each with one {} for the label; empty takes `PHOTOGRAPHS`.
        reject_below: cosine below which an image has none of the labels; None gives every image one.
        encoder: loads the models; for labels, their text side is enough.

    Raises:
        LabelError: fewer than two labels, a repeated one, or a template that does not fit.
        ExampleError: fewer than two subfolders, or one without an image that opens.
    """
    from turkish_clip.dual_encoder import with_image_side
    from turkish_clip.few_shot import FewShotClassifier, examples_in
    from turkish_clip.templates import PHOTOGRAPHS
    from turkish_clip.zero_shot import ZeroShotClassifier, parse_labels, prompts_of

    used = templates or PHOTOGRAPHS
    if examples is not None:
        images_of = examples_in(examples)
        prompts_of(list(images_of), used)
        both = with_image_side(encoder(), "learn from images")
        return FewShotClassifier.fit(both, images_of, templates=used)
    synonyms = parse_labels(labels or "")
    prompts_of(synonyms, used)
    return ZeroShotClassifier(encoder(), synonyms, templates=used, reject_below=reject_below)


def files_of(images: list[Path]) -> tuple[list[Path], list[SkippedFile], LeftOut]:
    """Returns the given files and the image files in the given folders, and what is skipped and left out in these.

    Raises:
        CollectionError: there is no image among them.
    """
    from turkish_clip.folders import LeftOut
    from turkish_clip.search.files import CollectionError, scan

    files: list[Path] = []
    skipped: list[SkippedFile] = []
    parts: list[LeftOut] = []
    for path in images:
        if path.is_dir():
            scanned = scan(path, {})
            files += [Path(file.path) for file in scanned.pending]
            skipped += scanned.skipped
            parts.append(scanned.left_out)
        else:
            files.append(path)
    left_out = LeftOut.sum(parts)
    words = [str(path) for path in images if not path.suffix and len(path.parts) == 1 and not path.exists()]
    if words:
        log.warning("no file %s is here; a text of several words, or with a space, stands in quotes", words[0])
    if not files:
        found = left_out.instead_of_images()
        got = f"none but {found}" if found else "none; name files or a folder"
        raise CollectionError(f"expected images in {', '.join(map(str, images))}, got {got}")
    return files, skipped, left_out


def taken_within(paths: Sequence[Path], taken: Taken) -> tuple[list[Path], int]:
    """Returns those of some files that were taken in a span of time, and how many have no date or do not open.

    Args:
        paths: of images.
        taken: the span.
    """
    from turkish_clip.images import ImageError, photo_of

    kept, undated = [], 0
    for path in paths:
        try:
            date = photo_of(path).taken
        except ImageError:  # nothing says that it is of that time
            undated += 1
            continue
        undated += date is None
        kept += [path] * taken.holds(date)
    return kept, undated


def lines_of(file: Path) -> list[str]:
    """Reads the texts of a file, one a line; empty lines are left out.

    Raises:
        InputError: the file can't be read, or is not in UTF-8.
    """
    try:
        lines = read_whole(file).splitlines()
    except (OSError, UnicodeError) as error:
        reason = one_line(error)
        raise InputError(f"expected a file of texts in UTF-8, one a line, got {file}: {reason}; check it") from error
    return [line.strip() for line in lines if line.strip()]


def sheet_of(sheet: Path | None) -> Path | None:
    """Returns the path of a contact sheet after checking its suffix, before the work that fills it."""
    if sheet is not None:
        from turkish_clip.sheet import check_name

        check_name(sheet)
    return sheet


def drawing_of(drawn: Path | None) -> Path | None:
    """Returns the path of a drawn image after checking its suffix, before the work that fills it."""
    if drawn is not None:
        from turkish_clip.ownership import DRAWING
        from turkish_clip.sheet import check_name

        check_name(drawn, DRAWING)
    return drawn


Model = Annotated[
    str | None,
    typer.Option(help=MODEL_HELP, envvar=MODEL_VARIABLE),
]
ImageModel = Annotated[
    str | None,
    typer.Option(
        help="image model of a text encoder: a Hub id or a folder",
        envvar=IMAGE_MODEL_VARIABLE,
        show_default="the one that the text encoder names",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="torch device that computes: cpu, cuda, cuda:1, mps", show_default="a GPU where there is one, else cpu"
    ),
]
Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of the model on the Hub")]
Generator = Annotated[
    str | None,
    typer.Option(
        help="VQ-autoencoder whose codes are optimised: folder or Hub id", show_default="none, but Fourier space"
    ),
]
Decoder = Annotated[
    str | None,
    typer.Option(
        help="decoder that makes the image of the words' vector at once: folder, or Hub id of an unCLIP pipeline",
        show_default="none",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
Sheet = Annotated[
    Path | None,
    typer.Option(help="file for a contact sheet of the images, named .png or .html", callback=sheet_of),
]
At = Annotated[
    str | None,
    typer.Option(help="place of the index: a folder or a URI (s3://…)", show_default=f"FOLDER/{INDEX_FOLDER}"),
]
After = Annotated[
    str | None,
    typer.Option(
        metavar="DATE",
        help="only photographs taken from the beginning of a year, month or day on: 2024, 2024-06 or 2024-06-15",
        show_default="any time",
    ),
]
Before = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="only photographs taken before a year, month or day", show_default="any time"),
]
Workers = Annotated[int, typer.Option(min=1, help="threads that read images, and decode them where processes do not")]
DecodeProcesses = Annotated[
    int,
    typer.Option(
        min=-1,
        max=256,
        help="processes that decode images",
        show_default="-1: on a GPU one fewer than there are cores, on the CPU none",
    ),
]
Images = Annotated[list[Path], typer.Argument(help="image files, or folders of images with their subfolders")]
