"""Tables as people save them: every encoding and line end is read correctly, or refused with the fix."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from samples import paint, write_rows

from training.data.readers.hub_datasets import hub_records
from training.data.sources import read_captions
from training.data.splits import SplitMeanings
from training.run.source import SourceConfig, SourceError

CAPTIONS = ["kırmızı şeker", "İki ağaç ve bir göl"]


def source(captions: object, **options: Any) -> SourceConfig:
    return SourceConfig(captions=str(captions), run="unused", max_skipped_fraction=1.0, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        paint(tmp_path / f"{number}.png", number)
    return tmp_path


def csv_of(end: str = "\n") -> str:
    return end.join(["file_name,caption", *(f"{n}.png,{text}" for n, text in enumerate(CAPTIONS)), ""])


def read(folder: Path, **options: Any) -> list[tuple[str, ...]]:
    return [row.captions for row in read_captions(source(folder, **options)).rows]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_line_ends_and_byte_order_marks(folder: Path, end: str, encoding: str) -> None:
    (folder / "metadata.csv").write_bytes(csv_of(end).encode(encoding))
    assert read(folder) == [(text,) for text in CAPTIONS]
    lines = [json.dumps({"file_name": f"{n}.png", "caption": text}) for n, text in enumerate(CAPTIONS)]
    (folder / "metadata.jsonl").write_bytes(end.join(lines).encode(encoding))
    assert read(folder) == [(text,) for text in CAPTIONS]


def test_line_ends_mixed_in_one_file(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes(b'file_name,caption\r\n0.png,bir\n1.png,iki\r2.png,"bir\r\niki\nuc"\r\n')
    assert read(folder) == [("bir",), ("iki",), ("bir iki uc",)]
    (folder / "metadata.jsonl").write_bytes(
        b'{"file_name": "0.png", "caption": "bir"}\r\n\r\n{"file_name": "1.png", "caption": "i\\nki"}\n'
    )
    assert read(folder) == [("bir",), ("i ki",)]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("cp1254", "expected UTF-8, got the byte 0x.*iconv -f WINDOWS-1254 -t UTF-8 .*/metadata"),
        ("utf-16", "expected UTF-8, got UTF-16 in .*; convert it: .* iconv -f UTF-16 -t UTF-8 .*/metadata"),
        ("utf-16-le", "got a NUL character in .*, line 1; .*iconv -f UTF-16LE -t UTF-8 .*/metadata"),
    ],
)
def test_other_encodings_are_refused_with_the_fix(folder: Path, name: str, encoding: str, message: str) -> None:
    table = csv_of() if name.endswith("csv") else '{"file_name": "0.png", "caption": "çiçek"}\n'
    if encoding == "utf-16-le":
        table = table.encode("ascii", "ignore").decode()
    (folder / name).write_bytes(table.encode(encoding))
    with pytest.raises(SourceError, match=message):
        read(folder)


def test_a_nul_in_the_middle_of_a_table_is_named(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes(b"file_name,caption\n0.png,bir\n1.png,i\0ki\n")
    with pytest.raises(SourceError, match=r"NUL character in .*metadata.csv, line 3; .*if not, it is damaged"):
        read(folder)


def test_a_nul_inside_a_caption_is_a_space_and_inside_a_path_no_file(folder: Path) -> None:
    write_rows(folder, [{"file_name": "0.png", "caption": "bir\0ev"}, {"file_name": "1\0.png", "caption": "ev"}])
    captions = read_captions(source(folder))
    assert [row.captions for row in captions.rows] == [("bir ev",)]
    assert [sample.reason for sample in captions.skipped] == ["no file"]


def test_a_caption_in_place_of_the_path_is_no_file(folder: Path) -> None:
    write_rows(folder, [{"file_name": "0.png", "caption": "ev"}, {"file_name": "uzun " * 2000, "caption": "ev"}])
    assert [sample.reason for sample in read_captions(source(folder)).skipped] == ["no file"]


def test_captions_that_are_not_text(folder: Path) -> None:
    write_rows(
        folder,
        [
            {"file_name": "0.png", "image_id": "x", "caption": "ev"},
            {"file_name": "1.png", "image_id": "y", "caption": 7},
            {"file_name": "2.png", "image_id": "z", "caption": None},
            {"file_name": "0.png", "image_id": "a", "caption": [3, None, "iki", {"x": 1}]},
            {"file_name": "0.png", "image_id": "b", "caption": {"x": "ev"}},
            {"file_name": "0.png", "image_id": "c", "caption": [1.5, float("nan")]},
        ],
    )
    captions = read_captions(source(folder))
    assert [row.captions for row in captions.rows] == [("ev",), ("iki",)]
    assert [sample.reason for sample in captions.skipped] == [
        "no caption, but a number",
        "no caption",
        "no caption, but a record of x",
        "no caption, but a number",
    ]


def test_a_caption_column_of_numbers_is_refused_by_name(folder: Path) -> None:
    write_rows(folder, [{"file_name": f"{n}.png", "caption": n} for n in range(3)])
    with pytest.raises(SourceError, match=r"got none in 3 rows \(3 × no caption, but a number\); check its"):
        read(folder)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_list_is_read_like_lines(folder: Path, indent: int | None) -> None:
    rows = [{"file_name": f"{n}.png", "caption": text} for n, text in enumerate(CAPTIONS)]
    for name in ("metadata.jsonl", "table.json"):
        (folder / name).write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    assert read(folder) == read(folder / "table.json") == [(text,) for text in CAPTIONS]


def test_json_that_nests_too_deep_or_is_cut_off_names_its_line(folder: Path) -> None:
    for text in ('{"caption": ' + "[" * 100_000, '{"caption": "ev', "{oops"):
        (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
        with pytest.raises(SourceError, match="line 1; fix it"):
            read(folder)


def parquet(path: Path, cells: list[Any], kind: pa.DataType, **options: Any) -> Path:
    captions = [f"resim {number}" for number in range(len(cells))]
    table = pa.table({"image": pa.array(cells, kind), "caption": captions})
    pq.write_table(table, path, **options)
    return path


RECORD = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_images_in_parquet_as_bytes_as_records_and_as_paths(folder: Path) -> None:
    content = [(folder / f"{n}.png").read_bytes() for n in range(3)]
    colours = [Image.open(folder / f"{n}.png").getpixel((0, 0)) for n in range(3)]
    records = [{"bytes": bytes_, "path": f"{n}.png"} for n, bytes_ in enumerate(content)]
    tables = {
        "bytes": parquet(folder / "a.parquet", content, pa.large_binary()),
        "records": parquet(folder / "b.parquet", records, RECORD, row_group_size=2),
        "record paths": parquet(folder / "c.parquet", [{"path": f"{n}.png"} for n in range(3)], RECORD),
        "paths": parquet(folder / "d.parquet", [f"{n}.png" for n in range(3)], pa.string()),
        "mixed": parquet(folder / "e.parquet", [records[0], {"path": "1.png"}, records[2]], RECORD),
    }
    for name, table in tables.items():
        rows = read_captions(source(table)).rows
        assert [row.open().getpixel((0, 0)) for row in rows] == colours, name
        numbers = [f"{n:08d}" for n in (1, 2, 3)]
        assert [row.image_id for row in rows] == (numbers if name == "bytes" else [f"{n}.png" for n in range(3)]), name


def test_a_parquet_table_without_other_columns_than_the_image(folder: Path) -> None:
    path = folder / "x.parquet"
    pq.write_table(pa.table({"image": [b"x"] * 3}), path)
    with pytest.raises(SourceError, match="expected a column captions or caption or text in .*, got image"):
        read(path)


def test_images_missing_from_parquet_are_errors_when_opened(folder: Path) -> None:
    content = (folder / "0.png").read_bytes()
    cells = [{"bytes": content}, {"bytes": None, "path": None}, {"path": "../x.png"}, {"path": "http://x/y.png"}, None]
    rows = read_captions(source(parquet(folder / "metadata.parquet", cells, RECORD).parent)).rows
    assert rows[0].open().size == (40, 40)
    from turkish_clip.images import ImageError

    reasons = []
    for row in rows[1:]:
        with pytest.raises(ImageError) as caught:
            row.open()
        reasons.append(caught.value.reason)
    assert reasons == ["no image", "a path that leaves the folder", "a URL, not a file", "no image"]


def test_a_file_that_is_not_parquet_or_is_cut_off(folder: Path) -> None:
    whole = parquet(folder / "a.parquet", [b"x" * 1000] * 50, pa.binary())
    for content in (b"", b"PAR1", b"file_name,caption\n", whole.read_bytes()[:-20]):
        (folder / "b.parquet").write_bytes(content)
        with pytest.raises(SourceError, match=r"expected .*b.parquet"):
            read(folder / "b.parquet")


def test_columns_of_a_data_set_by_every_kind(folder: Path) -> None:
    """Captions are text, several columns, lists and fields; images are bytes and records without the Hub's type."""
    content = [(folder / f"{n}.png").read_bytes() for n in range(3)]
    data = folder / "org" / "set"
    data.mkdir(parents=True)
    table = pa.table(
        {
            "raw": content,
            "cell": pa.array([{"bytes": one, "path": None} for one in content], RECORD),
            "one": ["a", "b", "c"],
            "more": [["d", "e"], [], None],
            "deep": [[{"raw": "f", "n": 1}]] * 3,
        }
    )
    pq.write_table(table, data / "train.parquet")
    captions = (("one",), ("one", "more"), ("more",), ("deep.raw",))
    expected = [("a",), ("a", "d", "e"), ("d", "e"), ("f",)]
    for columns, first in zip(captions, expected, strict=True):
        for image in ("raw", "cell"):
            rows = read_captions(source(data, image_column=image, caption_columns=columns)).rows
            assert rows[0].captions == first
            assert rows[0].open().size == (40, 40)
    records = list(hub_records(str(data), None, None, SplitMeanings(source(data))))
    assert [record.image("raw").read() for record in records] == content  # type: ignore[union-attr]
    assert [record.image("cell").read() for record in records] == content  # type: ignore[union-attr]


QUOTES = {
    "a.tsv": 'path\tcaption\n0.png\t"Bir ev\n1.png\tiki\n2.png\tüç"\n1.png\tson\n',
    "b.csv": 'path,caption\n0.png,"Bir ev\n1.png,iki\n2.png,üç"\n1.png,son\n',
    "c.csv": 'caption,path\n"Bir ev,0.png\niki,1.png\nüç",2.png\n',
    "d.csv": 'path,caption,split\n0.png,"Bir ev,train\n1.png,iki,train\n2.png,üç",test\n',
    "f.csv": 'url,path,caption\nhttp://a/0,0.png,"Bir ev\nhttp://a/1,1.png,iki, üç"\nhttp://a/2,2.png,son\n',
    "e.csv": 'id;path;caption\n7;0.png;"Bir ev\n8;1.png;iki ""\n9;2.png;üç"\n',
}


@pytest.mark.parametrize("name", QUOTES)
def test_a_quote_that_swallows_rows_is_refused_with_its_line(folder: Path, name: str) -> None:
    (folder / name).write_text(QUOTES[name], encoding="utf-8")
    with pytest.raises(SourceError, match=r"got a quote in line 2 that swallows line 3, .*; take that quote out"):
        read(folder / name)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("a.csv", 'path,caption\n0.png,"bir\nev"\n1.png,kuş\n'),
        ("b.csv", 'caption,path\n"bir\nev",0.png\nkuş,1.png\n'),
        ("c.csv", 'path,caption\n0.png,"bir\nev, büyük\nev"\n1.png,kuş\n'),
        ("d.tsv", 'path\tcaption\tsplit\n0.png\t"bir\nev"\ttrain\n1.png\tkuş\ttrain\n'),
        ("e.csv", 'caption,path\n"bir, iki\nev",0.png\nkuş,1.png\n'),
    ],
)
def test_cells_that_span_lines_are_read_and_counted(
    folder: Path, name: str, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (folder / name).write_text(table, encoding="utf-8")
    assert [texts[0].split()[0].strip(",") for texts in read(folder / name)] == ["bir", "kuş"]
    assert f"{name}: 1 rows have a cell that spans lines" in caplog.text


def test_a_quote_that_is_never_closed_is_named_by_its_own_line(folder: Path) -> None:
    (folder / "t.csv").write_text('path,caption\n0.png,ev\n1.png,"kuş\n2.png,ağaç\n', encoding="utf-8")
    with pytest.raises(SourceError, match=r"lines 3 to 4, which a quote in line 3 makes one row; take that"):
        read(folder / "t.csv")


@pytest.mark.parametrize(
    ("name", "content", "advised"),
    [
        (
            "Flickr8k.token.txt",
            "0.png#0\tKarda iki köpek .\n0.png#1\tKöpekler .\n1.png#0\tBir ev .\n",
            r"image\\tcaption",
        ),
        ("t.csv", "0.png,Karda iki köpek\n1.png,Bir ev\n", "image,caption"),
        ("t.csv", "7;Karda iki köpek;1.png\n8;Bir ev;2.png\n", "column1;caption;image"),
    ],
)
def test_a_table_without_a_header_is_told_the_one_to_add(folder: Path, name: str, content: str, advised: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(
        SourceError, match=f"looks like data; add a line with names in front, such as {advised}: "
    ) as told:
        read(folder / name)
    for _ in range(2):  # given twice, it does no harm
        subprocess.run(["sh", "-c", str(told.value).rpartition(": ")[2]], check=True)
    assert (folder / f"{name}.old").read_text(encoding="utf-8") == content
    assert read(folder / name)[-1][0].startswith("Bir ev")


def test_an_image_name_with_the_number_of_a_caption_is_that_image(folder: Path) -> None:
    (folder / "t.csv").write_text(
        "image,caption\n0.png#0,bir\n0.png#1,iki\n1.png#0,ev\n7.png#0,yok\n", encoding="utf-8"
    )
    captions = read_captions(source(folder / "t.csv"))
    assert {row.image_id: row.captions for row in captions.rows} == {"0.png": ("bir", "iki"), "1.png": ("ev",)}
    assert [sample.reason for sample in captions.skipped] == ["no file"]
    (folder / "1.png").rename(folder / "1.png#0")
    assert {row.image_id for row in read_captions(source(folder / "t.csv")).rows} == {"0.png", "1.png#0"}
    unchecked = read_captions(source(folder / "t.csv"), check_files=False).rows
    assert {row.image_id for row in unchecked} == {"0.png", "1.png#0", "7.png"}


def test_lines_before_the_names_of_columns_are_passed_over_or_named(folder: Path) -> None:
    rows = "file_name,caption\n0.png,ev\n1.png,kuş\n"
    for start in ("\n", "# veri\n", "# Karda, çizim\n\n", "sep=,\n\n"):
        (folder / "t.csv").write_text(start + rows, encoding="utf-8")
        assert read(folder / "t.csv") == [("ev",), ("kuş",)]
    (folder / "t.csv").write_text("Veri kümesi\ndosya,açıklama\n0.png,ev\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"names of 2 columns in line 1 of .*, got 'Veri kümesi'; take out what"):
        read(folder / "t.csv")
    (folder / "t.csv").write_text("Veri kümesi, 2020\n" + rows, encoding="utf-8")
    with pytest.raises(SourceError, match=r"in line 1 of .*, got them in line 2; take out what stands before them"):
        read(folder / "t.csv")
    (folder / "t.csv").write_text('{"file_name": "0.png"}\n', encoding="utf-8")
    with pytest.raises(SourceError, match=r"in line 1 of .*, got JSON; name the file .jsonl"):
        read(folder / "t.csv")
    (folder / "t.jsonl").write_text(rows, encoding="utf-8")
    with pytest.raises(SourceError, match=r"line 1; if it is a table with names of columns, name it .csv or .tsv"):
        read(folder / "t.jsonl")
    (folder / "t.csv").write_text("#image,caption\n0.png,ev\n", encoding="utf-8")
    with pytest.raises(SourceError, match="got #image, caption; name it with --image_column"):
        read(folder / "t.csv")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (
            gzip.compress(b"file_name,caption\n0.png,ev\n", mtime=0),
            r"got gzip by the first bytes of \S+; uncompress it: .*gzip -dc < ",
        ),
        (
            b"PK\x03\x04\x14\0\x06\0\x08\0",
            "got a zip file \\(as .xlsx is\\) by .*; open it, and save the table as CSV",
        ),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "got an old Excel file .*; open it, and save"),
        (b"PAR1\x15\x04", "got Parquet by the first bytes of .*; name it .*metadata.parquet"),
        (b"SQLite format 3\0", "got an SQLite data base"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "got a Git LFS pointer .*: git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "got an HTML page"),
    ],
)
def test_a_file_of_another_kind_is_named_by_its_first_bytes(folder: Path, content: bytes, kind: str) -> None:
    for name in ("metadata.csv", "x.json", "x.jsonl", "x.txt"):
        (folder / name).write_bytes(content)
        with pytest.raises(SourceError, match=kind.replace("metadata", Path(name).stem)):
            read(folder / name)


def test_the_command_that_converts_a_file_keeps_it_as_it_was(folder: Path) -> None:
    content = "file_name,caption\n0.png,kırmızı şeker\n".encode("cp1254")
    for written, advised in ((content, "iconv -f WINDOWS-1254"), (gzip.compress(csv_of().encode()), "gzip -dc")):
        (folder / "metadata.csv").write_bytes(written)
        with pytest.raises(SourceError, match=advised) as told:
            read(folder)
        for _ in range(2):
            subprocess.run(["sh", "-c", str(told.value).rpartition(": ")[2]], check=True)
        assert (folder / "metadata.csv.old").read_bytes() == written
        assert read(folder)[0] == ("kırmızı şeker",)
        (folder / "metadata.csv.old").unlink()
    (folder / "metadata.csv").write_bytes(b"file_name,caption\n0.png,k\x9drm\n")
    with pytest.raises(SourceError, match="got the byte 0x9d in .*; it is no Turkish Windows text either"):
        read(folder)
