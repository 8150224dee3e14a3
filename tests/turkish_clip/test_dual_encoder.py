"""Which two models are loaded, by arguments, environment variables, and the record and folder of a training run."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from turkish_clip.dual_encoder import MINIATURE_SHA256, load_dual_encoder, weights_sha256
from turkish_clip.encoder import ModelError, load_model, pair, save_text_encoder
from turkish_clip.metrics import unit
from turkish_clip.reading import shortened
from turkish_clip.resolve import NoModelError, UnreachableError, resolve_models
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.storage import ImageIndexError
from turkish_clip.verify import RECORD, ModelRecord, encode_each, golden_images

IMAGE_MODEL = "models/clip"  # relative to the root of a checkout, as `make demo` gives it


def make_run(folder: Path, image_model: dict[str, str]) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "run.json").touch()
    write_model_record(folder, image_model)
    return folder


def write_model_record(run: Path, image_model: dict[str, str], temperature: float | None = None) -> None:
    record = ModelRecord(
        kind="text", dim=16, max_tokens=32, weights_sha256="", image_model=image_model, temperature=temperature
    )
    (run / "model" / RECORD).write_text(record.to_json(), encoding="utf-8")


def test_models_are_resolved_by_argument_environment_and_run(
    pair_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TURKISH_CLIP_MODEL", raising=False)
    with pytest.raises(NoModelError, match="expected a model, got none; name one with --model or TURKISH_CLIP_MODEL"):
        resolve_models(None, None)
    monkeypatch.setenv("TURKISH_CLIP_MODEL", str(pair_folder))
    assert resolve_models(None, None).text == str(pair_folder)
    assert load_dual_encoder(device="cpu").dim == 16
    run = make_run(tmp_path / "run", {"id": "some/clip", "revision": "abc"})
    names = resolve_models(run, None)
    assert (names.text, names.image, names.image_revision) == (str(run / "model"), "some/clip", "abc")
    write_model_record(run, {"id": "some/clip", "revision": "abc"}, temperature=0.04)
    record = resolve_models(run, str(tiny_clip)).record
    assert record is not None
    assert record.temperature == 0.04


def test_the_model_of_a_run_is_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", {"id": "some/clip", "revision": "abc"})
    assert resolve_models(run / "model", None) == resolve_models(run, None)
    monkeypatch.chdir(run)
    assert (resolve_models("model", None).text, resolve_models("model", None).image) == ("model", "some/clip")
    monkeypatch.chdir(run / "model")
    assert not resolve_models(run / "model", None).image_is_guessed


def test_a_text_encoder_without_a_recorded_image_model_is_refused(text_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"expected the image model of .*, which names none; name it with --image-mo"):
        load_dual_encoder(text_folder, device="cpu")


@pytest.mark.parametrize("name", ["runs/demo/nosuch", "../nosuch"])
def test_a_missing_folder_is_refused(name: str) -> None:
    with pytest.raises(
        UnreachableError, match=f"expected a model, got {name}, which is no folder in .*; check the path"
    ):
        resolve_models(name, None)


def test_a_hub_that_does_not_answer_is_reported_at_once(tmp_path: Path) -> None:
    """The Hub's client alone would retry for two minutes."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    argv = [sys.executable, "-m", "turkish_clip.cli", "info", "--model", "org/nosuch"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    message = r"error: expected a model, got org/nosuch, .* no answer from the Hub \(http://127.0.0.1:9\): [^\n]*\n$"
    assert re.match(message, done.stderr), done.stderr


def test_a_device_that_the_machine_lacks_is_refused(pair_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a device that this machine has \(cpu.*\), got 'gpu'; choose with"):
        load_dual_encoder(pair_folder, device="gpu")


def test_a_run_takes_the_image_model_of_its_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("mine/models/clip", "theirs/models/clip", "mine/runs/models/clip"):
        (tmp_path / folder).mkdir(parents=True)
        if "runs" not in folder:
            (tmp_path / folder / "modules.json").touch()
    run = make_run(tmp_path / "mine" / "runs" / "demo", {"id": IMAGE_MODEL, "revision": ""})
    elsewhere = make_run(tmp_path / "runs" / "demo", {"id": IMAGE_MODEL, "revision": ""})
    for checkout, expected in (("mine", IMAGE_MODEL), ("theirs", str(tmp_path / "mine" / IMAGE_MODEL))):
        monkeypatch.chdir(tmp_path / checkout)
        assert resolve_models(run, None).image == expected
        assert resolve_models(elsewhere, None).image == IMAGE_MODEL
        assert resolve_models(run, "theirs/clip").image == "theirs/clip"
        assert resolve_models(Path("../mine/runs/demo"), None).image == expected


def test_a_damaged_or_older_record_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"id": "some/clip"})
    for text in ('{"image_mo', '{"temperature": 0.04}', '{"format": 1, "pictures": 3}'):
        (run / "model" / RECORD).write_text(text, encoding="utf-8")
        with pytest.raises(NoModelError, match=r"expected turkish_clip.json of format 3 in .*run/model, got "):
            resolve_models(run, None)


def test_a_recorded_hub_id_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "clip-ViT-B-32", {"id": "clip-ViT-B-32", "revision": "abc"})
    (run / "config.json").touch()
    assert resolve_models(run, None).image == "clip-ViT-B-32"
    assert resolve_models(make_run(tmp_path / "old", {"id": "", "revision": ""}), None).image == "clip-ViT-B-32"


def trained_for(
    image_model: Path, text_folder: Path, run: Path, golden: Path | None = None, name: str | None = None
) -> Path:
    """Makes a run whose text encoder was trained for an image model, with its golden vectors if `golden` is it."""
    weights = weights_sha256(load_model(image_model, device="cpu"))
    named = {"id": name or str(image_model), "revision": "", "weights_sha256": weights}
    make_run(run, named)
    shutil.copytree(text_folder, run / "model", dirs_exist_ok=True)
    write_model_record(run, named)
    if golden is not None:
        record = json.loads((run / "model" / RECORD).read_text(encoding="utf-8"))
        vectors = unit(encode_each(load_model(golden, device="cpu"), golden_images())).tolist()
        record["golden"] = {"texts": [], "text_vectors": [], "image_vectors": vectors}
        (run / "model" / RECORD).write_text(json.dumps(record), encoding="utf-8")
    return run


def changed(model: Path, folder: Path, size: float, kind: str = "visual_projection") -> Path:
    """Copies an image model with other weights of a kind: they differ by `size` of their norm."""
    import torch

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    for name, tensor in weights.items():
        if kind in name:
            other = torch.randn_like(tensor)
            weights[name] = tensor + size * other * (tensor.norm() / other.norm())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", ["tiny_clip", "pair_folder"])
def test_an_image_model_that_has_changed_is_refused(
    kind: str, request: pytest.FixtureRequest, text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image_model: Path = request.getfixturevalue(kind)
    run = trained_for(image_model, text_folder, tmp_path / "run")
    with caplog.at_level(logging.WARNING, "turkish_clip"):
        load_dual_encoder(run, device="cpu")
    assert not caplog.records
    write_model_record(run, {"id": str(image_model), "revision": "", "weights_sha256": "0" * 64})
    with pytest.raises(
        ModelError,
        match=rf"expected the image model that .*run/model was trained for \({image_model}\), got other weights in "
        rf"{image_model}, which have changed since: scores would mean nothing; name the right one with --image-model",
    ):
        load_dual_encoder(run, device="cpu")


@pytest.mark.parametrize("part", ["visual_projection", "patch_embedding", "post_layernorm"])
@pytest.mark.parametrize("published", [True, False])
def test_another_image_model_is_refused_whatever_its_name(
    part: str, published: bool, tiny_clip: Path, text_folder: Path, tmp_path: Path
) -> None:
    run = trained_for(tiny_clip, text_folder, tmp_path / "run", tiny_clip if published else None)
    other = changed(tiny_clip, tmp_path / tiny_clip.name, 5.0, part)
    with pytest.raises(ModelError, match=f"got other weights in {other}: scores would mean nothing"):
        load_dual_encoder(run, other, device="cpu")
    copied = shutil.copytree(tiny_clip, tmp_path / "copy")
    assert load_dual_encoder(run, copied, device="cpu").dim == 16


def test_a_copy_that_gives_the_golden_vectors_is_the_same_image_model(
    tiny_clip: Path, text_folder: Path, tmp_path: Path
) -> None:
    almost = changed(tiny_clip, tmp_path / "rounded", 1e-4)
    run = trained_for(tiny_clip, text_folder, tmp_path / "run", tiny_clip)
    assert load_dual_encoder(run, almost, device="cpu").image_name == str(almost)
    record = json.loads((run / "model" / RECORD).read_text(encoding="utf-8"))
    for wrong in ([[1.0]], [["x"]], [[1.0] * 16] * 3):
        record["golden"]["image_vectors"] = wrong
        (run / "model" / RECORD).write_text(json.dumps(record), encoding="utf-8")
        with pytest.raises(ModelError, match="got other weights in"):
            load_dual_encoder(run, almost, device="cpu")


def test_a_pair_whose_image_side_was_changed_is_refused(tiny_clip: Path, text_folder: Path, tmp_path: Path) -> None:
    other = changed(tiny_clip, tmp_path / "other", 5.0)
    named = {"id": "some/clip", "weights_sha256": weights_sha256(load_model(tiny_clip, device="cpu"))}
    record = ModelRecord(kind="paired", dim=16, max_tokens=128, weights_sha256="", image_model=named)
    for image, folder in ((tiny_clip, tmp_path / "right"), (other, tmp_path / "wrong")):
        save_text_encoder(pair(text_folder, image, device="cpu"), folder)
        (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    assert load_dual_encoder(tmp_path / "right", device="cpu").dim == 16
    with pytest.raises(ModelError, match=r"was trained for \(some/clip\), got other weights in .*wrong: scores would"):
        load_dual_encoder(tmp_path / "wrong", device="cpu")


def test_an_index_refuses_a_text_encoder_of_another_image_model(
    tiny_clip: Path, text_folder: Path, photos: Path, tmp_path: Path
) -> None:
    other = changed(tiny_clip, tmp_path / "other", 5.0)
    mine, theirs = (
        trained_for(image, text_folder, tmp_path / name) for image, name in ((tiny_clip, "mine"), (other, "theirs"))
    )
    again = trained_for(tiny_clip, text_folder, tmp_path / "again")
    ImageIndex.open(tmp_path / "index", load_dual_encoder(mine, device="cpu")).add(photos)
    assert ImageIndex.open(tmp_path / "index", load_dual_encoder(again, device="cpu")).search("ev")
    with pytest.raises(ImageIndexError, match="expected the image model that .* was made with"):
        ImageIndex.open(tmp_path / "index", load_dual_encoder(theirs, device="cpu"))
    with pytest.raises(ModelError, match=f"was trained for .*other.*, got other weights in {tiny_clip}"):
        load_dual_encoder(theirs, tiny_clip, device="cpu")


def test_a_model_without_turkish_is_warned_of(
    tiny_clip: Path, text_folder: Path, pair_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def said(*models: Path) -> list[str]:
        caplog.clear()
        load_dual_encoder(*models, device="cpu")
        return [record.getMessage() for record in caplog.records]

    with caplog.at_level(logging.WARNING, "turkish_clip"):
        assert said(pair_folder) == []
        for models in ((tiny_clip,), (tiny_clip, tiny_clip)):
            (line,) = said(*models)
            assert f"'{shortened(str(tiny_clip))}' has no Turkish text encoder, and tears Turkish words" in line
        (line,) = said(text_folder, tiny_clip)
        assert "does not say for which image model it was trained: for another one, scores mean nothing" in line


def test_the_demo_is_known_by_its_image_model(text_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(__file__).parents[2] / "training" / "mini" / "clip"
    assert weights_sha256(load_model(folder, device="cpu")) == MINIATURE_SHA256
    with caplog.at_level(logging.WARNING, "turkish_clip"):
        encoder = load_dual_encoder(folder, device="cpu")
    assert [caution.kind for caution in encoder.model_cautions] == ["miniature", "no Turkish"]
    assert "is the demo's, which knows drawings of its toy world alone" in caplog.text


@pytest.mark.parametrize("name", ["models/clip", "clip", "../models/clip"])
def test_a_relative_image_model_that_is_not_found_is_told_by_name(
    name: str, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", {"id": name, "revision": "", "weights_sha256": ""})
    shutil.copytree(text_folder, run / "model", dirs_exist_ok=True)
    write_model_record(run, {"id": name, "revision": ""})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match=f"expected the image model that .* names, got {name}, which is not found from"
    ):
        load_dual_encoder(run, device="cpu")


def test_a_copied_model_takes_the_image_model_of_the_checkout_around_it(
    tiny_clip: Path, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_clip, tmp_path / "checkout" / IMAGE_MODEL)
    folder = tmp_path / "checkout" / "published" / "mine"
    shutil.copytree(text_folder, folder)
    record = ModelRecord(kind="text", dim=16, max_tokens=32, weights_sha256="", image_model={"id": IMAGE_MODEL})
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_dual_encoder(folder, device="cpu").image_name == str(tmp_path / "checkout" / IMAGE_MODEL)


@pytest.mark.parametrize("name", ["runs/demo", "demo", "some/model"])
def test_a_relative_model_from_elsewhere_is_no_question_of_the_connection(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreachableError, match=f"expected a model, got {name}, which is no folder in {tmp_path} and"):
        load_dual_encoder(name, device="cpu")


def test_a_text_encoder_that_is_saved_shortened_is_refused_beside_a_whole_image_model(
    text_folder: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    model = load_model(text_folder, device="cpu")
    model.truncate_dim = 8
    model.save(str(tmp_path / "short"), create_model_card=False)
    with pytest.raises(ModelError, match="expected vectors of one width, got 8 from .*short and 16 from"):
        load_dual_encoder(tmp_path / "short", tiny_clip, device="cpu")


class Asked(BaseHTTPRequestHandler):
    """A server that notes what it is asked for."""

    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_error(404)


def test_a_text_that_looks_like_an_image_is_a_text(pair_folder: Path, captioned_folder: Path) -> None:
    """sentence-transformers takes a string that is a path, an address or a data: URI for an image, and fetches it."""
    both = load_dual_encoder(pair_folder, device="cpu")
    photo = str(next(captioned_folder.rglob("*.png")))
    with HTTPServer(("127.0.0.1", 0), Asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/foto.png"
            texts = [photo, address, "data:image/png;base64,AAAA", "kırmızı bir ev"]
            vectors = both.encode_texts(texts)
        finally:
            server.shutdown()
    assert not Asked.paths
    assert vectors.shape == (4, both.dim)
    alone = np.concatenate([both.encode_texts([text]) for text in texts])
    assert np.allclose(vectors, alone, atol=1e-5)
    image = both.image.encode(Image.open(photo).convert("RGB"))
    assert float(vectors[0] @ image / np.linalg.norm(image)) < 0.999


def test_no_texts_have_no_vectors(pair_folder: Path) -> None:
    both = load_dual_encoder(pair_folder, device="cpu")
    assert both.encode_texts([]).shape == (0, both.dim)
