"""The assembled modules are pinned, plain and equal after save and load; what does not fit is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from tower_layouts import write_embeddinggemma2
from transformers import BertConfig, BertModel, BertTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from turkish_clip import build_text_encoder, pair, save_text_encoder
from turkish_clip.encoder import ModelError, bare_tokenizer, image_side, load_model, prompt_of

TEXTS = ["kırmızı ev", "Ispartalı iki köpek", "ankara'da şeker", "İstanbul"]
IMAGE = Image.linear_gradient("L").resize((50, 40)).convert("RGB")


@pytest.fixture
def encoder(tiny_bert: Path) -> SentenceTransformer:
    torch.manual_seed(0)
    return build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu")


def test_modules_width_pooling_and_activation_are_pinned(encoder: SentenceTransformer, tmp_path: Path) -> None:
    save_text_encoder(encoder, tmp_path / "model")
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Dense", "Normalize"]
    pooling = json.loads((tmp_path / "model" / "1_Pooling" / "config.json").read_text())
    dense = json.loads((tmp_path / "model" / "2_Dense" / "config.json").read_text())
    assert pooling["pooling_mode"] == "mean"
    assert (dense["in_features"], dense["out_features"]) == (32, 16)
    assert dense["activation_function"].endswith("Identity")
    assert not list((tmp_path / "model").rglob("*.bin"))
    assert not (tmp_path / "model" / "README.md").exists()


def test_the_first_token_alone_is_pooled_where_it_is_asked_for(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu", pooling="cls")
    save_text_encoder(encoder, tmp_path / "model")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    tokens = loaded.encode("kırmızı bir ev", output_value="token_embeddings")
    pooled = SentenceTransformer(modules=list(loaded.children())[:2], device="cpu").encode("kırmızı bir ev")
    assert pooled == pytest.approx(tokens[0].numpy(), abs=1e-5)
    folder = tmp_path / "bare"
    save_backbone_without_cls(tiny_bert, folder)
    with pytest.raises(ModelError, match="expected a backbone that begins texts with .CLS., got .*; take mean pooling"):
        build_text_encoder(folder, dim=16, max_tokens=24, device="cpu", pooling="cls")


def save_backbone_without_cls(tiny_bert: Path, folder: Path) -> None:
    """Saves the tiny BERT under a tokenizer that puts nothing around a text."""
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu").tokenizer
    bare = PreTrainedTokenizerFast(
        tokenizer_object=bare_tokenizer(tokenizer.backend_tokenizer), pad_token="[PAD]", unk_token="[UNK]"
    )
    bare.save_pretrained(folder)
    AutoModel.from_pretrained(tiny_bert).save_pretrained(folder)


def test_saved_and_loaded_is_equal_bit_for_bit(encoder: SentenceTransformer, tmp_path: Path) -> None:
    save_text_encoder(encoder, tmp_path / "model")
    loaded = load_model(tmp_path / "model", device="cpu")
    assert np.array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    assert loaded.max_seq_length == 24
    assert loaded.similarity_fn_name == "cosine"


def test_a_prompt_is_saved_and_put_before_each_text(tiny_bert: Path, tiny_clip: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu", prompt="bir kuş: ")
    written = encoder.encode([f"bir kuş: {text}" for text in TEXTS], prompt="")
    save_text_encoder(encoder, tmp_path / "model")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert prompt_of(loaded) == "bir kuş: "
    for encode in (encoder.encode, loaded.encode, loaded.encode_query, loaded.encode_document):
        assert np.array_equal(encode(TEXTS), written)
    assert not np.allclose(loaded.encode(TEXTS, prompt=""), written, atol=1e-3)
    image = load_model(tiny_clip, device="cpu")
    save_text_encoder(pair(loaded, image, device="cpu"), tmp_path / "pair")
    both = SentenceTransformer(str(tmp_path / "pair"), device="cpu")
    assert np.array_equal(both.encode(TEXTS), written)
    assert np.array_equal(both.encode([IMAGE]), image.encode([IMAGE]))


def test_without_a_prompt_nothing_is_put_before_a_text(encoder: SentenceTransformer) -> None:
    assert prompt_of(encoder) == ""
    assert np.array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS, prompt=""))


def test_vectors_are_unit_float32(encoder: SentenceTransformer) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_nfd_equals_nfc_after_loading_too(encoder: SentenceTransformer, tmp_path: Path) -> None:
    save_text_encoder(encoder, tmp_path / "model")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    decomposed = [unicodedata.normalize("NFD", text) for text in TEXTS]
    assert decomposed != TEXTS
    assert np.array_equal(loaded.encode(decomposed), loaded.encode(TEXTS))
    assert np.array_equal(loaded.encode(["ankara\u2019da"]), loaded.encode(["ankara'da"]))


def test_no_test_word_is_unknown(encoder: SentenceTransformer) -> None:
    ids = encoder.tokenizer(TEXTS)["input_ids"]
    assert not any(encoder.tokenizer.unk_token_id in row for row in ids)


def test_long_text_is_cut_at_max_tokens(encoder: SentenceTransformer) -> None:
    long = " ".join(["ev"] * 60)
    assert encoder.preprocess([long])["input_ids"].shape[1] == 24
    assert np.array_equal(encoder.encode([long]), encoder.encode([" ".join(["ev"] * 30)]))


def test_a_process_without_this_package_loads_it(encoder: SentenceTransformer, tmp_path: Path) -> None:
    save_text_encoder(encoder, tmp_path / "model")
    program = (
        "import sys; sys.modules['turkish_clip'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"print(SentenceTransformer({str(tmp_path / 'model')!r}, device='cpu').encode(['kırmızı ev']).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert np.array_equal(np.float32(json.loads(done.stdout)), encoder.encode(["kırmızı ev"]))


def test_pair_routes_each_side_and_survives_saving(
    encoder: SentenceTransformer, tiny_clip: Path, tmp_path: Path
) -> None:
    image = load_model(tiny_clip, device="cpu")
    paired = pair(encoder, image, device="cpu")
    paired.save(str(tmp_path / "paired"), create_model_card=False)
    loaded = load_model(tmp_path / "paired", device="cpu")
    for model in (paired, loaded):
        assert np.array_equal(model.encode(TEXTS), encoder.encode(TEXTS))
        assert np.array_equal(model.encode([IMAGE]), image.encode([IMAGE]))
    scores = loaded.similarity(loaded.encode([IMAGE, IMAGE]), loaded.encode(TEXTS))
    assert scores.shape == (2, 4)


def test_the_text_route_keeps_its_own_token_limit(
    encoder: SentenceTransformer, tiny_clip: Path, tmp_path: Path
) -> None:
    pair(encoder, tiny_clip, device="cpu").save(str(tmp_path / "paired"), create_model_card=False)
    router = load_model(tmp_path / "paired", device="cpu")[0]
    assert router.sub_modules["text"][0].max_seq_length == 24
    assert router.sub_modules["image"][0].max_seq_length == 16


def test_pair_takes_folders(encoder: SentenceTransformer, tiny_clip: Path, tmp_path: Path) -> None:
    save_text_encoder(encoder, tmp_path / "model")
    assert pair(tmp_path / "model", str(tiny_clip), device="cpu").encode("ev").shape == (16,)


def test_models_of_different_widths_are_refused(tiny_bert: Path, tiny_clip: Path) -> None:
    with pytest.raises(ModelError, match="got 12 from the text encoder and 16 from the image model"):
        pair(build_text_encoder(tiny_bert, dim=12, max_tokens=24), tiny_clip)


def test_an_image_model_without_an_image_side_is_refused(encoder: SentenceTransformer) -> None:
    with pytest.raises(ModelError, match="no image side"):
        pair(encoder, encoder)


def test_a_text_model_refuses_images(encoder: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="Modality 'image' is not supported"):
        encoder.encode([IMAGE])


def test_more_tokens_than_positions_are_refused(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="at most 512"):
        build_text_encoder(tiny_bert, dim=16, max_tokens=600)


def test_a_missing_backbone_is_refused() -> None:
    with pytest.raises(ModelError, match="expected a model, got /not/there, which is no folder"):
        build_text_encoder("/not/there", dim=16)


def test_a_clip_as_the_backbone_is_refused(tiny_clip: Path) -> None:
    with pytest.raises(ModelError, match="expected a text encoder such as a BERT"):
        build_text_encoder(tiny_clip, dim=16)


def test_image_side_is_that_of_the_processor(encoder: SentenceTransformer, tiny_clip: Path) -> None:
    assert image_side(load_model(tiny_clip)) == 32
    assert image_side(encoder) is None


def test_full_size_models_pair(tmp_path: Path) -> None:
    """Pairs BERT-base and CLIP ViT-B/32 with random weights, 768 → 512."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "karda", "oynayan", "iki", "köpek"]
    bert = tmp_path / "bert"
    BertModel(BertConfig(vocab_size=32000)).save_pretrained(bert)
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}, do_lower_case=False).save_pretrained(bert)
    clip = tmp_path / "clip"
    model = CLIPModel(CLIPConfig())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(151e6, rel=0.01)
    model.save_pretrained(clip)
    tokenizer = clip_tokenizer()
    CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer).save_pretrained(clip)

    text = build_text_encoder(bert, dim=512, device="cpu")
    assert sum(p.numel() for p in text.parameters()) == pytest.approx(111e6, rel=0.01)
    dense = text[2]
    assert (dense.in_features, dense.out_features) == (768, 512)
    image = load_model(clip, device="cpu")
    assert image_side(image) == 224
    scores = text.similarity(image.encode([IMAGE, IMAGE, IMAGE]), text.encode(["karda oynayan iki köpek"]))
    assert scores.shape == (3, 1)
    assert pair(text, image, device="cpu").encode([IMAGE]).shape == (1, 512)


def clip_tokenizer() -> object:
    from training.small_models.vocabularies import learn_bpe

    return learn_bpe(["a photo"], 514, 77)


def test_a_model_that_needs_another_library_says_which(tmp_path: Path) -> None:
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        pytest.skip("torchvision is here")
    folder = write_embeddinggemma2(tmp_path / "gemma")
    with pytest.raises(ModelError, match="requires the Torchvision library .*; install what it asks for"):
        load_model(folder)
