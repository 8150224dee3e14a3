"""Other image models than the stock CLIP: each on its real layout, from its images to a published text encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tower_layouts as layouts
from hub_layouts import write_clip_l_14
from PIL import Image
from samples import write_rows
from sentence_transformers import SentenceTransformer

from training import distill, embed_images, evaluate, publish
from training.embeddings.store import read_embeddings
from training.evaluation.results import Results
from training.release import build
from training.run.config import PretrainConfig, PublishConfig
from training.small_models.models import build_clip, build_processor, save_clip
from turkish_clip.dual_encoder import load_dual_encoder
from turkish_clip.encoder import load_model, query_prompt
from turkish_clip.metrics import unit
from turkish_clip.verify import as_lines, encode_each, verify

pytestmark = pytest.mark.filterwarnings("ignore:.*eos_token_id must be", "ignore:.*bos_token_id must be")
SHAPES = ((64, 64), (97, 61), (40, 120), (33, 33), (200, 150))  # one after the other
ENGLISH = ["A red House, above a blue bird!", "Two suns", "a yellow tree"]


@dataclass(frozen=True)
class Tower:
    """An image model: how to write it, its width, and whether its vectors have norm 1."""

    write: Callable[[Path], Path]
    dim: int
    unit: bool = False
    folder: Path = Path()


def write_resnet(folder: Path) -> Path:
    """A pair with a ResNet for images, as training.pretrain saves it, random weights."""
    sizes = {"image_size": 64, "resnet_widths": (16, 32, 48), "resnet_blocks": (1, 2, 1), "resnet_block": "bottleneck"}
    text = {"text_layers": 1, "text_hidden": 32, "vocabulary": 530, "caption_tokens": 16}
    config = PretrainConfig(captions="x", run="x", image_tower="resnet", dim=24, **sizes, **text)
    processor = build_processor(ENGLISH, config)
    save_clip(build_clip(processor, config).eval(), processor, folder)
    return folder


TOWERS = {
    "siglip": Tower(layouts.write_siglip, 32),
    "siglip2": Tower(layouts.write_siglip2, 32),
    "siglip2-naflex": Tower(layouts.write_siglip2_naflex, 32),
    "metaclip-2": Tower(layouts.write_metaclip2, 24),
    "vision-text-dual-encoder": Tower(layouts.write_vision_text, 40),
    "clip-ViT-L-14": Tower(write_clip_l_14, 768),
    "resnet": Tower(write_resnet, 24),
    "embeddinggemma-2": Tower(layouts.write_embeddinggemma2, 768, unit=True),
}


@pytest.fixture(scope="module", params=TOWERS)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tower]:
    if request.param == "siglip":
        pytest.importorskip("sentencepiece", reason="the tokenizer of SigLIP needs it")
    made = TOWERS[request.param]
    folder = made.write(tmp_path_factory.mktemp("tower") / request.param)
    with pytest.MonkeyPatch.context() as patch:
        layouts.load_without_torchvision(patch)
        yield Tower(made.write, made.dim, made.unit, folder)


@pytest.fixture(scope="module")
def source(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several shapes with Turkish and English captions in three splits."""
    folder = tmp_path_factory.mktemp("shapes")
    rows = []
    lines = (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        row = json.loads(line)
        path = folder / row["file_name"]
        path.parent.mkdir(exist_ok=True)
        with Image.open(captioned_folder / row["file_name"]) as image:
            image.convert("RGB").resize(SHAPES[number % len(SHAPES)]).save(path)
        rows.append({key: row[key] for key in ("file_name", "image_id", "split", "captions", "captions_en")})
    return write_rows(folder, rows)


def options(tower: Tower, source: Path, run: Path, *more: str) -> list[str]:
    base = f"--captions {source} --image_model {tower.folder} --run {run} --device cpu --image_batch_size 8"
    return [*base.split(), *more]


@pytest.fixture(scope="module")
def embedded(tower: Tower, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "mine"
    embed_images.main(options(tower, source, run, "--dtype", "float32"))
    return run


def cosines(tower: Tower, source: Path, embeddings_folder: Path) -> np.ndarray[Any, Any]:
    """Of the stored vectors with those that plain sentence-transformers gives, image by image."""
    embeddings = read_embeddings(embeddings_folder, dim=tower.dim)
    plain = SentenceTransformer(str(tower.folder), device="cpu")
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = encode_each(plain, [Image.open(source / row["file_name"]) for row in rows])
    return np.asarray((embeddings.unit_rows([row["image_id"] for row in rows]) * unit(expected)).sum(axis=1))


def test_stored_vectors_are_those_of_encode(tower: Tower, source: Path, embedded: Path, tmp_path: Path) -> None:
    exact = 1e-5 if not tower.unit else 1e-3  # EmbeddingGemma 2 is stored in bfloat16, and encodes in it
    assert cosines(tower, source, embedded / "embeddings").min() > 1 - exact
    manifest = read_embeddings(embedded / "embeddings").manifest
    assert (manifest.dim, manifest.normalised, manifest.images) == (tower.dim, tower.unit, 48)
    embed_images.main(options(tower, source, tmp_path, "--dtype", "bf16"))
    assert cosines(tower, source, tmp_path / "embeddings").min() > 0.999


def test_from_images_to_a_published_text_encoder(tower: Tower, source: Path, embedded: Path) -> None:
    small = "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32"
    distill.main(options(tower, source, embedded, *small.split(), "--epochs", "1"))
    results = evaluate.main(options(tower, source, embedded, "--bootstrap_samples", "20"))
    assert results["teacher_captions"] > 0
    record = json.loads((embedded / "run.json").read_text(encoding="utf-8"))
    record["git"] = {"commit": "0" * 40}
    (embedded / "run.json").write_text(json.dumps(record), encoding="utf-8")

    encoder = load_dual_encoder(embedded, device="cpu")
    assert encoder.dim == tower.dim
    (batch,) = encoder.embed_images([Image.new("RGB", (50, 30), "red")])
    assert batch.vectors.shape == (1, tower.dim)

    alone = tower.unit  # without the side for videos, its processor can't be saved in a pair
    ids = "--model_id me/text --paired_id me/pair --license apache-2.0 --captions_license cc0-1.0".split()
    config = publish.read(PublishConfig, [str(embedded), *ids, *([] if alone else ["--paired"])])
    build.build(config, publish.finished_run(embedded), Results.read(embedded))
    checks = verify(config.output, image_model=tower.folder if alone else None, device="cpu")
    assert all(check.passed for check in checks), as_lines(checks)
    assert {check.name for check in checks} >= {"width", "pairs", "similarity"}
    assert next(check.found for check in checks if check.name == "width") == str(tower.dim)
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert f"dense 32 → {tower.dim} → normalise" in card


@pytest.mark.parametrize("name", ["siglip", "siglip2", "siglip2-naflex"])
def test_a_siglip_reads_lower_case_padded_to_its_full_length(name: str, tmp_path: Path) -> None:
    import torch

    if name == "siglip":
        pytest.importorskip("sentencepiece", reason="the tokenizer of SigLIP needs it")
    folder = TOWERS[name].write(tmp_path / name)
    model = load_model(folder, device="cpu")
    inner, tokenizer = model[0].model, model[0].tokenizer
    lower = tokenizer([text.lower() for text in ENGLISH], padding="max_length", max_length=64, return_tensors="pt")
    with torch.inference_mode():
        expected = inner.get_text_features(input_ids=lower["input_ids"]).pooler_output.numpy()
    assert np.allclose(model.encode(ENGLISH), expected, atol=1e-5)
    assert np.allclose(encode_each(model, ENGLISH), expected, atol=1e-5)
    plain = SentenceTransformer(str(folder), device="cpu").encode(ENGLISH)
    assert not np.allclose(plain, expected, atol=0.1)  # the host pads to the longest of a batch
    model.save(str(tmp_path / "saved"))
    again = load_model(tmp_path / "saved", device="cpu")
    assert np.array_equal(again.encode(ENGLISH), model.encode(ENGLISH))
    assert again[0].tokenizer("EV")["input_ids"] == tokenizer("ev")["input_ids"]


def test_embeddinggemma_2_reads_a_query_with_its_prompt(
    captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.load_without_torchvision(monkeypatch)
    folder = layouts.write_embeddinggemma2(tmp_path / "gemma")
    model = load_model(folder, device="cpu")
    assert query_prompt(model) == "task: search result | query: "
    encoder = load_dual_encoder(folder, device="cpu")
    expected = unit(model.encode(ENGLISH, prompt_name="query"))
    assert np.array_equal(encoder.encode_texts(ENGLISH), expected)
    assert not np.allclose(model.encode(ENGLISH), expected, atol=1e-2)
    images = [Image.new("RGB", (50, 30), "red"), Image.new("RGB", (30, 50), "blue")]
    (batch,) = encoder.embed_images(images)
    assert np.allclose(batch.vectors, unit(encode_each(model, images)), atol=0.01)  # images without one

    about = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    about["default_prompt_name"] = "document"  # as a model may have it, for images, too
    (folder / "config_sentence_transformers.json").write_text(json.dumps(about), encoding="utf-8")
    with_prompt = load_dual_encoder(folder, device="cpu")
    (prompted,) = with_prompt.embed_images(images)
    assert np.allclose(prompted.vectors, unit(encode_each(with_prompt.image, images)), atol=0.01)
    assert not np.allclose(prompted.vectors, batch.vectors, atol=0.02)
