"""The subcommands of turkish-clip that are about models: info, verify, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from turkish_clip.cli import output
from turkish_clip.cli.arguments import Device, ImageModel, Json, Model, load
from turkish_clip.errors import InputError


def info(model: Model = None, image_model: ImageModel = None, device: Device = None, json: Json = False) -> None:
    """Say which models are used, and what is known of them."""
    encoder = load(model, image_model, device)
    output.show_metadata(
        {
            "text": encoder.spec.text,
            "images": encoder.image_name,
            "image_weights_sha256": encoder.image_weights_sha256,
            "dim": encoder.dim,
            "max_tokens": encoder.text.max_seq_length,
            **encoder.temperature_info,
            "device": str(encoder.text.device),
        },
        json,
    )


def verify(
    model: Annotated[str, typer.Argument(help="Hub id (owner/name) or folder of a published model")],
    image_model: ImageModel = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the model")] = None,
    image_revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the image model")] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Load a published model, and check its golden vectors, its pairing and the versions."""
    from turkish_clip import verify as room

    room.quiet()
    checks = room.verify(
        model, image_model=image_model, revision=revision, image_revision=image_revision, device=device
    )
    output.show_checks(model, checks, json)
    raise typer.Exit(0 if all(check.passed for check in checks) else 1)


def export(
    model: Annotated[
        str | None, typer.Argument(help="a text encoder, a pair or a training run", envvar="TURKISH_CLIP_MODEL")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="as an ONNX graph, which runs without torch")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="in 8 bits: smaller and faster, vectors slightly off")] = False,
    output_folder: Annotated[
        Path | None, typer.Option("--output", help="the folder to write; else NAME-onnx, beside a folder's NAME")
    ] = None,
    image_model: ImageModel = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the model")] = None,
    json: Json = False,
) -> None:
    """Write a text encoder for other programs: one graph from token ids to unit vectors, and its tokenizer."""
    if not onnx:
        raise InputError("expected a format, got none; write: turkish-clip export MODEL --onnx")
    if model is None:
        raise InputError("expected a model, got none; write: turkish-clip export FOLDER_OR_ID --onnx")
    from turkish_clip import verify as room
    from turkish_clip.onnx.export import export_onnx

    room.quiet()
    written = export_onnx(model, output_folder, int8=int8, image_model=image_model, revision=revision)
    output.show_export(written, json)
