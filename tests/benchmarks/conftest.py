"""The full-size image tower that benchmarks share."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from training.small_models.vocabularies import learn_bpe
from turkish_clip.encoder import load_model


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    folder = tmp_path_factory.mktemp("vit-b-32")
    torch.manual_seed(0)
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    tokenizer = learn_bpe(["a photo"], 514, 77)
    CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer).save_pretrained(folder)
    return load_model(folder, device="cpu")
