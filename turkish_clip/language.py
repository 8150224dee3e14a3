"""The language in which the command speaks to people: English as the source has it, or Turkish by a gettext catalog.

The library writes English. The command translates a finished line where it prints it: the catalog's messages have
named placeholders ("expected an image at {image}, got no file; check the path"), and the one whose literal text a line
has says what the line is in Turkish. So the many places that raise errors need not know of languages. What a
placeholder holds stays as it is, a path or a name; but for those in NESTED, which hold messages themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from turkish_clip.errors import InputError

LANGUAGES = ("en", "tr")
DOMAIN = "turkish_clip"
FOLDER = Path(__file__).parent / "locale"
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set counts, as gettext has it
# Placeholders that hold a message, by the name of the variable or function that fills them.
NESTED = frozenset(
    "advice error fields files found got kind library made_of message missing named no_cutoff not_read_line of "
    "number_of other_processor quoted quoted_parts reason removesuffix said same sides strerror to_do unread what "
    "why".split()
)
LISTED = frozenset(
    ["joined", "missing", "modalities", "languages", "built"]
)  # placeholders that hold several things, joined by these words
CONNECTIONS = (", and ", " and ", " or ")
OWN = 8  # letters of a message that begins with a placeholder, from which on a line by itself can be told by them
NUMBER = r"[-+\d.,]+"  # what a placeholder of the name "number" holds
PLACEHOLDER = re.compile(r"\{([a-z_]\w*)\}")
# Messages of typer and of this package that its source does not hold in one piece.
FOREIGN = (
    *CONNECTIONS,
    "{where}: {reason}",
    "{quoted} and {number} more",
    "convert {joined} to JPEG or PNG, and save stills of videos",
    "temperature",
    "temperature is fitted",
    "yes",
    "no",
    "ok",
    "FAIL",
    "both sides",
    "sheet",
    "drawing",
    "{kind} ({sides}, {precision})",
    "{kind} as {name} ({sides}, {precision})",
    "'utf-8' codec can't decode byte {byte} in position {number}: {detail}",
    "'utf-8' codec can't decode bytes in position {place}: {detail}",
    "texts",
    "images",
    "sentences",
    "[OPTIONS]",
    "COMMAND [ARGS]...",
    "Arguments",
    "Options",
    "Commands",
    "Error",
    "Aborted!",
    "[default: {}]",
    "default: {default}",
    "[env var: {}]",
    "env var: {var}",
    "[required]",
    "required",
    "Show this message and exit.",
    "Install completion for the current shell.",
    "Show completion for the current shell, to copy it or customize the installation.",
    "No such command {name}",
    "No such command {name}. Did you mean {suggestions}?",
    "No such option: {name}",
    "No such option: {name} (Possible options: {options})",
    "No such option: {name} Did you mean {options}?",
    "Got unexpected extra argument ({arguments})",
    "Got unexpected extra argument(s) ({arguments})",
    "Option {name} requires an argument",
    "Option {name} does not take a value",
    "Missing argument {name}",
    "Missing option {name}",
    "Missing parameter: {name}",
    "Invalid value for {name}: {reason}",
    "Invalid value: {reason}",
    "Input should be greater than or equal to {least}",
    "Input should be less than or equal to {most}",
    "Input should be a valid number, unable to parse string as a number",
    "Input should be a valid integer, unable to parse string as an integer",
    "Input should be a valid boolean, unable to interpret input",
    "Value error, {reason}",
    "{value} is not a valid {type}",
    "Value {value} is not a valid {type}",
    "{value} is not one of {choices}",
    "{value} is not in the range {range}",
    "No such file or directory",
    "Permission denied",
    "Is a directory",
    "Not a directory",
    "File exists",
    "No space left on device",
    "{strerror}: {path}",
    "[Errno {number}] {strerror}",
    "[Errno {number}] {strerror}: {path}",
)


def turkish_numbers(text: Any) -> str:
    """Returns a text with the numbers in it written as Turkish writes them: a decimal comma, the percent sign in front.

    >>> turkish_numbers("0.5 (0.25–0.75)"), turkish_numbers("12.5 – 20.0 %"), turkish_numbers("-0.1 to +0.2")
    ('0,5 (0,25–0,75)', '%12,5 – 20,0', '-0,1 … +0,2')
    """
    text = re.sub(r"(?<=\d) to (?=[-+−\d])", " … ", str(text))
    text = re.sub(r"(\d[\d.]*(?: – \d[\d.]*)?) ?%", r"%\1", text)
    return re.sub(r"(?<=\d)\.(?=\d)", ",", text)


def of_environment(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the first of LANGUAGES that the environment asks for; English where it asks for none of them.

    >>> of_environment({"LANG": "tr_TR.UTF-8"}), of_environment({"LANGUAGE": "de:tr", "LANG": "C"})
    ('tr', 'tr')
    >>> of_environment({"LC_ALL": "C", "LANG": "tr_TR"}), of_environment({"LANGUAGE": "en_US:tr"})
    ('en', 'en')
    """
    wanted = next(filter(None, map(environment.get, VARIABLES)), "")
    codes = (re.split("[_.@]", name)[0].lower() for name in wanted.split(":"))
    return next((code for code in codes if code in LANGUAGES), LANGUAGES[0])


def taken_from(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the value of --lang, wherever it stands before "--", and the other arguments; None without the option.

    Raises:
        InputError: it is no language that there is.

    >>> taken_from(["search", "photos", "kar", "--lang", "tr"]), taken_from(["search", "--", "--lang=tr"])
    (('tr', ['search', 'photos', 'kar']), (None, ['search', '--', '--lang=tr']))
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    language, rest, words = None, list[str](), iter(arguments[:end])
    for word in words:
        if word.startswith("--lang="):
            language = word.partition("=")[2]
        elif word == "--lang":
            language = next(words, "")
        else:
            rest.append(word)
    if language is not None and language.lower() not in LANGUAGES:
        raise InputError(f"expected a language, {' or '.join(LANGUAGES)}, got {language!r}; name one of these")
    return language and language.lower(), [*rest, *arguments[end:]]


@dataclass(frozen=True)
class _Message:
    """An entry of the catalog."""

    english: str
    other: str

    @cached_property
    def literals(self) -> list[str]:
        """What of the English text is no placeholder."""
        return [text for text in PLACEHOLDER.split(self.english)[::2] if text]

    @cached_property
    def letters(self) -> int:
        """The number of letters of that."""
        return sum(map(str.isalpha, "".join(self.literals)))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What the finished lines of this message look like; one of hardly any letters holds single words."""
        held = r"\S+|'.*?'" if 0 < self.letters < len("and") else ".*?"
        texts = PLACEHOLDER.split(self.english)
        parts = (
            f"(?P<{text}>{NUMBER if _bare(text) == 'number' else held})" if place % 2 else re.escape(text)
            for place, text in enumerate(texts)
        )
        return re.compile("".join(parts), re.DOTALL)


class Phrases:
    """Messages with their translations, in the order in which they are tried: those with the most literal text first.

    Those that begin with a placeholder come last: a line may be part of another one, and they would take the beginning
    of the other one for what the placeholder holds.

    Args:
        translations: message → translation.
        nested: the placeholders that hold messages themselves.
        shown: returns what another placeholder holds as it is to be read.
    """

    def __init__(
        self, translations: Mapping[str, str], nested: frozenset[str] = NESTED, shown: Callable[[str], str] = str
    ) -> None:
        messages = [_Message(english, other) for english, other in translations.items()]
        self._nested, self._shown, self._exact = nested, shown, dict(translations)
        forms = [message for message in messages if PLACEHOLDER.search(message.english)]
        self._forms = sorted(forms, key=lambda message: (message.english[0] == "{", -sum(map(len, message.literals))))

    def of(self, line: str, *, part: bool = False) -> str | None:
        """Returns a line in the other language; None if it is none of the messages.

        Args:
            line: in English.
            part: whether it is a part of another message.
        """
        if line in self._exact:
            return self._exact[line]
        clauses = line.split("; ")
        found = self._of_form(line, part, last=False)
        if found is None and len(clauses) > 1:
            known = [self.of(clause, part=True) for clause in clauses]
            found = "; ".join(new or old for new, old in zip(known, clauses)) if any(known) else None
        return found or self._of_form(line, part, last=True)

    def _of_form(self, line: str, part: bool, *, last: bool) -> str | None:
        """Returns a line in the other language by a message with placeholders.

        Args:
            line: in English.
            part: whether it is a part of another message.
            last: whether nothing else helped: messages without a letter count, and a path may have a semicolon.
        """
        for message in self._forms:
            if not (message.letters or last) or (not part and message.english[0] == "{" and 0 < message.letters < OWN):
                continue
            if all(text in line for text in message.literals) and (found := message.pattern.fullmatch(line)):
                held = found.groupdict()
                if not last and any("; " in held[name] for name in held if _bare(name) not in self._nested):
                    continue
                values = {name: self._value(name, value) for name, value in held.items()}
                if message.letters or values != held:
                    texts = PLACEHOLDER.split(message.other)
                    return "".join(values[text] if place % 2 else text for place, text in enumerate(texts))
        return None

    def _value(self, name: str, value: str) -> str:
        if _bare(name) in LISTED:
            return self._listed(value)
        return (self.of(value, part=True) or value) if _bare(name) in self._nested else self._shown(value)

    def _listed(self, value: str) -> str:
        """Returns several things in the other language; one whose own name has an "or" in it stays whole."""
        for connection in () if value in self._exact else CONNECTIONS:
            if connection in value:
                first, _, rest = value.partition(connection)
                return self._listed(first) + self._exact.get(connection, connection) + self._listed(rest)
        return self.of(value, part=True) or value


def _bare(name: str) -> str:
    """Returns the name of a placeholder without the number of one that stands more than once."""
    return name.rstrip("0123456789")


def _catalog() -> Phrases:
    """Returns the Turkish catalog."""
    import gettext

    class Entries(gettext.GNUTranslations):
        """The catalog as gettext reads it; its public face answers for one message, and does not list them."""

        def listed(self) -> Iterator[tuple[str, str]]:
            return iter(self._catalog.items())  # type: ignore[attr-defined]

    with (FOLDER / "tr" / "LC_MESSAGES" / f"{DOMAIN}.mo").open("rb") as file:
        return Phrases({english: turkish for english, turkish in Entries(file).listed() if english})


_turkish: Phrases | None = None


def speak(language: str) -> None:
    """Makes the command speak a language from now on, and typer with it.

    Args:
        language: one of LANGUAGES.
    """
    global _turkish
    if language == LANGUAGES[0]:
        if _turkish is not None:
            os.environ["LANGUAGE"] = language  # for typer, which may have asked gettext for the other one
            _turkish = None
        return
    import gettext

    gettext.bindtextdomain(DOMAIN, str(FOLDER))
    gettext.textdomain(DOMAIN)
    os.environ["LANGUAGE"] = language
    _turkish = _turkish or _catalog()


@cache
def _of_page() -> Phrases:
    return _catalog()


def in_turkish(line: str) -> str | None:
    """Returns a message, or a part of one, in Turkish, whatever the command speaks; None if it is none."""
    return _of_page().of(line, part=True)


def is_english() -> bool:
    """Returns whether the command speaks English."""
    return _turkish is None


def translated(line: str, *, part: bool = False) -> str:
    """Returns a finished line in the language of the command; a line that is none of its messages, as it is.

    Args:
        line: in English.
        part: whether it is known to be a message, however few words it has.
    """
    return line if _turkish is None else (_turkish.of(line, part=part) or line)
