"""The subcommands of turkish-clip for models: info, verify, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    format: Annotated[
        Literal["onnx", "immich", "fastembed", "transformers"] | None,
        typer.Option(help="who reads it: onnxruntime, immich's cache folder, fastembed, or transformers' own classes"),
    ] = None,
    side: Annotated[
        Literal["text", "image", "both"] | None,
        typer.Option(
            help="which encoder to write",
            show_default="both for immich and transformers, else text",
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="store weights in 8 bits: smaller and faster, with slightly other vectors")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(help="for immich: the name of its model that this one takes the place of", show_default="fitting"),
    ] = None,
    output_folder: Annotated[
        Path | None,
        typer.Option("--output", help="folder to write", show_default="NAME-FORMAT[-int8], beside a folder NAME"),
    ] = None,
    image_model: ImageModel = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Write a model for other programs: as ONNX graphs, or as immich, fastembed or transformers read it."""
    from turkish_clip.hosts import import_hosts

    import_hosts()
    from turkish_clip.verify import quiet

    quiet()
    if format is None or format == "onnx":
        from turkish_clip.exports.folder import ExportError
        from turkish_clip.onnx.export import export_onnx

        if name:
            raise ExportError("expected --name for immich alone, got it for onnx; leave it out")
        onnx = export_onnx(
            model, output_folder, side=side or "text", int8=int8, image_model=image_model, revision=revision
        )
        output.show_export(onnx, json)
        return
    from turkish_clip.exports.export import export_for

    written = export_for(
        format,
        model,
        output_folder,
        side=side,
        int8=int8,
        name=name or "",
        image_model=image_model,
        revision=revision,
    )
    output.show_exported_folder(written, json)
