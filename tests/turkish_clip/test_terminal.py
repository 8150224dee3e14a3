"""Ctrl-C while modules are imported, and lines that a terminal neither obeys nor fails on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from turkish_clip.cli.output import note, show_answer, show_flags, to_csv
from turkish_clip.dual_encoder import DualEncoder, TextError
from turkish_clip.errors import InputError, one_line, printable
from turkish_clip.filtering import Flag
from turkish_clip.folders import LeftOut
from turkish_clip.search import Query
from turkish_clip.search.index import Answer, Hit
from turkish_clip.sheet import Tile, write_sheet

SLOW = """
import time
open({flag!r}, "w").close()
try:
    for _ in range(600):  # a signal just before a long sleep would be seen after it
        time.sleep(0.1)
except BaseException:
    pass
"""


@pytest.mark.parametrize("command", [["-m", "turkish_clip.cli", "info"], ["-m", "training.evaluate", "--run", "x"]])
def test_ctrl_c_while_importing_ends_at_once_without_a_traceback(command: list[str], tmp_path: Path) -> None:
    """A stand-in for a library takes its time, and swallows KeyboardInterrupt as some do."""
    flag = tmp_path / "importing"
    for name in ("typer", "numpy"):
        (tmp_path / f"{name}.py").write_text(SLOW.format(flag=str(flag)), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=environment)
    while not flag.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1].strip() == "interrupted; give the same command again to go on"
    assert process.returncode == 130


WRITES = """
import sys, time
from pathlib import Path
from turkish_clip.atomic import atomic_folder, atomic_write, temporary_folder
from turkish_clip.terminal import end_at_once_while_importing, end_in_order

end_at_once_while_importing()
end_in_order()
here = Path(sys.argv[1])
with atomic_folder(here / "folder", None) as folder, atomic_write(here / "file"), temporary_folder() as other:
    (folder / "a").touch()
    (other / "b").touch()
    if sys.argv[2] == "importing":
        import slow
    (here / "flag").touch()
    for _ in range(600):
        time.sleep(0.1)
"""


@pytest.mark.parametrize("state", ["running", "importing"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_by_a_signal_leaves_no_temporary_file(number: signal.Signals, state: str, tmp_path: Path) -> None:
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    here.mkdir()
    temporary.mkdir()
    (tmp_path / "slow.py").write_text(SLOW.format(flag=str(here / "flag")), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)}
    argv = [sys.executable, "-c", WRITES, str(here), state]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment)
    while not (here / "flag").exists():
        assert process.poll() is None
    assert len(list(here.iterdir())) == 3
    assert len(list(temporary.iterdir())) == 1
    process.send_signal(number)
    process.communicate(timeout=20)
    raised = number is signal.SIGINT and state == "running"  # as KeyboardInterrupt, which Python ends with the signal
    assert process.returncode == (-number if raised else 128 + number)
    assert [file.name for file in here.iterdir()] == ["flag"]
    assert not list(temporary.iterdir())


EVIL = "/a/\x1b[2J\x1b]0;x\x07\r\n=cmd\u202egnp.exe\x9b31m" + os.fsdecode(b"\xe7") + ".png"


def show(path: str, query: str, *, as_json: bool = False, as_csv: bool = False) -> None:
    answer = Answer(Query(query), [Hit(path, 0.5)], no_cutoff=query)
    show_answer(answer, answer.hits, str, LeftOut(), as_json=as_json, as_csv=as_csv, offset=0, copies={path: path})


def test_control_characters_are_escaped_on_every_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    note(EVIL)
    show(EVIL, EVIL)
    show(EVIL, EVIL, as_csv=True)
    for as_csv in (False, True):
        show_flags(
            [Path(EVIL)], [Flag(0.9, 0.3, EVIL, flagged=True)], [], as_json=False, as_csv=as_csv, left_out=LeftOut()
        )
    shown = capsys.readouterr()
    assert all(letter.isprintable() or letter == "\n" for letter in shown.out + shown.err)
    assert r"\x1b[2J" in shown.err
    show(EVIL, "ağ", as_json=True)
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text)["hits"][0]["path"] == EVIL
    show("ağaç.png", "ağ", as_json=True)
    assert '"query": "ağ"' in capsys.readouterr().out
    assert one_line(InputError(EVIL)).isprintable()
    page = write_sheet(tmp_path / "sheet.html", [Tile(tmp_path / "none.png", EVIL)], EVIL).read_text(encoding="utf-8")
    assert "\x1b" not in page
    assert r"\xe7.png" in page
    write_sheet(tmp_path / "sheet.png", [Tile(tmp_path / "none.png", EVIL)], EVIL)


def test_turkish_and_emoji_are_printed_as_they_are() -> None:
    for text in ("İğdır'ın ılık ışıkları", "aile 👨\u200d👩\u200d👧 🇹🇷", "e\u0301", "北京"):
        assert printable(text) == text


def test_no_cell_of_a_csv_is_a_formula() -> None:
    for text in ("=1+1", "+1", "-1", "@A1", "\t=1", " =1", "\r=1", "\n=1", "＝1", "%0A=1", "|x"):
        cell = to_csv([{"path": text}], ["path"]).splitlines()[1]
        assert cell.strip('"').startswith("'"), text
    assert to_csv([{"path": "a=b.png"}], ["path"]) == "path\na=b.png\n"
    assert len(to_csv([{"path": "a\nb\x1b\u2028c"}], ["path"]).splitlines()) == 2


def test_text_that_is_no_utf_8_is_one_line(encoder: DualEncoder) -> None:
    with pytest.raises(TextError, match=r"expected text in UTF-8, got .*xe7i.*; check the encoding"):
        encoder.encode_texts(["ev", os.fsdecode(b"\xe7i\xe7ek")])
