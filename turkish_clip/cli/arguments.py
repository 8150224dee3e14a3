"""The options that subcommands share, and what they name: models, indexes and images, opened when called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turkish_clip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.search.files import SkippedFile
    from turkish_clip.search.index import ImageIndex
    from turkish_clip.zero_shot import ImageClassifier

INDEX_FOLDER = ".turkish-clip"  # of an image folder's index, inside it


def load(
    model: str | None,
    image_model: str | None,
    device: str | None,
    *,
    revision: str | None = None,
    image_revision: str | None = None,
) -> DualEncoder:
    """The models, with the host's bars and warnings off."""
    from turkish_clip.dual_encoder import load_dual_encoder
    from turkish_clip.resolve import check_reachable, resolve_models
    from turkish_clip.verify import quiet

    # What is said here is said before the host is imported, which takes seconds.
    if model is None:
        resolve_models(None, image_model)
    else:
        check_reachable(model, revision)
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
) -> ImageIndex:
    """A folder's index; where no model is named, with the models that it was made with."""
    from turkish_clip.search.index import ImageIndex
    from turkish_clip.search.storage import ImageIndexError, is_uri

    uri = at or _index_of(str(folder))
    metadata = ImageIndex.open(uri).metadata if is_uri(uri) or Path(uri).is_dir() else {}
    if must_exist and not metadata:
        raise ImageIndexError(f"expected an index in {uri}, got none; make one: turkish-clip index {folder}")
    revision = image_revision = None
    if model is None and metadata:
        model, revision = metadata["model"], metadata["revision"]
        if image_model is None:
            image_model, image_revision = metadata["image_model"] or None, metadata["image_revision"]
    workers = None
    if cluster is not None:
        from turkish_clip.cluster import SearchCluster

        workers = SearchCluster(cluster)
    encoder = load(model, image_model, device, revision=revision, image_revision=image_revision)
    return ImageIndex.open(uri, encoder, cluster=workers)


def _index_of(folder: str) -> str:
    """Where the index of an image folder is; an index stands for itself."""
    from turkish_clip.search.storage import is_uri

    images = not is_uri(folder) and Path(folder).is_dir() and not (Path(folder) / "images.lance").is_dir()
    return str(Path(folder) / INDEX_FOLDER) if images else folder


def has_index(folder: str) -> bool:
    """Whether a folder was indexed, or is an index itself, or the address of one."""
    from turkish_clip.search.storage import is_uri

    uri = _index_of(folder)
    return is_uri(uri) or (Path(uri) / "images.lance").is_dir()


def classifier_of(
    labels: str | None,
    examples: Path | None,
    templates: list[str],
    reject_below: float | None,
    encoder: Callable[[], DualEncoder],
) -> ImageClassifier:
    """A classifier by labels or by examples; what is wrong with these is said before the models are loaded."""
    from turkish_clip.few_shot import FewShotClassifier, examples_in
    from turkish_clip.templates import PHOTOGRAPHS
    from turkish_clip.zero_shot import ZeroShotClassifier, parse_labels, prompts_of

    used = templates or PHOTOGRAPHS
    if examples is not None:
        shown = examples_in(examples)
        prompts_of(list(shown), used)
        return FewShotClassifier.fit(encoder(), shown, templates=used)
    words = parse_labels(labels or "")
    prompts_of(words, used)
    return ZeroShotClassifier(encoder(), words, templates=used, reject_below=reject_below)


def files_of(images: list[Path]) -> tuple[list[Path], list[SkippedFile]]:
    """The images themselves, and those in folders; and what of the folders is not to be read."""
    from turkish_clip.search.files import CollectionError, scan

    found: list[Path] = []
    skipped: list[SkippedFile] = []
    for path in images:
        if path.is_dir():
            scanned = scan(path, {})
            found += [Path(file.path) for file in scanned.pending]
            skipped += scanned.skipped
        else:
            found.append(path)
    if not found:
        raise CollectionError(f"expected images in {', '.join(map(str, images))}, got none; name files or a folder")
    return found, skipped


def lines_of(file: Path) -> list[str]:
    """The texts in a file, one a line.

    Raises:
        InputError: no such file, or not of UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"expected a file of texts in UTF-8, one a line, got {file}: {error}; check it") from error
    return [line.strip() for line in lines if line.strip()]


def _sheet_of(sheet: Path | None) -> Path | None:
    """A sheet's name, looked at before the work that fills it."""
    if sheet is not None:
        from turkish_clip.sheet import check_name

        check_name(sheet)
    return sheet


Model = Annotated[
    str | None,
    typer.Option(help="a pair, a text encoder or a training run: Hub id or folder", envvar="TURKISH_CLIP_MODEL"),
]
ImageModel = Annotated[
    str | None,
    typer.Option(help="the text encoder's image model; else the one that it names", envvar="TURKISH_CLIP_IMAGE_MODEL"),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; else chosen by itself")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]
Sheet = Annotated[Path | None, typer.Option(help="a contact sheet to write: out.png or out.html", callback=_sheet_of)]
At = Annotated[str | None, typer.Option(help=f"the index's place or URI; else FOLDER/{INDEX_FOLDER}")]
Workers = Annotated[int, typer.Option(min=1, help="threads that read and decode images")]
Images = Annotated[list[Path], typer.Argument(help="images, or folders of images")]
