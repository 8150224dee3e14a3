"""The Turkish catalog: it has every message of the source, each comes back translated, and none is left over."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import messages
import pytest
from babel.messages.mofile import read_mo

from turkish_clip import language
from turkish_clip.language import PLACEHOLDER


@pytest.fixture(scope="module")
def source() -> dict[str, str]:
    return messages.messages()


@pytest.fixture(scope="module")
def catalog() -> dict[str, str]:
    return {str(message.id): str(message.string) for message in messages.read() if message.id}


@pytest.fixture
def turkish(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "tr")
    language.speak("tr")
    yield
    language.speak("en")


def filled(text: str) -> str:
    """Returns a message with the name of a file in each placeholder."""
    return PLACEHOLDER.sub(lambda place: "7" if place[1] == "number" else f"Ş-{place[1]}.jpg", text)


def test_every_message_of_the_source_has_a_translation(source: dict[str, str], catalog: dict[str, str]) -> None:
    missing = [f"{place}: {message}" for message, place in source.items() if not catalog.get(message)]
    assert not missing, "add them: python tests/helpers/messages.py"


def test_no_message_of_the_catalog_is_gone_from_the_source(source: dict[str, str], catalog: dict[str, str]) -> None:
    assert not sorted(set(catalog) - set(source)), "remove them: python tests/helpers/messages.py"


def test_translations_keep_placeholders_options_and_the_spaces_around(catalog: dict[str, str]) -> None:
    for english, turkish in catalog.items():
        assert sorted(PLACEHOLDER.findall(english)) == sorted(PLACEHOLDER.findall(turkish)), english
        assert english.count("{}") == turkish.count("{}"), english
        assert english[:1].isspace() == turkish[:1].isspace() or english in language.CONNECTIONS, english
        assert english[-1].isspace() == turkish[-1].isspace(), english
        for option in ("--", "`", "https://", "pip install"):
            assert english.count(option) == turkish.count(option), english


def test_the_compiled_catalog_has_the_same(catalog: dict[str, str]) -> None:
    with messages.CATALOG.with_suffix(".mo").open("rb") as file:
        compiled = {str(message.id): str(message.string) for message in read_mo(file) if message.id}
    assert compiled == catalog, "compile it: python tests/helpers/messages.py"


@pytest.mark.usefixtures("turkish")
def test_every_message_comes_back_translated_with_what_it_holds(catalog: dict[str, str]) -> None:
    for english, turkish in catalog.items():
        if any(letter.isalpha() for letter in PLACEHOLDER.sub("", english)):
            assert language.translated(f"error: {filled(english)}") == f"hata: {filled(turkish)}"
            assert language.translated(filled(english)) in (filled(turkish), filled(english))


def test_new_messages_are_named_and_those_that_come_back_keep_their_translation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "CATALOG", Path(shutil.copy(messages.CATALOG, tmp_path)))
    known = {"print the version": "help", "a folder": "images.py"}
    for said, missing in ((known, []), ({"a folder": "images.py", "a new one": "x.py"}, ["a new one"]), (known, [])):
        monkeypatch.setattr(messages, "messages", lambda said=said: said)
        assert messages.update() == missing
        catalog = messages.read()
        assert {message.id for message in catalog if message.id} == set(said)
    assert catalog.get("print the version").string == "sürümü yaz"
    with messages.CATALOG.with_suffix(".mo").open("rb") as file:
        assert {message.id for message in read_mo(file) if message.id} == set(known)


def test_the_forms_of_a_message_are_read_from_the_source() -> None:
    tree = ast.parse(
        '''
LIMIT = "no more"
def check(path, names, count):
    """Returns nothing that people read."""
    got = "none of them" if count else f"only {count} of them"
    what = "nothing"
    if count:
        what = "something else"
    if names == "not for people":
        log.warning("%s has %d names", path.name, count)
    raise InputError(f"expected {', '.join(names)} in {path!r}, got {got}" f"; {'add one' if count else 'go on'}")
'''
    )
    assert sorted(set(messages._Module(tree).messages())) == [
        "expected {names} in {path}, got none of them; add one",
        "expected {names} in {path}, got none of them; go on",
        "expected {names} in {path}, got only {count} of them; add one",
        "expected {names} in {path}, got only {count} of them; go on",
        "no more",
        "nothing",
        "something else",
        "{name} has {count} names",
    ]
