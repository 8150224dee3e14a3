"""Both generators are trained by their commands, loaded as their users do, and drawn by; a killed run ends the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from killing import run_killed
from PIL import Image

from training import embed_images
from training.drawing import autoencoder, decoder
from training.embeddings.manifest import EmbeddingsError
from turkish_clip.generate import load_autoencoder, load_decoder

pytest.importorskip("diffusers")
AUTOENCODER = "--image_size 32 --channels 8,8,8 --codes 16 --code_width 3 --epochs 2 --batch_size 8 --device cpu"
DECODER = "--channels 16,8 --epochs 3 --batch_size 8 --device cpu"


def weights_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture(scope="module")
def embedded(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    run = tmp_path_factory.mktemp("embedded")
    options = ["--captions", str(captioned_folder), "--image_model", str(tiny_clip), "--device", "cpu"]
    embed_images.main([*options, "--run", str(run)])
    return [*options, "--embeddings", str(run / "embeddings"), *DECODER.split()]


@pytest.mark.parametrize("compared", [False, True])
def test_an_autoencoder(captioned_folder: Path, tiny_clip: Path, tmp_path: Path, compared: bool) -> None:
    argv = ["--captions", str(captioned_folder), *AUTOENCODER.split(), "--run", str(tmp_path / "run")]
    if compared:
        argv += ["--image_model", str(tiny_clip)]
    found = autoencoder.main(argv)
    assert found["images"] == 16
    assert 0 < found["difference"] < 0.5
    assert 1 <= found["codes_used"] <= 16
    assert not list((tmp_path / "run").glob("images*"))
    model = load_autoencoder(tmp_path / "run" / "model")
    assert model.config["sample_size"] == 32
    assert autoencoder.main([*argv, "--resume"]) == found
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "32-pixel images as 8 × 8 codes out of 16" in card
    assert f"| {found['codes_used']} |" in card
    curve = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text("utf-8").splitlines()]
    assert curve[-2]["loss"] < curve[0]["loss"]


def test_a_decoder(embedded: list[str], tmp_path: Path, captioned_folder: Path) -> None:
    found = decoder.main([*embedded, "--run", str(tmp_path / "run"), "--half"])
    assert found["images"] == 16
    assert -1 <= found["cosine"] <= 1
    loaded = load_decoder(tmp_path / "run" / "model")
    assert f"| {found['bytes']:,} |" in (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    (image,) = loaded.images(np.ones((1, 16), np.float32), seed=0)
    assert image.size == (16, 16)
    (batch,) = [np.concatenate([np.ravel(loaded.moments.mean), np.ravel(loaded.moments.deviation)])]
    assert np.isfinite(batch).all()
    assert float(loaded.moments.deviation.max()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("command", [autoencoder, decoder])
def test_killed_and_resumed_gives_the_same_weights(
    command: object, embedded: list[str], captioned_folder: Path, tmp_path: Path
) -> None:
    argv = ["--captions", str(captioned_folder), *AUTOENCODER.split()] if command is autoencoder else embedded
    main = command.main  # type: ignore[attr-defined]
    main([*argv, "--run", str(tmp_path / "whole")])
    killed = [*argv, "--run", str(tmp_path / "killed")]
    run_killed(command.__name__, "torch.optim:AdamW.step", 6, killed)  # type: ignore[attr-defined]
    main([*killed, "--resume"])
    assert weights_of(tmp_path / "whole" / "model") == weights_of(tmp_path / "killed" / "model")


def test_embeddings_of_another_image_model(embedded: list[str], tmp_path: Path, tiny_clip: Path) -> None:
    argv = [*embedded, "--run", str(tmp_path / "run")]
    folder = Path(argv[argv.index("--embeddings") + 1])
    manifest = json.loads((folder / "manifest.json").read_text("utf-8")) | {"weights_sha256": "0" * 64}
    (tmp_path / "other").mkdir()
    for path in folder.iterdir():
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    argv[argv.index("--embeddings") + 1] = str(tmp_path / "other")
    with pytest.raises(EmbeddingsError, match="got other weights; embed again"):
        decoder.main(argv)


def test_an_image_that_does_not_open_is_left_out(captioned_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    source.mkdir()
    lines = []
    for number in range(40):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(source / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "captions": ["bir ev"]}))
    (source / "7.png").write_bytes(b"broken")
    (source / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    argv = ["--captions", str(source), *AUTOENCODER.split(), "--run", str(tmp_path / "run")]
    argv += ["--max_skipped_fraction", "0.1", "--validation_fraction", "0.3"]
    assert 0 < autoencoder.main(argv)["images"] < 20
    assert json.loads((tmp_path / "run" / "skipped.jsonl").read_text("utf-8"))["image_id"] == "7.png"
