"""Exports a model in the form that a program reads: the one function behind `turkish-clip export --format`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from turkish_clip.dual_encoder import DualEncoder, load_dual_encoder
from turkish_clip.encoder import load_model
from turkish_clip.exports.folder import ExportedFolder, ExportError
from turkish_clip.onnx.export import check_libraries, default_folder
from turkish_clip.resolve import ModelError, resolve_models

SIDES = {"immich": ("both", "text", "image"), "fastembed": ("text",), "transformers": ("both",)}  # the first: usual


def export_for(
    program: str,
    model: str | Path | None = None,
    folder: str | Path | None = None,
    *,
    side: str | None = None,
    int8: bool = False,
    name: str = "",
    image_model: str | Path | None = None,
    revision: str | None = None,
) -> ExportedFolder:
    """Exports a dual encoder for a program, atomically.

    Args:
        program: "immich", "fastembed" or "transformers".
        model: Hub id or folder of a text encoder or a pair, or the folder of a training run; None takes
            TURKISH_CLIP_MODEL.
        folder: where to write; an older export of the same kind there is replaced. None takes `default_folder`.
        side: "text", "image" or "both"; None takes what the program reads.
        int8: store layers and embedding tables in 8 bits.
        name: for immich, the name of the model that it takes the place of; "" chooses one.
        image_model: Hub id or folder of the image model, where the model does not name it.
        revision: branch, tag or commit of the model on the Hub.

    Raises:
        ExportError: the program reads no such side or precision, or no such model, or the folder holds another export.
        OnnxError: a library is missing, or a graph can't be written or gives other vectors.
        ForeignFileError: the folder holds something else.
        ModelError: the model can't be loaded.
        NoModelError: no model is named.
        UnreachableError: the model is no folder, and the Hub does not answer.
    """
    side = side or SIDES[program][0]
    if side not in SIDES[program]:
        raise ExportError(f"expected --side {' or '.join(SIDES[program])} for {program}, got {side}; leave it out")
    if int8 and program == "transformers":
        raise ExportError("expected float32 for transformers, got --int8; leave it out")
    if name and program != "immich":
        raise ExportError(f"expected --name for immich alone, got it for {program}; leave it out")
    if program != "transformers":
        check_libraries()
    spec = resolve_models(model, image_model, revision)
    named = str(model or spec.text)
    target = Path(folder) if folder else default_folder(named, f"{program}-int8" if int8 else program)
    if side == "text":
        encoder = _text_alone(model, image_model, revision)
    else:
        encoder = load_dual_encoder(model, image_model, revision=revision, device="cpu")
    if program == "immich":
        from turkish_clip.exports.immich import export_immich

        return export_immich(encoder, named, target, side=side, int8=int8, name=name)
    if program == "fastembed":
        from turkish_clip.exports.fastembed import export_fastembed

        return export_fastembed(encoder, named, target, int8=int8)
    from turkish_clip.exports.vision_text import export_vision_text

    return export_vision_text(encoder, named, target)


def _text_alone(model: str | Path | None, image_model: str | Path | None, revision: str | None) -> DualEncoder:
    """Returns a dual encoder of which the image side is not loaded, for what needs texts alone."""
    spec = resolve_models(model, image_model, revision)
    text = load_model(spec.text, revision=spec.revision, device="cpu")
    if not text.supports("text"):
        raise ModelError(f"expected a text encoder or a pair, got {spec.text}, which takes images alone")
    if text.supports("image") and not image_model:
        spec = replace(spec, image="", image_revision="", image_is_guessed=False)
    return DualEncoder(spec, text, text)
