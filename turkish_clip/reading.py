"""What a text encoder does not read of a text: words that its tokenizer does not know, and what is beyond its limit."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from turkish_clip.errors import InputError, is_encodable, printable

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

AT_ONCE = 1000  # texts read at a time, which bounds the memory
SHOWN, SHOWN_LETTERS = 3, 60  # texts or words named in a caution, and letters of each
SPELT_OUT = 3  # letters of the shortest word that counts as unknown where it is split into single letters
READ = "LNS"  # categories of letters, numbers and symbols such as emoji: a text of others says nothing
NO_LIMIT = 1 << 24  # tokenizers give such a number where they have no limit

# Common words, by whose pieces a vocabulary without Turkish shows: OpenAI's CLIP splits them into 3.9 on average, its
# copies in the demo into 6.9, a Turkish BERT into one or two.
TURKISH_WORDS = ("kırmızı", "çocuk", "çiçek", "köpek", "ağaç", "güneş", "yağmur", "şehir", "arkadaş", "gökyüzü")
TORN = 3.5  # pieces per word from which on a vocabulary has no Turkish

Kind = Literal["unknown", "partly unknown", "empty", "cut", "miniature", "no Turkish", "unrecorded"]


class TextError(InputError):
    """A text that can't be encoded."""


@dataclass(frozen=True)
class Caution:
    """What an answer must be read with; its text is one line in English.

    Attributes:
        kind: "unknown" (no word of `texts` is known), "partly unknown" (`parts` are not), "empty" (nothing to read),
            "cut" (at `limit` tokens, `parts` being where what is not read begins); or of the model "miniature" (it
            knows the drawings of the demo alone), "no Turkish" (its text side does not know the language),
            "unrecorded" (it does not say for which image model it was trained).
        texts: what it is about: texts, or the model.
        parts: of the texts.
        limit: in tokens, special ones included; 0 where it does not matter.
    """

    kind: Kind
    texts: tuple[str, ...]
    parts: tuple[str, ...] = ()
    limit: int = 0

    def __str__(self) -> str:
        """Returns the caution for people."""
        one, quoted, quoted_parts = len(self.texts) == 1, listed(self.texts), listed(self.parts)
        if self.kind == "unknown":
            return f"the text encoder knows no word of {quoted}: {'its' if one else 'their'} scores mean nothing"
        if self.kind == "partly unknown":
            return f"the text encoder does not know {quoted_parts} in {quoted}: only the rest counts"
        if self.kind == "empty":
            return f"{quoted} {'has' if one else 'have'} nothing that the text encoder reads: scores mean nothing"
        if self.kind == "cut":
            rest = f", from {quoted_parts} on," if one and self.parts else ""
            return f"{quoted} {'is' if one else 'are'} cut at {self.limit} tokens: the rest{rest} is not read"
        if self.kind == "miniature":
            return (
                f"the image model of {quoted} is the demo's, which knows drawings of its toy world alone: "
                "scores of photographs mean nothing"
            )
        if self.kind == "no Turkish":
            return (
                f"{quoted} has no Turkish text encoder, and tears Turkish words into pieces: scores mean little; name "
                "a text encoder that was trained for it with --model, and it with --image-model"
            )
        return f"{quoted} does not say for which image model it was trained: for another one, scores mean nothing"


def listed(texts: Sequence[str], more: str = "and {} more") -> str:
    """Returns the first texts in quotes, and how many more there are.

    Args:
        texts: at least one.
        more: how the number of the others is said.

    >>> listed(["a", "b", "c", "d"])
    "'a', 'b', 'c' and 1 more"
    """
    names = [f"'{shortened(text)}'" for text in texts[:SHOWN]]
    return ", ".join(names) + (f" {more.format(len(texts) - SHOWN)}" if len(texts) > SHOWN else "")


def shortened(text: str) -> str:
    """Returns the beginning of a text, on one line."""
    line = printable(" ".join(text.split()) or text)
    return line if len(line) <= SHOWN_LETTERS else f"{line[: SHOWN_LETTERS - 1]}…"


@dataclass(frozen=True)
class _Reading:
    """What is read of a text: the words that are unknown, whether any is known, and the beginning of what is cut."""

    unknown: tuple[str, ...]
    known: bool
    cut_from: str | None


def check_texts(texts: Sequence[str]) -> None:
    """Checks that texts can be written as UTF-8; those of a command line and names of files may hold other bytes.

    Raises:
        TextError: one can't.
    """
    for text in texts:
        if not is_encodable(text):
            raise TextError(
                f"expected text in UTF-8, got {printable(text[:80])!r}; check the encoding of the terminal or the file"
            )


class TextReader:
    """Finds what a tokenizer does not read of texts.

    Args:
        tokenizer: a fast tokenizer, which is copied: one that cuts must not be changed while others use it.
        limit: number of tokens, special ones included, at which a text is cut; None for no limit.
        prompt: what is put before each text.
        cuts_right: whether the end of a long text is cut, not its beginning.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int | None, prompt: str = "", *, cuts_right: bool = True) -> None:
        copy = type(tokenizer).from_str(tokenizer.to_str())
        copy.no_truncation()
        copy.no_padding()
        self._tokenizer, self._limit, self._prompt, self._cuts_right = copy, limit, prompt, cuts_right
        self._unknown = unknown_id(copy)

    def cautions(self, texts: Iterable[str]) -> list[Caution]:
        """Returns what is to be said of texts, at most one caution of each kind.

        Raises:
            TextError: one is not UTF-8.
        """
        different = list(dict.fromkeys(texts))
        check_texts(different)
        found: dict[Kind, dict[str, tuple[str, ...]]] = {}
        for start in range(0, len(different), AT_ONCE):
            part = different[start : start + AT_ONCE]
            encodings = self._tokenizer.encode_batch([self._prompt + text for text in part])
            for text, encoding in zip(part, encodings):
                for kind, parts in _findings(self._read(text, encoding)):
                    found.setdefault(kind, {})[text] = parts
        limit = self._limit or 0
        return [
            Caution(kind, tuple(of), tuple(dict.fromkeys(p for parts in of.values() for p in parts)), limit)
            for kind, of in found.items()
        ]

    def pieces_per_word(self, words: Sequence[str]) -> float:
        """Returns into how many pieces words are split on average."""
        encodings = self._tokenizer.encode_batch(list(words), add_special_tokens=False)
        return sum(len(encoding.ids) for encoding in encodings) / len(words)

    def _read(self, text: str, encoding: Encoding) -> _Reading:
        offset = len(self._prompt)
        special, spans = encoding.special_tokens_mask, encoding.offsets
        content = [place for place in range(len(spans)) if not special[place]]
        own = [p for p in content if spans[p][1] > offset and encoding.tokens[p].strip("▁Ġ ")]
        unknown, known = [], False
        for places in _words(encoding, own, self._prompt + text):
            word = (self._prompt + text)[max(spans[places[0]][0], offset) : spans[places[-1]][1]].strip()
            letters = sum(map(str.isalpha, word))
            if any(encoding.ids[p] == self._unknown for p in places) or SPELT_OUT <= letters <= len(places):
                unknown += [_bare(word)] * any(map(_says, word))
            else:
                known = known or any(unicodedata.category(letter)[0] in "LNS" for letter in word)
        cut_from = None
        if self._limit and len(spans) > self._limit:
            kept = max(0, self._limit - (len(spans) - len(content)))
            rest = text[max(0, spans[content[kept]][0] - offset) :] if self._cuts_right else ""
            if not self._cuts_right or any(map(str.isalnum, rest)):
                cut_from = rest.strip()
        return _Reading(tuple(unknown), known, cut_from)


def reader_of(model: Any, prompt: str = "") -> TextReader | None:
    """Returns the reader of the texts of a SentenceTransformer; None where its tokenizer does not show what it does.

    Args:
        model: a text encoder or a pair.
        prompt: what `encode` puts before each text.
    """
    first = (_text_modules(model) or [None])[0]
    hosted = getattr(first, "tokenizer", None)
    tokenizer: Any = getattr(hosted, "backend_tokenizer", hosted)
    if not hasattr(tokenizer, "no_truncation"):
        return None
    limit = getattr(first, "max_seq_length", None) or getattr(hosted, "model_max_length", None)
    limit = limit if isinstance(limit, int) and limit < NO_LIMIT else None
    return TextReader(tokenizer, limit, prompt, cuts_right=getattr(hosted, "truncation_side", "right") == "right")


def _text_modules(model: Any) -> list[Any]:
    """Returns the modules that texts pass: of a pair its text route, else all."""
    routes = getattr(model[0], "sub_modules", None)
    return list(routes["text"]) if routes is not None and "text" in routes else list(model)


def _findings(reading: _Reading) -> Iterable[tuple[Kind, tuple[str, ...]]]:
    if reading.unknown:
        yield ("partly unknown" if reading.known else "unknown"), reading.unknown
    elif not reading.known:
        yield "empty", ()
    if reading.cut_from is not None:
        yield "cut", (reading.cut_from,) if reading.cut_from else ()


def _words(encoding: Encoding, places: Sequence[int], text: str) -> Iterable[list[int]]:
    """Yields the places of the pieces of each word; where a tokenizer knows no words, each piece by itself."""
    for _, group in groupby(places, key=lambda place: encoding.word_ids[place]):
        word = list(group)
        first, last = encoding.offsets[word[0]][0], encoding.offsets[word[-1]][1]
        if len(text[first:last].split()) > 1:
            yield from ([place] for place in word)
        else:
            yield word


def _says(letter: str) -> bool:
    return unicodedata.category(letter)[0] in READ


def _bare(word: str) -> str:
    """Returns a word without the punctuation around it.

    >>> _bare("(ev'e),")
    "ev'e"
    """
    places = [place for place, letter in enumerate(word) if _says(letter)]
    return word[places[0] : places[-1] + 1] if places else word


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """Returns the id of the piece that stands for what is unknown; None for a tokenizer without one."""
    token = getattr(tokenizer.model, "unk_token", None)
    if token is not None:
        return tokenizer.token_to_id(token)
    import json

    found = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return found if isinstance(found, int) else None
