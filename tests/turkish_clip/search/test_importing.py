"""Vectors that other programs have stored, in their real layouts, become an index that finds what its own finds."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result
from vector_files import asset_id, clip_retrieval, immich_csv, immich_dump, pgvector

from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.errors import InputError
from turkish_clip.metrics import Vectors
from turkish_clip.search.composition import Query
from turkish_clip.search.importing import ImportVectorsError
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.vector_sources import VectorSourceError, open_source

HERE, THERE = "/usr/src/app/upload/library/admin", "/data/library"


pytestmark = pytest.mark.usefixtures("small_model")


@dataclass(frozen=True)
class Known:
    """Images with their paths on this machine, with those that another knows them by, and their vectors."""

    index: ImageIndex
    paths: list[str]
    names: list[str]
    vectors: Vectors

    def texts(self) -> list[str]:
        return [pgvector(3.7 * vector) for vector in self.vectors]


@pytest.fixture
def known(index: ImageIndex, photos: Path) -> Known:
    paths, vectors = index.vectors()
    return Known(index, paths, [path.replace(str(photos), HERE) for path in paths], vectors)


def run(command: str, *argv: object) -> Result:
    result = CliRunner().invoke(entry.app, [command, *map(str, argv)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def parquet(file: Path, /, **columns: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def lists(vectors: Vectors, *, fixed: bool = True) -> Any:
    import pyarrow as pa

    if not fixed:
        return pa.array([row.tolist() for row in vectors], pa.list_(pa.float64()))
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def written(layout: str, folder: Path, known: Known) -> tuple[Path, dict[str, Any]]:
    """Writes the vectors in a layout, by another machine's names; returns the source and what it is opened with."""
    names, vectors, texts = known.names, known.vectors, known.texts()
    if layout == "clip-retrieval":
        return clip_retrieval(folder / "out", names, vectors), {}
    if layout.startswith("immich dump"):
        table = {"table": "asset", "vectors_first": True} if "2" in layout else {}
        return immich_dump(folder / ("i.sql.gz" if "gz" in layout else "i.sql"), names, texts, **table), {}
    if layout == "immich csv":
        return immich_csv(folder / "csv", names, texts), {}
    if layout == "joined csv":
        with (folder / "joined.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["originalPath", "embedding"], *zip(names, texts)])
        return folder / "joined.csv", {}
    if layout == "joined copy":
        (folder / "joined.tsv").write_text("".join(f"{n}\t{t}\n" for n, t in zip(names, texts)), encoding="utf-8")
        return folder / "joined.tsv", {}
    if layout == "parquet":
        return parquet(folder / "t.parquet", path=names, vector=lists(vectors)), {}
    if layout == "parquets":
        for part in range(2):
            rows = slice(3 * part, 3 * part + 3)
            columns = {
                "title": ["x"] * 3,
                "file": names[rows],
                "e": lists(vectors[rows], fixed=False),
                "x": [[1.0]] * 3,
            }
            parquet(folder / "t" / f"{part}.parquet", **columns)
        return folder / "t", {"vectors_column": "e", "names_column": "file"}
    if layout == "lance":
        import lancedb
        import pyarrow as pa

        lancedb.connect(folder / "db").create_table("pictures", pa.table({"uri": names, "v": lists(vectors)}))
        return folder / "db", {}
    np.save(folder / "v.npy", vectors)
    if layout == "npy text":
        (folder / "names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    elif layout == "npy json":
        (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")
    else:
        parquet(folder / "names.parquet", path=names)
    return folder / "v.npy", {"names": next(folder.glob("names.*"))}


LAYOUTS = (
    *("clip-retrieval", "immich dump", "immich dump 2 gz", "immich csv", "joined csv", "joined copy"),
    *("parquet", "parquets", "lance", "npy text", "npy json", "npy parquet"),
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_finds_what_an_index_of_the_images_finds(
    layout: str, known: Known, tmp_path: Path, photos: Path, encoder: DualEncoder
) -> None:
    (tmp_path / "source").mkdir()
    path, options = written(layout, tmp_path / "source", known)
    source = open_source(path, **options)
    made = ImageIndex.import_vectors(source, tmp_path / "new", encoder, prefix=(HERE, str(photos)))
    assert (made.images, made.repeated, made.without_vector, made.not_here) == (6, 0, 0, 0)
    assert (made.probed, made.cosine) == (6, pytest.approx(1, abs=1e-3))
    index = ImageIndex.open(tmp_path / "new", encoder)
    for query in ("ev", photos / "2.png"):
        expected = [(hit.path, pytest.approx(hit.score, abs=2e-3)) for hit in known.index.search(query, 6)]
        assert [(hit.path, hit.score) for hit in index.search(query, 6)] == expected
    np.testing.assert_allclose(np.linalg.norm(index.vectors()[1], axis=1), 1, atol=1e-5)
    dated = layout.startswith("immich dump")
    assert {hit.photo.taken is not None for hit in index.search("ev", 6)} == {dated}
    index.add(photos)  # whose files were not read when it was made
    assert sorted(index.vectors()[0]) == sorted(known.paths)


def test_images_that_are_elsewhere_stay_and_can_be_searched(known: Known, tmp_path: Path) -> None:
    dump = immich_dump(tmp_path / "immich.sql", known.names, known.texts(), deleted=[1])
    made = run("index", tmp_path / "new", "--from", dump)
    assert made.exit_code == 0
    assert "5 images from a database dump of immich" in made.stdout
    assert f"none of 5 files is on this machine, the first being {known.names[0]}; give the same" in made.stderr
    assert "is not checked: none of its first images opens here" in made.stderr
    hits = json.loads(run("search", tmp_path / "new", "ev", "--json").stdout)["hits"]
    assert {hit["path"] for hit in hits} == set(known.names) - {known.names[1]}
    assert not any(hit["is_there"] for hit in hits)
    assert [hit["taken"] for hit in hits if hit["path"] == known.names[3]] == ["2025-04-04T19:25:45"]
    assert datetime.fromisoformat(hits[0]["taken"]).year == 2025
    again = json.loads(run("index", tmp_path / "json", "--from", dump, "--no-probe", "--json").stdout)
    assert (again["images"], again["not_here"], again["probed"], again["cosine"]) == (5, 5, 0, None)


def test_an_import_is_made_again_from_the_same_source_alone(known: Known, photos: Path, tmp_path: Path) -> None:
    dump, new = immich_dump(tmp_path / "immich.sql", known.names, known.texts()), tmp_path / "new"
    run("index", new, "--from", dump)
    advice = f"make it again: turkish-clip index {new} --from {dump} --prefix OLD=NEW"
    found = run("search", new, "ev")
    assert f"of them not there now; the index was made of {dump}; if they lie elsewhere here, {advice}" in found.stderr
    run("index", new, "--from", dump, "--prefix", f"{HERE}={photos}")
    found = run("search", new, "ev")
    assert "not there now" not in found.stderr
    assert str(photos) in found.stdout
    other = parquet(tmp_path / "other.parquet", path=known.names, vector=lists(known.vectors))
    with pytest.raises(InputError, match=f"got {new}, an index made of {dump}; name another, or delete that folder"):
        run("index", new, "--from", other)
    assert run("index", photos, "--at", new).exit_code == 0
    with pytest.raises(InputError, match=f"to which {photos} was added since; name another, or delete that folder"):
        run("index", new, "--from", dump)


def test_a_file_without_vectors_names_what_is_read(tmp_path: Path, known: Known) -> None:
    (tmp_path / "metin.txt").write_text("kar\nev\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a folder of clip-retrieval, .*\.npy with --names, .* got .*metin.txt"):
        run("index", tmp_path / "new", "--from", tmp_path / "metin.txt")


def test_vectors_without_a_direction_and_repeated_names_are_left_out(
    known: Known, tmp_path: Path, encoder: DualEncoder, photos: Path
) -> None:
    vectors = np.concatenate([known.vectors, known.vectors])
    vectors[1], vectors[2, 3], vectors[3, 0] = 0, np.nan, np.inf
    names = [*known.paths, known.paths[0], "", "x.png", *known.paths[3:]]
    source = parquet(tmp_path / "t.parquet", path=names, vector=lists(vectors))
    made = ImageIndex.import_vectors(source, tmp_path / "new", encoder)
    # 1, 2 and 3 have no direction, one has no name; 3 comes again with one; of 0, 4 and 5 the first is taken
    assert (made.images, made.repeated, made.without_vector, made.not_here) == (5, 3, 4, 1)
    index = ImageIndex.open(tmp_path / "new", encoder)
    paths, stored = index.vectors()
    assert sorted(paths) == sorted([known.paths[0], *known.paths[3:], "x.png"])
    np.testing.assert_allclose(stored[paths.index(known.paths[3])], known.vectors[3], atol=1e-6)
    import pyarrow as pa

    nulls = pa.array([known.vectors[0].tolist(), None], pa.list_(pa.float32(), encoder.dim))
    made = ImageIndex.import_vectors(
        parquet(tmp_path / "n.parquet", path=known.paths[:2], vector=nulls), tmp_path / "nulls", encoder
    )
    assert (made.images, made.without_vector) == (1, 1)


def test_vectors_of_another_model_are_refused(
    known: Known, tmp_path: Path, encoder: DualEncoder, rng: Any, photos: Path
) -> None:
    turned = np.ascontiguousarray(known.vectors[:, ::-1])
    other = parquet(tmp_path / "other.parquet", path=known.paths, vector=lists(turned))
    with pytest.raises(ImportVectorsError, match=r"of 6 images that are here, the median cosine .*, less than 0.99; "):
        ImageIndex.import_vectors(other, tmp_path / "new", encoder)
    assert not (tmp_path / "new").exists()
    assert ImageIndex.import_vectors(other, tmp_path / "new", encoder, probe=False).images == 6
    one_changed = known.vectors.copy()
    one_changed[2] = turned[2]  # that file has changed since
    some = parquet(tmp_path / "some.parquet", path=known.paths, vector=lists(one_changed))
    assert ImageIndex.import_vectors(some, tmp_path / "some", encoder).cosine == pytest.approx(1, abs=1e-3)
    narrow = parquet(tmp_path / "narrow.parquet", path=known.paths, vector=lists(known.vectors[:, :8].copy()))
    for probe in (True, False):
        with pytest.raises(
            ImportVectorsError, match=f"expected vectors of {encoder.dim} numbers, .* got 8 in .*narrow"
        ):
            ImageIndex.import_vectors(narrow, tmp_path / "narrow", encoder, probe=probe)


def test_an_interrupted_import_leaves_nothing(
    known: Known, tmp_path: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clip_retrieval(tmp_path / "out", known.names, known.vectors)
    (source / "metadata" / "metadata_2.parquet").unlink()
    with pytest.raises(VectorSourceError, match=r"expected .*metadata_2.parquet beside img_emb_2.npy, got no file"):
        ImageIndex.import_vectors(source, tmp_path / "new", encoder)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.txt").write_text("x")
    with pytest.raises(
        ImportVectorsError, match="expected a new or empty folder for the index, got .*new, which holds"
    ):
        ImageIndex.import_vectors(source, tmp_path / "new", encoder)


def bad_sources(folder: Path, known: Known) -> list[tuple[Path, dict[str, Any], str]]:
    """Sources that can't be read, what they are opened with, and what is said of them."""
    names, vectors = known.names, known.vectors
    np.save(folder / "v.npy", vectors)
    np.save(folder / "whole.npy", np.arange(6))
    (folder / "few.txt").write_text("\n".join(names[:4]), encoding="utf-8")
    (folder / "many.txt").write_text("\n".join([*names, "a", "b"]), encoding="utf-8")
    (folder / "a.sql").write_bytes(b"PGDMP\x01\x0e")
    (folder / "text.md").write_text("x")
    (folder / "bad.csv").write_text('path,embedding\na.png,"[1,x]"\n')
    immich_dump(folder / "inserts.sql", [], [])
    dump = (folder / "inserts.sql").read_text(encoding="utf-8")
    (folder / "inserts.sql").write_text(dump.replace("COPY public.", "INSERT INTO public."), encoding="utf-8")
    two = parquet(folder / "two.parquet", path=names, a=lists(vectors), b=lists(vectors))
    nameless = parquet(folder / "nameless.parquet", p=names, q=names, a=lists(vectors))
    return [
        (folder / "gone", {}, "expected stored vectors at .*gone, got nothing there"),
        (folder / "v.npy", {}, "expected the images' names beside v.npy, got none; add --names FILE: one name"),
        (two, {"names": folder / "few.txt"}, "--names beside an .npy file alone, got it with two.parquet"),
        (folder / "v.npy", {"names": folder / "few.txt"}, "a name for each of the 6 vectors in .*, got 4 in .*few.txt"),
        (
            folder / "v.npy",
            {"names": folder / "many.txt"},
            "a name for each of the 6 vectors in .*, got 8 in .*many.txt",
        ),
        (folder / "whole.npy", {"names": folder / "few.txt"}, r"expected rows of floating-point numbers .*\(6,\)"),
        (folder / "a.sql", {}, "pg_dump's own format in .*; make it plain: pg_restore -f"),
        (folder / "inserts.sql", {}, "expected immich's table asset .*, got none; .*as COPY lines"),
        (folder / "text.md", {}, "expected a folder of clip-retrieval, a dump or CSV of immich, .* got .*text.md"),
        (folder / "bad.csv", {}, r"expected a vector such as \[0.1,0.2\] in .*bad.csv, got '\[1,x\]'"),
        (two, {}, "expected one column of vectors in .*, got a, b; name it with --vectors-column"),
        (two, {"vectors_column": "c"}, "expected a column 'c' of vectors in .*, got a, b"),
        (nameless, {}, "expected a column of names in .*, got p, q; name it with --names-column"),
        (nameless, {"names_column": "r"}, "expected a column 'r' in .*, got p, q"),
    ]


def test_each_source_that_cannot_be_read_says_why(known: Known, tmp_path: Path) -> None:
    for path, options, message in bad_sources(tmp_path, known):
        with pytest.raises(VectorSourceError, match=message):
            list(open_source(path, **options).batches())


def numpy_header(file: Path, text: str) -> Path:
    """An .npy file that says of itself what no array has."""
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"x" * 64)
    return file


def damaged_sources(folder: Path, known: Known) -> list[tuple[Path, dict[str, Any], str]]:
    """Sources that end too early, or hold what their format does not allow, as in `bad_sources`."""
    names, vectors = known.names, known.vectors
    listed = folder / "names.txt"
    listed.write_text("\n".join(names), encoding="utf-8")
    (folder / "deep.json").write_text("[" * 200_000)
    np.save(folder / "v.npy", vectors)
    np.save(folder / "object.npy", np.array([[print]], object), allow_pickle=True)
    size = "{'descr':'<f4','fortran_order':False,'shape':(%s,512)}"
    whole = immich_dump(folder / "whole.sql", names, known.texts()).read_text(encoding="utf-8")
    ends = {
        "vectors": whole.rindex("\n00000000"),
        "assets": whole.index("\n00000000", whole.index("COPY public.assets")),
    }
    for part, end in ends.items():
        (folder / f"{part}.sql").write_text(whole[: end + 1], encoding="utf-8")
    packed = immich_dump(folder / "long.sql.gz", names * 500, known.texts() * 500).read_bytes()
    (folder / "cut.sql.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "bits.sql.gz").write_bytes(packed[:3000] + bytes(100) + packed[3100:])
    (folder / "folder.sql").mkdir()
    (folder / "quote.csv").write_text('path,embedding\na.png,"[1,2]"\n"b.png,[1,2]\n')
    table = parquet(folder / "bits.parquet", path=names * 500, v=lists(np.concatenate([vectors] * 500)))
    content = table.read_bytes()
    table.write_bytes(content[:1000] + bytes(byte ^ 0x5A for byte in content[1000:-9000]) + content[-9000:])
    beside = {"names": listed}
    rows = immich_csv(folder / "rows", names, known.texts())
    (rows / "smart_search.csv").write_text(f'assetId,embedding\n{asset_id(0)},"[1,2]"\n{asset_id(1)}\n')
    return [
        (rows, {}, "expected 2 fields in row 2 of immich's table smart_search in .*rows, got 1; export it again"),
        (folder / "object.npy", beside, "expected vectors in .*object.npy, got .*Python objects"),
        (
            numpy_header(folder / "huge.npy", size % ("9" * 30)),
            beside,
            "expected vectors in .*huge.npy, got .*too large",
        ),
        (numpy_header(folder / "long.npy", size % "99999999999"), beside, "expected vectors in .*, got mmap length"),
        (numpy_header(folder / "open.npy", "{'shape':((((1,"), beside, "expected vectors in .*open.npy, got"),
        (
            folder / "v.npy",
            {"names": folder / "deep.json"},
            "expected a JSON list in .*deep.json, got maximum recursion",
        ),
        (folder / "vectors.sql", {}, "expected a whole dump in .*, got one that ends within the table smart_search; "),
        (folder / "assets.sql", {}, "expected a whole dump in .*, got one that ends within the table assets; "),
        (folder / "cut.sql.gz", {}, "expected vectors that can be read to the end in .*, got Compr"),
        (folder / "bits.sql.gz", {}, "expected .* in .*bits.sql.gz, got .*; export (it|them) again"),
        (folder / "folder.sql", {}, r"expected a dump in .*folder.sql, got Is a directory"),
        (folder / "quote.csv", {}, "expected text in UTF-8 in .*quote.csv, got unexpected end of data"),
        (table, {}, "expected vectors that can be read to the end in .*bits.parquet, got"),
    ]


def test_each_damaged_source_says_so_and_no_part_of_it_is_taken_for_the_whole(known: Known, tmp_path: Path) -> None:
    for path, options, message in damaged_sources(tmp_path, known):
        with pytest.raises(VectorSourceError, match=message):
            list(open_source(path, **options).batches())


def test_what_of_a_source_is_left_out_is_counted(known: Known, tmp_path: Path, encoder: DualEncoder) -> None:
    texts = known.texts()
    dump = immich_dump(tmp_path / "i.sql", known.paths, [*texts, texts[0]], deleted=[1, 2])  # a vector without image
    made = ImageIndex.import_vectors(open_source(dump), tmp_path / "new", encoder)
    assert (made.images, made.without_image, made.without_vector) == (4, 3, 0)
    said = run("index", tmp_path / "cli", "--from", dump)
    assert "3 vectors left out: their images are deleted, or in the bin" in said.stderr
    short = tmp_path / "short.csv"
    short.write_text(f'path,embedding\n"a\n1.png","{texts[0]}"\n\nb.png\n', encoding="utf-8")
    made = ImageIndex.import_vectors(open_source(short), tmp_path / "short", encoder, probe=False)
    assert (made.images, made.without_vector) == (1, 1)
    assert ImageIndex.open(tmp_path / "short", encoder).vectors()[0] == ["a\n1.png"]


def test_names_that_no_file_can_have_are_kept_as_names(known: Known, tmp_path: Path, encoder: DualEncoder) -> None:
    names = ["\ud800.png", "a\0.png", "x" * 5000 + ".png", "a\nb.png", "../" * 40 + "etc/x.png", "http://x/y.png"]
    np.save(tmp_path / "v.npy", known.vectors)
    (tmp_path / "names.json").write_text(json.dumps(names), encoding="utf-8")
    source = open_source(tmp_path / "v.npy", names=tmp_path / "names.json")
    made = ImageIndex.import_vectors(source, tmp_path / "new", encoder)
    assert (made.images, made.not_here) == (6, 6)
    index = ImageIndex.open(tmp_path / "new", encoder)
    assert sorted(index.vectors()[0]) == sorted(["\\ud800.png", *names[1:]])
    assert index.inside_each(index.search("ev", k=6)) == [None] * 6
    assert run("search", tmp_path / "new", "ev", "--sheet", tmp_path / "out.html").exit_code == 0
    assert run("search", tmp_path / "new", "ev", "--regions").exit_code == 0
    assert run("duplicates", tmp_path / "new").exit_code == 0


def test_a_name_in_a_source_makes_no_file_but_an_image_one_of_the_index(
    known: Known, tmp_path: Path, encoder: DualEncoder
) -> None:
    (tmp_path / "id_rsa").write_text("secret")
    source = parquet(
        tmp_path / "t.parquet", path=[str(tmp_path / "id_rsa"), known.paths[1]], v=lists(known.vectors[:2])
    )
    made = ImageIndex.import_vectors(source, tmp_path / "new", encoder)
    assert (made.images, made.not_here) == (2, 1)
    index = ImageIndex.open(tmp_path / "new", encoder)
    shown = index.inside_each(index.search(Query(image=Path(known.paths[1])), k=2))
    assert [path and path.name for path in shown] == [Path(known.paths[1]).name, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prune"], "expected --prune with a folder of images, got it with --from"),
        (["--video-every", "3"], "expected --video-every with a folder of images"),
        (["--prefix", "/a"], "expected --prefix OLD=NEW, got '/a'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    options: Sequence[str], message: str, known: Known, tmp_path: Path
) -> None:
    dump = immich_dump(tmp_path / "i.sql", known.names, known.texts())
    with pytest.raises(ValueError, match=message):
        run("index", tmp_path / "new", "--from", dump, *options)
    with pytest.raises(ValueError, match="expected --no-probe with --from, got it without"):
        run("index", tmp_path / "photos", "--no-probe")


def test_a_correction_is_that_of_the_text_bank(
    known: Known, tmp_path: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from turkish_clip.bank import TextBank

    queries = [f"metin {number}" for number in range(120)]
    bank = TextBank.of(queries, encoder.encode_texts, encoder.dim, encoder.text_weights_sha256)
    monkeypatch.setitem(encoder.__dict__, "bank", bank)
    source = parquet(tmp_path / "t.parquet", path=known.paths, vector=lists(known.vectors))
    assert ImageIndex.import_vectors(source, tmp_path / "new", encoder).bank_texts == len(bank.vectors)
    known.index.add(Path(known.paths[0]).parent, queries=queries)
    expected = [(hit.path, pytest.approx(hit.corrected, abs=1e-4)) for hit in known.index.search("ev", 6)]
    found = ImageIndex.open(tmp_path / "new", encoder).search("ev", 6)
    assert [(hit.path, hit.corrected) for hit in found] == expected
