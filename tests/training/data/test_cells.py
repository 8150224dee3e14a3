"""Cells and columns as people write them: lists as text, columns named twice, other separators, base64."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import paint, write_rows

from training.data.cells import written_list
from training.data.sources import read_captions
from training.run.source import SourceConfig, SourceError
from turkish_clip.images import ImageError


def read(captions: object, **options: Any) -> list[tuple[str, ...]]:
    config = SourceConfig(captions=str(captions), run="unused", max_skipped_fraction=1.0, **options)
    return [row.captions for row in read_captions(config).rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        paint(tmp_path / f"{number}.png", number)
    return tmp_path


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('["bir ev", "ev"]', ["bir ev", "ev"]),
        ("['bir ev', 'ev']", ["bir ev", "ev"]),
        ("""['ev\\'de', "ev'de"]""", ["ev'de", "ev'de"]),
        ("['bir' 'iki'\n 'üç']", ["bir", "iki", "üç"]),
        ("('bir', 'iki')", ["bir", "iki"]),
        ("['bir', None, nan]", ["bir", None, None]),
        ("[]", []),
        ('["bir", ["iki"]]', ["bir", ["iki"]]),
        ("[bir ev]", None),
        ("('bir ev')", None),
        ("[1, 2]", None),
        ("['bir', 'iki'] ve üç", None),
        ("bir ev", None),
        ("[u'bir ev', u'iki']", ["bir ev", "iki"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("array(['a',\n       'b'])", ["a", "b"]),
        ("array(['a'], dtype='<U3')", ["a"]),
        ("{'iki', 'bir ev'}", ["iki", "bir ev"]),
        ("[“a”, “b, c”]", ["a", "b, c"]),
        (
            "[{'raw': 'bir ev', 'tokens': ['bir', 'ev'], 'n': nan}]",
            [{"raw": "bir ev", "tokens": ["bir", "ev"], "n": None}],
        ),
        ("[['bir'], ['iki']]", [["bir"], ["iki"]]),
        ("[['bir' 'iki']]", None),
        ("array('bir')", None),
        ("{'raw': 'ev'}", None),
        ("a ev", None),
        ("[" * 100_000, None),
        ("[{'a': " + "-" * 100_000 + "1}]", None),
        ("[{'raw': 'ev', 'n': -1.5e-3, 'b': True}]", [{"raw": "ev", "n": -0.0015, "b": True}]),
    ],
)
def test_a_list_that_is_written_as_text(cell: str, expected: list[Any] | None) -> None:
    assert written_list(cell) == expected


def table_of(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_lists_as_text_in_every_column_of_texts(folder: Path) -> None:
    row = ["0.png", "['bir ev', 'ev']", '["a house"]', "['ev']"]
    table_of(folder / "metadata.csv", ["file_name", "captions", "captions_en", "labels"], [row])
    (found,) = read_captions(SourceConfig(captions=str(folder), run="unused")).rows
    assert (found.captions, found.english, found.labels) == (("bir ev", "ev"), ("a house",), ("ev",))
    table_of(folder / "t.csv", ["path", "s"], [["0.png", '[{"raw": "bir"}, {"raw": "iki"}]']])
    assert read(folder / "t.csv", caption_columns=("s.raw",)) == [("bir", "iki")]


def test_a_list_that_was_cut_off_is_no_caption(folder: Path) -> None:
    table_of(folder / "metadata.csv", ["file_name", "captions"], [["0.png", "['bir ev', 'ev"], ["1.png", "[ev]"]])
    captions = read_captions(SourceConfig(captions=str(folder), run="unused", max_skipped_fraction=1.0))
    assert [row.captions for row in captions.rows] == [("[ev]",)]
    assert [sample.reason for sample in captions.skipped] == ["a list that is cut off, in column captions"]


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("[{'raw': 'bir ev', 'sentid': 1}, {'raw': \"ev'de\"}]", ("bir ev", "ev'de")),
        ('[{"raw": "bir ev"}]', ("bir ev",)),
        ("{'raw': 'bir ev'}", ("bir ev",)),
        ("array([{'raw': 'bir ev'}], dtype=object)", ("bir ev",)),
        ("{bir ev}", ("{bir ev}",)),
        ("nan", "no caption"),
        ("{'tr': 'ev', 'en': 'house'}", "no caption, but a record of tr, en"),
        ("['bir ev' , 5]", "a list with a number in it, in column captions"),
        ('["bir ev", 5]', "a list with a number in it, in column captions"),
        ("['bir', 'iki'] 7]", "a list that does not read, in column captions"),
        ("[u'bir", "a list that is cut off, in column captions"),
        ("[{'raw': 'bir ev'}, {'raw", "a list that is cut off, in column captions"),
        ("array(['bir ev', ", "a list that is cut off, in column captions"),
        ("{'raw': 'bir", "a record that is cut off, in column captions"),
        ("[‘bir’, ‘iki’]", "a list that does not read, in column captions"),
        ("[array(['bir'], dtype=object)]", ("bir",)),
        ("[('bir', 'ev'), ('iki',)]", ("bir", "ev", "iki")),
        ("{}", "no caption, but a record"),
        ("[“bir”, “iki", "a list that is cut off, in column captions"),
    ],
)
def test_cells_as_pandas_and_python_print_them(folder: Path, cell: str, found: tuple[str, ...] | str) -> None:
    table_of(folder / "metadata.csv", ["file_name", "captions"], [["0.png", cell], ["1.png", "kuş"]])
    captions = read_captions(SourceConfig(captions=str(folder), run="unused", max_skipped_fraction=1.0))
    read_rows = {row.image_id: row.captions for row in captions.rows}
    assert read_rows.get("0.png", captions.skipped[0].reason if captions.skipped else "") == found


def test_a_column_named_twice_keeps_both_texts(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name, caption,caption \n0.png, bir, iki\n1.png,üç,\n", encoding="utf-8")
    assert read(folder) == [("bir", "iki"), ("üç",)]
    (folder / "t.jsonl").write_text('{"image": "0.png", "caption": "bir", "caption": ["iki", "üç"]}', encoding="utf-8")
    assert read(folder / "t.jsonl") == [("bir", "iki", "üç")]


def test_a_column_of_images_ids_or_splits_named_twice_is_refused(folder: Path) -> None:
    for name, more in (("path", ""), ("image_id", ",path"), ("split", ",path")):
        text = f"{name},{name},caption{more}\n0.png,1.png,ev{',0.png' if more else ''}\n"
        (folder / "t.csv").write_text(text, encoding="utf-8")
        with pytest.raises(SourceError, match=f"expected the column '{name}' once in .*twice or more; rename one"):
            read(folder / "t.csv")
    pq.write_table(pa.table([["0.png"], ["bir"], ["iki"]], ["path", "caption", "caption"]), folder / "t.parquet")
    with pytest.raises(SourceError, match="expected each column once in .*, got 'caption' twice; rename one"):
        read(folder / "t.parquet")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "path;caption\n0.png;kar, kar\n"),
        ("t.csv", "sep=;\r\npath;caption\r\n0.png;kar, kar\r\n"),
        ("t.csv", "\ufeffpath\tcaption\n0.png\tkar, kar\n"),
        ("t.csv", "path| caption\n0.png| kar, kar \n"),
        ("t.csv", 'path, caption\n0.png, "kar, kar"\n'),
        ("t.tsv", 'path,caption\n0.png,"kar, kar"\n'),
        ("t.txt", 'path,caption\n0.png,"kar, kar"\n'),
    ],
)
def test_other_separators_are_read_and_said(
    folder: Path, name: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (folder / name).write_text(text, encoding="utf-8", newline="")
    assert read(folder / name) == [("kar, kar",)]
    assert ("columns are separated by" in caplog.text) == (
        name != "t.txt" and ", caption" not in text[:14] and "sep" not in text
    )


def test_missing_columns_are_named_at_once_with_the_options_that_work(folder: Path) -> None:
    (folder / "t.csv").write_text("image_name| comment_number| comment\n0.png| 0| kar .\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"them with --image_column image_name --caption_columns comment$"):
        read(folder / "t.csv")
    assert read(folder / "t.csv", image_column="image_name", caption_columns=("comment",)) == [("kar .",)]


def test_columns_that_are_not_read_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write_rows(folder, [{"file_name": "0.png", "caption": "ev", "caption_2": "yuva"}])
    read(folder)
    assert "images file_name, texts caption; not read: caption_2" in caplog.text


def test_images_as_base64(folder: Path) -> None:
    content = [(folder / f"{n}.png").read_bytes() for n in range(3)]
    texts = [base64.b64encode(one).decode() for one in content]
    texts[1] = "data:image/png;base64," + texts[1]
    sources = [
        table_of(folder / "t.csv", ["n", "image", "caption"], [[str(n), t, f"{n}\n{n}"] for n, t in enumerate(texts)])
    ]
    lines = [json.dumps({"image": text, "caption": "ev"}) for text in texts]
    (folder / "t.jsonl").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    pq.write_table(pa.table({"image": texts, "caption": ["a", "b", "c"]}), folder / "t.parquet")
    for source in (*sources, folder / "t.jsonl", folder / "t.parquet"):
        rows = read_captions(SourceConfig(captions=str(source), run="unused")).rows
        assert [row.image.read() for row in rows] == content
        assert [row.image_id for row in rows] == ["00000001", "00000002", "00000003"]


def test_base64_that_does_not_read_is_an_image_that_does_not_open(folder: Path) -> None:
    write_rows(folder, [{"image": "iVBORw0KGgo" + "!" * 60, "caption": "ev"}])
    (row,) = read_captions(SourceConfig(captions=str(folder / "metadata.jsonl"), run="unused")).rows
    with pytest.raises(ImageError, match="base64 that does not read"):
        row.open()


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        *((name, "no caption") for name in ("NULL", "null", "\\N", "#N/A", "#NAME?", "N/A", "NA", "#YOK", "#AD?")),
        ('="kar"', ("kar",)),
        ('="beş "" ev"', ('beş " ev',)),
        ('{kuş,"bir ev"}', ("kuş", "bir ev")),
        ('{"bir \\"ev\\"",NULL,kuş}', ('bir "ev"', "kuş")),
        ("{bir ev,iki ev}", "a list that does not read, in column captions"),
        ("[list(['bir ev', 'ev'])]", ("bir ev", "ev")),
        ("[list(['bir ev']) list(['ev'])]", ("bir ev", "ev")),
        ("list(['bir', 'iki'])", ("bir", "iki")),
        ("deque(['bir ev', 'ev'], maxlen=3)", ("bir ev", "ev")),
        ("Index(['bir'], dtype='object')", ("bir",)),
        ("np.array(['a, dtype=x', \"b'de\"], dtype=object)", ("a, dtype=x", "b'de")),
        ("deque(['bir ev', 'e", "a list that is cut off, in column captions"),
        ("WrappedArray(bir ev, ev)", "a list that does not read, in column captions"),
        ("set()", "no caption"),
        ("list(['bir', 5])", "a list that does not read, in column captions"),
        ("b'bir ev'", ("bir ev",)),
        ("b'k\\xc4\\xb1rm\\xc4\\xb1z\\xc4\\xb1'", ("kırmızı",)),
        ("[b'bir ev', b'ev']", ("bir ev", "ev")),
        ("0    bir ev\nName: c, dtype: object", "a column that pandas printed, in column captions"),
        ("[«bir ev», «ev»]", ("bir ev", "ev")),
        ("liste(['bir'])", ("liste(['bir'])",)),
        ("Nazlı", ("Nazlı",)),
        ("yok", ("yok",)),
    ],
)
def test_missing_values_and_lists_as_other_programs_write_them(
    folder: Path, cell: str, found: tuple[str, ...] | str
) -> None:
    table_of(folder / "metadata.csv", ["file_name", "captions"], [["0.png", cell], ["1.png", "kuş"]])
    captions = read_captions(SourceConfig(captions=str(folder), run="unused", max_skipped_fraction=1.0))
    read_rows = {row.image_id: row.captions for row in captions.rows}
    assert read_rows.get("0.png", captions.skipped[0].reason if captions.skipped else "") == found


def test_missing_values_inside_lists_keep_the_places_of_translations(folder: Path) -> None:
    row = {"file_name": "0.png", "captions": ["ev", "NULL", "kuş"], "captions_en": ["house", "none", "bird"]}
    write_rows(folder, [row])
    (read_row,) = read_captions(SourceConfig(captions=str(folder), run="unused")).rows
    assert read_row.captions == ("ev", "kuş")
    assert read_row.translated() == {"ev": "house", "kuş": "bird"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("çiçek açıyor".encode().decode("cp1252"), "UTF-8 that was read as another encoding"),
        ("çiçek açıyor".encode().decode("cp1254"), "UTF-8 that was read as another encoding"),
        ("İki ağaç".encode().decode("latin-1"), "UTF-8 that was read as another encoding"),
        ("ev’in önü".encode().decode("cp1254"), "UTF-8 that was read as another encoding"),
        ("\ufffdi\ufffdek", "replacement characters (U+FFFD)"),
        (
            "kırmızı ağaç, şeker".encode("cp1254").decode("latin-1"),
            "Turkish letters of Windows that were read as Latin-1",
        ),
        ("&ccedil;i&ccedil;ek", "HTML"),
        ("ev &#305;", "HTML"),
        ("bir<br/>ev", "HTML"),
        ("<a href='x'>ev</a>", "HTML"),
        ("k?rm?z? ev", "question marks inside words"),
        ("çiçek açıyor", ""),
        ("Kâğıt, hikâye, ÂŞIK, Ârif & Şükrü'nün evi; 3 < 5", ""),
        ("“Ev” mi? Evet. AÇÂ “ÂLEM”", ""),
        ("Ev & kuş; R&B", ""),
        ("Ångström, Älg, Ärzte, Ãta", ""),
    ],
)
def test_texts_that_were_encoded_twice_or_destroyed_are_counted(
    folder: Path, text: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(folder, [{"file_name": "0.png", "caption": text}, {"file_name": "1.png", "caption": text + " x"}])
    assert len(read(folder)) == 2
    found = [record.getMessage() for record in caplog.records if "captions have" in record.getMessage()]
    assert bool(found) == bool(kind)
    if kind:
        assert f"2 captions have {kind}, such as " in found[0]
        assert "trained on as they are: mend the source" in found[0]


def test_base64_as_python_prints_bytes_or_as_addresses_have_it(folder: Path) -> None:
    content = (folder / "0.png").read_bytes()
    for cell in (str(base64.b64encode(content)), base64.urlsafe_b64encode(content).decode()):
        write_rows(folder, [{"image": cell, "caption": "ev"}])
        (row,) = read_captions(SourceConfig(captions=str(folder), run="unused")).rows
        assert row.open().size == (40, 40)


def test_an_image_in_a_list_of_one_is_read_and_of_several_is_said(folder: Path) -> None:
    write_rows(folder, [{"image": ["0.png"], "caption": "ev"}])
    assert read(folder) == [("ev",)]
    write_rows(folder, [{"image": ["0.png", "1.png"], "caption": "ev"}])
    with pytest.raises(
        SourceError, match=r"1 × no image named, but another type of cell\); check its column of images"
    ):
        read(folder)


def test_a_long_cell_in_place_of_a_path_is_no_id(folder: Path) -> None:
    write_rows(folder, [{"image": "89504e47" * 1000, "caption": "ev"}, {"image": "0.png", "caption": "kuş"}])
    config = SourceConfig(captions=str(folder), run="unused", max_skipped_fraction=1.0)
    (sample,) = read_captions(config).skipped
    assert len(sample.image_id) < 100
    assert sample.image_id == read_captions(config, check_files=False).rows[0].image_id
