"""The subcommands of turkish-clip for models: info, verify, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from turkish_clip.cli import output
from turkish_clip.cli.arguments import MODEL_HELP, Device, ImageModel, Json, Model, Revision, load
from turkish_clip.resolve import MODEL_VARIABLE


def info(model: Model = None, image_model: ImageModel = None, device: Device = None, json: Json = False) -> None:
    """Print which models are used, and their properties."""
    encoder = load(model, image_model, device)
    from turkish_clip.encoder import max_tokens_of

    output.show_metadata(
        {
            "text_encoder": encoder.spec.text,
            "image_model": encoder.image_name,
            "image_weights_sha256": encoder.image_weights_sha256,
            "dim": encoder.dim,
            "max_tokens": max_tokens_of(encoder.text),
            **encoder.temperature_info,
            "device": str(encoder.text.device),
        },
        json,
    )


def verify(
    model: Annotated[str, typer.Argument(help="published model: a Hub id (owner/name) or a folder")],
    image_model: ImageModel = None,
    revision: Revision = None,
    image_revision: Annotated[
        str | None,
        typer.Option(help="branch, tag or commit of the image model on the Hub", show_default="the recorded commit"),
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Load a published model, and check its golden vectors, its image model and the versions of libraries."""
    from turkish_clip import verify as verification
    from turkish_clip.hosts import import_hosts

    if Path(model).is_dir():  # else it may be nowhere, which is told without the libraries
        import_hosts()
    verification.quiet()
    checks = verification.verify(
        model, image_model=image_model, revision=revision, image_revision=image_revision, device=device
    )
    output.show_checks(model, checks, json)
    raise typer.Exit(0 if all(check.passed for check in checks) else 1)


def export(
    model: Annotated[
        str | None,
        typer.Argument(help=MODEL_HELP, envvar=MODEL_VARIABLE),
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="write an ONNX graph, which runs without torch; to be given")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="store weights in 8 bits: smaller and faster, with slightly other vectors")
    ] = False,
    output_folder: Annotated[
        Path | None,
        typer.Option("--output", help="folder to write", show_default="NAME-onnx[-int8], beside a folder NAME"),
    ] = None,
    image_model: ImageModel = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Write a text encoder for other programs: a graph from token ids to unit vectors, and its tokenizer."""
    from turkish_clip.hosts import import_hosts

    import_hosts()
    from turkish_clip.onnx.export import export_onnx
    from turkish_clip.verify import quiet

    quiet()
    written = export_onnx(model, output_folder, int8=int8, image_model=image_model, revision=revision)
    output.show_export(written, json)
