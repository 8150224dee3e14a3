"""Precision, recall and F1 of a filter equal what is counted by hand, with and without its contrast."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turkish_clip.cli import entry
from turkish_clip.filter_quality import ExpectedError, check_expected, expected_among, quality_of
from turkish_clip.filtering import CONTRAST, Flag
from turkish_clip.images import ImageError
from turkish_clip.metrics import wilson_interval


def flags(*scores: float, least: float = 0.5) -> list[Flag]:
    return [Flag(score, score, "ev", score >= least) for score in scores]


def test_a_filter_by_hand() -> None:
    """Four are flagged, three of them rightly; one of four is missed; the broken one does not count."""
    found = [*flags(0.9, 0.8, 0.7, 0.6, 0.4, 0.3), Flag(0.0, 0.0, "", False, ImageError("x", "broken"))]
    quality = quality_of(found, [True, True, False, True, True, False, True], ["kuş"])
    assert (quality.contrast, quality.expected, quality.flagged, quality.right) == (["kuş"], 4, 4, 3)
    assert quality.precision is not None
    assert (quality.precision.value, quality.precision.ci95) == (0.75, wilson_interval(3, 4))
    assert (quality.recall.value, quality.recall.ci95) == (0.75, wilson_interval(3, 4))
    assert quality.f1.value == pytest.approx(0.75)
    assert quality.f1.ci95[0] < 0.75 < quality.f1.ci95[1] <= 1
    assert quality.average_precision == pytest.approx((1 + 1 + 3 / 4 + 4 / 5) / 4)


def test_a_filter_that_flags_nothing_or_all() -> None:
    none = quality_of(flags(0.3, 0.2), [True, False], CONTRAST)
    assert (none.precision, none.recall.value, none.f1.value) == (None, 0.0, 0.0)
    every = quality_of(flags(0.9, 0.8), [True, True], CONTRAST)
    assert every.precision is not None
    assert (every.precision.value, every.recall.value, every.f1.value) == (1.0, 1.0, 1.0)
    assert every.f1.ci95 == pytest.approx(wilson_interval(2, 2))
    assert none.f1.ci95[0] == 0
    high = wilson_interval(0, 1)[1]
    assert none.f1.ci95[1] == pytest.approx(2 * high / (1 + high))
    with pytest.raises(ExpectedError, match="expected images that should be flagged and that open, got none"):
        quality_of(flags(0.9, 0.8), [False, False], CONTRAST)


def test_expected_images_by_folder_and_by_file(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/2.png", "ab/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths = sorted(tmp_path.rglob("*.png"))
    assert expected_among(paths, tmp_path / "a", str(tmp_path)) == [True, True, False]
    listed = tmp_path / "listed.txt"
    listed.write_text(f"ab/3.png\n\n{tmp_path / 'a' / '1.png'}\n", encoding="utf-8")
    assert expected_among(paths, listed, str(tmp_path)) == [True, False, True]
    listed.write_text("ab/4.png\n", encoding="utf-8")
    with pytest.raises(ExpectedError, match=r"expected paths of images in .*, got 'ab/4.png' in .*, which is none of"):
        expected_among(paths, listed, str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExpectedError, match="expected images of .* in .*empty, got none"):
        expected_among(paths, tmp_path / "empty", str(tmp_path))


def test_what_names_all_or_nothing_readable_is_refused_and_letters_may_be_decomposed(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / unicodedata.normalize("NFD", "çığ.png"), tmp_path / "a" / "b.png"]
    listed = tmp_path / "listed.txt"
    listed.write_text("\ufeff" + unicodedata.normalize("NFC", "a/çığ.png") + "\r\n", encoding="utf-8")
    assert expected_among(paths, listed, str(tmp_path)) == [True, False]
    for folder in (tmp_path / "a", tmp_path):
        (tmp_path / "a").mkdir(exist_ok=True)
        with pytest.raises(ExpectedError, match="that should not be flagged, too, got none beside those of"):
            expected_among(paths, folder, str(tmp_path / "a"))
    listed.write_bytes(b"a/b.png\0\n")
    with pytest.raises(ExpectedError, match="got NUL characters in .*listed.txt; name another"):
        check_expected(listed)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\xfa", b" \n"])
def test_a_file_of_no_paths(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "listed.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ExpectedError, match="expected (a folder of images, or a UTF-8 file|paths of images)"):
        check_expected(file)


def filtered(*argv: object) -> dict[str, Any]:
    result = CliRunner().invoke(entry.app, ["filter", *map(str, argv), "--json"])
    assert result.exit_code in (0, 1), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("is_indexed", [True, False])
def test_the_command_measures_a_filter(
    is_indexed: bool, indexed: Path, pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURKISH_CLIP_MODEL", str(pair_folder))
    folder = indexed
    if not is_indexed:
        folder = tmp_path / "photos"
        shutil.copytree(indexed, folder, ignore=shutil.ignore_patterns(".turkish-clip"))
        (folder / "broken.png").write_bytes(b"none")
    names = sorted(path.name for path in indexed.glob("*.png"))
    listed = tmp_path / "listed.txt"
    listed.write_text("\n".join(names[:4]), encoding="utf-8")
    argv = [folder, "-p", "kırmızı bir ev", "--expected", listed]
    found = filtered(*argv, "--contrast", "kuş")
    ours, default = found["measured"]
    assert (ours["contrast"], default["contrast"]) == (["kuş"], list(CONTRAST))
    flagged = {Path(row["path"]).name for row in found["flagged"]}
    assert (ours["flagged"], ours["right"]) == (len(flagged), len(flagged & set(names[:4])))
    alone = filtered(*argv)
    assert alone["measured"] == [default]
    assert default["recall"]["value"] == len({Path(row["path"]).name for row in alone["flagged"]} & set(names[:4])) / 4
    assert "measured" not in filtered(folder, "-p", "kırmızı bir ev")

    shown = CliRunner().invoke(entry.app, ["filter", *map(str, argv)])
    assert f"with the contrast {', '.join(CONTRAST)}:" in shown.stdout
    assert f"  recall {default['recall']['value']:.3f} (" in shown.stdout
    as_csv = CliRunner().invoke(entry.app, ["filter", *map(str, argv), "--csv"])
    assert "recall" not in as_csv.stdout
    assert "recall" in as_csv.stderr
    refused = CliRunner().invoke(entry.app, ["filter", str(folder), "-p", "ev", "--expected", str(tmp_path / "no")])
    assert isinstance(refused.exception, ExpectedError)


def test_what_is_not_read_is_said_once(
    pair_folder: Path, indexed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = tmp_path / "listed.txt"
    listed.write_text(sorted(indexed.glob("*.png"))[0].name, encoding="utf-8")
    argv = (indexed, "-p", "xylophon", "--expected", listed, "--contrast", "kuş", "--model", pair_folder)
    filtered(*argv)
    said = [record.getMessage() for record in caplog.records if "xylophon" in record.getMessage()]
    assert len(said) == 1
