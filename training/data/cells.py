"""What cells of tables hold: texts, lists that are written as text, columns named twice, images as base64."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from turkish_clip.text import nfc

QUOTED = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
LISTED = rf"{QUOTED}|None|null|nan"
WRITTEN_LIST = re.compile(rf"[\[(]\s*(?:(?:{LISTED})(?:\s*,\s*|\s+|(?=[\])])))*[\])]", re.DOTALL)
LIST_ITEM = re.compile(LISTED, re.DOTALL)
LIST_START = re.compile(r"""\[\s*["']""")
IMAGE_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkq", "TU0AK", "AAAAIGZ0eXBhdmlm")  # JPEG, PNG, GIF, WebP …
DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")
MIN_BASE64 = 44  # characters: no image is smaller, and few paths are longer
MAX_LIST_CHARACTERS = 1_000_000


class DoubledCell(list[Any]):
    """The values of a column that is named more than once in its table."""


def clean_text(text: str) -> str:
    """Returns a text as rows hold it: in NFC, with spaces collapsed."""
    return " ".join(nfc(text.replace("\0", " ")).split())


def is_cut_list(cell: Any) -> bool:
    """Returns whether a cell is a list that is written as text and does not read: one that was cut off.

    >>> is_cut_list("['bir ev', 'bir"), is_cut_list("[bir ev]"), is_cut_list('["bir ev"]')
    (True, False, False)
    """
    return isinstance(cell, str) and LIST_START.match(cell.strip()) is not None and written_list(cell) is None


def written_list(cell: str) -> list[Any] | None:
    r"""Returns the list that a cell writes as JSON, or as Python or numpy print it; None if it is anything else.

    >>> written_list('["bir ev", "ev"]'), written_list("['bir ev', \"ev'de\"]"), written_list("['bir ev' 'ev']")
    (['bir ev', 'ev'], ['bir ev', "ev'de"], ['bir ev', 'ev'])
    >>> written_list("[bir ev]"), written_list("('ev',)"), written_list("bir ev")
    (None, ['ev'], None)
    """
    text = cell.strip()
    if text[:1] not in ("[", "(") or len(text) > MAX_LIST_CHARACTERS:
        return None
    if text[0] == "[":
        try:
            found = json.loads(text)
            return found if isinstance(found, list) and not any(map(_is_number, found)) else None
        except (ValueError, RecursionError):
            pass
    if not WRITTEN_LIST.fullmatch(text) or (text[0] == "(") != (text[-1] == ")"):
        return None
    items = LIST_ITEM.findall(text)
    if text[0] == "(" and ("," not in text or not items):  # a text in brackets and quotes
        return None
    try:
        return [ast.literal_eval(item) if item[0] in "\"'" else None for item in items]
    except (ValueError, SyntaxError):
        return None


def _is_number(item: Any) -> bool:
    return isinstance(item, (int, float))


def read_cell(cell: Any) -> Any:
    """Returns what a cell of texts holds: a list or record that it writes as text, or the cell itself.

    >>> read_cell("['bir ev']"), read_cell('{"raw": "ev"}'), read_cell("bir ev")
    (['bir ev'], {'raw': 'ev'}, 'bir ev')
    """
    if not isinstance(cell, str):
        return cell
    if cell.lstrip()[:1] == "{":
        return written_record(cell) or cell
    found = written_list(cell)
    return cell if found is None else found


def written_record(cell: str) -> dict[str, Any] | None:
    """Returns the record that a cell writes as JSON; None if it is anything else."""
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def flat(value: Any) -> Iterator[Any]:
    """Yields the items of a list, and of the lists in it."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item)
    else:
        yield value


def once_named(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Returns name → value of a row; values of one name that differ become one `DoubledCell`.

    >>> once_named([("caption", "bir ev"), ("caption", "ev"), ("n", 1), ("n", 1)])
    {'caption': ['bir ev', 'ev'], 'n': [1, 1]}
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        for name in row:
            values = [value for other, value in pairs if other == name]
            if len(values) > 1:
                row[name] = DoubledCell(values)
    return row


def is_base64_image(cell: Any) -> bool:
    """Returns whether a cell is an image as base64, or as a data: URI."""
    if not isinstance(cell, str) or len(cell) < MIN_BASE64:
        return False
    start = cell[:200].lstrip()
    return start.startswith(IMAGE_STARTS) or DATA_URI.match(start) is not None


def decoded_image(cell: str) -> bytes:
    """Returns the bytes of an image that is written as base64; empty if that does not read."""
    text = "".join(cell.split())
    text = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""
