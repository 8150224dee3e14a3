"""What cells of tables hold: texts, lists that are written as text, columns named twice, images as base64."""

from __future__ import annotations

import ast
import base64
import binascii
import itertools
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from turkish_clip.text import nfc

QUOTED = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
LISTED = rf"[uUbB]?{QUOTED}|None|null|nan"
WRITTEN_LIST = re.compile(rf"[\[(]\s*(?:(?:{LISTED})(?:\s*,\s*|\s+|(?=[\])])))*[\])]", re.DOTALL)
LIST_ITEM = re.compile(LISTED, re.DOTALL)
QUOTED_TEXT = re.compile(QUOTED, re.DOTALL)
MISSING = re.compile(rf"({QUOTED})|\b(?:nan|null)\b", re.DOTALL)
PLAIN = re.compile(r"None|True|False|nan|null|[uUbB]|-?\d[\d.eE+_-]*|[\s,:\[\]{}()]")  # beside texts, as printed
# What Python and its libraries print around lists: list([…]), array([…], dtype=object), deque([…], maxlen=3).
WRAPPER = (
    r"(?:(?:np|numpy|pd|pandas|collections)\.)?"
    r"(?:array|list|tuple|set|frozenset|deque|Index|Series|dict_keys|dict_values|ndarray)\((?=\s*[\[({])"
)
WRAPPED = re.compile(rf"({QUOTED})|\b{WRAPPER}|,\s*(?:dtype|maxlen|name|length)=(?:{QUOTED}|[^,()\[\]]*)", re.DOTALL)
APART = re.compile(rf"({QUOTED})|([\])])\s+(?=[\[(])", re.DOTALL)  # lists that numpy prints without commas
WRAPPED_START = re.compile(rf"[\[(]?\s*{WRAPPER}|(?:WrappedArray|ArraySeq|ArrayBuffer)\(")  # the last: Spark's
EXCEL_TEXT = re.compile(r'="((?:[^"]|"")*)"')  # ="kar", as Excel keeps a text from being read as something else
BYTES = re.compile(rf"[bB]{QUOTED}", re.DOTALL)
POSTGRES_ITEM = r'"(?:[^"\\]|\\.)*"|[^\s"{},\\:]+'
POSTGRES = re.compile(rf"\{{(?:{POSTGRES_ITEM})(?:,(?:{POSTGRES_ITEM}))*\}}", re.DOTALL)
IN_BRACES = re.compile(r"\{[^{},]*(?:,[^{},]*)+\}", re.DOTALL)  # no more than a text in braces without a comma
PANDAS = re.compile(r"\n(?:Name: .*, )?(?:Length: \d+, )?dtype: \w+\s*$")
CURLED = r"[“„«][^“”„«»\n]*[”»]"
CURLED_LIST = re.compile(rf"\[\s*{CURLED}(?:\s*,\s*{CURLED})*\s*\]")
STARTS = re.compile(
    rf"""(?:{WRAPPER})?(?:(\[)\s*(?:[{{(]|{WRAPPER}\[)?|\{{)\s*[uU]?["'“„‘]"""
)  # of a list, or else of a record or set
CLOSED = re.compile(r"[\])}]\s*$")
# A missing value, as Python, pandas, data bases and Excel (in English and Turkish) write it.
NO_VALUES = frozenset(
    (
        "nan NaN NAN -nan -NaN <NA> None NULL null Null \\N #N/A N/A n/a NA #NA NaT undefined #NAME? #REF! #VALUE! "
        "#DIV/0! #NULL! #NUM! #YOK #AD? #BAŞV! #DEĞER! #SAYI/0! #BOŞ! #SAYI! #ADI? "
        "set() frozenset()"
    ).split()
)
IMAGE_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkq", "TU0AK", "AAAAIGZ0eXBhdmlm")  # JPEG, PNG, GIF, WebP …
DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")
MIN_BASE64 = 44  # characters: no image is smaller, and few paths are longer
# What is wrong with texts that were decoded or exported wrongly → what shows it, which has one of MARKS.
MARKS = re.compile("[\ufffdÂÃÄÅâðýþÐÝÞ&<?]")
DAMAGE = {
    "replacement characters (U+FFFD)": re.compile("\ufffd"),
    "UTF-8 that was read as another encoding": re.compile(
        '[ÂÃÄÅ](?:[\u0080-\u00bf]|[€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ](?!\\w*[“”’"]))|â€[\u0080-\u00bf\u2010-\u2122œžŸ]?'
    ),
    "Turkish letters of Windows that were read as Latin-1": re.compile("[ðýþÐÝÞ]"),
    "HTML": re.compile(
        r"&(?:[a-zA-Z]{2,8}|#\d{2,6}|#x[0-9a-fA-F]{2,6});|</?(?:br|p|b|i|u|em|strong|div|span|a|li|ul|s)\b[^<>]*>"
    ),
    "question marks inside words": re.compile(r"[^\W\d_]\?[^\W\d_]"),
}
MAX_EXAMPLE = 60  # characters of a text in a line
MAX_LIST_CHARACTERS = 1_000_000


class DoubledCell(list[Any]):
    """The values of a column that is named more than once in its table."""


class DamagedTexts:
    """Counts texts that were encoded twice, lost letters or hold HTML, which are trained on as they are."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, text: str) -> None:
        """Looks at a text."""
        if MARKS.search(text):
            for kind, pattern in DAMAGE.items():
                if pattern.search(text):
                    self._counts[kind] += 1
                    self._examples.setdefault(kind, text[:MAX_EXAMPLE])

    def lines(self) -> Iterator[str]:
        """Yields a line for each kind of damage that was found."""
        for kind, count in self._counts.items():
            yield f"{count} {'captions have' if count > 1 else 'caption has'} {kind}, such as {self._examples[kind]!r}"


def clean_text(text: str) -> str:
    """Returns a text as rows hold it: in NFC, with spaces collapsed."""
    return " ".join(nfc(text.replace("\0", " ")).split())


def why_unread(cell: Any) -> str:
    """Returns why a cell that begins as a list or record does not read as one; empty for any other.

    >>> why_unread("['bir ev', 'bir"), why_unread("['bir ev', 5]"), why_unread("[bir ev]"), why_unread('["bir ev"]')
    ('a list that is cut off', 'a list with a number in it', '', '')
    """
    if not isinstance(cell, str):
        return ""
    text = cell.strip()
    start = STARTS.match(text)
    if start is None and PANDAS.search(cell):
        return "a column that pandas printed"
    if read_cell(cell) is not cell:
        return ""
    if start is None and (IN_BRACES.fullmatch(text) or WRAPPED_START.match(text)):
        return "a list that does not read"
    if start is None:
        return ""
    kind = "a list" if start.group(1) else "a record"
    found = _literal(text)
    if isinstance(found, (list, set)) and any(map(_is_number, found)):
        return f"{kind if isinstance(found, list) else 'a set'} with a number in it"
    return f"{kind} that {'does not read' if CLOSED.search(QUOTED_TEXT.sub('', text)) else 'is cut off'}"


def written_list(cell: str) -> list[Any] | None:
    r"""Returns the list that a cell writes as JSON, or as Python or numpy print it; None if it is anything else.

    >>> written_list('["bir ev", "ev"]'), written_list("['bir ev', \"ev'de\"]"), written_list("['bir ev' 'ev']")
    (['bir ev', 'ev'], ['bir ev', "ev'de"], ['bir ev', 'ev'])
    >>> written_list("[bir ev]"), written_list("('ev',)"), written_list("bir ev")
    (None, ['ev'], None)
    >>> written_list('{kuş,"bir ev"}'), written_list("[list(['ev', 'kuş'])]"), written_list("deque(['ev'], maxlen=3)")
    (['kuş', 'bir ev'], [['ev', 'kuş']], ['ev'])
    >>> written_list("[{'raw': 'ev'}]"), written_list("array(['ev'], dtype=object)"), written_list("{'ev', 'kuş'}")
    ([{'raw': 'ev'}], ['ev'], ['ev', 'kuş'])
    """
    text = cell.strip()
    if len(text) > MAX_LIST_CHARACTERS:
        return None
    if WRAPPED_START.match(text):
        text = WRAPPED.sub(lambda found: found.group(1) or ("(" if found.group(0)[0] != "," else ""), text)
        found = _literal(APART.sub(lambda found: found.group(1) or f"{found.group(2)}, ", text))
        return list(found) if isinstance(found, (list, tuple, set)) and not any(map(_is_number, found)) else None
    if text[:1] not in ("[", "(", "{"):
        return None
    if text[0] == "{":  # a set, or an array as Postgres writes it
        found = _literal(text)
        if isinstance(found, set):
            return written_list(f"[{text[1:-1]}]")
        items = re.findall(POSTGRES_ITEM, text[1:-1], re.DOTALL) if found is None and POSTGRES.fullmatch(text) else None
        return items and [_postgres_text(item) for item in items]
    if text[0] == "[":
        try:
            found = json.loads(text)
            return found if isinstance(found, list) and not any(map(_is_number, found)) else None
        except (ValueError, RecursionError):
            pass
        if CURLED_LIST.fullmatch(text):
            return [item[1:-1] for item in re.findall(CURLED, text)]
    if not WRITTEN_LIST.fullmatch(text) or (text[0] == "(") != (text[-1] == ")"):
        return _list_of_records(text)
    items = LIST_ITEM.findall(text)
    if text[0] == "(" and ("," not in text or not items):  # a text in brackets and quotes
        return None
    try:
        return [_as_text(ast.literal_eval(item)) if item[-1] in "\"'" else None for item in items]
    except (ValueError, SyntaxError):
        return None


def _postgres_text(item: str) -> str | None:
    """Returns an item of an array of Postgres; None for NULL."""
    return re.sub(r"\\(.)", r"\1", item[1:-1]) if item[0] == '"' else None if item.upper() == "NULL" else item


def _as_text(item: Any) -> Any:
    """Returns the text of bytes in UTF-8, as Python prints them; any other as it is."""
    try:
        return item.decode("utf-8") if isinstance(item, bytes) else item
    except UnicodeDecodeError:
        return None


def _list_of_records(text: str) -> list[Any] | None:
    """Returns the list of records, or of lists, that a text writes as Python prints it; None if it is anything else."""
    found = _literal(text) if text[0] == "[" else None
    return found if isinstance(found, list) and all(isinstance(item, (dict, list, tuple)) for item in found) else None


def _literal(text: str) -> Any:
    """Returns what a text writes as Python prints it, with missing values as None; None if that is not sure."""
    if len(text) > MAX_LIST_CHARACTERS:
        return None
    if PLAIN.sub("", QUOTED_TEXT.sub("", text)):  # an expression, or deeper than Python reads
        return None
    quoted = list(QUOTED_TEXT.finditer(text))
    if any(not text[one.end() : other.start()].strip() for one, other in itertools.pairwise(quoted)):
        return None  # texts without a comma between them, which Python joins
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes
            return ast.literal_eval(MISSING.sub(lambda found: found.group(1) or "None", text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _is_number(item: Any) -> bool:
    return isinstance(item, (int, float))


def read_cell(cell: Any) -> Any:
    """Returns what a cell of texts holds: a list or record that it writes as text, or the cell itself.

    >>> read_cell("['bir ev']"), read_cell('{"raw": "ev"}'), read_cell("{'raw': 'ev'}"), read_cell("bir ev")
    (['bir ev'], {'raw': 'ev'}, {'raw': 'ev'}, 'bir ev')
    """
    if not isinstance(cell, str):
        return cell
    if is_missing(cell):
        return None
    text = cell.strip()
    if excel := EXCEL_TEXT.fullmatch(text):
        return excel.group(1).replace('""', '"')
    if BYTES.fullmatch(text):
        return _as_text(_literal(text))
    record = written_record(cell) if cell.lstrip()[:1] == "{" else None
    found = written_list(cell) if record is None else record
    return cell if found is None else found


def is_missing(item: Any) -> bool:
    """Returns whether a text is a missing value, as programs write it."""
    return isinstance(item, str) and item.strip() in NO_VALUES


def written_record(cell: str) -> dict[str, Any] | None:
    """Returns the record that a cell writes as JSON, or as Python prints it; None if it is anything else."""
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        found = _literal(cell.strip())
    return found if isinstance(found, dict) else None


def raw_text(item: Any) -> Any:
    """Returns the text of one of Karpathy's sentences, which are records with the text as `raw`; any other as it is."""
    raw = item.get("raw") if isinstance(item, dict) else None
    return raw if isinstance(raw, str) else item


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
    start = cell[:200].lstrip().removeprefix("b'").removeprefix('b"')
    return start.startswith(IMAGE_STARTS) or DATA_URI.match(start) is not None


def decoded_image(cell: str) -> bytes:
    """Returns the bytes of an image that is written as base64; empty if that does not read."""
    text = "".join(cell.split())
    text = text[2:-1] if text[:2] in ("b'", 'b"') else text  # bytes, as Python prints them
    text = text.replace("-", "+").replace("_", "/") if not text.startswith("data:") else text  # as in addresses
    text = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""
