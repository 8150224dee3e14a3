"""What names of splits mean: in a column, of folders, files, data sets and sources; nothing is left out unsaid."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import paint, write_rows
from source_layouts import png

from training.data.sources import Captions, read_captions
from training.data.splits import SplitMeanings, split_of, splits_of_files
from training.run.recipe import ConfigError, read_config
from training.run.source import Source, SourceConfig, SourceError


def read(captions: object, **options: Any) -> Captions:
    common = {"run": "unused", "test_fraction": 0.0, "validation_fraction": 0.0}
    return read_captions(SourceConfig(captions=str(captions), **common, **options))


def splits(captions: object, **options: Any) -> dict[str, str]:
    return {row.captions[0]: row.split for row in read(captions, **options).rows}


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train TRAIN Training train2014 train_1 trainval restval eğitim EĞİTİM Egitim"),
        ("validation", "val VALID Validation dev val2 val2017 valid_1 minival doğrulama geçerleme"),
        ("test", "Test testing test1k test_1K test-5k testA test-dev test_std eval Evaluation sınama SINAMA"),
        ("", "trainer contest dev-hayvanlar deva testere held-out extra unlabeled short_captions 0 kuş"),
    ],
)
def test_the_meaning_of_a_name(split: str, names: str) -> None:
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


def column(folder: Path, names: list[Any]) -> Path:
    rows = [
        {"file_name": paint(folder / f"{n}.png", n).name, "caption": str(n), "split": name}
        for n, name in enumerate(names)
    ]
    return write_rows(folder, [dict(row) for row in rows])


def test_a_column_is_read_under_its_meaning_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    found = splits(column(tmp_path, ["train", "test1k", " Val ", "restval", None]))
    assert list(found.values()) == ["train", "test", "validation", "train", "train"]
    assert "the split 'test1k' (1 rows) is read as test" in caplog.text
    assert "'Val'" not in caplog.text


def test_unknown_names_in_a_column_are_refused_all_at_once_with_the_option(tmp_path: Path) -> None:
    source = column(tmp_path, ["train", "kapalı", "kapalı", 0])
    with pytest.raises(SourceError, match=r"got 'kapalı' \(2 rows\), '0' \(1 rows\); .*--split_names \"kapalı=train\|"):
        read(source)
    chosen = splits(source, split_names=("kapalı=test", "0=none"))
    assert list(chosen.values()) == ["train", "test", "test"]
    assert sum(read(source, split_names=("kapalı=test", "0=none")).left_out.values()) == 1
    assert set(splits(source, split_column="none").values()) == {"train"}


def test_the_option_takes_known_meanings_only() -> None:
    for pair in ("val2", "val2=valid", "=test"):
        with pytest.raises(ConfigError, match=r"expected 'split_names' of x as NAME=MEANING .*none, got"):
            SourceConfig(captions="x", run="unused", split_names=(pair,))


@pytest.mark.parametrize(
    "pairs", [("x=train", "x=test"), ("val2=none", "a=test", "VAL2=validation"), ("sınama =test", "SINAMA=train")]
)
def test_a_name_with_two_meanings_is_refused(pairs: tuple[str, ...], tmp_path: Path) -> None:
    message = f"expected one meaning of each split in 'split_names' of x, got '{pairs[0]}' and '{pairs[-1]}'; keep one"
    with pytest.raises(ConfigError, match=message):
        SourceConfig(captions="x", run="unused", split_names=pairs)
    argv = ["--captions", "x", "--run", "unused", "--split_names", ",".join(pairs)]
    with pytest.raises(ConfigError, match=message):
        read_config(SourceConfig, argv)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"captions: x\nsplit_names: [{', '.join(pairs)}]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_config(SourceConfig, [str(recipe)])
    once = [f"--split_names={pair}" for pair in pairs]
    with pytest.raises(ConfigError, match=r"expected 'split_names' once in the command line, .*; write one list"):
        read_config(SourceConfig, ["--captions", "x", "--run", "unused", *once])
    SourceConfig(captions="x", run="unused", split_names=(pairs[0], pairs[0]))  # says the same twice


def folders(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        write_rows(folder / name, [{"file_name": paint(folder / name / "0.png", number).name, "caption": name}])
    return folder


def test_folders_are_read_under_their_meaning(tmp_path: Path) -> None:
    found = splits(folders(tmp_path, ["train", "Test", "val2", "a/sınama"]))
    assert found == {"train": "train", "Test": "test", "val2": "validation", "a/sınama": "test"}


def test_a_further_folder_is_refused_beside_train_and_is_train_beside_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source = folders(tmp_path / "a", ["train", "test", "extra"])
    with pytest.raises(
        SourceError, match=r"folders of .*, got 'extra' beside test, train; .*--split_names \"extra=train\|"
    ):
        read(source)
    assert splits(source, split_names=("extra=none",)) == {"train": "train", "test": "test"}
    assert splits(source, split_names=("extra=train",))["extra"] == "train"
    assert splits(folders(tmp_path / "b", ["kuş", "test"])) == {"kuş": "train", "test": "test"}
    assert "the folders 'kuş' are no split" in caplog.text


def shards(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for file, content in (("0.png", png(number)), ("0.txt", name.encode())):
                member = tarfile.TarInfo(file)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return folder


def test_a_word_among_others_in_a_shards_name_is_no_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = shards(tmp_path, ["dev-hayvanlar-000", "küçük-hayvanlar-000", "kırmızı-dev-000", "test-sürüşü-000"])
    assert set(splits(source).values()) == {"train"}
    assert "files named dev-hayvanlar… have a split's name among others" in caplog.text
    assert splits(source, split_names=("dev-hayvanlar=validation",))["dev-hayvanlar-000"] == "validation"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train-00000-of-00002", "test1k-00000-of-00001"], ["train", "test"]),
        (["cc-train-0", "cc-val-0", "test/0", "validation/test0"], ["train", "validation", "test", "test"]),
        (["train-clean-0", "train-clean-1", "test-clean-0"], ["train", "train", "test"]),
        (["train-images-000", "captions_val2017"], ["train", "validation"]),
        (["00000", "00001"], ["", ""]),
        (["kuş-0", "test-0"], ["", "test"]),
    ],
)
def test_the_splits_of_files(names: list[str], expected: list[str]) -> None:
    meanings = SplitMeanings(Source(captions="x"))
    assert [meanings.known(name) if name else "" for name in splits_of_files(names, meanings)] == expected


def test_a_file_without_a_split_beside_train_is_refused() -> None:
    with pytest.raises(SourceError, match=r"files of x named after .*, got 'kuş' beside train; say .*kuş=train\|"):
        splits_of_files(["train-0", "kuş-0"], SplitMeanings(Source(captions="x")))


def test_parquet_files_of_a_folder_are_all_read_under_their_meaning(tmp_path: Path) -> None:
    for number, name in enumerate(("train-00000-of-00001", "test1k-00000-of-00001", "dev-hayvanlar")):
        (tmp_path / "data").mkdir(exist_ok=True)
        table = pa.table({"image": [png(number)], "caption": [name]})
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet")
    with pytest.raises(SourceError, match="got 'dev-hayvanlar' beside"):
        read(tmp_path)
    found = {row.image_id: row.split for row in read(tmp_path, split_names=("dev-hayvanlar=train",)).rows}
    assert found == {"train-00000001": "train", "dev-hayvanlar-00000001": "train", "test1k-00000001": "test"}


def test_the_names_of_several_sources_and_of_a_single_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in enumerate(("train.jsonl", "test.jsonl")):
        folder = write_rows(tmp_path, [{"path": paint(tmp_path / f"{number}.png", number).name, "caption": name}])
        (folder / "metadata.jsonl").rename(folder / name)
    sources = tuple(Source(captions=str(tmp_path / name)) for name in ("train.jsonl", "test.jsonl"))
    rows = read_captions(SourceConfig(sources=sources, run="unused")).rows
    assert [row.split for row in rows] == ["train", "test"]
    assert splits(tmp_path / "test.jsonl") == {"test.jsonl": "train"}
    assert "the only source, and divided into train, validation and test, though its name" in caplog.text
    assert splits(tmp_path) == {"train.jsonl": "train", "test.jsonl": "test"}


def test_what_is_left_out_of_a_folder_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write_rows(tmp_path, [{"file_name": paint(tmp_path / "0.png", 0).name, "caption": "ev"}])
    (tmp_path / "metadata.csv").write_text("file_name,caption\n0.png,kuş\n", encoding="utf-8")
    write_rows(tmp_path / "train", [{"file_name": "1.png", "caption": "kuş"}])
    for name in ("train/1.png", "@eaDir/1.png", "._0.png", ".turkish-clip/1.png"):  # an index is hidden by nobody
        paint(tmp_path / name, 1)
    assert splits(tmp_path) == {"ev": "train"}
    assert (
        "2 tables are left out (metadata.csv, train/metadata.jsonl), since metadata.jsonl names the images"
        in caplog.text
    )
    assert "1 of its 2 images are left out, since no row names them" in caplog.text
    assert "2 hidden images and tables are left out" in caplog.text


@pytest.mark.parametrize("name", ["a.heic", "b/c.NEF", "train/d.psd"])
def test_kinds_that_are_not_read_are_counted_beside_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    write_rows(tmp_path, [{"file_name": paint(tmp_path / "0.png", 0).name, "caption": "ev"}])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    assert splits(tmp_path) == {"ev": "train"}
    assert "1 file of a kind that is not read: " in caplog.text


def test_a_folder_of_kinds_that_are_not_read_says_so(tmp_path: Path) -> None:
    for name in ("1.heic", "2.heic"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match="got 2 files of kinds that are not read: HEIC 2, no others; convert HEIC to"):
        splits(tmp_path)


def test_a_caption_beside_a_kind_that_is_not_read_is_skipped_by_its_reason(tmp_path: Path) -> None:
    paint(tmp_path / "0.png", 0)
    (tmp_path / "1.heic").write_bytes(b"x")
    for number, caption in enumerate(("ev", "kuş", "ağaç")):
        (tmp_path / f"{number}.txt").write_text(caption, encoding="utf-8")
    captions = read(tmp_path, max_skipped_fraction=1.0)
    assert [row.captions for row in captions.rows] == [("ev",)]
    assert sorted(sample.reason for sample in captions.skipped) == [
        "an image of a kind that is not read (HEIC)",
        "no image beside the caption",
    ]


def parquet(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"image": [{"bytes": png(number), "path": None}], "caption": [name]})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def test_configurations_of_a_local_data_set_are_refused_with_the_choice(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a", ["tr/train-00000-of-00001", "tr/test-00000-of-00001", "en/train-00000-of-00001"])
    message = (
        r"got the split train in en, tr, which look like configurations; choose .*--captions .*/a/en, or give several"
    )
    with pytest.raises(SourceError, match=message):
        read(source)
    assert list(splits(source / "tr").values()) == ["train", "test"]
    for names in (["tr/train/0", "en/train/0"], ["data/tr/train-0", "data/en/train-0"], ["train-0", "en/train-0"]):
        with pytest.raises(SourceError, match="look like configurations"):
            read(parquet(tmp_path / names[0].replace("/", "-"), names))
    for names in (
        ["data/train-0", "more/test-0"],
        ["0/train-0", "1/train-0"],
        ["kedi/0", "kuş/0"],
        ["train/a/0", "train/b/0"],
        ["train/0", "test/0"],
    ):
        assert len(splits(parquet(tmp_path / "b" / names[0].replace("/", "-"), names))) == 2


def test_a_configuration_that_a_local_readme_names_can_be_chosen(tmp_path: Path) -> None:
    source = parquet(tmp_path, ["tr/train-0", "en/train-0"])
    files = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("tr", "en"))
    (source / "README.md").write_text(f"---\nconfigs:\n{files}---\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"available configs: \['tr', 'en'\]"):
        read(source)
    assert list(splits(source, captions_config="tr")) == ["tr/train-0"]


def in_paths(table: Path, names: list[str], **columns: list[str]) -> Path:
    """A CSV table of images in folders beside it, or from the root of the machine."""
    for number, name in enumerate(names):
        paint(table.parent / name, number)
    rows = [",".join([name, name, *(values[n] for values in columns.values())]) for n, name in enumerate(names)]
    table.write_text("\n".join([",".join(["file_name", "captions", *columns]), *rows]), encoding="utf-8")
    return table


@pytest.mark.parametrize("table", ["metadata.csv", "captions.csv"])
def test_folders_in_the_paths_of_images_are_splits(
    tmp_path: Path, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = ["train/0.png", "train/1.png", "./val/dev/2.png", "x/test/3.png"]
    path = in_paths(tmp_path / table, names)
    source = tmp_path if table.startswith("metadata") else path
    assert list(splits(source).values()) == ["train", "train", "validation", "test"]
    assert "from the folders of its images: train (2 rows), val (1 rows), test (1 rows); a column split" in caplog.text
    assert set(splits(source, split_column="none").values()) == {"train"}
    assert list(splits(source, split_names=("val=train", "test=none")).values()) == ["train"] * 3
    in_paths(tmp_path / table, names, split=["test", "val", "train", ""])
    assert list(splits(source).values()) == ["test", "validation", "train", "test"]


def test_folders_inside_a_shard_or_a_table_are_splits(tmp_path: Path) -> None:
    names = ["./train/0", "./val/0", "./test/0"]
    source = shards(tmp_path / "a", ["x"]) / "x.tar"
    with tarfile.open(source, "w") as tar:
        for number, name in enumerate(names):
            for kind, content in (("png", png(number)), ("txt", name.encode())):
                member = tarfile.TarInfo(f"{name}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert list(splits(source).values()) == ["train", "validation", "test"]
    cells = [{"bytes": png(number), "path": f"{name}.png"} for number, name in enumerate(names)]
    pq.write_table(pa.table({"image": cells, "caption": names}), tmp_path / "t.parquet")
    assert {row.image_id: row.split for row in read(tmp_path / "t.parquet").rows} == {
        "./train/0.png": "train",
        "./val/0.png": "validation",
        "./test/0.png": "test",
    }


def test_paths_of_which_some_alone_name_a_split_are_refused_with_the_choice(tmp_path: Path) -> None:
    source = in_paths(tmp_path / "t.csv", ["train/0.png", "images/test/1.png", "images/ek/2.png"])
    message = (
        r'got train \(1 rows\), test \(1 rows\) beside images/ek \(1 rows\); .*--split_names "ek=train.*--split_col'
    )
    with pytest.raises(SourceError, match=message):
        read(source)
    assert list(splits(source, split_names=("ek=validation",)).values()) == ["train", "test", "validation"]
    assert set(splits(source, split_column="none").values()) == {"train"}
    with pytest.raises(SourceError, match=r"beside no folder \(1 rows\); name a column with --split_column, or divide"):
        read(in_paths(tmp_path / "t.csv", ["train/0.png", "1.png"]))


def test_folders_that_say_where_the_data_is_or_mean_a_giant_are_no_splits(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    paths = [str(paint(tmp_path / "test" / f"{n}.png", n)) for n in range(2)]
    assert set(splits(in_paths(tmp_path / "table" / "t.csv", paths)).values()) == {"train"}
    paths = [str(paint(tmp_path / "test" / name, n)) for n, name in enumerate(["train/0.png", "val2017/1.png"])]
    assert list(splits(in_paths(tmp_path / "table" / "t.csv", paths)).values()) == ["train", "validation"]
    assert set(splits(in_paths(tmp_path / "t.csv", ["kedi/0.png", "dev/1.png"])).values()) == {"train"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train_images", "test_images"], ["train", "test"]),
        (["train_data", "val_data"], ["train", "validation"]),
        (["Training Set", "Test Set"], ["train", "test"]),
        (["eğitim kümesi", "test kümesi"], ["train", "test"]),
        (["x_train", "x_test"], ["train", "test"]),
        (["01_train", "02_test"], ["train", "test"]),
        (["trainset", "testset"], ["train", "test"]),
        (["öğrenme", "sınav"], ["train", "test"]),
        (["train", "test_seen", "test_unseen"], ["train", "test", "test"]),
        (["kuş-train", "kuş-val", "test_images/a"], ["train", "validation", "test"]),
        (["kedi", "test tüpü"], ["", ""]),  # a class
        (["kedi", "hızlı test", "antrenman", "tren"], ["", "", "", ""]),
        (["kedi", "sınav", "dev"], ["", "", ""]),
    ],
)
def test_folders_with_a_splits_word_among_others(
    tmp_path: Path, names: list[str], expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    asked = {name: meaning or "train" for name, meaning in zip(names, expected, strict=True)}
    folders(tmp_path / "metadata", names)
    for number, name in enumerate(names):
        paint(tmp_path / "pairs" / name / "0.png", number)
        (tmp_path / "pairs" / name / "0.txt").write_text(name, encoding="utf-8")
    for source in (tmp_path / "metadata", tmp_path / "pairs"):
        caplog.clear()
        assert splits(source) == asked
        for name, meaning in zip(names, expected, strict=True):
            known = name in ("train", "test_images/a") or name in ("kedi", "antrenman", "tren")
            assert (
                known or f"'{name}' (1 rows) is read as {meaning}" in caplog.text or f"named {name} have" in caplog.text
            )
    in_paths(tmp_path / "t.csv", [f"{name}/0.png" for name in names])
    caplog.clear()
    assert list(splits(tmp_path / "t.csv").values()) == list(asked.values())
    if any(expected):
        assert "splits are read from the folders of its images: " in caplog.text
    else:
        assert "in its images' paths is read as no split" in caplog.text
    if not any("ı" in name for name in names):  # Parquet files in such folders
        assert set(splits(parquet(tmp_path / "parquet", [f"{name}/0" for name in names])).values()) == set(
            asked.values()
        )


def test_one_folder_with_the_word_of_test_is_read_so_and_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert splits(folders(tmp_path, ["test_seen", "test_unseen"])) == {"test_seen": "test", "test_unseen": "test"}
    assert "the split 'test_seen' (1 rows) is read as test; --split_names changes that" in caplog.text
    assert splits(tmp_path, split_names=("test_unseen=train",))["test_unseen"] == "train"


def test_folders_with_a_splits_word_beside_train_and_one_without_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"got 'ek' beside x_test, x_train; say what .*--split_names \"ek=train\|"):
        read(folders(tmp_path, ["x_train", "x_test", "ek"]))
    with pytest.raises(
        SourceError, match=r"got x_train \(1 rows\), x_test \(1 rows\) beside ek \(1 rows\); .*ek=train"
    ):
        read(in_paths(tmp_path / "t.csv", ["x_train/0.png", "x_test/1.png", "ek/2.png"]))


TABLE_NAMES = [
    (["captions_train.csv", "captions_test.csv"], ["train", "test"]),
    (["a-train.tsv", "a-test.tsv"], ["train", "test"]),
    (["cc12m-train.csv", "cc12m-val.csv"], ["train", "validation"]),
    (["train.csv", "test.json"], ["train", "test"]),
    (["train.csv", "test.txt"], ["train", "test"]),
    (["train.json", "test.json"], ["train", "test"]),
    (["train-v2.csv", "test-v2.csv"], ["train", "test"]),
    (["captions_train2017.json", "captions_val2017.json"], ["train", "validation"]),
]


def tables(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        file = paint(folder / f"{number}.png", number).name
        content = json.dumps([{"path": file, "caption": name}])
        if not name.endswith(".json"):
            separator = "\t" if name.endswith(".tsv") else ","
            content = f"path{separator}caption\n{file}{separator}{name}\n"
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("names", "expected"), TABLE_NAMES)
def test_tables_of_splits_in_a_folder_and_as_sources(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    asked = dict(zip(names, expected, strict=True))
    assert splits(tables(tmp_path, names)) == asked
    sources = tuple(Source(captions=str(tmp_path / name)) for name in names)
    rows = read_captions(SourceConfig(sources=sources, run="unused", test_fraction=0, validation_fraction=0)).rows
    assert {row.captions[0]: row.split for row in rows} == asked


def test_folders_as_sources_are_read_by_their_own_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folders(tmp_path, ["set_train", "set_test"])
    parquet(tmp_path / "x_test", ["0000"])
    sources = tuple(Source(captions=str(tmp_path / name)) for name in ("set_train", "set_test", "x_test"))
    rows = read_captions(SourceConfig(sources=sources, run="unused", validation_fraction=0)).rows
    assert [row.split for row in rows] == ["train", "test", "test"]
    assert "set_test: all of it is read as test, by its name; a column split or its split_names change" in caplog.text
    changed = (sources[0], Source(captions=str(tmp_path / "set_test"), split_names=("set_test=validation",)))
    assert [row.split for row in read_captions(SourceConfig(sources=changed, run="unused")).rows][1] == "validation"
    left_out = (sources[0], Source(captions=str(tmp_path / "set_test"), split_names=("set_test=none",)))
    with pytest.raises(SourceError, match=r"set_test, left out by split_names; take it out"):
        read_captions(SourceConfig(sources=left_out, run="unused"))


def test_sources_in_folders_of_splits_are_of_those(tmp_path: Path) -> None:
    for part in ("train", "x_val"):
        tables(tmp_path / "b" / part, ["captions.csv"])
    for names, expected in ((("train", "x_val"), ["train", "validation"]), (("x_val",), ["train"])):
        sources = tuple(Source(captions=str(tmp_path / "b" / name / "captions.csv")) for name in names)
        common = {"run": "unused", "test_fraction": 0, "validation_fraction": 0}
        assert [row.split for row in read_captions(SourceConfig(sources=sources, **common)).rows] == expected
    for number, name in enumerate(("x_train", "x_test")):
        (tmp_path / name).mkdir()
        shards(tmp_path / name, [f"0000{number}"])
    sources = tuple(
        Source(captions=str(tmp_path / f"x_{name}/0000{n}.tar")) for n, name in enumerate(("train", "test"))
    )
    assert [row.split for row in read_captions(SourceConfig(sources=sources, run="unused")).rows] == ["train", "test"]


def test_captions_apart_from_their_images_are_told_where_to_go(tmp_path: Path) -> None:
    for number in range(2):
        paint(tmp_path / "images" / "train" / f"{number}.png", number)
        (tmp_path / "captions" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "captions" / "train" / f"{number}.txt").write_text("ev", encoding="utf-8")
    with pytest.raises(
        SourceError, match=r"got captions/train/0.txt, .*; if each .txt is the caption of an image, put it"
    ):
        read(tmp_path)


def test_tables_that_are_passed_over_are_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def left(folder: Path, *more: str) -> str:
        for name in more:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("path,caption\n0.png,ev\n", encoding="utf-8")
        caplog.clear()
        splits(folder)
        return caplog.text

    text = left(tables(tmp_path / "a", ["train.csv"]), "test.xlsx", "val.csv.gz", "sub/val.csv", "x.json")
    assert "2 tables are left out (sub/val.csv, x.json), since train.csv" in text
    assert "2 files of kinds that are not read are left out (test.xlsx, val.csv.gz)" in text
    metadata = write_rows(tmp_path / "b", [{"file_name": paint(tmp_path / "b" / "0.png", 0).name, "caption": "ev"}])
    assert "1 table is left out (val.json), since metadata.jsonl names the images" in left(metadata, "val.json")
    assert "1 table is left out (test.json), since there are Parquet files" in left(
        parquet(tmp_path / "c", ["train"]), "test.json"
    )
    plain = write_rows(tmp_path / "d", [{"file_name": paint(tmp_path / "d" / "0.png", 0).name, "caption": "ev"}])
    for name in ("README.txt", "0.txt", "0.json"):
        (plain / name).write_text("Merhaba, bu veri.\nSatır\n", encoding="utf-8")
    assert "left out (" not in left(plain)


def test_a_source_whose_column_says_train_and_whose_name_says_test_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cc-train.csv", "cc-test.csv"):
        file = paint(tmp_path / f"{name}.png", len(name)).name
        (tmp_path / name).write_text(f"path,caption,split\n{file},{name},train\n", encoding="utf-8")
    sources = tuple(Source(captions=str(tmp_path / name)) for name in ("cc-train.csv", "cc-test.csv"))
    common = {"run": "unused", "test_fraction": 0, "validation_fraction": 0}
    assert {row.split for row in read_captions(SourceConfig(sources=sources, **common)).rows} == {"train"}
    assert "cc-test.csv: all of it is read as train, as its column or layout says, though its name seems" in caplog.text
    assert "cc-train.csv: all" not in caplog.text
