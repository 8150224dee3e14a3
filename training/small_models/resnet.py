"""A small CLIP whose image tower is a ResNet, saved as a pair of plain modules.

The ResNet is transformers' ResNetModel: torch and transformers alone load it. CLIP's own, with a stem of three
convolutions, blurred strides and attention pooling, exists in timm (resnet50_clip, which transformers wraps) and in
open_clip; both need torchvision, so that a model with one would load nowhere without these. transformers has no dual
encoder for it either: VisionTextDualEncoderModel takes the width of a vision model from `hidden_size`, which a
ResNetConfig lacks, and its vector as (n, width), where a ResNet gives (n, width, 1, 1).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from training.run.config import PretrainConfig
from turkish_clip.atomic import atomic_folder, temporary_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor
    from transformers import CLIPModel, CLIPProcessor


class ResNetTower(nn.Module):
    """A ResNet in the place of a CLIPModel's vision model.

    Args:
        config: of the training: has the widths, the number of blocks of each stage, and their kind.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        self.resnet = ResNetModel(
            ResNetConfig(
                embedding_size=config.resnet_widths[0],
                hidden_sizes=list(config.resnet_widths),
                depths=list(config.resnet_blocks),
                layer_type=config.resnet_block,
            )
        )

    def forward(self, pixel_values: Tensor, **_: Any) -> Any:
        """Returns the mean over the last feature map as `pooler_output`, (n, width), of (n, 3, side, side) pixels."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        found = self.resnet(pixel_values)
        return BaseModelOutputWithPooling(found.last_hidden_state, found.pooler_output.flatten(1))


def save_resnet_clip(model: CLIPModel, processor: CLIPProcessor, folder: Path, *, half: bool = False) -> None:
    """Saves a CLIPModel with a `ResNetTower` as a pair that SentenceTransformer loads as float32.

    Its routes are CLIP's text tower with the last token's vector, and the ResNet with the mean over its last feature
    map, each under its projection: the same vectors as those of the CLIPModel.

    Args:
        model: to save.
        processor: its tokenizer and its image processor are saved with the towers.
        folder: where they go; the caller has checked that an earlier one may be replaced.
        half: write the weights in float16, for half the size.
    """
    from turkish_clip.encoder import save_text_encoder

    with temporary_folder() as temporary, atomic_folder(folder, None) as partial:
        save_text_encoder(_pair(model, processor, temporary), partial)
        if half:
            for path in partial.rglob("*.safetensors"):
                _halve(path)


def _pair(model: CLIPModel, processor: CLIPProcessor, folder: Path) -> SentenceTransformer:
    """Returns both towers as routes of one model.

    Args:
        model: with a `ResNetTower`.
        processor: of the model.
        folder: for copies of the towers, from which their modules are loaded.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    limit = int(model.config.text_config.max_position_embeddings)
    towers = {
        "text": (model.text_model, processor.tokenizer, "lasttoken", model.text_projection, limit),
        "image": (model.vision_model.resnet, processor.image_processor, "mean", model.visual_projection, None),
    }
    routes = {}
    for name, (tower, prepared_by, pooling, projection, tokens) in towers.items():
        tower.save_pretrained(folder / name)
        prepared_by.save_pretrained(folder / name)
        transformer = Transformer(str(folder / name), max_seq_length=tokens)
        pooled = Pooling(projection.in_features, pooling_mode=pooling)
        routes[name] = [transformer, pooled, _dense(projection)]
    router = Router(routes, route_mappings={(None, "text"): "text", (None, "image"): "image"})
    return SentenceTransformer(modules=[router], device="cpu", similarity_fn_name="cosine")


def _dense(projection: nn.Linear) -> Any:
    """Returns a projection as a module of sentence-transformers."""
    from sentence_transformers.base.modules import Dense

    dense = Dense(projection.in_features, projection.out_features, bias=False, activation_function=nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(projection.weight)
    return dense


def _halve(path: Path) -> None:
    """Writes the float32 numbers of a file of tensors as float16; loading makes float32 of them."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load_file(path)
    halved = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    save_file(halved, path, metadata=metadata)
