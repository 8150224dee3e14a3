"""The subcommand that looks where in an image something is, and what other subcommands do with --regions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turkish_clip.cli import output
from turkish_clip.cli.arguments import Device, ImageModel, Json, Model, classifier_of, drawing_of, load
from turkish_clip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.folders import LeftOut
    from turkish_clip.images import ImageError
    from turkish_clip.regions import Box, FoundThing, Region
    from turkish_clip.search.composition import Part
    from turkish_clip.search.index import Hit


def locate(
    image: Annotated[Path, typer.Argument(help="image file")],
    query: Annotated[list[str], typer.Argument(help="Turkish words for what to look for in it")],
    k: Annotated[int, typer.Option("-k", min=1, help="most regions to list, the best first")] = 1,
    drawn: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="file for the image with the regions drawn over it, named .png or .html",
            callback=drawing_of,
        ),
    ] = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Look where in an image something is: the regions that fit Turkish words best, in pixels."""
    from turkish_clip.images import open_image

    text = " ".join(query)
    if not text.strip():
        raise InputError("expected words to look for, got an empty text; write what the image shows")
    opened = open_image(image)  # before the models are loaded
    encoder = load(model, image_model, device)
    from turkish_clip.regions import shows, windows_of

    windows = windows_of(encoder, opened)
    vector = encoder.encode_texts([text])[0]
    regions = windows.best(vector, k)
    output.show_regions(image, text, regions, shows(windows, vector, encoder.bank), json)
    if drawn is not None:
        from turkish_clip.boxes import write_boxes

        boxes = [(region.box, f"{text} {region.score:.3f}") for region in regions]
        output.note(f"drawn: {write_boxes(drawn, opened, boxes, f'{text} – {image.name}')}")


def regions_of_hits(
    encoder: DualEncoder, wanted: Sequence[Part], hits: Sequence[Hit], *, quiet: bool
) -> dict[str, list[tuple[Region, str]]]:
    """Returns where in each image that a search found its texts are; nothing of an image that does not open.

    Args:
        encoder: of the index.
        wanted: the texts.
        hits: in order.
        quiet: show no progress.
    """
    from turkish_clip.clips import still
    from turkish_clip.folders import is_there
    from turkish_clip.images import ImageError
    from turkish_clip.regions import windows_of

    texts = [str(part.value) for part in wanted]
    vectors = encoder.encode_texts(texts, warn=False)  # the search has warned
    found: dict[str, list[tuple[Region, str]]] = {}
    unopened: list[tuple[str, str]] = []
    with output.progress("looking", quiet=quiet) as advance:
        for number, hit in enumerate(hits, 1):
            path = next((path for path in (hit.path, *hit.also_at) if is_there(path)), hit.path)
            try:
                windows = windows_of(encoder, still(path, hit.second))
            except ImageError as error:
                unopened.append((hit.path, error.reason))
                continue
            found[hit.path] = [(windows.best(vector)[0], text) for vector, text in zip(vectors, texts)]
            advance(number, len(hits))
    output.show_skipped(unopened)
    return found


def boxes_of_hits(
    regions: Mapping[str, Sequence[tuple[Region, str]]] | None,
) -> dict[str, list[tuple[Box, str]]] | None:
    """Returns the boxes of `regions_of_hits` for a sheet: with the texts, if there are several."""
    if regions is None:
        return None
    return {path: [(region.box, text if len(of) > 1 else "") for region, text in of] for path, of in regions.items()}


def find_things(
    paths: Sequence[Path],
    labels: str,
    templates: list[str],
    reject_below: float | None,
    encoder: Callable[[], DualEncoder],
    skipped: list[tuple[str, str]],
    left_out: LeftOut,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Finds the things of several labels in images, prints them, draws them in a sheet, and ends the command.

    Args:
        paths: the images.
        labels: as in `classifier_of`.
        templates: as in `classifier_of`.
        reject_below: as in `classifier_of`.
        encoder: loads the models.
        skipped: path and reason of files that are not looked at.
        left_out: of the folders.
        sheet: file of a contact sheet, or None.
        as_json: print one JSON object instead of text.

    Raises:
        LabelError: as in `classifier_of`.
        RegionError: the model has no text bank, and there is no `reject_below`.
    """
    from turkish_clip.images import ImageError
    from turkish_clip.regions import ThingFinder
    from turkish_clip.zero_shot import ZeroShotClassifier

    classifier = classifier_of(labels, None, templates, reject_below, encoder)
    if not isinstance(classifier, ZeroShotClassifier):
        raise InputError("expected labels with --regions, got examples; name --labels")
    finder = ThingFinder(classifier)
    found: list[Sequence[FoundThing] | ImageError] = []
    with output.progress("looking", quiet=as_json) as advance:
        for path in paths:
            try:
                found.append(finder.find(path))
            except ImageError as error:
                found.append(error)
            advance(len(found), len(paths))
    output.show_things(paths, found, skipped, classifier.encoder.temperature_info, as_json, left_out)
    of = {str(path): things for path, things in zip(paths, found) if not isinstance(things, ImageError)}
    tiles = [(path, f"{', '.join(thing.label for thing in of[path]) or '–'}  {Path(path).name}") for path in of]
    boxes = {
        path: [(thing.box, f"{thing.label} {thing.probability:.2f}") for thing in things] for path, things in of.items()
    }
    output.write_sheet(sheet, tiles, output.title_of_labels([], classifier.labels), boxes)
    raise typer.Exit(1 if skipped or len(of) < len(found) else 0)
