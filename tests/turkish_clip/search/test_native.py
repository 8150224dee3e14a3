"""Reading an index through LanceDB's compiled module: the same as through its package, which is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.search import native
from turkish_clip.search.index import ImageIndex

READER = """
import json, sys
import numpy as np
if sys.argv[2] == "package": import lancedb
from turkish_clip.errors import InputError
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.query import NearestImages

index = ImageIndex.open(sys.argv[1])
assert (index._tables._native is None) == (sys.argv[2] == "package")
paths, vectors = index.vectors()
found = [index.search_vector(vectors[2], 4), index.search_vector(vectors[1], 9, where="path LIKE '%/sub/%'")]
found += [index.search_vector(vectors[0], 3, exact=True)]
tables = index._tables
found += [tables.nearest(vectors[3], 3, None, False, 0.5)]
try:
    index.search_vector(vectors[0], where="colour = 3")
except InputError as error:
    found.append(str(error))
known = [index.metadata, tables.collection(), len(index), index.folders(), sorted(tables.files().items()), paths]
assert vectors.flags.writeable and vectors.dtype == np.float32
loaded = [name for name in ("lancedb", "pandas", "torch", "pyarrow.compute", "scipy") if name in sys.modules]
print(json.dumps([repr(known), repr(found), vectors.tolist(), loaded]))
"""
# Another process adds an image to an open index, which this one then reads.
LATER = """
import sys
from turkish_clip.search.index import ImageIndex
index = ImageIndex.open(sys.argv[1])
vector = index.vectors()[1][0]
before = len(index), len(index.search_vector(vector, 20))
print(flush=True)
input()
after = len(index), len(index.search_vector(vector, 20))
assert index.remove([index.vectors()[0][0]]) == 1  # writes, with LanceDB's package
print(before, after, len(index), len(index.search_vector(vector, 20)), "lancedb" in sys.modules)
"""


def read(folder: Path, way: str) -> Any:
    argv = [sys.executable, "-c", READER, str(folder), way]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_the_installed_version_is_known() -> None:
    """If not, add the new one to KNOWN after reading what changed: searches take four times as long without."""
    folders = [Path(folder).parent for folder in __import__("lancedb").__path__]
    assert any(map(native._is_known, folders))


def test_the_same_is_read_without_the_package(index: ImageIndex, encoder: DualEncoder, photos: Path) -> None:
    texts = [f"{number} ev" for number in range(100)]
    index.add(photos, queries=texts)  # with hub scores
    known, found, vectors, loaded = read(Path(index.uri), "native")
    assert loaded == []
    assert [known, found, vectors] == read(Path(index.uri), "package")[:3]
    assert "expected a condition over path, also_at, bytes" in found


def test_it_sees_what_others_write_and_writes_itself(index: ImageIndex, photos: Path) -> None:
    argv = [sys.executable, "-c", LATER, index.uri]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, **pipes) as reader:  # type: ignore[call-overload]
        assert reader.stdout.readline() == "\n"
        (photos / "0.png").unlink()
        index.add(photos)
        printed, errors = reader.communicate("\n", timeout=120)
    assert reader.returncode == 0, errors
    assert printed.strip() == "(6, 6) (5, 5) 4 4 True"


def test_where_the_package_is_loaded_it_is_used(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.NativeTables.of(index.uri) is None
    monkeypatch.delitem(sys.modules, "lancedb")
    assert native.NativeTables.of(index.uri) is not None


def test_another_version_is_not_read_so(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lancedb")
    monkeypatch.delitem(sys.modules, native.COMPILED)
    monkeypatch.setattr(native, "KNOWN", ("0.39.",))
    assert native.NativeTables.of(index.uri) is None
