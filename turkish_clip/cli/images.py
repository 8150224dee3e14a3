"""The subcommands of turkish-clip that are about images: index, search, classify, compare, filter, app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from turkish_clip.cli import output
from turkish_clip.cli.arguments import (
    At,
    Device,
    ImageModel,
    Images,
    Json,
    Model,
    Sheet,
    Workers,
    classifier_of,
    files_of,
    has_index,
    lines_of,
    load,
    open_index,
)
from turkish_clip.errors import InputError


def index(
    folder: Annotated[Path, typer.Argument(help="the images, subfolders included")],
    at: At = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="take out the images of indexed folders that are not there any more")
    ] = False,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    workers: Workers = 2,
    json: Json = False,
) -> None:
    """Make or update an index of an image folder: what is new, changed or gone since the last time."""
    if not folder.is_dir():
        raise InputError(f"expected a folder of images, got {folder}, which is none; check the path")
    images = open_index(folder, at, model, image_model, device)
    with output.progress("indexing", quiet=json) as advance:
        added = images.add(folder, workers=workers, prune=prune, progress=advance)
    output.show_added(added, images.uri, json)
    _leave(bool(added.skipped) or not added.images)


def search(
    folder: Annotated[str, typer.Argument(help="the indexed folder, or the index itself: a folder or s3://…")],
    query: Annotated[str | None, typer.Argument(help="what to look for, in Turkish")] = None,
    image: Annotated[Path | None, typer.Option(help="look for images like this one instead")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="how many to find")] = 10,
    where: Annotated[
        str | None,
        typer.Option(help="a condition in SQL over path, bytes, modified: \"modified > timestamp '2026-01-31'\""),
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="a Ray cluster that searches: auto, local")] = None,
    at: At = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Find the images of an index that fit words, or that look like an image, best."""
    if (query is None or not query.strip()) == (image is None):
        got = "both" if image is not None else "none"
        raise InputError(f"expected words or --image, got {got}; write: turkish-clip search FOLDER 'kar'")
    images = open_index(folder, at, model, image_model, device, must_exist=True, cluster=cluster)
    hits = images.search(image or query, k, where=where)  # type: ignore[arg-type]
    asked = query if image is None else f"like {image.name}"
    output.show_hits(hits, str(image or query), json)
    output.write_sheet(sheet, output.tiles_of_hits(hits), str(asked))


def classify(
    images: Images,
    labels: Annotated[str | None, typer.Option(help="labels with commas between; synonyms: araba|otomobil")] = None,
    examples: Annotated[Path | None, typer.Option(help="a folder with a subfolder of images per label")] = None,
    reject_below: Annotated[
        float | None, typer.Option(min=-1, max=1, help="below this cosine an image is none of them")
    ] = None,
    template: Annotated[list[str] | None, typer.Option(help="with one {} for the label; may be repeated")] = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    workers: Workers = 2,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Say which label each image fits, with probabilities; by the labels' words, or by examples."""
    if (labels is None) == (examples is None):
        got = "none" if labels is None else "both"
        raise InputError(f"expected --labels or --examples, got {got}; write: --labels kedi,köpek")
    if examples is not None and reject_below is not None:
        raise InputError("expected --reject-below with --labels, got it with --examples, whose scores are no cosines")
    paths, skipped = files_of(images)
    classifier = classifier_of(labels, examples, template or [], reject_below, lambda: load(model, image_model, device))
    left_out = [(skipped_file.path, skipped_file.reason) for skipped_file in skipped]
    left_out += [(error.name, error.reason) for error in classifier.left_out]
    temperature = classifier.encoder.temperature_info if examples is None else {}
    if not json and temperature.get("temperature_is_fitted") is False:
        output.say(f"probabilities with the default temperature {temperature['temperature']}: none was fitted")
    with output.progress("classifying", quiet=json) as advance:
        found = []
        for result in classifier.classify_each(paths, workers=workers):
            found.append(result)
            advance(len(found), len(paths))
    output.show_classes(paths, found, left_out, temperature, json)
    tiles = [
        (str(path), f"{r.label or '–'} {r.probability:.2f}  {path.name}")
        for path, r in zip(paths, found)
        if r.error is None
    ]
    output.write_sheet(sheet, tiles, labels or str(examples))
    _leave(bool(left_out) or any(result.error is not None for result in found))


def compare(
    images: Images,
    text: Annotated[list[str] | None, typer.Option("--text", "-t", help="a Turkish text; may be repeated")] = None,
    texts: Annotated[Path | None, typer.Option(help="a file of Turkish texts, one a line")] = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Score images against texts: a table of cosines, the best image for each text; of many, the best texts."""
    from turkish_clip.dual_encoder import map_in_order
    from turkish_clip.images import ImageError

    words = [*(text or []), *(lines_of(texts) if texts is not None else [])]
    if not words or not all(word.strip() for word in words):
        got = "an empty one" if words else "none"
        raise InputError(f"expected texts to compare with, got {got}; add -t 'karda bir ev' or --texts FILE")
    paths, skipped = files_of(images)
    encoder = load(model, image_model, device)
    vectors_of_texts = encoder.encode_texts(words)
    found = list(
        map_in_order(
            encoder.embed_images(paths), lambda vectors: list(vectors @ vectors_of_texts.T), lambda error: error
        )
    )
    errors = {str(path): row.reason for path, row in zip(paths, found) if isinstance(row, ImageError)}
    errors |= {skipped_file.path: skipped_file.reason for skipped_file in skipped}
    scores = {str(path): row.tolist() for path, row in zip(paths, found) if not isinstance(row, ImageError)}
    output.show_scores(scores, words, errors, json)
    output.write_sheet(sheet, *output.tiles_of_scores(scores, words))
    _leave(bool(errors))


def filter_images(
    folder: Annotated[str, typer.Argument(help="images to look through, or an indexed folder, or an index")],
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="what is looked for; may be repeated")],
    contrast: Annotated[list[str] | None, typer.Option(help="what stands against it; may be repeated")] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="flag from this score on")] = 0.5,
    csv: Annotated[bool, typer.Option("--csv", help="print the flagged images as CSV")] = False,
    at: At = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    workers: Workers = 2,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Flag images that show something, wanted or not. Nothing is moved or deleted; it can miss some, so look."""
    from turkish_clip.filtering import CONTRAST, ImageFilter, flagged_first
    from turkish_clip.search.files import SkippedFile

    if csv and json:
        raise InputError("expected --csv or --json, got both; leave one out")
    images = None
    skipped: list[SkippedFile] = []
    if at is not None or has_index(folder):
        images = open_index(folder, at, model, image_model, device, must_exist=True)
    elif not Path(folder).exists():
        raise InputError(f"expected images or an index, got {folder}, which is not there; check the path")
    encoder = images.encoder if images is not None else load(model, image_model, device)
    looking = ImageFilter(encoder, prompt, contrast=contrast or CONTRAST, threshold=threshold)
    if images is not None:
        names, vectors = images.vectors()
        paths, flags, skipped = [Path(name) for name in names], looking.flag_vectors(vectors), images.skipped()
        output.say(f"{len(paths)} images as they were indexed; turkish-clip index {folder} takes in what is new")
    else:
        paths, skipped = files_of([Path(folder)])
        flags = []
        with output.progress("looking", quiet=json or csv) as advance:
            for flag in looking.flag(paths, workers=workers):
                flags.append(flag)
                advance(len(flags), len(paths))
    output.show_flags(paths, flags, skipped, json, csv)
    tiles = [(str(path), f"{flag.score:.2f}  {path.name}") for path, flag in flagged_first(paths, flags)]
    output.write_sheet(sheet, tiles, ", ".join(prompt))
    _leave(bool(skipped) or any(flag.error is not None for flag in flags))


def web_page(
    folder: Annotated[str | None, typer.Argument(help="an indexed folder to search; without it, no search")] = None,
    host: Annotated[
        str, typer.Option(help="127.0.0.1: this machine alone; 0.0.0.0: everyone who reaches it")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    at: At = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
) -> None:
    """Open the web page (in Turkish): search, classify, compare."""
    from turkish_clip.app import build_page, serve

    if folder is not None or at is not None:
        images = open_index(folder or ".", at, model, image_model, device, must_exist=True)
        encoder = images.encoder
    else:
        images, encoder = None, load(model, image_model, device)
    serve(build_page(encoder, images), host=host, port=port)


def _leave(imperfect: bool) -> None:
    raise typer.Exit(1 if imperfect else 0)
