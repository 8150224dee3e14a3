"""The language of the command: who asks for Turkish gets it, everywhere; nobody else pays for it."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from turkish_clip import language
from turkish_clip.cli import main, output
from turkish_clip.cli.arguments import lines_of
from turkish_clip.cli.entry import SUBCOMMANDS, app
from turkish_clip.errors import InputError, one_line
from turkish_clip.few_shot import examples_in
from turkish_clip.language import of_environment, speak, taken_from, translated
from turkish_clip.reading import Caution
from turkish_clip.search.composition import Query, weighted
from turkish_clip.search.dates import Taken
from turkish_clip.search.storage import one_condition
from turkish_clip.search.vector_sources import open_source
from turkish_clip.sheet import check_name
from turkish_clip.terminal import LineFormatter
from turkish_clip.verify import Check
from turkish_clip.zero_shot import parse_labels, prompts_of

NO_INDEX = "dizine alınmış bir klasör bekleniyordu, {} geldi, böyle bir klasör yok; yolu denetleyin"


@pytest.fixture
def turkish(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "tr")
    speak("tr")
    yield
    speak("en")


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "en")
    yield
    speak("en")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if name not in language.VARIABLES}
    command = [sys.executable, "-m", "turkish_clip.cli", *arguments]
    return subprocess.run(command, capture_output=True, env={**clean, "COLUMNS": "200", **environment}, check=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "tr_TR.UTF-8"}, "tr"),
        ({"LANG": "tr"}, "tr"),
        ({"LANG": "TR_TR@euro"}, "tr"),
        ({"LC_MESSAGES": "tr_CY", "LANG": "en_GB"}, "tr"),
        ({"LC_ALL": "C.UTF-8", "LC_MESSAGES": "tr_TR"}, "en"),
        ({"LANGUAGE": "", "LANG": "tr_TR"}, "tr"),
        ({"LANGUAGE": "de:tr:en", "LANG": "en"}, "tr"),
        ({"LANGUAGE": "de:en:tr"}, "en"),
        ({"LANG": "trv_TW"}, "en"),  # Seediq
    ],
)
def test_the_environment_asks_for_a_language(environment: dict[str, str], expected: str) -> None:
    assert of_environment(environment) == expected


def test_the_option_stands_anywhere_before_two_dashes() -> None:
    assert taken_from(["--lang", "en", "info"]) == ("en", ["info"])
    assert taken_from(["search", "a", "--lang=tr", "b", "--", "--lang", "x"]) == (
        "tr",
        ["search", "a", "b", "--", "--lang", "x"],
    )


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("arguments", [["--lang", "tr", "search", "yok", "kar"], ["search", "yok", "kar", "--lang=tr"]])
def test_errors_are_in_turkish_if_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err == f"hata: {NO_INDEX.format('yok')}\n"


@pytest.mark.usefixtures("turkish")
def test_the_option_overrides_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["search", "yok", "kar", "--lang", "en"])
    assert capsys.readouterr().err.startswith("error: expected an indexed folder, got yok, which is not there")


@pytest.mark.usefixtures("turkish")
def test_another_language_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["info", "--lang", "fr"])
    assert capsys.readouterr().err == "hata: bir dil bekleniyordu (en ya da tr), 'fr' geldi; bunlardan birini verin\n"


@pytest.mark.usefixtures("turkish")
@pytest.mark.parametrize(
    ("english", "expected"),
    [
        (  # an error in an error, with its advice
            "no text encoder is kept beside a/b: expected LanceDB, got none installed; run in the checkout of "
            'turkish-clip: pip install -e ".[search]"',
            "a/b yanında metin kodlayıcı saklanmıyor: LanceDB bekleniyordu, kurulu değil; turkish-clip kaynak "
            'klasöründe çalıştırın: pip install -e ".[search]"',
        ),
        (  # clauses of a list
            "3 files of kinds that are not read: PSD 2, SVG 1; convert PSD and SVG to JPEG or PNG",
            "okunmayan türlerden 3 dosya: PSD 2, SVG 1; PSD ve SVG dosyalarını JPEG ya da PNG'ye çevirin",
        ),
        ("  a/b.jpg: a truncated or damaged image", "  a/b.jpg: eksik ya da bozuk bir resim"),
        (
            "the text encoder knows no word of 'a', 'b', 'c' and 2 more: their scores mean nothing",
            "metin kodlayıcı hiçbir sözünü tanımıyor: 'a', 'b', 'c' ve 2 tane daha; puanları bir şey söylemez",
        ),
        ("1 file could not be read:", "1 dosya okunamadı:"),
        ("2 images copied to a folder", "2 resim şuraya kopyalandı: a folder"),
        (
            "error: expected to read and write files, got Permission denied: 'no file'; check the path, its "
            "permissions and the disk",
            "hata: dosya okuyup yazmak bekleniyordu, şu geldi: izin yok: 'no file'; yolu, izinlerini ve "
            "diski denetleyin",
        ),
    ],
)
def test_messages_in_messages(english: str, expected: str) -> None:
    assert translated(english) == expected


def broken_texts(file: Path) -> None:
    file.write_bytes(b"\xe7i\xe7ek")
    lines_of(file)


RAISED: list[Callable[[Path], object]] = [
    lambda folder: prompts_of(["kedi", "ev"], ["resim"]),
    lambda folder: prompts_of(["kedi", "ev"], ["{}'nin resmi"]),
    lambda folder: prompts_of([], ["{}"]),
    lambda folder: prompts_of(["kedi"], ["{}"]),
    lambda folder: prompts_of({"kedi": ["at"], "ev": ["at"]}, ["{}"]),
    lambda folder: parse_labels("kedi; ev"),
    lambda folder: parse_labels("kedi, kedi"),
    lambda folder: weighted("kedi^x"),
    lambda folder: weighted("kedi^-2"),
    lambda folder: Query(without=["kedi"]),
    lambda folder: Taken.parse("dün", None),
    lambda folder: one_condition("renk = 'mavi'"),
    lambda folder: lines_of(folder / "yok.txt"),
    lambda folder: lines_of(folder),
    lambda folder: broken_texts(folder / "metin.txt"),
    lambda folder: open_source(folder / "yok.npy"),
    lambda folder: open_source(folder),
    lambda folder: check_name(folder / "a.jpg"),
    lambda folder: examples_in(folder),
    lambda folder: taken_from(["--lang", "de"]),
]


@pytest.mark.usefixtures("turkish")
@pytest.mark.parametrize("number", range(len(RAISED)))
def test_errors_as_they_are_raised_are_wholly_turkish(number: int, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        RAISED[number](tmp_path)
    said = translated(f"error: {one_line(raised.value, None)}")
    english = re.findall(r"\b(?:expected|got|error|none|or|and|the|No such|Is a|codec|Errno)\b|\[\]|\['", said)
    assert not english, said


@pytest.mark.parametrize("typed", ["TR", "Tr", "tr"])
def test_the_language_is_named_in_any_case(typed: str) -> None:
    assert taken_from(["info", "--lang", typed]) == ("tr", ["info"])
    assert taken_from([f"--lang={typed}"]) == ("tr", [])


@pytest.mark.usefixtures("turkish")
def test_values_and_marks_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_metadata({"temperature_is_fitted": False, "dim": 3}, False)
    output.show_checks("m", [Check("files", True, "x"), Check("record", False, "y")], False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:2]] == ["hayır", "3"]
    assert [line.split()[0] for line in lines[2:]] == ["tamam", "HATA"]
    assert translated("error: expected words or --image, got none; write: turkish-clip search FOLDER 'kar'").startswith(
        "hata: sözler ya da --image bekleniyordu"
    )


@pytest.mark.usefixtures("turkish")
def test_short_messages_are_told_from_data_by_who_prints_them() -> None:
    assert translated("1,2 to 30,40") == "1,2 to 30,40"
    assert translated("1,2 to 30,40", part=True) == "1,2 – 30,40"


@pytest.mark.usefixtures("turkish")
@pytest.mark.parametrize("name", ["none", "a folder", "an image", "read", "3 files", "a: no file", "resim; no file"])
def test_paths_that_read_like_messages_stay(name: str) -> None:
    line = f"expected an indexed folder, got {name}, which is not there; check the path"
    assert translated(line) == NO_INDEX.format(name)


@pytest.mark.usefixtures("turkish")
@pytest.mark.parametrize("line", ["", "0.250  a folder/1.jpg", "no such message; nor this one", "5 images", "x: y"])
def test_lines_that_are_no_messages_stay(line: str) -> None:
    assert translated(line) == line


@pytest.mark.usefixtures("turkish")
def test_the_help_of_every_subcommand_is_in_turkish() -> None:
    english, spoken = typer.main.get_command(app), typer.main.get_command(app)
    with pytest.raises(SystemExit):
        spoken(["--version"])
    for name in SUBCOMMANDS:
        before, after = english.commands[name], spoken.commands[name]
        assert after.help != before.help
        for old, new in zip(before.params, after.params):
            assert new.help != old.help, f"{name} {old.name}"


def test_help_and_misuse_are_in_turkish_where_the_system_is() -> None:
    shown = run("search", "--help", LANG="tr_TR.UTF-8", PYTHONIOENCODING="utf-8").stdout.decode()
    for word in ("Kullanım: turkish-clip search", "Seçenekler", "Değerler", "[varsayılan: 10]", "Bu yardımı göster"):
        assert word in shown
    for word in ("Usage", "Options", "default:", "Show this", " the "):
        assert word not in shown
    wrong = run("serch", LANG="tr_TR.UTF-8", PYTHONIOENCODING="utf-8")
    assert wrong.returncode == 2
    assert wrong.stderr.decode().startswith("hata: böyle bir komut yok: 'serch'; şunu mu demek istediniz: 'search'?; ")


@pytest.mark.parametrize("encoding", ["cp1254", "iso8859-9", "cp1252", "ascii"])
def test_no_output_encoding_ends_a_command(encoding: str) -> None:
    environment = {"LANG": "tr_TR", "PYTHONIOENCODING": encoding}
    shown = run("index", "--help", **environment)
    assert shown.returncode == 0
    assert b"Traceback" not in shown.stderr
    refused = run("search", "çiçek", "kar", **environment)
    assert refused.returncode == 2
    assert refused.stderr.decode(encoding).startswith("hata: dizine al")
    if encoding in ("cp1254", "iso8859-9"):  # which have Turkish letters
        assert refused.stderr.decode(encoding).strip() == f"hata: {NO_INDEX.format('çiçek')}"


def test_completion_is_as_in_english() -> None:
    asked = {"_TURKISH_CLIP_COMPLETE": "complete_bash", "COMP_WORDS": "turkish-clip s", "COMP_CWORD": "1"}
    english, spoken = run(**asked, LANG="C"), run(**asked, LANG="tr_TR.UTF-8")
    assert english.stdout == spoken.stdout == b"search\n"


@pytest.mark.usefixtures("turkish")
def test_warnings_are_read_in_turkish_and_stand_in_the_json_in_english(caplog: pytest.LogCaptureFixture) -> None:
    output.collect_warnings()
    logging.getLogger("turkish_clip").warning("%s", Caution("empty", ("…",)))
    english = "'…' has nothing that the text encoder reads: scores mean nothing"
    assert output._warnings.lines == [english]
    formatted = LineFormatter("%(message)s", translated).format(caplog.records[-1])
    assert formatted == "okunacak söz yok: '…'; puanlar bir şey söylemez"


@pytest.mark.usefixtures("restored")
def test_an_error_with_what_a_folder_has_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.svg").write_text("<svg/>", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["--lang", "tr", "classify", str(tmp_path), "--labels", "a,b"])
    assert "okunmayan türden 1 dosya: SVG 1; SVG dosyalarını JPEG ya da PNG'ye çevirin" in capsys.readouterr().err


def test_english_commands_open_no_catalog() -> None:
    program = (
        "import sys\nopened = []\n"
        "sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == 'open' else None)\n"
        "from turkish_clip.cli.entry import main\n"
        "try:\n    main(['search', 'none', 'kar'])\nexcept SystemExit:\n    pass\n"
        "import json\nprint(json.dumps([name for name in opened if name.endswith('.mo')]))"
    )
    for lang, count in (("en_GB.UTF-8", 0), ("tr_TR.UTF-8", 1)):
        clean = {name: value for name, value in os.environ.items() if name not in language.VARIABLES}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, env={**clean, "LANG": lang}, check=True
        )
        assert len(json.loads(done.stdout)) == count
