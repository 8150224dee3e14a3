"""Small models with fresh weights: a BERT as the student's backbone, and a CLIP."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.run.config import DistillConfig, PretrainConfig
from training.run.objectives import INITIAL_LOGIT_SCALE
from training.small_models.vocabularies import learn_bpe, learn_wordpiece
from turkish_clip.atomic import atomic_folder, write_json
from turkish_clip.resolve import RUN_RECORD

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel, CLIPProcessor

SCRATCH = "scratch.json"  # shows that a backbone was made here


def write_scratch_backbone(folder: Path, captions: Collection[str], config: DistillConfig) -> Path:
    """Builds a BERT and its tokenizer, and saves them as a transformers folder, which it returns.

    Args:
        folder: where they go; an earlier one is replaced.
        captions: of the training split alone, so that nothing of the test split enters the vocabulary.
        config: has the model's size and the seed of its weights.
    """
    from transformers import BertConfig, BertModel, set_seed

    tokenizer = learn_wordpiece(captions, config.scratch_vocabulary, config.max_tokens)
    set_seed(config.seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.scratch_hidden,
            num_hidden_layers=config.scratch_layers,
            num_attention_heads=config.scratch_hidden // 32,
            intermediate_size=2 * config.scratch_hidden,
            max_position_embeddings=config.max_tokens,
            hidden_dropout_prob=0.0,  # regression to fixed targets gets worse with dropout (LOG.md)
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    set_sinusoidal(model.embeddings.position_embeddings.weight)
    of_a_run = (folder.parent / RUN_RECORD).is_file()  # whose backbones had no marker once
    with atomic_folder(folder, None if of_a_run else SCRATCH) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_json(partial / SCRATCH, {"format": 1, "seed": config.seed})
    return folder


LONGEST_WAVELENGTH = 1000.0  # in radians per word
POSITION_SCALE = 0.04  # root mean square of position embeddings; that of fresh word embeddings is 0.02
ACTIVATION = "gelu"  # one kernel; the three of quick_gelu cost a third of a step on a CPU


def build_processor(texts: Sequence[str], config: PretrainConfig) -> CLIPProcessor:
    """Returns CLIP's processor: a tokenizer learnt from captions, and the image processor at the configured size.

    Args:
        texts: captions of the training split.
        config: has the vocabulary's size, the tokens of a caption and the image size.
    """
    from transformers import CLIPImageProcessor, CLIPProcessor

    tokenizer = learn_bpe(texts, config.vocabulary, config.caption_tokens)
    half = [0.5, 0.5, 0.5]
    side = config.image_size
    images = CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=half, image_std=half
    )
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def build_clip(processor: CLIPProcessor, config: PretrainConfig) -> CLIPModel:
    """Returns a CLIPModel with fresh weights that the seed decides; its vision model may be a `ResNetTower`.

    Args:
        processor: whose tokenizer gives the size of the vocabulary and the special tokens.
        config: has the model's size and the seed.
    """
    from transformers import CLIPConfig, CLIPModel, set_seed

    set_seed(config.seed)
    tokenizer = processor.tokenizer
    vision = {
        "hidden_size": config.vision_hidden,
        "intermediate_size": 4 * config.vision_hidden,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_hidden // 32,
        "patch_size": config.patch_size,
    }
    if config.image_tower == "resnet":  # takes the place of the smallest one of its width
        width = config.resnet_widths[-1]
        vision = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1, "num_attention_heads": 1}
        vision["patch_size"] = config.image_size
    model = CLIPModel(
        CLIPConfig(
            projection_dim=config.dim,
            logit_scale_init_value=INITIAL_LOGIT_SCALE,
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_act": ACTIVATION,
                "hidden_size": config.text_hidden,
                "intermediate_size": 2 * config.text_hidden,
                "num_hidden_layers": config.text_layers,
                "num_attention_heads": config.text_hidden // 32,
                "max_position_embeddings": config.caption_tokens,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
                "projection_dim": config.dim,
            },
            vision_config={
                "hidden_act": ACTIVATION,
                "image_size": config.image_size,
                "projection_dim": config.dim,
                **vision,
            },
        )
    )
    set_sinusoidal(model.text_model.embeddings.position_embedding.weight)
    if config.image_tower == "resnet":
        from training.small_models.resnet import ResNetTower

        model.vision_model = ResNetTower(config)
    return model


def set_sinusoidal(weight: Tensor) -> None:
    """Sets position embeddings, (positions, width), to those from which a step to the next word is the same everywhere.

    Twice as large as BERT's and CLIP's random ones. Learnt from those, which colour stands beside which noun takes many
    times as long (LOG.md). Source: Vaswani et al., Attention Is All You Need, 2017, 3.5, with wavelengths for
    captions.

    Args:
        weight: replaced in place; its width is even.
    """
    import torch

    positions, width = weight.shape
    wavelengths = LONGEST_WAVELENGTH ** (torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] / wavelengths
    table = torch.stack([angles.sin(), angles.cos()], dim=2).reshape(positions, width)
    weight.data.copy_(table * POSITION_SCALE * 2**0.5)


def save_clip(model: CLIPModel, processor: CLIPProcessor, folder: Path, *, half: bool = False) -> None:
    """Saves a folder that SentenceTransformer loads as float32, and transformers, too, if its image tower is a ViT.

    Args:
        model: to save.
        processor: saved with it.
        folder: where they go; the caller has checked that an earlier one may be replaced.
        half: write the weights in float16, for half the size.
    """
    from training.small_models.resnet import ResNetTower, save_resnet_clip

    if isinstance(model.vision_model, ResNetTower):
        save_resnet_clip(model, processor, folder, half=half)
        return
    weights = {name: tensor.half() if half else tensor for name, tensor in model.state_dict().items()}
    with atomic_folder(folder, None) as partial:
        model.save_pretrained(partial, state_dict=weights)
        processor.save_pretrained(partial)
