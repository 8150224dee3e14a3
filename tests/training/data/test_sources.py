"""Any source becomes rows: columns, splits, skipped samples with reasons, errors that name the place."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image
from samples import write_rows

from training.data.samples import SPLITS, Row
from training.data.sources import hash_fraction, read_captions
from training.data.splits import SplitMeanings
from training.run.config import EmbedConfig, read
from training.run.recipe import ConfigError
from training.run.source import Source, SourceConfig, SourceError
from turkish_clip.images import ImageError


def source(captions: object, **options: object) -> SourceConfig:
    return SourceConfig(captions=str(captions), run="unused", max_skipped_fraction=1.0, **options)  # type: ignore[arg-type]


def images(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def test_a_folder_with_metadata_jsonl(captioned_folder: Path) -> None:
    captions = read_captions(source(captioned_folder))
    sizes = {split: len(captions.split(split)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 32, "validation": 6, "test": 10}
    row = captions.rows[0]
    assert row.image_id == "train-00000"
    assert row.captions
    assert row.english
    assert row.open().size == (64, 64)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_folder_with_metadata_csv(tmp_path: Path, bom: str) -> None:
    images(tmp_path, 2)
    table = bom + "file_name,caption\n0.png,çiçek\n1.png,\n"
    (tmp_path / "metadata.csv").write_text(table, encoding="utf-8")
    captions = read_captions(source(tmp_path, test_fraction=0.0, validation_fraction=0.0))
    assert [row.captions for row in captions.rows] == [("çiçek",)]
    assert [(sample.path, sample.reason) for sample in captions.skipped] == [("1.png", "no caption")]


def test_split_subfolders_with_their_own_metadata(tmp_path: Path) -> None:
    for split in ("train", "test"):
        names = images(tmp_path / split, 3)
        write_rows(tmp_path / split, [{"file_name": name, "caption": "bir kuş"} for name in names])
    captions = read_captions(source(tmp_path, validation_fraction=0.0))
    expected = {(f"{split}/{n}.png", split) for split in ("train", "test") for n in range(3)}
    assert {(row.image_id, row.split) for row in captions.rows} == expected


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_with_a_path_column(tmp_path: Path, suffix: str) -> None:
    names = images(tmp_path / "p", 3)
    rows = [{"path": f"p/{name}", "açıklama": f"resim {name}"} for name in names]
    table = tmp_path / f"table.{suffix}"
    if suffix == "jsonl":
        table.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif suffix == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), table)
    else:
        delimiter = "," if suffix == "csv" else "\t"
        table.write_text(
            "\n".join([f"path{delimiter}açıklama", *(delimiter.join(row.values()) for row in rows)]), encoding="utf-8"
        )
    captions = read_captions(source(table, caption_columns=("açıklama",)))
    assert sorted(row.captions[0] for row in captions.rows) == ["resim 0.png", "resim 1.png", "resim 2.png"]


def test_a_data_set_with_images_inside(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    images(tmp_path, 3)
    features = Features({"image": ImageFeature(), "caption0": Value("string"), "caption1": Value("string")})
    rows = {"image": [str(tmp_path / f"{n}.png") for n in range(3)], "caption0": ["a", "b", "c"], "caption1": ["d"] * 3}
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")
    from training.data.readers.hub_datasets import hub_records

    records = list(hub_records(str(folder), None, None, SplitMeanings(source(folder))))
    image = records[1].image("image")
    assert Row("x", image, (), (), "train").open().getpixel((0, 0)) == (1, 0, 0)
    assert records[1].values["caption0"] == "b"
    assert (records[1].split, records[1].name("image")) == ("train", "train-00000002")


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([(["ev", "kuş"], ["house", "bird"])], {"ev": "house", "kuş": "bird"}),
        ([(["ev", "", "kuş"], ["house", "tree", ""])], {"ev": "house"}),
        ([(["ev", "ev", "kuş", "at"], ["house", "home", "bird", "bird"])],
         {"ev": "house", "kuş": "bird", "at": "bird"}),
        ([(["ev"], ["house"]), (["yuva"], ["house"]), (["kuş"], ["a bird"]), (["kuş"], ["bird"])],
         {"ev": "house", "yuva": "house", "kuş": "a bird"}),
        ([(["ev", "kuş"], ["house"]), (["at"], ["horse", "mare"])], {}),
        ([(["ev"], []), (["ev"], ["house"])], {"ev": "house"}),
    ],
)  # fmt: skip
def test_which_english_caption_a_caption_translates(
    tmp_path: Path, records: list[tuple[list[str], list[str]]], expected: dict[str, str]
) -> None:
    images(tmp_path, 1)
    rows = [{"file_name": "0.png", "captions": turkish, "captions_en": english} for turkish, english in records]
    write_rows(tmp_path, [dict(row) for row in rows])
    (row,) = read_captions(source(tmp_path, test_fraction=0.0, validation_fraction=0.0)).rows
    assert row.translated() == expected


def test_rows_of_one_image_are_merged(tmp_path: Path) -> None:
    images(tmp_path, 1)
    write_rows(tmp_path, [{"file_name": "0.png", "caption": text} for text in ("bir ev", "ev", "bir ev")])
    assert [row.captions for row in read_captions(source(tmp_path)).rows] == [("bir ev", "ev")]


def test_captions_are_normalized_and_trimmed(tmp_path: Path) -> None:
    images(tmp_path, 1)
    write_rows(tmp_path, [{"file_name": "0.png", "captions": ["  s\u0327eker \n bir ", "", None, 3]}])
    assert read_captions(source(tmp_path)).rows[0].captions == ("şeker bir",)


def test_no_path_leaves_the_folder(tmp_path: Path) -> None:
    images(tmp_path, 1)
    inside = tmp_path / "inside"
    images(inside, 1)
    rows = ["0.png", "../0.png", str(tmp_path / "0.png"), "http://x/0.png", "9.png", ""]
    write_rows(inside, [{"file_name": name, "caption": "ev", "image_id": str(n)} for n, name in enumerate(rows)])
    captions = read_captions(source(inside))
    assert [row.image_id for row in captions.rows] == ["0"]
    leaves = "a path that leaves the folder"
    assert [sample.reason for sample in captions.skipped] == [
        leaves,
        leaves,
        "a URL, not a file",
        "no file",
        "no image named",
    ]


def test_without_a_check_of_files_rows_without_an_image_stay_and_it_does_not_open(tmp_path: Path) -> None:
    images(tmp_path, 1)
    inside = tmp_path / "inside"
    images(inside, 1)
    names = ["0.png", "../0.png", "http://x/1.png", "9.png", ""]
    write_rows(inside, [{"file_name": name, "caption": f"ev {n}"} for n, name in enumerate(names)])
    captions = read_captions(source(inside), check_files=False)
    assert [row.image_id for row in captions.rows] == ["0.png", "../0.png", "http://x/1.png", "9.png", "00000005"]
    assert not captions.skipped
    assert captions.rows[0].open().mode == "RGB"
    for row, reason in zip(captions.rows[1:], ("that leaves", "a URL", "no file", "no image named")):
        with pytest.raises(ImageError, match=reason):
            row.open()
        assert row.size == 0


def test_missing_splits_are_cut_by_hash_and_stay(tmp_path: Path) -> None:
    names = images(tmp_path, 200)
    write_rows(tmp_path, [{"file_name": name, "caption": "ev"} for name in names])
    first = {row.image_id: row.split for row in read_captions(source(tmp_path)).rows}
    assert 10 < sum(split == "test" for split in first.values()) < 32
    assert 3 < sum(split == "validation" for split in first.values()) < 20
    write_rows(tmp_path, [{"file_name": name, "caption": "ev"} for name in reversed(names[:150])])
    second = {row.image_id: row.split for row in read_captions(source(tmp_path)).rows}
    assert second == {name: first[name] for name in names[:150]}
    other = {row.image_id: row.split for row in read_captions(source(tmp_path, split_seed=1)).rows}
    assert other != second


def test_hash_fractions_are_uniform() -> None:
    fractions = [hash_fraction(0, str(number)) for number in range(2000)]
    assert 0 <= min(fractions) < max(fractions) < 1
    assert abs(sum(fractions) / 2000 - 0.5) < 0.02


def test_too_many_skipped_samples_stop_the_run(tmp_path: Path) -> None:
    images(tmp_path, 3)
    write_rows(tmp_path, [{"file_name": f"{n}.png", "caption": "ev"} for n in range(5)])
    config = SourceConfig(captions=str(tmp_path), run="unused", max_skipped_fraction=0.1)
    with pytest.raises(SourceError, match=r"at most 10.0% skipped .* got 2 of 5 \(2 × no file; the first: 3.png\)"):
        read_captions(config)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [{"file_name": "0.png", "title": "ev"}],
            {},
            "a column captions or caption or text in .* got file_name, title",
        ),
        ([{"photo": "0.png", "caption": "ev"}], {}, "file_name or image or .* got photo, caption"),
        (
            [{"file_name": "0.png", "caption": "ev"}],
            {"caption_columns": ("başlık",)},
            "the column 'başlık' in .* got file_name, caption",
        ),
        ([{"file_name": "0.png", "caption": " "}], {}, "got none in 1 rows .*no caption"),
        (
            [{"file_name": "0.png", "caption": "ev", "split": "üç"}],
            {},
            "expected train, validation or test .* got 'üç'",
        ),
    ],
)
def test_errors_say_what_the_source_has(
    tmp_path: Path, rows: list[dict[str, object]], options: dict[str, object], message: str
) -> None:
    images(tmp_path, 1)
    write_rows(tmp_path, rows)
    with pytest.raises(SourceError, match=message):
        read_captions(source(tmp_path, **options))


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not there"):
        read_captions(source(tmp_path / "none"))
    with pytest.raises(SourceError, match=r"expected metadata.jsonl or metadata.csv in"):
        read_captions(source(tmp_path))
    (tmp_path / "x.xlsx").write_text("x", encoding="utf-8")
    with pytest.raises(SourceError, match=r"expected a .csv, .tsv, .jsonl, .json or .parquet table"):
        read_captions(source(tmp_path / "x.xlsx"))
    with pytest.raises(SourceError, match="got 'no-such-folder', which is not there"):
        read_captions(source("no-such-folder"))
    with pytest.raises(SourceError, match="Hub data set, got 'nobody/nothing'"):
        read_captions(source("nobody/nothing"))
    for name in ("mini:many", "mini:3:1:1", "mini:3:-1"):
        with pytest.raises(SourceError, match="expected mini, mini:IMAGES or mini:IMAGES:SEED"):
            read_captions(source(name))


def test_two_miniature_worlds_are_not_drawn_over_each_other() -> None:
    two = (Source(captions="mini:3:1"), Source(captions="mini:3:2"))
    with pytest.raises(ConfigError, match=r"expected one miniature world in 'sources', got mini:3:1, mini:3:2; name"):
        SourceConfig(sources=two, run="unused")


def test_windows_1254_is_refused_with_the_fix(tmp_path: Path) -> None:
    images(tmp_path, 1)
    (tmp_path / "metadata.csv").write_bytes("file_name,caption\n0.png,kırmızı şeker\n".encode("cp1254"))
    with pytest.raises(
        SourceError,
        match=r"cp \S+csv \S+csv.old && iconv -f WINDOWS-1254 -t UTF-8 < .*/metadata.csv.old > .*metadata.csv$",
    ):
        read_captions(source(tmp_path))


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "caption": "ev"}\n{oops\n', encoding="utf-8")
    with pytest.raises(SourceError, match="line 2"):
        read_captions(source(tmp_path))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file_name,caption\n0.png,kar, kar ve kar\n", "expected 2 columns, got 3 in .* line 2; put captions"),
        ("file_name|caption;x\n0.png;kar\n", "expected columns separated by ',', got .*; save it with one"),
        ('file_name,caption\n0.png,"kar\n', "expected a table, got unexpected end of data"),
    ],
)
def test_a_malformed_csv_is_not_truncated_silently(tmp_path: Path, table: str, message: str) -> None:
    images(tmp_path, 1)
    (tmp_path / "metadata.csv").write_text(table, encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        read_captions(source(tmp_path))


def test_a_row_that_lacks_a_column_is_skipped(tmp_path: Path) -> None:
    images(tmp_path, 3)
    rows: list[dict[str, object]] = [
        {"file_name": "0.png", "caption": "ev"},
        {"file_name": "1.png"},
        {"caption": "kuş"},
    ]
    write_rows(tmp_path, rows)
    captions = read_captions(source(tmp_path))
    assert [row.image_id for row in captions.rows] == ["0.png"]
    assert [sample.reason for sample in captions.skipped] == ["no caption", "no image named"]


def test_a_parquet_table_with_the_images_inside(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images(tmp_path, 2)
    cells = [{"bytes": (tmp_path / f"{n}.png").read_bytes(), "path": f"{n}.png"} for n in range(2)]
    pq.write_table(pa.Table.from_pylist([{"image": cell, "caption": "ev"} for cell in cells]), tmp_path / "t.parquet")
    rows = read_captions(source(tmp_path / "t.parquet")).rows
    assert [row.image_id for row in rows] == ["0.png", "1.png"]
    assert rows[1].open().getpixel((0, 0)) == (1, 0, 0)


def test_the_split_column_overrides_the_layout(tmp_path: Path) -> None:
    names = images(tmp_path / "train", 2)
    splits = ["test", "train"]
    write_rows(
        tmp_path / "train",
        [{"file_name": name, "caption": "ev", "split": split} for name, split in zip(names, splits, strict=True)],
    )
    assert [row.split for row in read_captions(source(tmp_path, validation_fraction=0.0)).rows] == splits


def test_an_empty_split_is_named(captioned_folder: Path) -> None:
    captions = read_captions(source(captioned_folder, split_column="none", test_fraction=0.0))
    with pytest.raises(SourceError, match=r"images in the test split .* raise --test_fraction, or add that split"):
        captions.split("test")


def two_sources(folder: Path) -> list[dict[str, object]]:
    """Writes two tables of the same file names with different columns, and returns them as a recipe lists them."""
    for name in ("a", "b"):
        images(folder / name, 20)
    rows = [
        {"path": f"a/{n}.png", "caption0": f"bir {n}", "caption1": f"iki {n}", "split": "test" if n < 3 else "train"}
        for n in range(20)
    ]
    table = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "one.jsonl").write_text(table, encoding="utf-8")
    rows = [
        {"path": f"b/{n}.png", "raw_turkish": ["üç", ""], "sentences": [{"raw": "three", "tokens": []}, {"raw": "3"}]}
        for n in range(20)
    ]
    table = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "two.jsonl").write_text(table, encoding="utf-8")
    return [
        {"captions": str(folder / "one.jsonl"), "caption_columns": ["caption0", "caption1"]},
        {"captions": str(folder / "two.jsonl"), "caption_columns": "raw_turkish", "english_columns": "sentences.raw"},
    ]


def test_several_sources_keep_their_names_columns_and_splits(tmp_path: Path) -> None:
    recipe = tmp_path / "two.yaml"
    recipe.write_text(json.dumps({"sources": two_sources(tmp_path)}), encoding="utf-8")
    captions = read_captions(read(EmbedConfig, [str(recipe)]))
    assert captions.name == f"{tmp_path / 'one.jsonl'} + {tmp_path / 'two.jsonl'}"
    assert len({row.image_id for row in captions.rows}) == 40
    first, second = captions.rows[:20], captions.rows[20:]
    assert first[0].captions == ("bir 0", "iki 0")
    assert (second[0].captions, second[0].english) == (("üç",), ("three", "3"))
    assert [row.split for row in first[:3]] == ["test"] * 3
    own = {row.image_id: row.image_id.removeprefix(f"{tmp_path / 'two.jsonl'}/") for row in second}
    cut = [row for row in second if hash_fraction(0, own[row.image_id]) < 0.1]
    assert {row.image_id for row in second if row.split == "test"} == {row.image_id for row in cut}


def test_a_field_of_a_single_record(tmp_path: Path) -> None:
    images(tmp_path, 1)
    write_rows(tmp_path, [{"file_name": "0.png", "about": {"tr": "bir ev", "en": "a house"}}])
    captions = read_captions(source(tmp_path, caption_columns=("about.tr",), english_columns=("about.en",)))
    assert (captions.rows[0].captions, captions.rows[0].english) == (("bir ev",), ("a house",))
    with pytest.raises(SourceError, match="expected captions in .* got none in 1 rows"):
        read_captions(source(tmp_path, caption_columns=("about.de",)))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"sources": "a,b"}, "expected a list of records"),
        ({"sources": [{"captoins": "a"}]}, "did you mean 'captions'"),
        ({"sources": [{"image_column": "a"}]}, "in each of 'sources', got one without"),
        ({"sources": [{"captions": "a"}], "captions": "b"}, "expected 'captions' or 'sources', got both"),
    ],
)
def test_sources_that_are_no_list_of_sources(tmp_path: Path, recipe: object, message: str) -> None:
    (tmp_path / "x.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read(EmbedConfig, [str(tmp_path / "x.yaml")])


def naive(table: Path, config: SourceConfig) -> tuple[list[tuple[object, ...]], list[tuple[str, str]]]:
    """Returns rows and skipped samples of a table with the columns path, a, b (captions) and split, read in memory."""
    rows: dict[str, dict[str, list[str]]] = {}
    skipped = []
    for line in table.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        captions = [caption for caption in (record["a"], record["b"]) if caption]
        if not (table.parent / record["path"]).is_file():
            skipped.append((record["path"], "no file"))
        elif not captions:
            skipped.append((record["path"], "no caption"))
        else:
            row = rows.setdefault(record["path"], {"captions": [], "split": [record["split"] or "train"]})
            row["split"].append(record["split"] or "train")
            row["captions"] += [caption for caption in dict.fromkeys(captions) if caption not in row["captions"]]
    result = []
    for name, row in rows.items():
        split, fraction = max(row["split"], key=SPLITS.index), hash_fraction(config.split_seed, name)
        if split == "train" and fraction < config.validation_fraction:
            split = "validation"
        result.append((name, tuple(row["captions"]), split))
    return result, skipped


@pytest.mark.parametrize("batch", [3, 8192])
@pytest.mark.parametrize("adjacent", [True, False])
def test_rows_equal_those_of_a_naive_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, adjacent: bool
) -> None:
    monkeypatch.setattr("training.run.temp_storage.BATCH_ROWS", batch)
    rng = random.Random(batch)
    names = [*images(tmp_path, 60), "none.png"]
    chosen = [rng.choice(names) for _ in range(300)]
    if adjacent:
        chosen.sort(key=names.index)
    records = [
        {"path": name, "a": rng.choice(["bir", "iki", ""]), "b": rng.choice(["ev", "bir", ""]), "split": split}
        for name in chosen
        for split in [rng.choice(["", "train", "test"])]
    ]
    write_rows(tmp_path, list(records))
    table = tmp_path / "metadata.jsonl"
    config = source(table, caption_columns=("a", "b"), validation_fraction=0.3)
    captions = read_captions(config)
    rows, skipped = naive(table, config)
    assert [(row.image_id, row.captions, row.split) for row in captions.rows] == rows
    assert [(sample.image_id, sample.reason) for sample in captions.skipped] == skipped
    assert len(rows) < len(records) - len(skipped)
    for split in ("train", "validation", "test"):
        assert [row.image_id for row in captions.split(split)] == [row[0] for row in rows if row[2] == split]


def test_a_source_that_changed_is_read_again(tmp_path: Path) -> None:
    names = images(tmp_path, 2)
    write_rows(tmp_path, [{"file_name": name, "caption": "ev"} for name in names])
    before = read_captions(source(tmp_path))
    write_rows(tmp_path, [{"file_name": names[1], "caption": "kuş"}])
    assert [row.captions for row in read_captions(source(tmp_path)).rows] == [("kuş",)]
    assert [row.captions for row in before.rows] == [("ev",), ("ev",)]


def test_half_an_emoji_becomes_a_question_mark(tmp_path: Path) -> None:
    images(tmp_path, 2)
    lines = [
        '{"file_name": "0.png", "captions": ["kedi \\ud83d", "\\ud83d\\ude00 köpek"]}',
        '{"file_name": "1\\ud83d.png", "caption": "kuş"}',
        '{"file_name": "1.png", "captions": "kuş"}',
    ]
    (tmp_path / "table.jsonl").write_text("\n".join(lines), encoding="utf-8")
    captions = read_captions(source(tmp_path / "table.jsonl"))
    assert [row.captions for row in captions.rows] == [("kedi ?", "😀 köpek"), ("kuş",)]
    assert [(sample.path, sample.reason) for sample in captions.skipped] == [("1?.png", "no file")]
