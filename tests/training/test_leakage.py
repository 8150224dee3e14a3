"""Training images that a benchmark tests on are found by their Flickr and COCO ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from samples import paint, write_rows

from training import leakage
from training.evaluation.leakage import ids_of
from training.run.source import SourceError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("1009434119_febe49276a.jpg", {"flickr 1009434119"}),
        ("flickr30k/1009434119.jpg", {"flickr 1009434119"}),
        ("COCO_val2014_000000391895.jpg", {"coco 391895"}),
        ("000000391895", {"coco 391895"}),
        ("train-00012", set()),
        ("00000012", set()),  # a row number, not an id
        ("12345", set()),
        ("train\\1009434119_febe49276a.jpg", {"flickr 1009434119"}),
        ("0a1b2c3d4e5f6071", set()),  # Open Images
    ],
)
def test_ids_in_file_names(name: str, found: set[str]) -> None:
    assert ids_of([name]) == found


def test_bare_ids_as_in_annotations() -> None:
    assert ids_of(["139"], bare=True) == {"coco 139"}
    assert ids_of(["391895"], bare=True) == {"coco 391895", "flickr 391895"}


def test_leaked_images_are_listed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    names = ["1009434119_febe49276a.jpg", "1022454332_6af2c1449a.jpg", "COCO_train2014_000000000139.jpg", "mine.jpg"]
    for number, name in enumerate(names):
        paint(source / name, number)
    rows: list[dict[str, object]] = [{"file_name": name, "captions": ["bir"], "split": "train"} for name in names]
    write_rows(source, rows)
    ids = tmp_path / "ids.txt"
    ids.write_text("1022454332.jpg\n000000000139\n999999999\n", encoding="utf-8")
    argv = ["--captions", str(source), "--run", str(tmp_path / "run"), "--benchmark"]
    found = leakage.main([*argv, str(ids)])
    assert (found["images"], found["with_an_id"], found["benchmark_ids"], found["leaked"]) == (4, 3, 3, 2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "leaked.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["benchmark_ids"] for line in lines] == [["flickr 1022454332"], ["coco 139"]]
    ids.write_text("elma\n", encoding="utf-8")
    with pytest.raises(SourceError, match="expected Flickr or COCO ids"):
        leakage.main([*argv, str(ids)])
    with pytest.raises(SourceError, match="expected a file of image names or ids"):
        leakage.main([*argv, str(tmp_path / "none.txt")])
    with pytest.raises(SourceError, match=f"got the folder {tmp_path}; write one"):
        leakage.main([*argv, str(tmp_path)])
    ids.write_bytes("çiçek.jpg".encode("cp1254"))
    with pytest.raises(SourceError, match="expected UTF-8 in .*ids.txt, got other bytes; save it as UTF-8"):
        leakage.main([*argv, str(ids)])
