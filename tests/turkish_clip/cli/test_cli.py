"""The command turkish-clip: its text and JSON output, exit codes, help texts and one-line errors."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from safetensors import SafetensorError
from typer.testing import CliRunner

from turkish_clip.cli import arguments, entry, models
from turkish_clip.errors import InputError
from turkish_clip.search.tables import ImageTables

pytestmark = pytest.mark.usefixtures("small_model")


def run(*argv: object) -> tuple[int, str]:
    result = CliRunner().invoke(entry.app, [str(word) for word in argv])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def as_json(*argv: object) -> tuple[int, Any]:
    code, text = run(*argv, "--json")
    return code, json.loads(text)


def test_index_and_search(tmp_path: Path, indexed: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(indexed.glob("*.png"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    code, added = as_json("index", folder)
    assert (code, added["added"], added["images"]) == (0, 4, 4)
    (folder / "bad.jpg").write_text("x", encoding="utf-8")
    code, added = as_json("index", folder)
    assert (code, added["unchanged"]) == (1, 4)
    assert added["skipped"][0]["reason"] == "a file that is not an image"
    first = sorted(folder.glob("*.png"))[0]
    code, found = as_json("search", folder, "--image", first, "-k", 2)
    assert (code, found["hits"][0]["path"]) == (0, str(first))
    code, text = run("search", folder, "kırmızı ev", "--sheet", tmp_path / "out.html")
    assert code == 0
    assert len(text.splitlines()) == 4
    assert (tmp_path / "out.html").is_file()


def test_locate(indexed: Path, tmp_path: Path) -> None:
    image = sorted(indexed.glob("*.png"))[0]
    code, found = as_json("locate", image, "kırmızı", "ev", "-k", 3)
    assert code == 0
    assert (found["path"], found["text"], found["fits"]) == (str(image), "kırmızı ev", None)  # no text bank: not known
    assert 1 <= len(found["regions"]) <= 3
    for region in found["regions"]:
        left, top, right, bottom = region["box"]
        assert 0 <= left <= region["point"][0] <= right <= 64
        assert 0 <= top <= region["point"][1] <= bottom <= 64
        assert -1 <= region["score"] <= 1
    code, text = run("locate", image, "kırmızı ev", "-o", tmp_path / "out.html")
    left, top, right, bottom = found["regions"][0]["box"]
    assert (code, text) == (0, f"{found['regions'][0]['score']:7.3f}  {left},{top} to {right},{bottom}\n")
    assert "kırmızı ev" in (tmp_path / "out.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="expected words to look for, got an empty text; write what the image shows"):
        run("locate", image, " ")
    with pytest.raises(InputError, match=r"none.png"):
        run("locate", tmp_path / "none.png", "ev")
    with pytest.raises(InputError, match=r"expected QUERY, got none; write: turkish-clip locate IMAGE 'kedi'"):
        run("locate", image)


def test_an_image_that_a_search_can_not_look_into_is_said(indexed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(indexed, folder, ignore=shutil.ignore_patterns(".turkish-clip"))
    run("index", folder)
    broken = as_json("search", folder, "ev", "-k", 1)[1]["hits"][0]["path"]
    Path(broken).write_bytes(b"x")
    found = CliRunner().invoke(entry.app, ["search", str(folder), "ev", "-k", "2", "--regions"])
    assert found.exit_code == 0
    assert f"1 file could not be read:\n  {broken}: a file that is not an image" in found.stderr


def test_regions_of_a_search(indexed: Path, tmp_path: Path) -> None:
    assert as_json("search", indexed, "ev", "-k", 2)[1]["hits"][0]["regions"] is None
    argv = ["search", indexed, "kırmızı ev", "--and", "kuş", "-k", 2, "--regions", "--sheet", tmp_path / "out.png"]
    code, found = as_json(*argv)
    assert code == 0
    for hit in found["hits"]:
        assert [region["text"] for region in hit["regions"]] == ["kırmızı ev", "kuş"]
        assert all(len(region["box"]) == 4 for region in hit["regions"])
    with Image.open(tmp_path / "out.png") as sheet:
        assert any(colour == (240, 228, 66) for _, colour in sheet.convert("RGB").getcolors(1 << 20))
    lines = run(*argv)[1].splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"         \d+,\d+ to \d+,\d+  kırmızı ev", lines[1])
    with pytest.raises(InputError, match="expected words to look for with --regions, got an image alone"):
        run("search", indexed, "--image", sorted(indexed.glob("*.png"))[0], "--regions")


def test_things_in_images(indexed: Path, tmp_path: Path) -> None:
    images = [*sorted(indexed.glob("*.png"))[:2], tmp_path / "bad.png"]
    images[2].write_text("x", encoding="utf-8")
    argv = ["classify", *images, "--labels", "ev,ağaç,kuş", "--regions"]
    code, found = as_json(*argv, "--reject-below", -1, "--sheet", tmp_path / "out.html")
    assert code == 1
    assert [image["path"] for image in found["images"]] == [str(path) for path in images]
    for image in found["images"][:2]:
        assert image["things"]
        assert {thing["label"] for thing in image["things"]} <= {"ev", "ağaç", "kuş"}
        assert all(0.5 <= thing["probability"] <= 1 and len(thing["box"]) == 4 for thing in image["things"])
    assert found["images"][2]["error"] == found["skipped"][0]["reason"] == "a file that is not an image"
    assert found["temperature"] == 0.01
    assert (tmp_path / "out.html").read_text(encoding="utf-8").count("<figure>") == 2
    code, text = run(*argv, "--reject-below", 1)
    assert (code, text.count("none of these")) == (1, 2)
    with pytest.raises(InputError, match="expected a model with a text bank"):
        run(*argv)
    with pytest.raises(InputError, match="expected --regions with --labels, got it with --examples; leave one out"):
        run("classify", images[0], "--examples", indexed, "--regions")


def test_hubs_are_corrected_by_a_file_of_queries(indexed: Path, tmp_path: Path) -> None:
    found = CliRunner().invoke(entry.app, ["index", str(indexed), "--at", str(tmp_path / "index")])
    assert "no correction of hubs: there is no text bank beside the model; --queries FILE" in found.stderr
    queries = tmp_path / "queries.txt"
    queries.write_text("\n".join(f"{number} kırmızı ev" for number in range(99)), encoding="utf-8")
    argv = [indexed, "--at", tmp_path / "index"]
    assert as_json("search", *argv, "ev")[1]["hits"][0]["corrected"] is None
    with pytest.raises(InputError, match="expected at least 100 different texts .*, got 99; add texts, or leave"):
        run("index", *argv, "--queries", queries)
    queries.write_text("\n".join(f"{number} kırmızı ev" for number in range(100)), encoding="utf-8")
    assert as_json("index", *argv, "--queries", queries)[1]["bank_texts"] == 100
    assert as_json("index", *argv)[1]["bank_texts"] == 100
    hits = as_json("search", *argv, "ev")[1]["hits"]
    corrected = [hit["corrected"] for hit in hits]
    assert corrected == sorted(corrected, reverse=True)
    plain = as_json("search", *argv, "ev", "--by-cosine")[1]["hits"]
    assert {hit["path"]: hit["score"] for hit in plain} == pytest.approx({hit["path"]: hit["score"] for hit in hits})
    assert all(hit["corrected"] is None for hit in plain)
    assert f"{hits[0]['score']:7.3f} {corrected[0]:7.3f}  {hits[0]['path']}" in run("search", *argv, "ev")[1]


def test_an_index_remembers_its_model(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURKISH_CLIP_MODEL")
    code, found = as_json("search", indexed, "ev")
    assert code == 0
    assert len(found["hits"]) == 10


def test_classify_by_words_and_by_examples(indexed: Path, tmp_path: Path) -> None:
    code, found = as_json("classify", indexed, "--labels", "ev|ağaç, kuş")
    assert code == 0
    assert len(found["images"]) == 10
    assert set(found["images"][0]["probabilities"]) == {"ev", "kuş"}
    run("classify", indexed, "--labels", "ev|ağaç, kuş", "--sheet", tmp_path / "sheet.html")
    assert "<h1>Etiketlere göre: ev, kuş</h1>" in (tmp_path / "sheet.html").read_text(encoding="utf-8")
    code, found = as_json("classify", tmp_path / "none.png", next(indexed.glob("*.png")), "--labels", "ev|ağaç, kuş")
    assert code == 1
    assert found["skipped"] == [{"path": str(tmp_path / "none.png"), "reason": "no file"}]
    assert (found["images"][0]["score"], found["images"][0]["probability"]) == (None, None)
    for label, colour in (("kırmızı", "red"), ("mavi", "blue")):
        (tmp_path / "examples" / label).mkdir(parents=True)
        Image.new("RGB", (40, 40), colour).save(tmp_path / "examples" / label / "1.png")
    Image.new("RGB", (50, 50), "red").save(tmp_path / "new.png")
    code, found = as_json("classify", tmp_path / "new.png", "--examples", tmp_path / "examples")
    assert found["images"][0]["label"] == "kırmızı"


def test_compare_and_filter_and_info(indexed: Path, tmp_path: Path) -> None:
    paths = sorted(indexed.glob("*.png"))[:3]
    code, found = as_json("compare", *paths, tmp_path / "none.png", "-t", "ev", "-t", "kuş")
    assert code == 1
    assert found["skipped"] == [{"path": str(tmp_path / "none.png"), "reason": "no file"}]
    assert [len(row) for row in found["scores"]] == [2, 2, 2]
    column = [row[0] for row in found["scores"]]
    assert found["best"]["ev"] == str(paths[column.index(max(column))])
    assert {found["best_text"][str(path)] for path in paths} <= {"ev", "kuş"}
    (tmp_path / "texts.txt").write_text("\n".join(["ev", "kuş", "", *"abcdefgh"]), encoding="utf-8")
    lines = run("compare", paths[0], "--texts", tmp_path / "texts.txt")[1].splitlines()
    assert lines[0] == str(paths[0])
    assert len(lines) == 4
    for argv, message in (
        (["--texts", tmp_path / "no.txt"], "expected a file of texts"),
        ([], "expected texts to compare"),
    ):
        with pytest.raises(InputError, match=message):
            run("compare", paths[0], *argv)
    sheet = tmp_path / "best.html"
    assert "kuş" in run("compare", *paths, "-t", "kuş", "--sheet", sheet)[1]
    assert f"{max(row[1] for row in found['scores']):.3f}  kuş" in sheet.read_text(encoding="utf-8")
    for folder in (indexed, tmp_path / "plain"):
        if folder != indexed:
            folder.mkdir()
            (folder / "1.png").write_bytes(paths[0].read_bytes())
        code, found = as_json("filter", folder, "-p", "ev", "--min-probability", 0)
        assert (code, len(found["flagged"])) == (0, 10 if folder == indexed else 1)
    assert run("filter", indexed, "-p", "ev", "--threshold", -1, "--csv")[1].startswith(
        "path,second,score,probability,prompt,is_there\n"
    )
    code, metadata = as_json("info")
    assert (metadata["dim"], metadata["temperature_is_fitted"]) == (16, False)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["search", "FOLDER"], "expected words or --image, got none"),
        (["search", "EMPTY", "ev"], "expected an index in .*, got none; make one: turkish-clip index"),
        (["index", "MISSING"], "expected a folder of images"),
        (["classify", "FOLDER"], "expected --labels or --examples"),
        (["classify", "FOLDER", "--labels", "ev"], "at least two different labels"),
        (["classify", "EMPTY", "--labels", "ev,kuş"], "expected images in .*, got none"),
        (["classify", "FOLDER", "--labels", "ev; kuş"], "separated by commas, got 'ev; kuş' with .*; write 'ev,kuş'"),
        (["filter", "FOLDER", "-p", "gece", "--contrast", "gece"], "expected a contrast of other images, got 'gece'"),
        (["filter", "FOLDER", "-p", " "], "something to look for"),
        (["info", "--model", "MISSING"], "expected a model, got .*, which is no folder in .*; check the path"),
        (["search", "FOLDER", " "], "expected words to look for or to keep away, got an empty text"),
        (["search", "FOLDER", "--not", "ev"], "expected words or --image, got none; write: turkish-clip search FOLDER"),
        (["search", "FOLDER", "ev", "--not", " "], "expected words to look for or to keep away, got an empty text"),
        (["search", "FOLDER", "ev", "--not", "ev"], "got ev - ev, which cancel each other out"),
        (
            ["search", "FOLDER", "ev^nan", "--model", "MISSING"],
            "expected a weight above 0, .*, got nan for 'ev",
        ),
        (["search", "FOLDER", "--and", "ev^-2", "--model", "MISSING"], "got -2 for .*; keep it away instead"),
        (["search", "FOLDER", "ev", "--image-weight", "1"], "expected --image beside --image-weight, got none"),
        (
            ["search", "FOLDER", "ev", "--image", "none.png", "--model", "MISSING"],
            "expected an image at none.png, got no file",
        ),
        (
            ["search", "FOLDER", "ev", "--after", "2024", "--before", "2024"],
            "expected a time from .*; name a later end",
        ),
        (
            ["search", "FOLDER", "ev", "--after", "2024-7", "--before", "2024-6"],
            "expected a time from .*; exchange them",
        ),
        (["search", "FOLDER", "ev", "--offset", "-1"], "Invalid value for '--offset'.*; see .* search --help"),
        (["search", "FOLDER", "ev", "--csv", "--json", "--model", "MISSING"], "expected --csv or --json, got both"),
        (
            ["search", "FOLDER", "ev", "--copy-to", "FILE", "--model", "MISSING"],
            "expected a folder to copy to, got .*png",
        ),
        (
            ["search", "FOLDER", "ev", "--copy-to", "FOLDER", "--model", "MISSING"],
            "expected a new or empty folder to copy",
        ),
        (
            ["search", "FOLDER", "ev", "--copy-to", "INSIDE"],
            "expected a folder .* outside .*, which is indexed",
        ),
        (["search"], "expected FOLDER, and words or --image, got none of these; write: turkish-clip search FOLDER"),
        (["search", "MISSING", "ev"], "expected an indexed folder, got .*missing, which is not there; check the path"),
        (["search", "FILE", "ev"], "expected an indexed folder, got .*png, which is a file; check the path"),
        (
            ["search", "EMPTY", "ev", "--at", "MISSING"],
            "expected an index in .*missing, got none; make one: .* --at .*g",
        ),
        (["search", "MISSING", "ev", "--at", "EMPTY"], "got none; make one: turkish-clip index FOLDER --at .*empty"),
        (["app", "MISSING"], "expected an indexed folder, got .*missing, which is not there; check the path"),
        (["filter", "MISSING", "-p", "ev"], "expected images or an index, got .*missing, which is not there"),
        (["filter"], "expected FOLDER, and --prompt, got none of these; write: turkish-clip filter FOLDER --prompt"),
        (["classify"], "expected IMAGES, and --labels or --examples, got none of these"),
        (["compare"], "expected IMAGES, and texts to compare with, got none of these"),
        (
            ["filter", "FOLDER", "-p", "mavi", "ev"],
            r"Got unexpected extra argument.*\(ev\).*; names .* in quotes; see",
        ),
        (["search", "FOLDER", "ev", "--image", "x.png"], "expected an image at x.png, got no file"),
        (["search", "FOLDER", "ev", "--sheet", "out.jpg"], "expected a sheet named .png or .html, got out.jpg"),
        (
            ["classify", "FOLDER", "--examples", "FOLDER", "--reject-below", "0.2"],
            "expected --reject-below with --labels",
        ),
        (["classify", "FOLDER", "--labels", "ev, kuş, ev|konut"], "expected each label once, got 'ev' twice"),
        (["classify", "FOLDER", "--labels", "ev|yuva,kuş|yuva"], "expected each word under one label, got 'yuva'"),
        (["classify", "FOLDER", "--labels", "ev,kuş", "--reject-below", "5"], "Invalid value for '--reject-below'"),
        (["classify", "FOLDER", "--labels", "ev,kuş", "--template", "{}i", "--model", "MISSING"], "expected no suffix"),
        (["classify", "FOLDER", "--examples", "EMPTY", "--model", "MISSING"], "at least two subfolders"),
        (["compare", "FOLDER", "-t", "ev", "-t", " "], "expected texts to compare with, got an empty one"),
        (["filter", "FOLDER", "-p", "ev", "--csv", "--json"], "expected --csv or --json, got both"),
        (["filter", "FOLDER"], "expected --prompt, got none; write: turkish-clip filter FOLDER --prompt"),
        (["search", "FOLDER", "ev", "-k", "0"], "Invalid value for '-k'.*; see .* search --help"),
        (["search", "FOLDER", "ev", "--where", " "], "expected a condition over .*, got an empty one"),
        (["search", "FOLDER", "ev", "--where", "colour = 1"], "got 'colour = 1', with 'colour' in it; correct it"),
        (["search", "FOLDER", "ev", "--where", "modified > 5"], r"got 'modified > 5': ((?!\.rs)[^;])*; correct it"),
        (["serch", "FOLDER"], "No such command 'serch'"),
        (["index", "FOLDER", "--at", "FOLDER"], "expected an index or an empty folder, got .*, which holds '.*png'"),
        (["info", "--device", "gpu"], "expected a device that this machine has"),
    ],
)
def test_an_error_is_one_line(
    argv: list[str], message: str, indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    places = {
        "FOLDER": str(indexed),
        "FILE": str(min(indexed.glob("*.png"))),
        "EMPTY": str(tmp_path / "empty"),
        "INSIDE": str(indexed / "copies"),
        "MISSING": str(tmp_path / "missing"),
    }
    monkeypatch.setattr("sys.argv", ["turkish-clip", *(places.get(word, word) for word in argv)])
    with pytest.raises(SystemExit) as exit_:
        entry.main()
    *before, error = capsys.readouterr().err.strip().splitlines()  # before: progress bars, which these tests leave on
    assert exit_.value.code == 2
    assert "Traceback" not in "".join(before)
    assert re.match(f"error: .*{message}", error), error


def test_flagged_images_are_sorted() -> None:
    from turkish_clip.filtering import Flag, flagged_first

    flags = [Flag(0.2, 1.0, "gece", True), Flag(0.9, 0.9, "gece", False), Flag(0.3, 1.0, "gece", True)]
    assert [path.name for path, _ in flagged_first([Path("b"), Path("c"), Path("a")], flags)] == ["a", "b"]


def test_filtering_an_index_covers_every_file(tmp_path: Path, indexed: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    first = sorted(indexed.glob("*.png"))[0]
    for name in ("1.png", "copy.png"):
        (folder / name).write_bytes(first.read_bytes())
    (folder / "bad.jpg").write_text("x", encoding="utf-8")
    before = as_json("filter", folder, "-p", "ev", "--threshold", -1)
    run("index", folder)
    for code, found in (before, as_json("filter", folder, "-p", "ev", "--threshold", -1)):
        assert (code, found["images"], found["skipped"]) == (1, 2, before[1]["skipped"])
        assert {Path(row["path"]).name for row in found["flagged"]} == {"1.png", "copy.png"}
        assert [row["score"] for row in found["flagged"]] == pytest.approx(
            [before[1]["flagged"][0]["score"]] * 2, abs=1e-5
        )
    assert run("filter", folder, "-p", "ev", "--threshold", 1, "--sheet", tmp_path / "none.png")[0] == 1
    assert not (tmp_path / "none.png").exists()


def test_a_piped_table_keeps_every_letter(indexed: Path, tmp_path: Path) -> None:
    image = tmp_path / "[deniz]" / f"{'uzun' * 30}.png"
    image.parent.mkdir()
    image.write_bytes(sorted(indexed.glob("*.png"))[0].read_bytes())
    head, row = run("compare", image, "-t", "[/] ev")[1].splitlines()
    assert head == "image\t[/] ev"
    assert row.split("\t")[0] == str(image)


def test_ctrl_c_prints_how_to_go_on(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "load", interrupted)
    monkeypatch.setattr("sys.argv", ["turkish-clip", "info"])
    with pytest.raises(SystemExit) as exit_:
        entry.main()
    assert exit_.value.code == 130
    assert "interrupted; give the same command again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "s.png"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_as_by_the_training_commands(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(entry, "app", full)
    with pytest.raises(SystemExit) as exit_:
        entry.main([])
    assert exit_.value.code == 2
    told = capsys.readouterr().err
    assert "expected free disk space, got a full disk (" in told
    assert told.endswith("free some and run it again\n")


def test_no_argument_holds_nul(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        entry.main(["info", "a\0b"])
    assert "expected arguments without the character NUL, got 'a\\x00b'; correct it" in capsys.readouterr().err


def test_examples_that_do_not_open_are_listed(indexed: Path, tmp_path: Path) -> None:
    for label, colour in (("kırmızı", "red"), ("mavi", "blue")):
        (tmp_path / "examples" / label).mkdir(parents=True)
        Image.new("RGB", (40, 40), colour).save(tmp_path / "examples" / label / "1.png")
    (tmp_path / "examples" / "mavi" / "2.png").write_text("x", encoding="utf-8")
    result = CliRunner().invoke(entry.app, ["classify", str(indexed), "--examples", str(tmp_path / "examples")])
    assert "2.png: a file that is not an image" in result.stderr


def test_no_image_meets_a_condition(indexed: Path) -> None:
    found = CliRunner().invoke(
        entry.app, ["search", str(indexed), "ev", "--where", "modified > timestamp '2100-01-01'"]
    )
    assert (found.exit_code, found.stdout) == (0, "")
    assert found.stderr.endswith("no image meets the condition\n")


def test_version_and_help() -> None:
    assert re.fullmatch(r"turkish-clip \d+\.\d+\S*\n", run("--version")[1])
    code, text = run()
    assert code == 2
    assert "classify" in text


@pytest.mark.parametrize("name", entry.SUBCOMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    assert run(name, "--help")[0] == 0
    subcommand = typer.main.get_command(entry.app).commands[name]  # type: ignore[attr-defined]
    assert not [option.name for option in subcommand.params if not option.help]


def test_help_shows_the_default_contrast() -> None:
    from turkish_clip.filtering import CONTRAST

    assert ", ".join(CONTRAST) in " ".join(run("filter", "--help")[1].replace("│", " ").split())


def test_files_that_are_gone_are_marked(indexed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    code, added = as_json("index", folder)
    assert (code, added["images"]) == (1, 0)
    for path in sorted(indexed.glob("*.png"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    run("index", folder)
    lost = sorted(folder.glob("*.png"))[0]
    lost.unlink()
    found = CliRunner().invoke(entry.app, ["search", str(folder), "ev", "--sheet", str(tmp_path / "found.html")])
    assert found.exit_code == 0
    assert [line.split("  ")[-1] for line in found.stdout.splitlines() if lost.name in line] == ["(not there now)"]
    assert f"1 of them not there now; turkish-clip index {folder} removes what is gone" in found.stderr
    assert (tmp_path / "found.html").read_text(encoding="utf-8").count("(artık yerinde değil)") == 2  # alt and line
    hits = as_json("search", folder, "ev")[1]["hits"]
    assert [hit["path"] for hit in hits if not hit["is_there"]] == [str(lost)]
    arguments = ["filter", str(folder), "-p", "ev", "--threshold", "-1"]
    found = CliRunner().invoke(entry.app, [*arguments, "--sheet", str(tmp_path / "flagged.html")])
    assert [line.split("  ")[-1] for line in found.stdout.splitlines() if lost.name in line] == ["(not there now)"]
    assert found.stdout.count("(not there now)") == 1
    assert f"1 of them not there now; turkish-clip index {folder} removes what is gone" in found.stderr
    assert (tmp_path / "flagged.html").read_text(encoding="utf-8").count("(artık yerinde değil)") == 2
    flagged = as_json(*arguments)[1]["flagged"]
    assert [row["path"] for row in flagged if not row["is_there"]] == [str(lost)]

    moved = folder.rename(tmp_path / "moved")
    updated = CliRunner().invoke(entry.app, ["index", str(moved)])
    assert "2 moved, 0 gone; 3 images" in updated.stdout
    assert f"1 file of {folder} kept, which is not there now; --prune removes them" in updated.stderr
    assert "0 moved, 1 gone; 2 images" in run("index", moved, "--prune")[1]


def test_a_sheet_of_many_texts_shows_each_image_once(indexed: Path, tmp_path: Path) -> None:
    images = sorted(indexed.glob("*.png"))[:2]
    for count, tiles in ((3, 3), (20, 2)):
        texts = [word for number in range(count) for word in ("-t", f"ev {number}")]
        run("compare", *images, *texts, "--sheet", tmp_path / "best.html")
        assert (tmp_path / "best.html").read_text(encoding="utf-8").count("<figure>") == tiles


def test_a_model_that_an_index_names_is_not_fetched_unasked(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TURKISH_CLIP_MODEL")
    folder = tmp_path / "photos"
    shutil.copytree(indexed, folder)
    real = ImageTables.metadata
    monkeypatch.setattr(ImageTables, "metadata", lambda tables: replace(real(tables), model="someone/model"))
    monkeypatch.setattr(arguments, "load", lambda *_, **__: pytest.fail("the model is loaded"))
    with pytest.raises(InputError, match="got someone/model, which would be fetched .*; .* name it: --model someone/m"):
        run("search", folder, "ev")


UNREAD = [
    ("北京的猫", "the text encoder knows no word of '北京的猫'"),
    ("kırmızı zürafa", "the text encoder does not know 'zürafa' in 'kırmızı zürafa'"),
    ("kırmızı ev " * 30, "kırm…' is cut at 32 tokens: the rest"),
    ("\u200b", "has nothing that the text encoder reads"),
]


@pytest.mark.parametrize(("text", "warning"), UNREAD)
def test_what_is_not_read_of_a_text_is_said_beside_the_answer(
    text: str, warning: str, indexed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = min(indexed.glob("*.png"))
    for argv in (
        ["search", indexed, text],
        ["compare", first, "-t", text],
        ["classify", first, "--labels", f"{text},ev"],
        ["filter", indexed, "-p", text],
    ):
        caplog.clear()
        code, found = as_json(*argv)
        assert code == 0
        assert [line for line in found["warnings"] if warning in line], found["warnings"]
        assert warning in caplog.text
    assert as_json("search", indexed, "kırmızı ev")[1]["warnings"] == []


def test_every_json_has_warnings(indexed: Path, tmp_path: Path) -> None:
    first = min(indexed.glob("*.png"))
    for argv in (
        ["index", indexed, "--at", tmp_path / "index"],
        ["search", indexed, "--image", first],
        ["classify", first, "--labels", "ev,kuş"],
        ["compare", first, "-t", "ev"],
        ["filter", first.parent, "-p", "ev"],
        ["info"],
    ):
        assert as_json(*argv)[1]["warnings"] == []


def test_a_threshold_that_no_image_reaches_is_said(indexed: Path) -> None:
    found = as_json("filter", indexed, "-p", "ev", "--threshold", 0.99)[1]
    highest = max(row["score"] for row in as_json("filter", indexed, "-p", "ev", "--threshold", -1)[1]["flagged"])
    assert found["flagged"] == []
    assert found["warnings"] == [
        f"no image has a score of 0.99: the highest cosine is {highest:.3f}; lower the threshold"
    ]


def test_a_probability_that_no_image_reaches_is_said(indexed: Path) -> None:
    every = as_json("filter", indexed, "-p", "ev", "--contrast", "kuş", "--min-probability", 0)[1]["flagged"]
    highest = max(row["probability"] for row in every)
    argv = ("filter", indexed, "-p", "ev", "--contrast", "kuş", "--min-probability", 1)
    found = as_json(*argv)[1]
    assert (found["flagged"], len(found["warnings"])) == ([], 1)
    said = re.match("no image has a probability of 1: the highest is ([0-9.]+); lower it", found["warnings"][0])
    assert said is not None
    assert float(said[1]) == pytest.approx(highest, abs=1e-6)
    assert as_json("filter", indexed, "-p", "ev", "--contrast", "kuş", "--threshold", 0.99)[1]["warnings"] != []
    assert not as_json("filter", indexed, "-p", "ev", "--contrast", "kuş", "--min-probability", 0)[1]["warnings"]


@pytest.mark.parametrize("argv", [("search", "ev"), ("filter", "-p", "ev")])
def test_an_index_without_images_is_bad_input(argv: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("index", tmp_path / "empty")[0] == 1
    with pytest.raises(InputError, match="expected images in .*empty.*, got none; add some first"):
        run(argv[0], tmp_path / "empty", *argv[1:])


def test_scores_are_cosines_in_every_json(indexed: Path) -> None:
    folder, first = str(indexed), min(indexed.glob("*.png"))
    cosine = as_json("compare", first, "-t", "ev")[1]["scores"][0][0]
    hits = as_json("search", folder, "ev", "--where", f"path = '{first}'")[1]["hits"]
    flags = as_json("filter", folder, "-p", "ev", "--threshold", -1)[1]["flagged"]
    label = as_json("classify", first, "--labels", "ev,x y z", "--template", "{}")[1]["images"][0]
    assert hits[0]["score"] == pytest.approx(cosine, abs=1e-5)
    assert [row["score"] for row in flags if row["path"] == str(first)] == [pytest.approx(cosine, abs=1e-5)]
    assert [row["score"] for row in flags] == sorted((row["score"] for row in flags), reverse=True)
    if label["label"] == "ev":
        assert label["score"] == pytest.approx(cosine, abs=1e-5)


def test_words_without_quotes_are_one_query(indexed: Path) -> None:
    code, found = as_json("search", indexed, "kırmızı", "ev", "-k", 3)
    assert (code, found["query"]) == (0, "kırmızı ev")
    assert found["hits"] == as_json("search", indexed, "kırmızı ev", "-k", 3)[1]["hits"]


@pytest.mark.parametrize("word", ["araba", "ev"])
def test_a_text_that_lost_its_quotes_is_guessed(word: str, indexed: Path) -> None:
    first = min(indexed.glob("*.png"))
    code, found = as_json("compare", first, "-t", "kırmızı", word)
    assert code == 1
    assert found["warnings"] == [f"no file {word} is here; a text of several words, or with a space, stands in quotes"]


def test_advice_names_the_index_that_was_given(indexed: Path, tmp_path: Path) -> None:
    folder, at = tmp_path / "my photos", tmp_path / "index"
    shutil.copytree(indexed, folder)
    run("index", folder, "--at", at)
    for given in ([folder, "--at", at], [at], [tmp_path / "elsewhere", "--at", at]):
        found = CliRunner().invoke(entry.app, [*map(str, ["filter", *given, "-p", "ev"])])
        assert f"turkish-clip index '{folder}' --at {at} adds what is new" in found.stderr


def notes_of(stderr: str) -> list[str]:
    """Returns the lines on stderr but for the progress bars of the libraries."""
    return [line for line in stderr.splitlines() if line and "Loading weights" not in line]


@pytest.fixture
def with_bank(indexed: Path, tmp_path: Path) -> list[object]:
    """The arguments that name an index with a text bank."""
    (tmp_path / "queries.txt").write_text("\n".join(f"{number} kırmızı ev" for number in range(100)), encoding="utf-8")
    argv: list[object] = [indexed, "--at", tmp_path / "index"]
    run("index", *argv, "--queries", tmp_path / "queries.txt")
    return argv


def test_an_answer_says_in_one_line_whether_anything_fits(
    with_bank: list[object], indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*argv: object) -> tuple[list[str], list[str]]:
        done = CliRunner().invoke(entry.app, ["search", *map(str, argv)])
        assert done.exit_code == 0, done.exception
        return done.stdout.splitlines(), notes_of(done.stderr)

    assert said(indexed, "ev")[1] == ["whether they fit is not known: the index has no text bank to tell what fits"]
    monkeypatch.setattr("turkish_clip.cutoff.Cutoff.least", lambda self, query: 100.0)
    below = "the images below are merely the nearest (--only-fitting leaves them out)"
    shown, notes = said(*with_bank, "ev", "--and", "kuş^2", "--not", "ağaç", "-k", 2)
    assert (len(shown), notes) == (2, [f"nothing fits ev + kuş - ağaç; {below}"])
    assert said(*with_bank, "ev", "--only-fitting") == ([], ["nothing fits ev", "no image shown: none of these fits"])
    _, notes = said(*with_bank, "xyzw")
    assert notes == ["the images below are no answer"]
    found = as_json("search", *with_bank, "ev", "--not", "kuş^0.5", "-k", 1)[1]
    assert (found["query"], found["fits"], found["understood"], found["no_cutoff"]) == ("ev - kuş", False, True, "")
    assert found["parts"] == [
        {"kind": "text", "value": "ev", "weight": 1.0},
        {"kind": "without", "value": "kuş", "weight": 0.5},
    ]
    assert found["hits"][0]["fits"] is False
    monkeypatch.setattr("turkish_clip.cutoff.Cutoff.fits", lambda self, query, images: np.arange(len(images)) == 0)
    shown, notes = said(*with_bank, "ev", "-k", 2)
    assert (["does not fit" in line for line in shown], notes) == ([False, True], [])
    assert said(*with_bank, "ev", "-k", 2, "--only-fitting")[0] == shown[:1]
    assert said(*with_bank, "ev", "--image", min(indexed.glob("*.png")))[1] == []


def test_pages_csv_and_copies(indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("turkish_clip.found.open_with_viewer", lambda path: opened.append(path) or True)
    whole = as_json("search", indexed, "ev", "-k", 6)[1]["hits"]
    page = as_json("search", indexed, "ev", "-k", 2, "--offset", 4, "--copy-to", tmp_path / "copies", "--open")[1]
    assert (page["hits"], page["offset"]) == (whole[4:], 4)
    assert page["copies"] == {hit["path"]: str(tmp_path / "copies" / Path(hit["path"]).name) for hit in whole[4:]}
    assert all(Path(copy).read_bytes() == Path(path).read_bytes() for path, copy in page["copies"].items())
    assert opened == [tmp_path / "copies"]
    run("search", indexed, "ev", "-k", 2, "--open")
    assert opened[1:] == [Path(whole[0]["path"])]
    rows = run("search", indexed, "ev", "-k", 2, "--csv")[1].splitlines()
    assert rows[0] == "path,second,score,corrected,fits,also_at,taken,lat,lon,camera,is_there"
    assert rows[1] == f"{whole[0]['path']},,{whole[0]['score']},,,,,,,,True"
    beyond = CliRunner().invoke(entry.app, ["search", str(indexed), "ev", "--offset", "600"])
    assert (beyond.exit_code, beyond.stdout) == (0, "")
    assert notes_of(beyond.stderr) == ["no image beyond place 600"]


def test_a_shell_completes_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        asked = {"_TURKISH_CLIP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = CliRunner().invoke(entry.app, [], env=asked, prog_name="turkish-clip")
        return done.stdout.split()

    assert completed("turkish-clip sea") == ["search"]
    assert completed("turkish-clip search --no") == ["--not", "--not-image"]
    assert {"--install-completion", "--show-completion"} <= set(completed("turkish-clip --"))
