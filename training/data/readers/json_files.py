"""A reader of JSON files, element by element: lists of records, Karpathy's and COCO's files, captions by file name."""

from __future__ import annotations

import json
import logging
import posixpath
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.cells import once_named
from training.data.readers.webdataset import IMAGES
from training.data.splits import MAX_NAME, SplitMeanings
from training.run.source import Source, SourceError

log = logging.getLogger("training")
MAX_NAMES = 1000  # of an object, which show what it holds
CHUNK_CHARACTERS = 1 << 20  # read at once
MAX_VALUE_CHARACTERS = 1 << 26  # of one record
DECODER = json.JSONDecoder(object_pairs_hook=once_named)
NOT_ROWS = frozenset(
    ["annotations", "categories", "classes", "info", "licenses", "labels"]
)  # COCO's lists, and like ones
Kinds = dict[str, type]  # name → type of its value in an object
Rows = Iterator[tuple[str, dict[str, Any]]]


class _Text:
    """The text of a JSON file, of which a window is in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open(encoding="utf-8-sig")
        self._window, self._place, self._passed, self._ended = "", 0, 0, False

    def __enter__(self) -> _Text:
        return self

    def __exit__(self, *reason: object) -> None:
        self._file.close()

    def _read(self) -> bool:
        """Reads more of the file; returns whether there was more."""
        more = "" if self._ended else self._file.read(CHUNK_CHARACTERS)
        if not more:
            self._ended = True
            return False
        self._passed += self._place
        self._window, self._place = self._window[self._place :] + more, 0
        return True

    def next(self) -> str:
        """Returns the next character that is no space, without passing it; empty at the end."""
        while True:
            while self._place < len(self._window):
                if not self._window[self._place].isspace():
                    return self._window[self._place]
                self._place += 1
            if not self._read():
                return ""

    def skip(self, characters: str) -> str:
        """Passes one of the characters.

        Raises:
            SourceError: another one is next.
        """
        found = self.next()
        if not found or found not in characters:
            raise self.error()
        self._place += 1
        return found

    def value(self) -> Any:
        """Reads one value.

        Raises:
            SourceError: it is no JSON, or too long.
        """
        self.next()
        while True:
            try:
                found, end = DECODER.raw_decode(self._window, self._place)
            except (ValueError, RecursionError) as error:
                is_long = len(self._window) - self._place > MAX_VALUE_CHARACTERS
                if isinstance(error, RecursionError) or is_long or not self._read():
                    raise self.error() from error
                continue
            if end == len(self._window) and self._read():  # a number may go on
                continue
            self._place = end
            return found

    def items(self) -> Iterator[Any]:
        """Yields the values of a list that begins here."""
        self.skip("[")
        if self.next() == "]":
            self.skip("]")
            return
        yield self.value()
        while self.skip(",]") == ",":
            yield self.value()

    def pass_over(self, depth: int = 2) -> int:
        """Reads a value without keeping it, piece by piece; returns the number of records in a list.

        Objects are read piece by piece down to the given depth: what is in them at once.
        """
        if self.next() == "[":
            return sum(isinstance(value, dict) for value in self.items())
        if self.next() == "{" and depth:
            for _ in self.names():
                self.pass_over(depth - 1)
            return 0
        self.value()
        return 0

    def names(self) -> Iterator[str]:
        """Yields the names in an object that begins here; after each one, its value is to be read."""
        self.skip("{")
        if self.next() == "}":
            self.skip("}")
            return
        yield self._key()
        while self.skip(",}") == ",":
            yield self._key()

    def _key(self) -> str:
        name = self.value()
        if not isinstance(name, str):
            raise self.error()
        self.skip(":")
        return name

    def kinds(self) -> Kinds:
        """Reads an object without keeping its values, and returns the types of the first thousand."""
        found: Kinds = {}
        for name in self.names():
            is_list = self.next() == "["
            kind = list if is_list else dict if self.next() == "{" else type(None)
            self.pass_over()
            if len(found) < MAX_NAMES:
                found[name] = kind
        return found

    def error(self) -> SourceError:
        """Returns the error of what is next."""
        self.next()
        found = self._window[self._place : self._place + 40]
        place = self._passed + self._place
        return SourceError(
            f"expected JSON, got {found!r} at character {place} of {self.path}; fix it there"
            if found
            else f"expected JSON, got its end at character {place} of {self.path}: it is cut off; write it again"
        )


def json_rows(path: Path, meanings: SplitMeanings | None = None) -> Rows:
    """Yields the records of a JSON file, each with the name of its split, or an empty one.

    It may hold a list of records; Karpathy's `images` with `sentences`; COCO's `images` and `annotations`; an object of
    records or captions by file name; lists, or objects of these kinds, under the names of splits; or one list under
    another name.

    Args:
        path: the file.
        meanings: what names of splits mean in the source; None: what they usually mean.

    Raises:
        SourceError: it is no JSON, or holds something else, lists with names that are no split's beside train, or
            COCO's images without an id of their own.
        UnicodeDecodeError: it is no UTF-8.
    """
    with _Text(path) as text:
        start = text.next()
        if start == "[":
            yield from (("", _record(value, path)) for value in text.items())
        elif start == "{":
            shape, records, inner = _shape(path)
            meanings = meanings or SplitMeanings(Source(captions=str(path)))
            if _is_coco(shape):
                yield from _coco(path)
            elif names := _objects_of_rows(shape, inner, meanings, path):
                yield from _by_split(text, names, inner)
            else:
                yield from _object(text, shape, records, meanings)
        else:
            raise text.error()


def _shape(path: Path) -> tuple[Kinds, dict[str, int], dict[str, Kinds]]:
    """Reads the names in a JSON file's object, the first thousand.

    Returns:
        Name → type of its value; name → number of records of those that are lists; name → types in those that are
        objects.
    """
    found: Kinds = {}
    records: dict[str, int] = {}
    inner: dict[str, Kinds] = {}
    with _Text(path) as text:
        for name in text.names():
            if text.next() == "[":
                found[name] = list
                records[name] = text.pass_over()
            elif text.next() == "{":
                found[name] = dict
                inner[name] = text.kinds()
            else:
                found[name] = type(text.value())
            if len(found) >= MAX_NAMES:
                break
    return found, records, inner


def _is_coco(shape: Kinds) -> bool:
    return shape.get("annotations") is list and shape.get("images") is list


def _objects_of_rows(shape: Kinds, inner: dict[str, Kinds], meanings: SplitMeanings, path: Path) -> list[str]:
    """Returns the names of the objects in a file that each hold rows, as those of splits do; none where they hold none.

    Args:
        shape: the types of the file's values.
        inner: the types in those that are objects.
        meanings: what names of splits mean in the source.
        path: the file, for messages.

    Raises:
        SourceError: objects with the names of splits hold something else, or those of others stand beside train.
    """
    names = [name for name in inner if name.lower() not in NOT_ROWS and inner[name]]
    lists = [name for name, kind in shape.items() if kind is list and name.lower() not in NOT_ROWS]
    if lists and any(map(meanings.known, names)):
        raise SourceError(
            f"expected all splits of {path} as lists of records, or all as objects, got the list {lists[0][:MAX_NAME]} "
            f"and the object {next(filter(meanings.known, names))[:MAX_NAME]}; write a list of records for each"
        )
    if not names or lists:
        return []
    wrong = [name for name in names if not _are_rows(inner[name])]
    if not wrong:
        meanings.check_layout(names, "objects")
        return names
    named = [name for name in names if meanings.known(name)]
    if len(named) == len(names) and not any(map(_is_image, names)):
        others = ", ".join(name[:MAX_NAME] for name in list(inner[wrong[0]])[:8])
        raise SourceError(
            f"expected a list of records, or captions by file name, in each split of {path}, got an object of {others} "
            f"in {wrong[0]}; write a list of records with file_name and captions"
        )
    return []


def _are_rows(kinds: Kinds) -> bool:
    """Returns whether an object is COCO's, or holds captions by file name, or records by another name."""
    by_name = all(kind is dict for kind in kinds.values()) and "0" not in kinds
    return _is_coco(kinds) or all(map(_is_image, kinds)) or by_name


def _by_split(text: _Text, names: list[str], inner: dict[str, Kinds]) -> Rows:
    """Yields the rows of objects with the names of splits."""
    for split in text.names():
        if split not in names:
            text.pass_over()
        elif _is_coco(inner[split]):
            text.pass_over()
            yield from ((split, values) for _, values in _coco(text.path, split))
        else:
            for name in text.names():
                value = text.value()
                if _is_image(name):
                    value = {"file_name": name, **(value if isinstance(value, dict) else {"captions": value})}
                yield split, _record(value, text.path)


def _object(text: _Text, shape: dict[str, type], records: dict[str, int], meanings: SplitMeanings) -> Rows:
    """Yields the records of an object that is not COCO's."""
    by_file = [name for name in shape if _is_image(name)]
    if by_file and len(by_file) == len(shape):
        for name in text.names():
            value = text.value()
            record = value if isinstance(value, dict) else {"captions": value}
            yield "", {"file_name": name, **record}
        return
    if shape and all(kind is dict for kind in shape.values()) and not _are_columns(text.path):
        for _ in text.names():
            yield "", _record(text.value(), text.path)
        return
    read = _lists_of_rows(records, meanings)
    if not read:
        raise _unknown(text.path, shape)
    left_out = [f"{name[:MAX_NAME]!r} ({count})" for name, count in records.items() if count and name not in read]
    if left_out:
        log.warning(
            "%s: the records of other lists than %s are left out: %s", text.path, ", ".join(read), ", ".join(left_out)
        )
    for name in text.names():
        if name not in read:
            text.pass_over()
            continue
        for value in text.items():
            yield (name if meanings.known(name) else ""), _karpathy(_record(value, text.path))


def _lists_of_rows(records: dict[str, int], meanings: SplitMeanings) -> list[str]:
    """Returns the names of the lists that are read: of splits and what stands beside them, `images`, or the only one.

    Args:
        records: name → number of records of each list.
        meanings: what names of splits mean in the source.

    Raises:
        SourceError: lists of records with names that are no split's stand beside one for training.
    """
    splits = [name for name in records if meanings.known(name)]
    if splits:
        others = [name for name in records if records[name] and name not in NOT_ROWS and name not in splits]
        meanings.check_layout(splits + others, "lists")
        return splits + others
    if "images" in records:
        return ["images"]
    return list(records) if len(records) == 1 else []


def _are_columns(path: Path) -> bool:
    """Returns whether the first value of a file's object is a column, as pandas writes it: values by number."""
    with _Text(path) as text:
        for _ in text.names():
            first = text.value()
            return isinstance(first, dict) and "0" in first
    return False


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGES


def _karpathy(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a record of Karpathy's with the usual columns beside its own; any other as it is.

    >>> _karpathy({"filename": "1.jpg", "sentences": [{"raw": "Bir ev."}], "split": "val"})["captions"]
    ['Bir ev.']
    """
    sentences = values.get("sentences")
    if not isinstance(sentences, list) or "filename" not in values:
        return values
    texts = [item.get("raw") if isinstance(item, dict) else item for item in sentences]
    folder, name = values.get("filepath"), values["filename"]
    file = posixpath.join(folder, name) if isinstance(folder, str) and isinstance(name, str) else name
    return {"file_name": file, "captions": texts, **values}


def _coco(path: Path, within: str = "") -> Rows:
    """Yields a record for each annotation of a COCO file, and one without a caption for each image that has none.

    Args:
        path: the file.
        within: the name of the object in it that has the lists; empty: the file's own.

    Raises:
        SourceError: an image has no id, or that of another file.
    """
    files: dict[str, Any] = {}
    for image in _listed(path, "images", within):
        name, image_id = image.get("file_name") or image.get("filename"), _coco_id(image.get("id"))
        if not image_id:
            raise SourceError(
                f"expected an id of each image in {path}, got none for {name}; add the ids that annotations give as "
                "image_id"
            )
        if files.setdefault(image_id, name) != name:
            raise SourceError(
                f"expected one image for each id in {path}, got {files[image_id]} and {name} for {image_id}; if it was "
                "merged from files whose ids start again, give those as sources, or number the ids anew"
            )
    captioned: set[str] = set()
    for annotation in _listed(path, "annotations", within):
        image_id = _coco_id(annotation.get("image_id"))
        captioned.add(image_id)
        own = {"image_id": image_id, "file_name": files.get(image_id), "caption": annotation.get("caption")}
        yield "", {**annotation, **own}
    for image_id, name in files.items():
        if image_id not in captioned:
            yield "", {"image_id": image_id, "file_name": name, "caption": None}


def _coco_id(value: Any) -> str:
    """Returns an id as text, empty for none: 1, 1.0, "1" and "1.0" are one.

    >>> _coco_id(1), _coco_id(1.0), _coco_id("1"), _coco_id("a7"), _coco_id(None)
    ('1', '1', '1', 'a7', '')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        text = str(value).strip()
        return text[:-2] if text.endswith(".0") and text[:-2].isdecimal() else text
    return ""


def _listed(path: Path, wanted: str, within: str) -> Iterator[dict[str, Any]]:
    with _Text(path) as text:
        for outer in text.names():
            if within and (outer != within or text.next() != "{"):
                text.pass_over()
                continue
            for name in text.names() if within else (outer,):
                if name == wanted and text.next() == "[":
                    yield from (_record(value, path) for value in text.items())
                else:
                    text.pass_over()


def _record(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        shown = json.dumps(value, ensure_ascii=False)[:60]
        raise SourceError(f"expected records in {path}, got {shown}; write objects with file_name and captions")
    return value


def _unknown(path: Path, shape: dict[str, type]) -> SourceError:
    names = ", ".join(name[:MAX_NAME] for name in list(shape)[:8]) or "nothing"
    if _are_columns(path):
        fresh = path.with_suffix(".jsonl")
        program = (
            f"import pandas; pandas.read_json({str(path)!r}).to_json({str(fresh)!r}, orient='records', lines=True, "
            "force_ascii=False)"
        )
        return SourceError(
            f"expected records in {path}, got the columns {names} as pandas writes them; convert it: python -c "
            f"{shlex.quote(program)}"
        )
    return SourceError(
        f"expected a list of records, or Karpathy's or COCO's captions in {path}, got an object of {names}; write one "
        "record a line into a .jsonl file, with file_name and captions"
    )
