"""A VQ-autoencoder of diffusers' own class as a canvas: sizes, gradients, codes, and what can't be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_autoencoder import tiny_autoencoder

from turkish_clip.generate.autoencoder import GeneratorError, VQCanvas, load_autoencoder, step_of

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VQModel with random weights: a code for each 4 × 4 pixels."""
    folder = tmp_path_factory.mktemp("vq")
    tiny_autoencoder().save_pretrained(folder / "vqvae", safe_serialization=True)
    return folder


@pytest.fixture
def model(folder: Path) -> Any:
    return load_autoencoder(folder)


def canvas_of(model: Any, seed: int = 0, start: Image.Image | None = None) -> VQCanvas:
    return VQCanvas(model, 24, 16, torch.Generator().manual_seed(seed), start=start)


def test_the_size_the_codes_and_the_gradients(model: Any) -> None:
    canvas = canvas_of(model)
    (codes,) = canvas.parameters()
    assert step_of(model) == 4
    assert canvas.size == (24, 16)
    assert tuple(codes.shape) == (1, 3, 6, 4)
    shown = canvas.image()
    assert tuple(shown.shape) == (1, 3, 24, 16)
    assert float(shown.detach().min()) >= 0
    assert float(shown.detach().max()) <= 1
    torch.autograd.backward(shown.mean())
    assert codes.grad is not None
    assert float(codes.grad.abs().max()) > 0
    assert not any(weight.requires_grad for weight in model.parameters())


def test_it_begins_with_entries_of_the_codebook_that_the_seed_draws(model: Any) -> None:
    entries = model.quantize.embedding.weight
    (codes,) = canvas_of(model).parameters()
    flat = codes.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    assert float(torch.cdist(flat, entries).min(dim=1).values.max()) < 1e-6
    assert torch.equal(canvas_of(model).image(), canvas_of(model).image())
    assert not torch.equal(canvas_of(model).image(), canvas_of(model, seed=1).image())


def test_it_begins_with_the_codes_of_an_image(model: Any) -> None:
    start = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 16, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.array(start, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        model.quantize.embedding.weight *= 100  # so that the image's codes lie within the codebook's range
    expected = (model(pixels).sample.detach() + 1) / 2
    assert torch.allclose(canvas_of(model, start=start).image(), expected.clamp(0, 1), atol=1e-5)


def test_a_code_beyond_the_codebook_shows_the_nearest_entry_and_can_come_back(model: Any) -> None:
    canvas = canvas_of(model)
    (codes,) = canvas.parameters()
    with torch.no_grad():
        codes += 100
    shown = canvas.image()
    torch.autograd.backward(shown.mean())
    assert codes.grad is not None
    assert float(codes.grad.abs().max()) > 0
    with torch.no_grad():
        codes += 100
    assert torch.equal(shown, canvas.image())


def test_sizes_that_do_not_fit(model: Any) -> None:
    with pytest.raises(GeneratorError, match="multiples of 4, as the autoencoder's, got 18x24; give 16x24"):
        VQCanvas(model, 24, 18, torch.Generator())


def test_folders_that_hold_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match="expected a VQ-autoencoder in .*gone, got no such folder; correct"):
        load_autoencoder(tmp_path / "gone")
    with pytest.raises(GeneratorError, match=r"got no config.json; name a folder or a Hub id"):
        load_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}', encoding="utf-8")
    with pytest.raises(GeneratorError, match="got a AutoencoderKL"):
        load_autoencoder(tmp_path)
    config = json.loads((folder / "vqvae" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(GeneratorError, match=r"got .*(safetensors|no file)"):
        load_autoencoder(tmp_path)
