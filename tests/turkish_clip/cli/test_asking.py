"""Asking an index by words: the same output as with the models loaded, in a process that never imports torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turkish_clip.cli import entry
from turkish_clip.errors import InputError
from turkish_clip.onnx.export import export_onnx
from turkish_clip.resolve import NoModelError

HEAVY = ("torch", "transformers", "sentence_transformers", "scipy", "lancedb", "pandas", "huggingface_hub", "onnx")
COMMAND = f"""
import sys
from turkish_clip.cli import main
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
FULL = ("--device", "cpu:0")  # a device is torch's, so that the models are loaded


def in_process(*argv: object) -> Any:
    result = CliRunner().invoke(entry.app, [*map(str, argv), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def alone(*argv: object) -> tuple[Any, str]:
    """Runs a command in a process of its own; returns its JSON, and the heavy modules that it imported."""
    command = [sys.executable, "-c", COMMAND, *map(str, argv), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def asked(pair_folder: Path, captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with its index, a text encoder beside it, and the model of both."""
    place = tmp_path_factory.mktemp("asked")
    for path in sorted((captioned_folder / "test").glob("*.png")):
        (place / "photos" / path.name).parent.mkdir(exist_ok=True)
        (place / "photos" / path.name).write_bytes(path.read_bytes())
        os.utime(place / "photos" / path.name, ns=(10**9, 10**9))  # of a new file, the index does not keep the time
    for path in pair_folder.rglob("*"):
        if path.is_file():
            copy = place / "model" / path.relative_to(pair_folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            os.utime(copy, ns=(10**9, 10**9))
    queries = place / "queries.txt"
    queries.write_text("\n".join(f"{number} kırmızı ev" for number in range(100)), encoding="utf-8")
    added = in_process("index", place / "photos", "--model", place / "model", "--queries", queries)
    kept = added["text_encoder"]
    assert (kept["precision"], (place / "photos" / ".turkish-clip" / kept["folder"]).is_dir()) == ("float32", True)
    assert kept["bytes"] > 10_000
    return place


def numbers_apart(found: Any, expected: Any) -> float:
    """The largest difference of two numbers at the same place of two JSON values, which are equal but for these."""
    if isinstance(found, float) and isinstance(expected, float):
        return abs(found - expected)
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        return max([0.0, *(numbers_apart(value, expected[name]) for name, value in found.items())])
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return max([0.0, *map(numbers_apart, found, expected)])
    assert found == expected
    return 0.0


@pytest.mark.parametrize(
    "command",
    [
        ["search", "photos", "kırmızı ev ve zürafa"],
        ["search", "photos", "iki kuş", "-k", 3, "--by-cosine", "--where", "bytes > 1"],
        ["filter", "photos", "-p", "kırmızı ev", "--min-probability", 0],
        ["compare", "photos", "-t", "ev", "-t", "iki kuş"],
        ["classify", "photos", "--labels", "ev|evin,kuş,ağaç"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_command_that_asks_by_words_imports_no_torch(asked: Path, command: list[object]) -> None:
    name, place, *rest = command
    argv = [name, asked / str(place), *rest, "--model", asked / "model"]
    found, loaded = alone(*argv)
    assert loaded == "[]"
    assert numbers_apart(found, in_process(*argv, *FULL)) < 2e-6


def test_what_is_not_indexed_as_it_is_now_is_looked_at(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    load = entry.images.load
    monkeypatch.setattr(entry.images, "load", lambda *argv: loads.append(argv) or load(*argv))
    monkeypatch.setenv("TURKISH_CLIP_MODEL", str(asked / "model"))
    image, *others = sorted((asked / "photos").glob("*.png"))
    assert len(in_process("compare", image, "-t", "ev")["images"]) == 1
    assert not loads
    os.utime(image, ns=(2 * 10**9, 2 * 10**9))
    assert len(in_process("compare", image, *others, "-t", "ev")["images"]) == 1 + len(others)
    assert len(loads) == 1
    in_process("compare", *others, "-t", "ev")
    assert len(loads) == 1
    in_process("classify", *others, "--labels", "ev,kuş", *FULL)
    assert len(loads) == 2
    in_process("index", asked / "photos")


def test_a_named_onnx_folder_asks_too(asked: Path, exported: Path, tmp_path: Path) -> None:
    folder = export_onnx(asked / "model", tmp_path / "onnx").folder
    found, loaded = alone("search", asked / "photos", "kırmızı ev", "--model", folder)
    assert loaded == "[]"
    assert numbers_apart(found, in_process("search", asked / "photos", "kırmızı ev", "--model", asked / "model")) < 1e-6
    with pytest.raises(InputError, match="expected a text encoder for the image model that .*, got .*; give the model"):
        in_process("search", asked / "photos", "ev", "--model", exported)
    image = next((asked / "photos").glob("*.png"))
    with pytest.raises(NoModelError, match="expected a model, got .*, an ONNX export, which encodes texts alone"):
        in_process("search", asked / "photos", "--image", image, "--model", folder)


def test_a_run_is_loaded_once(asked: Path, tmp_path: Path) -> None:
    """Its model has the weights of the index's text encoder, as the first search finds out: the next needs no torch."""
    shutil.copytree(asked / "model", tmp_path / "run" / "model")  # with the files' times
    (tmp_path / "run" / "run.json").write_text("{}", encoding="utf-8")
    argv = ["search", asked / "photos", "kırmızı ev", "--model", tmp_path / "run"]
    first, loaded = alone(*argv)
    assert "'torch'" in loaded
    second, loaded = alone(*argv)
    assert loaded == "[]"
    assert numbers_apart(second, first) < 1e-6


def test_an_int8_text_encoder_by_option(asked: Path, tmp_path: Path) -> None:
    shutil.copytree(asked / "photos", tmp_path / "photos")
    kept = in_process("index", tmp_path / "photos", "--model", asked / "model", "--text-encoder", "int8")[
        "text_encoder"
    ]
    assert kept["precision"] == "int8"
    argv = ["search", tmp_path / "photos", "kırmızı ev", "--model", asked / "model"]
    found, loaded = alone(*argv)
    assert loaded == "[]"
    exact = {hit["path"]: hit["score"] for hit in in_process(*argv, *FULL)["hits"]}
    apart = [abs(hit["score"] - exact[hit["path"]]) for hit in found["hits"]]
    assert 0 < max(apart) < 0.05  # by other vectors than those of float32, by little


def test_one_of_other_weights_beside_the_index_is_not_asked(asked: Path, tmp_path: Path) -> None:
    """The models are loaded, and the answer is theirs, after a line that says why it took longer."""
    shutil.copytree(asked / "photos", tmp_path / "photos")
    graph = next((tmp_path / "photos" / ".turkish-clip").glob("text-encoder-*/model.onnx"))
    content = graph.read_bytes()
    weights = graph.parent.name.removeprefix("text-encoder-").encode()
    assert content.count(weights) == 1
    graph.write_bytes(content.replace(weights, b"0" * len(weights)))
    argv = ["search", tmp_path / "photos", "kırmızı ev", "--model", asked / "model"]
    found = in_process(*argv)
    (said,) = [line for line in found["warnings"] if "is left out" in line]
    assert "expected model.onnx of the same export" in said
    assert said.endswith("; turkish-clip index makes it again")
    assert [hit["score"] for hit in found["hits"]] == [hit["score"] for hit in in_process(*argv, *FULL)["hits"]]


def test_without_a_text_encoder_the_models_are_loaded(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["search", asked / "photos", "kırmızı ev", "--model", asked / "model"]
    quick = in_process(*argv)
    loads: list[object] = []
    load = entry.images.open_index.__globals__["load"]
    monkeypatch.setitem(
        entry.images.open_index.__globals__, "load", lambda *argv, **more: loads.append(argv) or load(*argv, **more)
    )
    assert in_process(*argv) == quick
    assert not loads
    find = entry.images.keep_text_encoder.__globals__["find_spec"]
    monkeypatch.setattr(
        "turkish_clip.search.text_encoder.find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    assert numbers_apart(in_process(*argv), quick) < 1e-6
    assert len(loads) == 1
