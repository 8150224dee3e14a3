"""Tiny image models with random weights, in exactly the layouts of the real repositories that are named."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HALF = [0.5, 0.5, 0.5]
LETTERS = [*string.printable.strip(), "▁", *"çğıöşüâîûÇĞİÖŞÜÂÎÛ’"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
# Of EmbeddingGemma 2's: one token for each text that marks what is no text.
MARKS = {
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def write_weights(folder: Path, model_class: Any, config: Any) -> None:
    """config.json and model.safetensors, float32."""
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)


def write_siglip_images(folder: Path, side: int) -> None:
    """preprocessor_config.json of a SigLIP of fixed resolution."""
    images = {"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True}
    images |= {"image_mean": HALF, "image_std": HALF, "image_processor_type": "SiglipImageProcessor"}
    images |= {"processor_class": "SiglipProcessor", "resample": 2, "rescale_factor": 1 / 255}
    write_json(folder / "preprocessor_config.json", {**images, "size": {"height": side, "width": side}})


def write_siglip(folder: Path) -> Path:
    """google/siglip-base-patch16-224: a SentencePiece model, padded with </s>, after lower case without punctuation."""
    from sentencepiece import SentencePieceTrainer
    from transformers import SiglipConfig, SiglipModel

    text = {**SMALL, "vocab_size": len(LETTERS) + 3}
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    write_weights(folder, SiglipModel, SiglipConfig(text_config=text, vision_config=vision))
    write_siglip_images(folder, 32)
    with (folder / "spiece.model").open("wb") as stream:
        SentencePieceTrainer.train(
            sentence_iterator=iter(LETTERS * 2),
            model_writer=stream,
            model_type="char",
            vocab_size=len(LETTERS) + 3,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    tokens = {"do_lower_case": True, "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    tokens |= {"model_input_names": ["input_ids"], "model_max_length": 64, "additional_special_tokens": []}
    tokens |= {"processor_class": "SiglipProcessor", "tokenizer_class": "SiglipTokenizer"}
    write_json(folder / "tokenizer_config.json", tokens)
    return folder


def write_gemma_tokenizer(folder: Path, processor: str) -> int:
    """The tokenizer of every SigLIP 2: that of Gemma without <bos>, case kept; returns the size of the vocabulary."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *BYTES, *LETTERS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.add_special_tokens(pieces[:5])
    tokenizer.enable_padding(length=64, pad_id=0, pad_token="<pad>")
    tokenizer.enable_truncation(64)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"add_bos_token": False, "add_eos_token": True, "do_lower_case": True, "padding_side": "right"}
    tokens |= {name: f"<{name[:3]}>" for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    tokens |= {"mask_token": "<mask>", "model_input_names": ["input_ids"], "model_max_length": 10**30}
    write_json(
        folder / "tokenizer_config.json", {**tokens, "processor_class": processor, "tokenizer_class": "GemmaTokenizer"}
    )
    return len(pieces)


def write_siglip2(folder: Path) -> Path:
    """google/siglip2-base-patch32-256: fixed resolution, so in transformers a SigLIP, with Gemma's tokenizer."""
    from transformers import SiglipConfig, SiglipModel

    folder.mkdir(parents=True)
    text = {**SMALL, "vocab_size": write_gemma_tokenizer(folder, "SiglipProcessor")}
    vision = {**SMALL, "image_size": 64, "patch_size": 32}
    write_weights(folder, SiglipModel, SiglipConfig(text_config=text, vision_config=vision))
    write_siglip_images(folder, 64)
    return folder


def write_siglip2_naflex(folder: Path) -> Path:
    """google/siglip2-base-patch16-naflex: images of their own shapes, as up to 256 patches."""
    from transformers import Siglip2Config, Siglip2Model

    folder.mkdir(parents=True)
    text = {**SMALL, "vocab_size": write_gemma_tokenizer(folder, "Siglip2Processor")}
    vision = {**SMALL, "patch_size": 16, "num_patches": 256}
    write_weights(folder, Siglip2Model, Siglip2Config(text_config=text, vision_config=vision))
    images = {"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True}
    images |= {"image_mean": HALF, "image_std": HALF, "image_processor_type": "Siglip2ImageProcessor"}
    images |= {"max_num_patches": 256, "patch_size": 16, "processor_class": "Siglip2Processor", "resample": 2}
    write_json(folder / "preprocessor_config.json", {**images, "rescale_factor": 1 / 255})
    return folder


def write_clip_images(folder: Path, side: int, processor: str) -> None:
    """preprocessor_config.json of a CLIP."""
    images = {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}, "resample": 3}
    images |= {f"do_{step}": True for step in ("center_crop", "convert_rgb", "normalize", "rescale", "resize")}
    images |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    images |= {"image_processor_type": "CLIPImageProcessor", "processor_class": processor, "rescale_factor": 1 / 255}
    write_json(folder / "preprocessor_config.json", images)


def write_metaclip2(folder: Path) -> Path:
    """facebook/metaclip-2-worldwide-b32: a CLIP whose text side has XLM-V's tokenizer."""
    from transformers import MetaClip2Config, MetaClip2Model

    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    text = {**SMALL, "vocab_size": len(LETTERS) + 5, "max_position_embeddings": 77, "projection_dim": 24, **ids}
    vision = {**SMALL, "image_size": 64, "patch_size": 32, "projection_dim": 24}
    write_weights(folder, MetaClip2Model, MetaClip2Config(text_config=text, vision_config=vision, projection_dim=24))
    write_clip_images(folder, 64, "CLIPProcessor")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = [*((token, 0.0) for token in special), *((letter, -1.0) for letter in LETTERS), ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([*special, "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokens |= {"unk_token": "<unk>", "mask_token": "<mask>", "model_max_length": 77}
    tokens |= {"processor_class": "CLIPProcessor", "tokenizer_class": "XLMRobertaTokenizer"}
    write_json(folder / "tokenizer_config.json", tokens)
    return folder


def write_vision_text(folder: Path) -> Path:
    """clip-italian/clip-italian: a CLIP's image side beside a BERT, each projected."""
    from transformers import BertConfig, CLIPVisionConfig, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        CLIPVisionConfig(**SMALL, image_size=32, patch_size=16),
        BertConfig(**SMALL, vocab_size=len(words)),
        projection_dim=40,
    )
    write_weights(folder, VisionTextDualEncoderModel, config)
    write_clip_images(folder, 32, "VisionTextDualEncoderProcessor")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokens = {"do_lower_case": False, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    tokens |= {"processor_class": "VisionTextDualEncoderProcessor"}
    write_json(folder / "tokenizer_config.json", tokens)
    from transformers import BertTokenizer

    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizer(vocab=vocabulary, do_lower_case=False).backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_embeddinggemma2(folder: Path) -> Path:
    """google/embeddinggemma-2 without its audio side: weights in bfloat16, prompts by task, images inside messages."""
    from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model, Gemma4AudioFeatureExtractor, GemmaTokenizer
    from transformers.models.embedding_gemma2 import EmbeddingGemma2TextConfig
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *BYTES, *LETTERS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = GemmaTokenizer(
        vocab=vocabulary,
        merges=[],
        add_bos_token=True,
        add_eos_token=True,
        padding_side="right",
        extra_special_tokens=MARKS,
    )
    tokenizer.model_max_length = 8192
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MARKS.items()}
    heads = {"head_dim": 16, "num_key_value_heads": 1}
    text = EmbeddingGemma2TextConfig(
        **{**SMALL, "num_hidden_layers": 2, **heads},
        vocab_size=len(tokenizer),
        global_head_dim=32,
        sliding_window_pattern=2,
        hidden_size_per_layer_input=16,
        embedding_dim=768,
    )
    vision = Gemma4VisionConfig(
        **{**SMALL, **heads, "num_key_value_heads": 2},
        global_head_dim=16,
        patch_size=4,
        default_output_length=70,
        pooling_kernel_size=3,
        position_embedding_size=128,
        use_clipped_linears=False,
    )
    config = EmbeddingGemma2Config(
        text_config=text,
        vision_config=vision,
        audio_config=None,
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        audio_token_id=ids["audio_token"],
        boi_token_id=ids["boi_token"],
        eoi_token_id=ids["eoi_token"],
        boa_token_id=ids["boa_token"],
        eoa_token_index=ids["eoa_token"],
    )
    torch.manual_seed(0)
    EmbeddingGemma2Model(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sizes = {"do_normalize": False, "patch_size": 4, "pooling_kernel_size": 3}
    processor = {"processor_class": "EmbeddingGemma2Processor", "image_seq_length": 70, "audio_seq_length": 280}
    processor["feature_extractor"] = json.loads(Gemma4AudioFeatureExtractor().to_json_string())
    processor["image_processor"] = {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 70, **sizes}
    processor["video_processor"] = {"video_processor_type": "EmbeddingGemma2VideoProcessor", "num_frames": 32, **sizes}
    write_json(folder / "processor_config.json", processor)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{% for part in message['content'] %}"
        "{{ '<|image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}",
        encoding="utf-8",
    )
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    modalities = {name: forward for name in ("text", "image", "audio", "video")}
    transformer = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
    transformer["modality_config"] = {**modalities, "message": {**forward, "format": "structured"}}
    write_json(folder / "sentence_bert_config.json", transformer)
    kinds = ("base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling")
    kinds += ("base.modules.normalize.Normalize",)
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.{kind}"}
        for place, (path, kind) in enumerate(zip(paths, kinds))
    ]
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "1_Pooling" / "config.json",
        {"embedding_dimension": 768, "pooling_mode": "mean", "include_prompt": True},
    )
    write_json(folder / "2_Normalize" / "config.json", {})
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    prompts["Classification"] = "task: classification | query: "
    versions = {"sentence_transformers": "6.1.0", "transformers": "5.18.0.dev0", "pytorch": "2.14.0+cu130"}
    about = {"__version__": versions, "model_type": "SentenceTransformer", "prompts": prompts}
    write_json(
        folder / "config_sentence_transformers.json",
        {**about, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    return folder


def load_without_torchvision(patch: Any) -> None:
    """Lets EmbeddingGemma 2 load here, where transformers can't import torchvision: all but its side for videos.

    Args:
        patch: pytest's monkeypatch.
    """
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer
    from transformers.models.embedding_gemma2.processing_embedding_gemma2 import EmbeddingGemma2Processor

    def parts(_: Any, path: Any, *__: Any, subfolder: str = "", **options: Any) -> list[Any]:
        sides = (AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer)
        return [*(side.from_pretrained(path, **options) for side in sides), None]

    patch.setattr(EmbeddingGemma2Processor, "_get_arguments_from_pretrained", classmethod(parts))
    patch.setattr(EmbeddingGemma2Processor, "check_argument_for_proper_class", lambda *_: None)
