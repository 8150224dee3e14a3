"""Writes a dual encoder as transformers' own VisionTextDualEncoderModel, for zero-shot-image-classification.

That model takes `tanh(W h_0 + b)` of the first token from a BERT, where the text encoder takes the mean of all tokens,
and then a dense layer. No class of transformers is a BERT that pools by the mean, but one more layer of the same BERT
can do it, with weights that are computed, not trained:

- Attention whose queries and keys are zero gives the same weight to all tokens that are not padding: its context is the
  mean of the values, here of `V h + v`, so that it is `V mean(h) + v`.
- The layer adds its own input to that and normalises: the context is scaled by GAIN, beside which the input vanishes,
  and V has rows that make the components sum to zero, so that normalisation takes nothing but the length, which is of
  no account for unit vectors.
- The feed-forward part adds zero; the pooler's tanh is the identity on numbers as small as SMALL makes them, and the
  projection of the dual encoder takes SMALL back.

The vectors are the same to the rounding of float32. Where they are as wide as the BERT or wider, there is no room for
those rows: every activation is there twice, which layer normalisation does not change.
"""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from turkish_clip.dual_encoder import image_side_of
from turkish_clip.encoder import image_processor, query_prompt
from turkish_clip.exports.folder import (
    CONFIG,
    EXPORT_RECORD,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    ExportedFolder,
    ExportError,
    own_text_vectors,
    record_of,
    text_side,
    write_folder,
    write_tokenizer_files,
)
from turkish_clip.metrics import unit
from turkish_clip.onnx.image_export import IMAGE_TOLERANCE
from turkish_clip.onnx.parity import Parity
from turkish_clip.onnx.runtime import PIXELS, TOKENIZER
from turkish_clip.verify import GOLDEN_TEXTS, TEXT_TOLERANCE, encode_each, golden_images

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from turkish_clip.dual_encoder import DualEncoder

FILES = re.compile(
    rf"{EXPORT_RECORD}|{CONFIG}|{TOKENIZER}|{TOKENIZER_CONFIG}|{SPECIAL_TOKENS}|preprocessor_config\.json|"
    r"processor_config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
)
BERTS = ("bert", "roberta", "xlm-roberta", "camembert")  # classes with the layers and the pooler of a BERT
GAIN = 2.0**30  # its square times a thousand components is far from the end of float32 and of bf16, not of float16
SMALL = 2.0**-17


def export_vision_text(encoder: DualEncoder, model: str, folder: Path) -> ExportedFolder:
    """Writes a dual encoder as a VisionTextDualEncoderModel with its processor, atomically.

    Args:
        encoder: what is exported.
        model: as it was named.
        folder: where to write.

    Raises:
        ExportError: the text side is no BERT with mean pooling, or the image side no CLIP or SigLIP, or the vectors
            differ.
        ForeignFileError: the folder holds something else.
    """

    def write(partial: Path) -> tuple[Parity | None, Parity | None]:
        text = text_side(encoder)
        bert, text_projection = mean_pooled(text, encoder.text_name)
        both = _joined(encoder, bert, text_projection)
        both.save_pretrained(partial)
        write_tokenizer_files(text, query_prompt(encoder.text) or "", partial)
        image_processor(encoder.image).save_pretrained(partial)
        return _compare(encoder, partial)

    return write_folder(record_of(encoder, "transformers", model), folder, FILES, write)


def mean_pooled(text: SentenceTransformer, name: str) -> tuple[Any, torch.Tensor]:
    """Returns a BERT whose pooler gives what the mean of the tokens and the dense layer give, and its projection.

    Args:
        text: of `text_side`.
        name: its Hub id or folder, for the message.

    Returns:
        The BERT, and the (dim, hidden) weights that its pooler's output is multiplied with; the result has the
        direction of the text encoder's vectors.

    Raises:
        ExportError: it is no BERT with mean pooling and dense layers without activation.
    """
    first, *others = list(text)
    kind = first.config.model_type if isinstance(first, Transformer) else type(first).__name__
    if kind not in BERTS:
        raise ExportError(
            f"expected a {', '.join(BERTS)} with mean pooling, whose mean one more layer computes, got {name}, a "
            f"{kind}; publish the pair for sentence-transformers instead: python -m training.publish RUN --paired"
        )
    weight, bias = _after_mean(others, name)
    dim, hidden = weight.shape
    copies = 1 if dim < hidden else 2
    values, constants, projection = _values(weight, bias, copies)
    return _with_mean_layer(first.model, copies, values, constants), projection


def _after_mean(modules: list[Any], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the (dim, hidden) weights and the (dim,) bias that follow the mean, in float64."""
    pooling, *others = modules
    others = [module for module in others if not isinstance(module, Normalize)]
    linear = all(
        isinstance(module, Dense) and isinstance(module.activation_function, torch.nn.Identity) for module in others
    )
    if not isinstance(pooling, Pooling) or pooling.pooling_mode not in ("mean", ("mean",)) or not linear:
        raise ExportError(
            f"expected mean pooling and dense layers without activation, got others in {name}; train with the usual "
            "ones"
        )
    size = pooling.embedding_dimension
    weight, bias = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for module in others:
        own = module.linear.weight.detach().double()
        weight, bias = own @ weight, own @ bias
        if module.linear.bias is not None:
            bias = bias + module.linear.bias.detach().double()
    return weight, bias


def _values(weight: torch.Tensor, bias: torch.Tensor, copies: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the weights and bias of the values of the mean layer, whose components sum to zero, and the projection.

    With room for it, the values are the text vector; else the mean itself and the constant 1.
    """
    dim, hidden = weight.shape
    if copies == 1:
        kept, constants, projection = weight, bias, torch.eye(dim, dtype=torch.float64)
    else:
        kept = torch.cat([torch.eye(hidden, dtype=torch.float64), torch.zeros(1, hidden, dtype=torch.float64)])
        constants = torch.cat([torch.zeros(hidden, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])
        projection = torch.cat([weight, bias.unsqueeze(1)], dim=1)
    width = copies * hidden
    rest = width - len(kept)
    kept = torch.cat([kept, -kept.sum(dim=0).expand(rest, hidden) / rest])
    constants = torch.cat([constants, -constants.sum().expand(rest) / rest])
    values = torch.zeros(width, width, dtype=torch.float64)
    values[:, :hidden] = kept
    padded = torch.zeros(dim, width, dtype=torch.float64)
    padded[:, : projection.shape[1]] = projection / SMALL
    return values, constants, padded


def _with_mean_layer(bert: Any, copies: int, values: torch.Tensor, constants: torch.Tensor) -> Any:
    """Returns a BERT of the same class with one more layer, which computes the values of the mean of the tokens."""
    config = copy.deepcopy(bert.config)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    config.hidden_size, config.num_hidden_layers = copies * hidden, layers + 1
    config.num_attention_heads *= copies
    made = type(bert)(config).eval()
    wanted = made.state_dict()
    mean, old = f"encoder.layer.{layers}.", bert.state_dict()
    state = {
        name: _repeated(name, old[name], wanted[name].shape) for name in wanted if name in old and "pooler" not in name
    }
    identity = torch.eye(copies * hidden)
    state |= {name: torch.zeros_like(tensor) for name, tensor in wanted.items() if name.startswith(mean)}
    state |= {
        name: torch.ones_like(tensor)
        for name, tensor in wanted.items()
        if name.startswith(mean) and "LayerNorm.weight" in name
    }
    state |= {
        f"{mean}attention.self.value.weight": values.float(),
        f"{mean}attention.self.value.bias": constants.float(),
        f"{mean}attention.output.dense.weight": identity * GAIN,
        "pooler.dense.weight": identity * SMALL,
        "pooler.dense.bias": torch.zeros(copies * hidden),
    }
    made.load_state_dict(state)
    return made


def _repeated(name: str, tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Returns a tensor for activations that are there several times.

    A layer gives each result several times, and reads the first of each; a table holds each row several times.

    >>> _repeated("query.weight", torch.tensor([[1.0, 2.0]]), torch.Size([2, 4])).tolist()
    [[1.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]]
    """
    if tensor.shape == shape or tensor.ndim == 1:
        return tensor.repeat(shape[0] // tensor.shape[0]) if tensor.ndim == 1 else tensor
    if "embeddings" in name:
        return tensor.repeat(1, shape[1] // tensor.shape[1])
    widened = torch.zeros(shape, dtype=tensor.dtype)
    widened[:, : tensor.shape[1]] = tensor.repeat(shape[0] // tensor.shape[0], 1)
    return widened


def _joined(encoder: DualEncoder, bert: Any, text_projection: torch.Tensor) -> Any:
    """Returns the VisionTextDualEncoderModel of a BERT and the image side of a dual encoder.

    Raises:
        ExportError: the image side is no CLIP or SigLIP alone.
    """
    from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    first, *others = list(image_side_of(encoder.image).children())
    whole = getattr(first, "model", None)
    vision, projection = (getattr(whole, name, None) for name in ("vision_model", "visual_projection"))
    others = [module for module in others if not isinstance(module, Normalize)]
    features = encoder.image.preprocess(golden_images()[:1])
    several = [name for name, value in features.items() if isinstance(value, torch.Tensor) and name != PIXELS]
    if vision is None or others or several:
        raise ExportError(
            f"expected an image model such as CLIP or SigLIP of one size, got {encoder.image_name}; publish the pair "
            "for sentence-transformers instead: python -m training.publish RUN --paired"
        )
    vision = _as_loadable(copy.deepcopy(vision).cpu().float(), encoder.image_name).eval()
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config,
        bert.config,
        projection_dim=encoder.dim,
        logit_scale_init_value=math.log(1 / encoder.temperature),
    )
    made = VisionTextDualEncoderModel(config=config, vision_model=vision, text_model=bert)
    with torch.no_grad():
        made.text_projection.weight.copy_(text_projection.float())
        own = torch.eye(encoder.dim) if projection is None else projection.weight.detach().cpu().float()
        made.visual_projection.weight.copy_(own)
    return made.eval()


def _as_loadable(vision: Any, name: str) -> Any:
    """Returns an image tower of a class that VisionTextDualEncoderModel loads: MetaCLIP 2's is CLIP's by another name.

    Raises:
        ExportError: it is another one.
    """
    from transformers import MODEL_MAPPING, CLIPVisionConfig, CLIPVisionModel

    if type(vision.config) in MODEL_MAPPING or isinstance(vision.config, CLIPVisionConfig):
        return vision
    if vision.config.model_type != "metaclip_2_vision_model":
        raise ExportError(
            f"expected an image model such as CLIP or SigLIP, got {name}, whose {vision.config.model_type} "
            "VisionTextDualEncoderModel does not load; publish the pair for sentence-transformers instead: python -m "
            "training.publish RUN --paired"
        )
    values = {key: value for key, value in vision.config.to_dict().items() if key != "model_type"}
    made = CLIPVisionModel(CLIPVisionConfig.from_dict(values))
    made.load_state_dict(vision.state_dict())
    return made


def _compare(encoder: DualEncoder, folder: Path) -> tuple[Parity, Parity]:
    """Loads what was written as transformers does, and compares its golden vectors with the model's.

    Raises:
        OnnxError: they differ by more than rounding.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    loaded = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    with torch.inference_mode():
        tokens = tokenizer(list(GOLDEN_TEXTS), padding=True, truncation=True, return_tensors="pt")
        texts = loaded.get_text_features(**tokens).pooler_output.numpy()
        pixels = processor(golden_images(), return_tensors="pt")["pixel_values"]
        images = loaded.get_image_features(pixel_values=pixels).pooler_output.numpy()
    text = Parity.of(own_text_vectors(encoder, GOLDEN_TEXTS), unit(np.asarray(texts)))
    image = Parity.of(unit(encode_each(encoder.image, golden_images())), unit(np.asarray(images)))
    text.check("sentences", int8=False, cosine=1, tolerance=TEXT_TOLERANCE)
    image.check("images", int8=False, cosine=1, tolerance=IMAGE_TOLERANCE)
    return text, image
