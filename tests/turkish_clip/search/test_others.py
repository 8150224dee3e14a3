"""An index is made beside nothing of others: folders of photographs and LanceDB databases stay as they are."""

from __future__ import annotations

import json
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest
from samples import paint

from turkish_clip.cli.arguments import _index_of
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.records import as_json
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.storage import ImageIndexError, holds_index
from turkish_clip.search.tables import ImageTables, IndexMetadata


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["images", "files", "bank", "gezi"])
def test_photographs_in_a_folder_named_like_a_table_stay_and_are_indexed(
    name: str, photos: Path, encoder: DualEncoder
) -> None:
    (photos / f"{name}.lance").mkdir()
    paint(photos / f"{name}.lance" / "new.png", 11)
    before = files_in(photos)
    assert not holds_index(photos)
    assert _index_of(str(photos)) == str(photos / ".turkish-clip")
    with pytest.raises(ImageIndexError, match=r"expected an index or an empty folder, got .*; name a new folder"):
        ImageIndex.open(photos, encoder).add(photos)
    assert files_in(photos) == before
    assert ImageIndex.open(photos / ".turkish-clip", encoder).add(photos).images == 7


def test_photographs_in_an_index_are_not_removed(index: ImageIndex, photos: Path) -> None:
    folder = Path(index.uri) / "bank.lance"
    folder.mkdir()
    paint(folder / "new.png", 11)
    with pytest.raises(ImageIndexError, match="which holds 'bank.lance', not a table of turkish-clip"):
        index.add(photos)
    with pytest.raises(ImageIndexError, match="got another's table 'bank'; name another place"):
        ImageTables.connect(index.uri).remove_unmade()
    assert (folder / "new.png").is_file()


@pytest.mark.parametrize("name", ["images", "files", "bank", "pictures", "docs"])
def test_the_database_of_others_stays(
    name: str, tmp_path: Path, photos: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lancedb.connect(tmp_path / "db").create_table(name, pa.table({"text": ["a"]}))
    before = files_in(tmp_path / "db")
    assert not holds_index(tmp_path / "db")
    advice = "name (a new folder|another place)$"
    with pytest.raises(ImageIndexError, match=advice) as told:
        ImageIndex.open(tmp_path / "db", encoder).add(photos)
    assert "delete" not in str(told.value)
    assert files_in(tmp_path / "db") == before
    monkeypatch.setattr(
        "turkish_clip.search.storage._check_no_other_files", lambda folder: None
    )  # as on object storage
    with pytest.raises(ImageIndexError, match=f"got another's table '{name}'; name another place"):
        ImageIndex.open(tmp_path / "db", encoder).add(photos)
    assert {path for path in files_in(tmp_path / "db") if ".lance" in path} == set(before)


def test_a_database_of_others_within_an_index_is_told_of(index: ImageIndex, photos: Path) -> None:
    lancedb.connect(index.uri).create_table("docs", pa.table({"text": ["a"]}))
    with pytest.raises(ImageIndexError, match="which holds 'docs.lance', not a table of turkish-clip"):
        index.add(photos)


def test_an_index_is_known_by_each_of_its_tables(index: ImageIndex) -> None:
    assert holds_index(index.uri)
    tables = sorted(Path(index.uri).glob("*.lance"))
    (Path(index.uri) / "writing.lock").unlink()
    for table in tables:
        others = [other.rename(other.with_suffix(".away")) for other in tables if other != table]
        assert holds_index(index.uri), table
        for other in others:
            other.rename(other.with_suffix(".lance"))


@pytest.mark.parametrize("dim", [-1, 0, 65_537, 10**12, 10**400])
def test_an_index_of_an_impossible_width_is_refused(dim: int, tmp_path: Path) -> None:
    metadata = IndexMetadata(model="x", revision="", image_model="y", image_revision="", weights_sha256="", dim=dim)
    schema = pa.schema(
        [("vector", pa.list_(pa.float32(), 1))], metadata={"turkish_clip": json.dumps(as_json(metadata))}
    )
    lancedb.connect(tmp_path).create_table("images", schema=schema)
    with pytest.raises(ImageIndexError, match=r"got vectors of .* numbers, not of 1 to 65536; delete it") as told:
        ImageIndex.open(tmp_path).search_vector([1.0])  # type: ignore[arg-type]
    assert len(str(told.value)) < 300
