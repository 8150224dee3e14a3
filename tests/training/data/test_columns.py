"""Negatives and slices of a source: what their columns may hold, and the errors of what they may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from samples import write_rows

from training.data.samples import Negative, Row
from training.data.sources import read_captions
from training.run.source import SourceConfig, SourceError


def rows_of(folder: Path, rows: list[dict[str, object]], **options: str) -> list[Row]:
    """Reads rows as metadata.jsonl, each with an image of its own unless it names one."""
    folder.mkdir(exist_ok=True)
    for number in range(len(rows)):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    write_rows(folder, [{"file_name": f"{number}.png"} | row for number, row in enumerate(rows)])
    return list(read_captions(SourceConfig(captions=str(folder), run="unused", **options)).rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("captions", "negatives", "expected"),
    [
        (["bir ev", "iki kuş"], ["iki  ev", "bir kuş"], [("bir ev", "iki ev"), ("iki kuş", "bir kuş")]),
        (["bir ev", "iki kuş"], ["üç ev"], [("bir ev", "üç ev")]),
        (["bir ev", "iki kuş"], ["iki ev", "üç ev", "dört ev"], [("bir ev", f"{n} ev") for n in ("iki", "üç", "dört")]),
        (["bir ev", "iki kuş"], [None, "bir kuş"], [("iki kuş", "bir kuş")]),
        (["", "iki kuş"], ["bir ev", "bir kuş"], [("iki kuş", "bir kuş")]),
        (["bir ev", "bir ev"], ["iki ev", "iki ev"], [("bir ev", "iki ev")]),
        ("bir ev", '["iki ev"]', [("bir ev", "iki ev")]),
        (["c\u0327ic\u0327ek"], ["c\u0327icekler"], [("çiçek", "çicekler")]),
        (["bir ev"], [], []),
        (["bir ev"], "", []),
        (["bir ev"], None, []),
    ],
)
def test_texts_are_changes_of_the_captions(
    tmp_path: Path, captions: object, negatives: object, expected: list[tuple[str, str]]
) -> None:
    (row,) = rows_of(tmp_path, [{"captions": captions, "negatives": negatives}])
    assert row.negatives == tuple(Negative("negatives", *pair) for pair in expected)


def test_records_name_their_probe_and_both_texts(tmp_path: Path) -> None:
    record = {"probe": "binding", "caption": "kırmızı ev, mavi kuş", "negative": "mavi ev, kırmızı kuş"}
    english = {"caption_en": "a red house, a blue bird", "negative_en": "a blue house, a red bird"}
    rows = rows_of(
        tmp_path,
        [
            {"captions": ["bir ev"], "negatives": [record, record | english | {"rule": "colours"}]},
            {"captions": ["bir kuş"], "negatives": json.dumps([record | {"caption_en": None}])},
        ],
    )
    pair = ("binding", record["caption"], record["negative"])
    assert rows[0].negatives == (Negative(*pair), Negative(*pair, *english.values()))
    assert rows[1].negatives == (Negative(*pair),)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("iki ev", '"iki ev"'),
        (3, "3"),
        ([3], "3"),
        (["iki ev", {"probe": "a", "caption": "b", "negative": "c"}], '"iki ev"'),
        ({"probe": "a", "caption": "b", "negative": "c"}, '{"probe": "a"'),
        ([{"probe": "a", "caption": "b"}], '{"probe": "a", "caption": "b"}'),
        ([{"probe": "", "caption": "b", "negative": "c"}], '{"probe": ""'),
        ([{"probe": "a", "caption": "b", "negative": "b "}], '{"probe": "a"'),
        (["bir  ev"], '"bir  ev"'),
        ("[bir ev]", r'"\[bir ev\]"'),
    ],
)
def test_negatives_of_another_kind(tmp_path: Path, cell: object, shown: str) -> None:
    expected = (
        r"expected a list of texts or of records \(probe, caption, negative\), each unlike its caption, in column "
        rf"'negatives' of .*, got {shown}.* in row 2; correct it, or name another column with --negatives_column"
    )
    rows = [{"captions": ["bir ev"]}, {"captions": ["bir ev"], "negatives": cell}]
    with pytest.raises(SourceError, match=expected):
        rows_of(tmp_path, rows)
    assert rows_of(tmp_path, rows, negatives_column="none")[1].negatives == ()


def test_slices_are_a_text_or_a_list(tmp_path: Path) -> None:
    cells: list[object] = ["çizim", ["çizim", " boya", "çizim", None], '["boya"]', None, ""]
    rows = rows_of(tmp_path, [{"captions": "bir ev", "slices": cell} for cell in cells])
    assert [row.slices for row in rows] == [("çizim",), ("çizim", "boya"), ("boya",), (), ()]
    with pytest.raises(SourceError, match=r"expected a text or a list of texts in column 'stil' of .*, got 3 in row 1"):
        rows_of(tmp_path, [{"captions": "bir ev", "stil": 3}], slices_column="stil")
    assert rows_of(tmp_path, [{"captions": "bir ev", "slices": 3}], slices_column="none")[0].slices == ()


def test_named_columns_must_exist(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"captions": "bir ev", "yanlış": ["iki ev"], "üslup": "çizim"}]
    (row,) = rows_of(tmp_path, rows, negatives_column="yanlış", slices_column="üslup")
    assert (row.negatives, row.slices) == ((Negative("negatives", "bir ev", "iki ev"),), ("çizim",))
    with pytest.raises(SourceError, match=r"expected the column 'yanlis' in .*, got file_name, captions, yanlış"):
        rows_of(tmp_path, rows, negatives_column="yanlis")


def test_a_csv_holds_lists_as_json(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    table = 'file_name,caption,negatives,slices\n0.png,bir ev,"[""iki ev"", ""üç ev""]",çizim\n'
    (tmp_path / "metadata.csv").write_text(table, encoding="utf-8")
    (row,) = read_captions(SourceConfig(captions=str(tmp_path), run="unused")).rows
    assert [negative.negative for negative in row.negatives] == ["iki ev", "üç ev"]
    assert row.slices == ("çizim",)


def test_rows_of_one_image_join_their_negatives_and_slices(tmp_path: Path) -> None:
    (row,) = rows_of(
        tmp_path,
        [
            {"file_name": "0.png", "captions": "bir ev", "negatives": ["iki ev"], "slices": "çizim"},
            {"file_name": "0.png", "captions": "bir kuş", "negatives": ["iki kuş"], "slices": ["çizim", "boya"]},
        ],
    )
    assert [negative.negative for negative in row.negatives] == ["iki ev", "iki kuş"]
    assert row.slices == ("çizim", "boya")


def test_a_column_of_captions_and_of_english_ones_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    table = tmp_path / "a.jsonl"
    table.write_text('{"image": "0.png", "captions_en": ["a house"]}\n', encoding="utf-8")
    with caplog.at_level("INFO", logger="training"):
        read_captions(SourceConfig(captions=str(table), caption_columns=("captions_en",), run=str(tmp_path)))
    assert "images image, texts captions_en" in caplog.text
    assert "captions_en, captions_en" not in caplog.text
