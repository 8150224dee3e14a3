"""The subcommand draw: an image from words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from turkish_clip.app.drawing import check_alone
from turkish_clip.cli import output
from turkish_clip.cli.arguments import Decoder, Device, Generator, ImageModel, Json, Model, load
from turkish_clip.errors import InputError
from turkish_clip.terminal import INTERRUPTED

SIZE = re.compile(r"(\d{1,5})(?:[x×](\d{1,5}))?")


def draw(
    prompt: Annotated[list[str], typer.Argument(help="what the image is to show, in Turkish; several are mixed")],
    target: Annotated[Path, typer.Option("--output", "-o", help="file for the image, named .png")],
    weight: Annotated[
        list[float] | None,
        typer.Option(help="weight of each prompt, in their order; given once for each", show_default="all alike"),
    ] = None,
    avoid: Annotated[
        list[str] | None, typer.Option("--not", help="what the image is not to show; may be repeated")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="image to begin with, which is resized", show_default="grey")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="width and height in pixels, such as 224 or 320x240", show_default="what the image model reads"
        ),
    ] = None,
    generator: Generator = None,
    decoder: Decoder = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100_000,
            help="steps of the optimisation, or of a pipeline's scheduler; 0: a small decoder's first image",
            show_default="200; 60 after a small decoder",
        ),
    ] = None,
    crops: Annotated[
        int, typer.Option(min=1, max=1024, help="crops of the image that the image model sees in a step")
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same image on the same machine")] = 0,
    gif: Annotated[
        Path | None, typer.Option(help="file for an animation of the way, named .gif", show_default="none")
    ] = None,
    strip: Annotated[
        Path | None, typer.Option(help="file for images of the way side by side, named .png", show_default="none")
    ] = None,
    every: Annotated[
        int,
        typer.Option(
            min=0, help="steps between two images of the way", show_default="a twelfth of the steps with --gif, --strip"
        ),
    ] = 0,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Draw an image from Turkish words: optimised until the image model says that it shows them, or decoded."""
    from turkish_clip.generate.files import check_targets, write_drawing, write_way
    from turkish_clip.generate.optimise import checked_size
    from turkish_clip.generate.prompts import checked_weights

    pixels = _size_of(size)
    if pixels is not None:
        checked_size(pixels)
    checked_weights(prompt, weight or (), avoid or ())
    check_targets(target, gif, strip)  # before the work
    if decoder is not None:
        check_alone({"--generator": generator, "--start": start, "--size": size})
    beginning = None
    if start is not None:
        from turkish_clip.images import open_image

        beginning = open_image(start)
    encoder = load(model, image_model, device)
    from turkish_clip.generate import wishes_of

    wishes = wishes_of(encoder, prompt, weight or (), avoid or ())

    def frames_every(steps: int) -> int:
        return (every or max(1, steps // 12)) if gif or strip else 0

    if decoder is not None:
        from turkish_clip.generate import draw_decoded, load_decoder
        from turkish_clip.generate.decoder import DECODED_STEPS

        weights = encoder.image_weights_sha256
        loaded = load_decoder(decoder, device=device, steps=steps or None, image_weights_sha256=weights)
        steps = DECODED_STEPS if steps is None else steps
        with output.progress("drawing", quiet=json) as advance:
            drawing = draw_decoded(
                encoder, wishes, loaded, steps=steps, seed=seed, every=frames_every(steps), progress=advance
            )
    else:
        from turkish_clip.generate import DrawingOptions, canvas_on, load_autoencoder
        from turkish_clip.generate import draw as draw_image

        steps = steps or DrawingOptions.steps
        options = DrawingOptions(steps=steps, crops=crops, seed=seed, every=frames_every(steps))
        canvas = None
        if generator is not None:
            canvas = canvas_on(load_autoencoder(generator, device=device), seed, size=pixels, start=beginning)
            pixels = beginning = None
        with output.progress("drawing", quiet=json) as advance:
            drawing = draw_image(
                encoder, wishes, options, size=pixels, start=beginning, canvas=canvas, progress=advance
            )
    write_drawing(drawing, target)
    write_way(drawing, gif, strip)
    output.show_drawing(drawing, target, json)
    if drawing.stopped:
        raise typer.Exit(INTERRUPTED if drawing.stopped == "interrupted" else 1)


def _size_of(size: str | None) -> tuple[int, int] | None:
    """Returns the height and width that an option names."""
    if size is None:
        return None
    match = SIZE.fullmatch(size.strip().lower())
    if match is None:
        raise InputError(f"expected a size such as 224 or 320x240, got {size!r}; write width x height in pixels")
    width = int(match[1])
    return int(match[2] or width), width
