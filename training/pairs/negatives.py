"""False captions: minimal changes that make a Turkish caption untrue of its image, by rules or by the maker's own list.

The rules exchange two colours (or replace the only one), turn a relation round, change a number, or negate. They change
whole words alone, keep their case, and leave what is not certain: "altı" is six and "the underside of", "al" is red and
"take"; and where two colours are joined ("kırmızı ve mavi toplar") or name equal things ("kırmızı top, mavi top"), an
exchange would say the same again.

Source: Yuksekgonul et al., When and Why Vision-Language Models Behave like Bags-of-Words, 2023 (NegCLIP), section 4,
who exchange words of English captions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from training.run.source import SourceError
from turkish_clip.text import lower, nfc, upper
from turkish_clip.text_files import read_whole

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# Colour → the adjective of what has or wears it.
COLOURS = {
    "kırmızı": "kırmızılı", "mavi": "mavili", "sarı": "sarılı", "yeşil": "yeşilli", "turuncu": "turunculu",
    "mor": "morlu", "pembe": "pembeli", "kahverengi": "kahverengili", "beyaz": "beyazlı", "siyah": "siyahlı",
    "gri": "grili", "lacivert": "lacivertli",
}  # fmt: skip
DERIVED = {adjective: colour for colour, adjective in COLOURS.items()}
NEAR = (  # one may be seen as the other, so that neither replaces the other
    {"mavi", "lacivert"}, {"siyah", "lacivert"}, {"mor", "lacivert"}, {"mor", "pembe"}, {"mor", "mavi"},
    {"pembe", "kırmızı"}, {"turuncu", "kırmızı"}, {"turuncu", "sarı"}, {"kahverengi", "siyah"},
    {"kahverengi", "turuncu"}, {"gri", "beyaz"}, {"gri", "siyah"},
)  # fmt: skip
JOINING = {"ve", "ile", "veya", "ya", "da", "bir", "açık", "koyu"}  # nothing else between: colours of one thing
BEFORE_NOUN = {"bir", "renkli", "renk", "tane"}  # between a colour and the noun
RELATIONS = {
    "üstünde": ("altında",), "üzerinde": ("altında",), "altında": ("üstünde", "üzerinde"),
    "üstündeki": ("altındaki",), "üzerindeki": ("altındaki",), "altındaki": ("üstündeki", "üzerindeki"),
    "üstte": ("altta",), "altta": ("üstte",), "üstteki": ("alttaki",), "alttaki": ("üstteki",),
    "önünde": ("arkasında",), "arkasında": ("önünde",), "önündeki": ("arkasındaki",), "arkasındaki": ("önündeki",),
    "önde": ("arkada",), "arkada": ("önde",), "öndeki": ("arkadaki",), "arkadaki": ("öndeki",),
    "solunda": ("sağında",), "sağında": ("solunda",), "solundaki": ("sağındaki",), "sağındaki": ("solundaki",),
    "solda": ("sağda",), "sağda": ("solda",), "soldaki": ("sağdaki",), "sağdaki": ("soldaki",),
    "içinde": ("dışında",), "dışında": ("içinde",), "içindeki": ("dışındaki",), "dışındaki": ("içindeki",),
    "içeride": ("dışarıda",), "dışarıda": ("içeride",), "yukarıda": ("aşağıda",), "aşağıda": ("yukarıda",),
}  # fmt: skip
SIDES = {"sol": "sağ", "sağ": "sol"}  # before a word of PLACES alone: "sağ" is also alive
PLACES = ("taraf", "yan", "köşe", "kenar")
NUMBERS = ("iki", "üç", "dört", "beş")  # "bir" is nearly always the article
Exchanges = Mapping[str, tuple[str, ...]]
Edit = dict[int, str]  # number of a word → what stands in its place


def false_caption(text: str, number: int, exchanges: Exchanges | None = None) -> str:
    """Returns a caption with one change that makes it untrue; an empty text where no rule applies.

    >>> false_caption("Kırmızı evin solunda mavi araba", 0)
    'Mavi evin solunda kırmızı araba'
    >>> [false_caption("İki kedi var.", number) for number in (0, 1)]
    ['Üç kedi var.', 'İki kedi yok.']
    >>> false_caption("bir kedi", 0)
    ''

    Args:
        text: a caption as written, in NFC.
        number: non-negative; decides which kind of change, and which of that kind.
        exchanges: word → words of the maker's own that may stand in its place; None: none.
    """
    found = list(WORD.finditer(text))
    words = [lower(match.group()) for match in found]
    kinds = [edits for edits in _kinds(words, exchanges or {}) if edits]
    if not kinds:
        return ""
    edits = kinds[number % len(kinds)]
    edit = edits[number // len(kinds) % len(edits)]
    result, end = "", 0
    for place, match in enumerate(found):
        if place in edit:
            result += text[end : match.start()] + _in_case_of(match.group(), edit[place])
            end = match.end()
    return result + text[end:]


def _kinds(words: list[str], exchanges: Exchanges) -> Iterator[list[Edit]]:
    """Yields, kind by kind, the changes that a caption of these lower-case words allows."""
    colours = {place: colour for place, word in enumerate(words) if (colour := _colour(word))}
    swapped = [
        {one: _like(words[one], colours[two]), two: _like(words[two], colours[one])}
        for one in colours
        for two in colours
        if one < two and colours[one] != colours[two] and _of_different_things(words, one, two)
    ]
    yield swapped or [
        {place: _like(words[place], other)}
        for place, colour in colours.items()
        for other in COLOURS
        if other not in colours.values() and {colour, other} not in NEAR
    ]
    yield [
        *({place: other} for place, word in enumerate(words) for other in RELATIONS.get(word, ())),
        *(
            {place: SIDES[word]}
            for place, (word, following) in enumerate(pairwise(words))
            if word in SIDES and following.startswith(PLACES)
        ),
    ]
    yield [{place: other} for place, word in enumerate(words) if word in NUMBERS for other in NUMBERS if other != word]
    yield [*_negations(words, colours)]
    yield [{place: other} for place, word in enumerate(words) for other in exchanges.get(word, ())]


def _negations(words: list[str], colours: Mapping[int, str]) -> Iterator[Edit]:
    """Yields the negations: "kırmızı olmayan bir araba", "araba kırmızı değil", "bir araba yok"."""
    last = len(words) - 1
    for place in colours:
        if place < last and words[place + 1] == "bir":
            yield {place: f"{words[place]} olmayan"}
        elif place == last > 0:
            yield {place: f"{words[place]} değil"}
    if last > 0 and words[last] == "var":
        yield {last: "yok"}


def _colour(word: str) -> str:
    """Returns the colour that a word names, also as "kırmızılı"; empty: none."""
    return word if word in COLOURS else DERIVED.get(word, "")


def _like(word: str, colour: str) -> str:
    """Returns a colour in the form of another colour's word: mavi for kırmızı, mavili for kırmızılı."""
    return COLOURS[colour] if word in DERIVED else colour


def _of_different_things(words: list[str], one: int, two: int) -> bool:
    """Returns whether two colours, by their places, are surely of things that differ by more than their colour."""
    if all(word in JOINING for word in words[one + 1 : two]):
        return False
    nouns = []
    for place in (one, two):
        following = (word for word in words[place + 1 :] if word not in BEFORE_NOUN)
        nouns.append(next(following, ""))
    if not all(nouns) or any(_colour(noun) or noun in JOINING for noun in nouns):
        return False
    shorter, longer = sorted(nouns, key=len)
    return not longer.startswith(shorter[:-1])  # köpek and köpeğin are one noun: the last letter may soften


def _in_case_of(word: str, new: str) -> str:
    """Returns lower-case text in upper case, with a capital or as it is, as a word of the caption was written."""
    if word[0] != upper(word[0]):
        return new
    return upper(new) if len(word) > 1 and word == upper(word) else upper(new[0]) + new[1:]


@dataclass(frozen=True)
class FalseCaptions:
    """Makes the false captions of training captions; seed, epoch and row alone decide which.

    Attributes:
        exchanges: as in `false_caption`.
    """

    seed: int
    exchanges: Exchanges = field(default_factory=dict)

    def of(self, text: str, epoch: int, row: int) -> str:
        """Returns the false caption of a caption as written; an empty text where there is none.

        Args:
            text: the caption.
            epoch: for each, another change is drawn.
            row: the number of the caption in the training data set.
        """
        digest = hashlib.blake2b(f"{self.seed} {epoch} {row} false".encode(), digest_size=8).digest()
        return false_caption(text, int.from_bytes(digest, "big"), self.exchanges)


def read_exchanges(path: str) -> dict[str, tuple[str, ...]]:
    """Reads a list of exchanges: two words a line, between them spaces, a tab or a comma; each may replace the other.

    Args:
        path: the file, in UTF-8; empty lines and those that begin with # are passed over. Empty: no list.

    Raises:
        SourceError: the file is not there, or a line has another number of words than two.
    """
    exchanges: dict[str, list[str]] = {}
    if not path:
        return {}
    try:
        lines = read_whole(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"expected a UTF-8 file for 'exchanges', got {path}, which can't be read: {error}") from error
    for number, line in enumerate(lines, 1):
        words = [lower(word) for word in nfc(line).replace(",", " ").split()]
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not all(map(WORD.fullmatch, words)):
            raise SourceError(
                f"expected two words a line, got {line.strip()[:60]!r} in {path}, line {number}; write two, "
                "such as: kedi köpek"
            )
        for word, other in (words, reversed(words)):
            exchanges.setdefault(word, []).append(other)
    return {word: tuple(dict.fromkeys(others)) for word, others in exchanges.items()}
