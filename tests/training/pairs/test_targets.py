"""The kept embeddings of English captions are read as they were written, or computed again and said so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from training.pairs import targets
from training.pairs.targets import EnglishEmbeddings

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)
ROWS = [SimpleNamespace(english=("a", "b"), image_id="1"), SimpleNamespace(english=("a", "c"), image_id="2")]


@pytest.fixture
def english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[np.ndarray, int]]:
    """Returns the vectors, and how often they have been computed."""
    computed: list[list[str]] = []

    def encoded(texts: Iterator[str], *_: Any) -> Iterator[np.ndarray]:
        computed.append(list(texts))
        yield VECTORS[:2]
        yield VECTORS[2:]

    monkeypatch.setattr(targets, "_encoded", encoded)
    manifest = SimpleNamespace(weights_sha256="0" * 64, text_shards=(), dim=4)
    embeddings: Any = SimpleNamespace(folder=tmp_path, manifest=manifest)
    rows, config = list[Any](ROWS), SimpleNamespace(objective="mse_text", folder=tmp_path)

    def read() -> tuple[np.ndarray, int]:
        found = EnglishEmbeddings.of(rows, embeddings, config, raw=True)  # type: ignore[arg-type]
        assert found.vector_rows.tolist() == [0, 1, 0, 2]
        return np.array(found.vectors), len(computed)

    return read


def kept(folder: Path) -> Path:
    (path,) = folder.glob("english-*.npy")
    return path


def test_they_are_computed_once_and_any_reader_of_npy_reads_them(
    tmp_path: Path, english: Callable[[], tuple[np.ndarray, int]]
) -> None:
    for _ in range(2):
        vectors, times = english()
        assert (vectors.tolist(), times) == (VECTORS.tolist(), 1)
    assert np.load(kept(tmp_path)).tolist() == VECTORS.tolist()


def overwritten(array: np.ndarray) -> Callable[[Path], Any]:
    return lambda path: np.save(path, array)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1  # one bit of the last number
    path.write_bytes(content)


def link(path: Path) -> None:
    target = path.parent / "mine.npy"
    np.save(target, np.zeros((3, 4), np.float32))
    path.unlink()
    path.symlink_to(target)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b""), "has 0 bytes, and not 208"),  # 128 of the header, 48, and 32
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "has 201 bytes"),
        (flip, "has changed since it was written"),
        (overwritten(VECTORS + 1), "has 176 bytes"),
        (overwritten(np.zeros((2, 4), np.float32)), "bytes, and not 208"),
        (overwritten(np.full((3, 4), np.nan, np.float32)), "bytes, and not 208"),
        (overwritten(np.zeros((3, 4), np.int8)), "bytes, and not 208"),
        (overwritten(np.zeros((5, 4), np.float32)), "has changed since it was written"),
        (link, "is no regular file"),
        (folder, "is no regular file"),
    ],
)
def test_a_damaged_file_is_named_and_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, english: Callable[[], tuple[np.ndarray, int]],
    damage: Callable[[Path], Any], said: str,
) -> None:  # fmt: skip
    english()
    path = kept(tmp_path)
    damage(path)
    with caplog.at_level("WARNING", "training"):
        vectors, times = english()
    assert (vectors.tolist(), times) == (VECTORS.tolist(), 2)
    (record,) = caplog.records
    (aside,) = tmp_path.glob("english-*.kept-*")
    assert record.getMessage().startswith(f"{path} ")
    assert said in record.getMessage()
    assert record.getMessage().endswith(f"it is computed again, and that file stays as {aside.name}")
    if aside.is_symlink():  # what it led to is as it was
        assert np.array_equal(np.load(tmp_path / "mine.npy"), np.zeros((3, 4)))
    assert english()[1] == 2
