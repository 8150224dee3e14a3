"""transformers' own classes: one more layer gives the mean, the pipeline gives the classifier's probabilities."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tower_layouts as layouts
from killing import run_killed
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from turkish_clip import ZeroShotClassifier, build_text_encoder, pair, save_text_encoder
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.exports import vision_text
from turkish_clip.exports.export import export_for
from turkish_clip.exports.folder import EXPORT_RECORD, ExportError
from turkish_clip.onnx.export import export_onnx
from turkish_clip.onnx.runtime import OnnxError
from turkish_clip.verify import GOLDEN_TEXTS, ModelRecord

TEXTS = [*GOLDEN_TEXTS, "kırmızı", " ".join(["iki ev"] * 11), ""]
LABELS = ["kuş", "köpek", "İstanbul'da ev"]
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def written(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_for("transformers", pair_folder, tmp_path_factory.mktemp("transformers") / "model").folder


def vectors_of(text: SentenceTransformer, texts: list[str]) -> Any:
    """Returns the unit vectors of a padded batch by the BERT with one more layer."""
    bert, projection = vision_text.mean_pooled(text, "model")
    features = text.preprocess(texts)
    with torch.inference_mode():
        pooled = bert(input_ids=features["input_ids"], attention_mask=features["attention_mask"])[1]
        return torch.nn.functional.normalize(pooled @ projection.float().T, dim=-1).numpy()


@pytest.mark.parametrize("dim", [1, 16, 31, 32, 33, 80])  # of a BERT of 32
def test_one_more_layer_gives_the_mean_and_the_dense_layer(dim: int, tiny_bert: Path) -> None:
    torch.manual_seed(dim)
    text = build_text_encoder(tiny_bert, dim=dim, max_tokens=32, device="cpu")
    with torch.no_grad():
        text[2].linear.bias.normal_()
    assert np.abs(vectors_of(text, TEXTS) - text.encode(TEXTS)).max() < TOLERANCE


def test_without_a_dense_layer_and_with_two(tiny_bert: Path) -> None:
    torch.manual_seed(0)
    text = build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu")
    transformer, pooling, dense, normalize = text
    more = Dense(16, 8, activation_function=torch.nn.Identity(), bias=False)
    for modules in ([transformer, pooling, normalize], [transformer, pooling, dense, more, normalize]):
        other = SentenceTransformer(modules=modules, device="cpu")
        assert np.abs(vectors_of(other, TEXTS) - other.encode(TEXTS)).max() < TOLERANCE


def test_the_layer_is_computed_by_hand() -> None:
    weight, bias = torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    values, constants, projection = vision_text._values(weight, bias, copies=1)
    assert values.tolist() == [[1.0, 2.0, 0.0], [-0.5, -1.0, 0.0], [-0.5, -1.0, 0.0]]  # columns that sum to zero
    assert constants.tolist() == [0.5, -0.25, -0.25]
    assert (projection * vision_text.SMALL).tolist() == [[1.0, 0.0, 0.0]]
    wide = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    values, constants, projection = vision_text._values(wide, torch.tensor([5.0, 6.0], dtype=torch.float64), copies=2)
    assert values.tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0] * 4, [-1.0, -1.0, 0.0, 0.0]]
    assert constants.tolist() == [0.0, 0.0, 1.0, -1.0]
    assert (projection * vision_text.SMALL).tolist() == [[1.0, 2.0, 5.0, 0.0], [3.0, 4.0, 6.0, 0.0]]


@pytest.mark.parametrize("hypothesis", ["{}", "bir {} fotoğrafı"])
def test_the_pipeline_gives_the_probabilities_of_the_classifier(
    hypothesis: str, written: Path, encoder: DualEncoder, captioned_folder: Path
) -> None:
    from transformers import pipeline

    classify = pipeline("zero-shot-image-classification", model=str(written), device="cpu")
    paths = sorted((captioned_folder / "test").glob("*.png"))
    found = classify([str(path) for path in paths], candidate_labels=LABELS, hypothesis_template=hypothesis)
    own = ZeroShotClassifier(encoder, LABELS, templates=[hypothesis]).classify(paths)
    for pipelines, ours in zip(found, own):
        assert pipelines[0]["label"] == ours.label
        assert pipelines[0]["score"] == pytest.approx(ours.probability, abs=1e-4)


def test_texts_and_images_get_the_vectors_of_the_model(written: Path, encoder: DualEncoder) -> None:
    from transformers import AutoModel, AutoProcessor, VisionTextDualEncoderModel

    model, processor = AutoModel.from_pretrained(written), AutoProcessor.from_pretrained(written)
    assert type(model) is VisionTextDualEncoderModel
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (41, 77, 3), dtype=np.uint8))
    with torch.inference_mode():
        features = processor(text=TEXTS, images=[noise], padding=True, truncation=True, return_tensors="pt")
        found = model(**features)
    assert np.abs(found.text_embeds.numpy() - encoder.encode_texts(TEXTS, warn=False)).max() < TOLERANCE
    assert np.abs(found.image_embeds.numpy() - next(encoder.embed_images([noise])).vectors).max() < TOLERANCE
    assert model.logit_scale.exp().item() == pytest.approx(100)  # CLIP's temperature is 0.01
    record = json.loads((written / EXPORT_RECORD).read_text(encoding="utf-8"))
    assert (record["kind"], record["dim"], record["sides"]) == ("transformers", 16, "both")
    assert record["text"]["difference"] < TOLERANCE


def test_temperature_and_prompt(tiny_bert: Path, tiny_clip: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    text = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu", prompt="bir kuş: ")
    save_text_encoder(text, tmp_path / "model")
    image_model = {"id": str(tiny_clip), "revision": "", "weights_sha256": ""}
    record = ModelRecord(
        kind="text", dim=16, max_tokens=24, weights_sha256="", image_model=image_model, temperature=0.05
    )
    (tmp_path / "model" / "turkish_clip.json").write_text(record.to_json(), encoding="utf-8")
    done = export_for("transformers", tmp_path / "model")
    assert done.folder == tmp_path / "model-transformers"
    model, tokenizer = AutoModel.from_pretrained(done.folder), AutoTokenizer.from_pretrained(done.folder)
    assert model.logit_scale.exp().item() == pytest.approx(20)
    texts = ["kırmızı ev", " ".join(["ev"] * 60)]
    with torch.inference_mode():
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        found = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    assert np.abs(found.numpy() - text.encode(texts)).max() < TOLERANCE


def test_models_without_such_a_layer_are_refused(tiny_bert: Path, tiny_clip: Path, tmp_path: Path) -> None:
    from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=40, pad_token_id=0, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    DistilBertModel(config).save_pretrained(tmp_path / "backbone")
    BertTokenizerFast.from_pretrained(tiny_bert).save_pretrained(tmp_path / "backbone")
    other = build_text_encoder(tmp_path / "backbone", dim=16, max_tokens=32, device="cpu")
    save_text_encoder(pair(other, tiny_clip), tmp_path / "pair")
    with pytest.raises(ExportError, match="expected a bert, .* with mean pooling, .*, a distilbert; publish the pair"):
        export_for("transformers", tmp_path / "pair", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    text = build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu")
    pooled = copy.deepcopy(text)
    pooled[1].pooling_mode = "cls"
    text[2].activation_function = torch.nn.Tanh()
    for model in (pooled, text):
        with pytest.raises(
            ExportError, match="expected mean pooling and dense layers without activation, got others in"
        ):
            vision_text.mean_pooled(model, "model")


@pytest.mark.parametrize(
    "target",
    [
        "turkish_clip.exports.vision_text:_compare",
        pytest.param("turkish_clip.exports.folder:size_of", marks=pytest.mark.slow),
        pytest.param("turkish_clip.atomic:_sync", marks=pytest.mark.slow),
    ],
)
def test_a_kill_leaves_nothing_or_the_old_export(target: str, written: Path, pair_folder: Path, tmp_path: Path) -> None:
    argv = ["export", str(pair_folder), "--format", "transformers", "--output", str(tmp_path / "model")]
    run_killed("turkish_clip.cli", target, 1, argv)
    assert not (tmp_path / "model").exists()
    if "_compare" in target:
        return
    shutil.copytree(written, tmp_path / "model")
    before = (tmp_path / "model" / EXPORT_RECORD).stat().st_mtime_ns
    run_killed("turkish_clip.cli", target, 1, argv)
    assert (tmp_path / "model" / EXPORT_RECORD).stat().st_mtime_ns == before


@pytest.mark.filterwarnings("ignore:.*eos_token_id must be", "ignore:.*bos_token_id must be")
@pytest.mark.parametrize(
    ("write", "dim"),
    [
        (layouts.write_siglip2, 32),
        pytest.param(layouts.write_metaclip2, 24, marks=pytest.mark.slow),
        pytest.param(layouts.write_vision_text, 40, marks=pytest.mark.slow),
    ],
)
def test_other_image_models(write: Callable[[Path], Path], dim: int, tiny_bert: Path, tmp_path: Path) -> None:
    images = write(tmp_path / "images")
    save_text_encoder(build_text_encoder(tiny_bert, dim=dim, max_tokens=32, device="cpu"), tmp_path / "model")
    done = export_for("transformers", tmp_path / "model", image_model=images)
    assert done.record.image is not None
    assert done.record.image["difference"] < TOLERANCE
    graph = export_onnx(tmp_path / "model", side="image", image_model=images)
    assert graph.image is not None
    assert graph.image.difference < 1e-5


@pytest.mark.filterwarnings("ignore:.*eos_token_id must be", "ignore:.*bos_token_id must be")
def test_an_image_model_of_several_arrays_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    images = layouts.write_siglip2_naflex(tmp_path / "images")
    save_text_encoder(build_text_encoder(tiny_bert, dim=32, max_tokens=32, device="cpu"), tmp_path / "model")
    with pytest.raises(
        OnnxError, match="one array of pixels for each image, got .*, which takes pixel_values and pixel"
    ):
        export_onnx(tmp_path / "model", tmp_path / "out", side="image", image_model=images)
    with pytest.raises(ExportError, match="expected an image model such as CLIP or SigLIP of one size"):
        export_for("transformers", tmp_path / "model", tmp_path / "out", image_model=images)
    assert not (tmp_path / "out").exists()
