"""Dates, places and cameras are columns of an index; spans of dates as people type them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from photographs import PLACE, patches, photograph
from samples import paint
from typer.testing import CliRunner, Result

from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.search.dates import DateError, Taken, both, first_moment
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.storage import ImageIndexError

DATES = ("2024:05:31 23:59:59", "2024:06:01 00:00:00", "2024:07:14 23:59:59", "2024:07:15 00:00:00")


pytestmark = pytest.mark.usefixtures("small_model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photographs around June 2024 and two images without a date; the first of a Canon and with a place."""
    (folder := tmp_path / "photos").mkdir()
    for number, taken in enumerate(DATES):
        parts: dict[str, Any] = {"make": "Canon", "model": "Canon EOS 80D", "place": PLACE} if number == 0 else {}
        (folder / f"{number}.jpg").write_bytes(photograph(number, taken=taken, **parts))
    (folder / "4.jpg").write_bytes(photograph(4, taken="2024:13:01 00:00:00"))
    paint(folder / "5.png", 5)
    return folder


def run(command: str, *argv: object) -> Result:
    result = CliRunner().invoke(entry.app, [command, *map(str, argv)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("indexed", [True, False])
def test_a_filter_of_a_span_without_images_loads_no_model(
    indexed: bool, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if indexed:
        assert run("index", photos).exit_code == 0
    for loading in ("load", "open_index"):
        monkeypatch.setattr(f"turkish_clip.cli.images.{loading}", lambda *args, **options: pytest.fail("loaded"))
    found = run("filter", photos, "-p", "ev", "--after", "2030", "--json")
    assert found.exit_code == 0
    looked_at = json.loads(found.stdout)
    assert (looked_at["images"], looked_at["flagged"], looked_at["without_date"]) == (0, [], 2)
    assert "2 images without a date taken left out" in run("filter", photos, "-p", "ev", "--after", "2030").stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024", datetime(2024, 1, 1)),
        (" 2024-06 ", datetime(2024, 6, 1)),
        ("2024-02-29", datetime(2024, 2, 29)),
        ("0001", datetime(1, 1, 1)),
    ],
)
def test_the_first_moment(text: str, expected: datetime) -> None:
    assert first_moment(text) == expected


@pytest.mark.parametrize(
    "text", ["2024-13", "2023-02-29", "24", "2024-006", "15.06.2024", "2024-06-15T10:00", "", "dün", "٢٠٢٤"]
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(DateError, match="expected a date such as 2024, 2024-06 or 2024-06-15, got "):
        first_moment(text)


def test_spans() -> None:
    assert Taken.parse(None, None) is None
    with pytest.raises(DateError, match="got an end that is not after the beginning"):
        Taken.parse("2024-06", "2024-06-01")
    span = Taken.parse("2024-06", "2024-07-15")
    assert span is not None
    held = [span.holds(datetime.strptime(date, "%Y:%m:%d %H:%M:%S")) for date in DATES]
    assert (held, span.holds(None)) == ([False, True, True, False], False)
    assert both(None, None) is None
    assert both("bytes > 1 OR bytes < 0", Taken.parse(None, "1900")) == (
        "(bytes > 1 OR bytes < 0) AND taken < timestamp '1900-01-01 00:00:00'"
    )
    with pytest.raises(ImageIndexError, match="with '[)]' in it"):
        both("1 = 1) OR (1 = 1", span)


def names(hits: Any) -> list[str]:
    return sorted(Path(hit.path).name for hit in hits)


def test_an_index_holds_them(photos: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    index = ImageIndex.open(tmp_path / "index", encoder)
    index.add(photos)
    [hit] = index.search("ev", where="camera LIKE '%Canon%'")
    assert (hit.photo.taken, hit.photo.camera) == (datetime(2024, 5, 31, 23, 59, 59), "Canon EOS 80D")
    assert (hit.photo.lat, hit.photo.lon) == pytest.approx((41.01, -29.5))
    assert names(index.search("ev", where="lat > 41 AND lon < 0")) == ["0.jpg"]
    for after, before, expected in (
        ("2024-06", "2024-07-15", ["1.jpg", "2.jpg"]),
        ("2024-06-01", None, ["1.jpg", "2.jpg", "3.jpg"]),
        (None, "2024-06", ["0.jpg"]),
        ("0001", "9999", ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]),
    ):
        where = both(None, Taken.parse(after, before))
        assert names(index.search("ev", where=where)) == expected
        assert sorted(Path(path).name for path in index.vectors(where)[0]) == expected
    assert (index.without_date(), index.without_date("path LIKE '%.png'")) == (2, 1)
    with pytest.raises(ImageIndexError, match="a condition over path, also_at, bytes, .* taken, .* got 'colour = 1'"):
        index.vectors("colour = 1")
    with pytest.raises(ImageIndexError, match="expected a condition over"):
        index.without_date("colour = 1")


def test_they_stay_when_files_are_moved_touched_and_checked(photos: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    index = ImageIndex.open(tmp_path / "index", encoder)
    index.add(photos)
    (photos / "0.jpg").rename(photos / "moved.jpg")
    (photos / "copy.jpg").write_bytes((photos / "1.jpg").read_bytes())
    (photos / "2.jpg").touch()
    index.add(photos, verify=True)
    hits = index.search("ev", k=10, where="taken IS NOT NULL")
    assert names(hits) == ["1.jpg", "2.jpg", "3.jpg", "moved.jpg"]
    assert all(hit.photo.taken for hit in hits)


def test_the_light_path_reads_them(photos: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    ImageIndex.open(tmp_path / "index", encoder).add(photos)
    program = (
        "import sys, numpy\n"
        "from turkish_clip.search.index import ImageIndex\n"
        "from turkish_clip.search.dates import Taken\n"
        f"index = ImageIndex.open({str(tmp_path / 'index')!r})\n"
        "where = Taken.parse('2024-06', None).condition\n"
        "hits = index.search_vector(numpy.ones(16, 'float32'), where=where)\n"
        "print(sorted(str(hit.photo.taken) for hit in hits), index.without_date(), len(index.vectors(where)[0]))\n"
        "print([name for name in ('lancedb', 'pandas', 'torch', 'pyarrow.compute', 'PIL') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    dates = ["2024-06-01 00:00:00", "2024-07-14 23:59:59", "2024-07-15 00:00:00"]
    assert done.stdout.splitlines() == [f"{dates} 2 3", "['PIL']"]


def test_the_command_searches_and_filters_by_date(photos: Path) -> None:
    assert run("index", photos).exit_code == 0
    span = ("--after", "2024-06", "--before", "2024-07-15")
    found = json.loads(run("search", photos, "ev", *span, "--json").stdout)
    assert found["without_date"] == 2
    assert {hit["taken"] for hit in found["hits"]} == {"2024-06-01T00:00:00", "2024-07-14T23:59:59"}
    assert {"lat", "lon", "camera"} <= found["hits"][0].keys()
    assert "photo" not in found["hits"][0]
    assert json.loads(run("search", photos, "ev", "--json").stdout)["without_date"] is None
    shown = run("search", photos, "ev", "--after", "2024-07-15")
    assert shown.stdout.rstrip().endswith("3.jpg  2024-07-15")
    assert "2 images without a date taken left out" in shown.stderr.splitlines()
    one = json.loads(run("search", photos, "ev", *span, "--where", "path LIKE '%1.jpg'", "--json").stdout)
    assert ([Path(hit["path"]).name for hit in one["hits"]], one["without_date"]) == (["1.jpg"], 0)
    (photos / "broken.jpg").write_bytes(b"x")
    assert run("index", photos).exit_code == 1
    found = run("filter", photos, "-p", "ev", "--threshold", "-1", *span, "--json")
    looked_at = json.loads(found.stdout)
    assert (looked_at["images"], looked_at["without_date"], found.exit_code) == (2, 2, 0)
    assert run("filter", photos, "-p", "ev").exit_code == 1


def test_a_filter_without_an_index_reads_the_dates(photos: Path) -> None:
    (photos / "6.jpg").write_bytes(b"x")
    found = run("filter", photos, "-p", "ev", "--threshold", "-1", "--before", "2024-06", "--json")
    looked_at = json.loads(found.stdout)
    assert [Path(row["path"]).name for row in looked_at["flagged"]] == ["0.jpg"]
    assert (found.exit_code, looked_at["without_date"], len(looked_at["skipped"])) == (0, 3, 0)
    patches(1).save(photos / "7.png")
    assert "4 images without a date taken left out" in run("filter", photos, "-p", "ev", "--after", "2024").stderr


@pytest.mark.parametrize("command", [("search", "ev"), ("filter", "-p", "ev")])
def test_a_bad_date_is_told_before_the_models_are_loaded(command: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(DateError, match="got '2024-13'"):
        run(command[0], tmp_path, *command[1:], "--after", "2024-13", "--model", "nothing")
