"""Tiny repositories in exactly the layouts of the real ones that the recipes name."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value

WORDS = "bir iki mavi kırmızı sarı yeşil üstünde altında ev ağaç kuş balık çiçek kalp top ##ın ##in ##lar ##ler . ,"


def bert_vocabulary(rows: list[dict[str, Any]]) -> list[str]:
    """A WordPiece vocabulary in which no word of the captions is unknown."""
    letters = sorted({letter for row in rows for caption in row["captions"] for letter in caption if letter != " "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return list(dict.fromkeys([*pieces, *WORDS.split()]))


def write_berturk(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """dbmdz/bert-base-turkish-cased: vocab.txt without tokenizer.json, weights as pytorch_model.bin."""
    from transformers import BertConfig, BertForMaskedLM

    words = bert_vocabulary(rows)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(0)
    _write_old_style(folder, BertForMaskedLM(config), config.to_dict(), words)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "max_len": 512}', encoding="utf-8")
    return folder


def write_electra(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """dbmdz/electra-small-turkish-cased-discriminator: embeddings narrower than the hidden layers."""
    from transformers import ElectraConfig, ElectraForPreTraining

    words = bert_vocabulary(rows)
    config = ElectraConfig(
        vocab_size=len(words),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    torch.manual_seed(0)
    _write_old_style(folder, ElectraForPreTraining(config), config.to_dict(), words)
    tokens = {"do_lower_case": False, "max_len": 512, "init_inputs": []}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    return folder


def _write_old_style(folder: Path, model: Any, config: dict[str, Any], words: list[str]) -> None:
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    kept = {key: value for key, value in config.items() if value is not None and key != "transformers_version"}
    (folder / "config.json").write_text(
        json.dumps({**kept, "architectures": [type(model).__name__]}, indent=2), encoding="utf-8"
    )
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def write_stock_clip(folder: Path, clip: Path, name: str = "clip-ViT-B-32") -> Path:
    """sentence-transformers/clip-ViT-B-32 or -L-14: the host's old CLIPModel module around a model of 2021."""
    from transformers import AutoTokenizer, CLIPModel

    model, tokenizer = CLIPModel.from_pretrained(clip), AutoTokenizer.from_pretrained(clip)
    inner = folder / "0_CLIPModel"
    inner.mkdir(parents=True)
    torch.save(model.state_dict(), inner / "pytorch_model.bin")
    config = {**model.config.to_dict(), "architectures": ["CLIPModel"], "transformers_version": "4.7.0.dev0"}
    (inner / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer.backend_tokenizer.model.save(str(inner))  # vocab.json and merges.txt
    side = model.config.vision_config.image_size
    images = {
        "crop_size": side,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": side,
    }
    (inner / "preprocessor_config.json").write_text(json.dumps(images, indent=2), encoding="utf-8")
    special = {name: "<|endoftext|>" for name in ("eos_token", "pad_token", "unk_token")}
    special["bos_token"] = "<|startoftext|>"
    (inner / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    tokens = {**special, "add_prefix_space": False, "errors": "replace", "do_lower_case": True}
    tokens |= {"model_max_length": model.config.text_config.max_position_embeddings, "tokenizer_class": "CLIPTokenizer"}
    (inner / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    versions = {"sentence_transformers": "2.0.0", "transformers": "4.6.0", "pytorch": "1.7.1"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"__version__": versions}), encoding="utf-8")
    (folder / "README.md").write_text(f"---\ntags:\n- sentence-transformers\n---\n# {name}\n", encoding="utf-8")
    return folder


def flickr30k_turkish(folder: Path, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """atasoglu/flickr30k-turkish: English captions inside records, Turkish ones as a list."""
    sentence = {
        "tokens": List(Value("string")),
        "raw": Value("string"),
        "imgid": Value("int32"),
        "sentid": Value("int32"),
    }
    features = Features(
        {
            "image": Image(),
            "filename": Value("string"),
            "imgid": Value("int32"),
            "sentids": List(Value("int32")),
            "sentences": List(sentence),
            "raw_turkish": List(Value("string")),
        }
    )

    def values(number: int, row: dict[str, Any]) -> dict[str, Any]:
        english = [
            {"tokens": text.split(), "raw": text, "imgid": number, "sentid": place}
            for place, text in enumerate(row["captions_en"])
        ]
        return {
            "image": _image(folder, row),
            "filename": f"{1000 + number}.jpg",
            "imgid": number,
            "sentids": list(range(len(english))),
            "sentences": english,
            "raw_turkish": row["captions"],
        }

    return _data_set(rows, values, features)


def flickr8k_turkish(folder: Path, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """atasoglu/flickr8k-turkish (TasvirEt): two captions, each in a column of its own."""
    features = Features(
        {"image": Image(), "imgid": Value("int64"), "caption0": Value("string"), "caption1": Value("string")}
    )

    def values(number: int, row: dict[str, Any]) -> dict[str, Any]:
        first, *rest = row["captions"]
        return {"image": _image(folder, row), "imgid": number, "caption0": first, "caption1": (rest or [first])[0]}

    return _data_set(rows, values, features)


def _image(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    return {"bytes": (folder / row["file_name"]).read_bytes(), "path": Path(row["file_name"]).name}


def _data_set(rows: list[dict[str, Any]], values: Any, features: Features) -> dict[str, bytes]:
    """Parquet files by split below data/, named in the README's head as the Hub's own exporter does."""
    contents, lines = {}, ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in ("train", "validation", "test"):
        chosen = [values(number, row) for number, row in enumerate(rows) if row["split"] == split]
        buffer = io.BytesIO()
        Dataset.from_list(chosen, features=features).to_parquet(buffer)
        contents[f"data/{split}-00000-of-00001.parquet"] = buffer.getvalue()
        lines += [f"  - split: {split}", f"    path: data/{split}-*"]
    contents["README.md"] = "\n".join([*lines, "---", ""]).encode()
    return contents


def write_clip_l_14(folder: Path) -> Path:
    """sentence-transformers/clip-ViT-L-14: the layout of the other one, 768 wide."""
    from training.run.config import PretrainConfig
    from training.small_models.models import build_clip, build_processor, save_clip

    sizes = {"image_size": 32, "vision_layers": 1, "vision_hidden": 32, "text_layers": 1, "text_hidden": 32}
    config = PretrainConfig(captions="x", run="x", **sizes, vocabulary=514, dim=768)
    processor = build_processor(["a red house above a blue bird", "two yellow suns"], config)
    inner = folder.with_name("clip-vit-large-patch14")
    save_clip(build_clip(processor, config), processor, inner)
    return write_stock_clip(folder, inner, "clip-ViT-L-14")
