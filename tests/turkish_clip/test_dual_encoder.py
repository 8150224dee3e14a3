"""Which two models are loaded, by arguments, environment variables, and the record and folder of a training run."""

from __future__ import annotations

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

from turkish_clip.dual_encoder import load_dual_encoder, weights_sha256
from turkish_clip.encoder import ModelError, load_model
from turkish_clip.resolve import NoModelError, UnreachableError, resolve_models
from turkish_clip.verify import RECORD, ModelRecord

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
        UnreachableError, match=f"expected a model, got {name}, which is no folder here; check the path"
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


@pytest.mark.parametrize("kind", ["tiny_clip", "pair_folder"])
def test_changed_weights_of_the_image_model_are_warned_of(
    kind: str, request: pytest.FixtureRequest, text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image_model: Path = request.getfixturevalue(kind)
    trained_for = {"id": str(image_model), "revision": "", "weights_sha256": weights_sha256(load_model(image_model))}
    run = make_run(tmp_path / "run", trained_for)
    shutil.copytree(text_folder, run / "model", dirs_exist_ok=True)
    write_model_record(run, trained_for)
    with caplog.at_level(logging.WARNING, "turkish_clip"):
        load_dual_encoder(run, device="cpu")
        assert not caplog.records
        trained_for["weights_sha256"] = "0" * 64
        write_model_record(run, trained_for)
        load_dual_encoder(run, device="cpu")
    assert [record.getMessage() for record in caplog.records] == [
        f"{image_model} has other weights than the image model that {run / 'model'} was trained for: scores are wrong; "
        "train anew, or name the right one with --image-model"
    ]


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
    pair = load_dual_encoder(pair_folder, device="cpu")
    photo = str(next(captioned_folder.rglob("*.png")))
    with HTTPServer(("127.0.0.1", 0), Asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/foto.png"
            texts = [photo, address, "data:image/png;base64,AAAA", "kırmızı bir ev"]
            vectors = pair.encode_texts(texts)
        finally:
            server.shutdown()
    assert not Asked.paths
    assert vectors.shape == (4, pair.dim)
    alone = np.concatenate([pair.encode_texts([text]) for text in texts])
    assert np.allclose(vectors, alone, atol=1e-5)
    image = pair.image.encode(Image.open(photo).convert("RGB"))
    assert float(vectors[0] @ image / np.linalg.norm(image)) < 0.999


def test_no_texts_have_no_vectors(pair_folder: Path) -> None:
    pair = load_dual_encoder(pair_folder, device="cpu")
    assert pair.encode_texts([]).shape == (0, pair.dim)
