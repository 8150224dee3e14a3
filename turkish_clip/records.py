"""Records: frozen dataclasses that are written as JSON with a format number and read back into the same class."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from turkish_clip.atomic import write_json
from turkish_clip.errors import InputError, is_encodable, one_line
from turkish_clip.text_files import read_whole

T = TypeVar("T")
JSON_TYPES: dict[Any, Any] = {tuple: list, list: list, dict: dict, str: str, bool: bool, int: int, float: (int, float)}


@dataclasses.dataclass(frozen=True)
class ImageModel:
    """The image model that a text encoder, a run or an index belongs to.

    Attributes:
        id: Hub id or folder.
        revision: commit on the Hub; empty if none was recorded.
        weights_sha256: hash of its weights, as `turkish-clip info` prints it; empty if none was recorded.
    """

    id: str
    revision: str = ""
    weights_sha256: str = ""


def as_json(record: Any) -> dict[str, Any]:
    """Returns the content of a record's file: its format number and every field that is not None."""

    def without_none(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in items if value is not None}

    return {"format": record.FORMAT, **dataclasses.asdict(record, dict_factory=without_none)}


def write_record(path: Path, record: Any) -> None:
    """Writes a record atomically.

    Args:
        path: the file.
        record: an instance of a dataclass that has a FORMAT number.
    """
    write_json(path, as_json(record))


def read_record(kind: type[T], path: Path, advice: str, error: type[InputError] = InputError) -> T:
    """Reads a record.

    Args:
        kind: its dataclass, which has a FORMAT number.
        path: the file.
        advice: what to do if it can't be read, as the end of the message.
        error: the type that is raised.

    Raises:
        InputError: as `error`: the file does not exist, has no JSON object or another format, or its fields do not fit.
    """
    expected = f"expected {path.name} of format {kind.FORMAT} in {path.parent}"  # type: ignore[attr-defined]
    try:
        return from_json(kind, json.loads(read_whole(path)))
    except FileNotFoundError as cause:
        raise error(f"{expected}, got none; {advice}") from cause
    except (OSError, ValueError, TypeError, RecursionError) as cause:
        raise error(f"{expected}, got {one_line(cause)}; {advice}") from cause


def from_json(kind: type[T], values: Any) -> T:
    """Returns the record of which `as_json` returned the values.

    Args:
        kind: its dataclass, which has a FORMAT number.
        values: the parsed content of its file.

    Raises:
        ValueError: it is no JSON object, or of another format.
        TypeError: a field is unknown, missing, of another type, a number without an end, or a text that is no UTF-8.
    """
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__}")
    found = values.get("format", "an older one")
    if type(found) is not int or found != kind.FORMAT:  # type: ignore[attr-defined]
        raise ValueError(f"format {found}"[:40] if isinstance(found, int) else str(found)[:40])
    built: T = _built(kind, {name: value for name, value in values.items() if name != "format"})
    return built


def _built(kind: Any, value: Any, name: str = "") -> Any:
    """Converts the JSON value of a field to its annotated type: a dataclass, a container of such, or plain."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _built(next(one for one in inner if one is not NoneType), value, name)
    json_type = dict if dataclasses.is_dataclass(kind) else JSON_TYPES.get(origin or kind, object)
    if not isinstance(value, json_type) or (isinstance(value, bool) and kind is not bool and json_type is not object):
        raise TypeError(f"{str(value)[:40]!r} as {name!r}")
    if kind is float and isinstance(value, (int, float)) and not _is_finite(value):
        raise TypeError(f"{str(value)[:40]!r} as {name!r}")
    texts = [value] if isinstance(value, str) else value if isinstance(value, dict) else ()  # the keys of a dictionary
    if bad := [text for text in texts if not is_encodable(text)]:
        raise TypeError(f"{bad[0][:40]!r}, half a character that no UTF-8 holds, in {name!r}")
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        if unknown := [field for field in value if field not in hints]:
            raise TypeError(f"the unknown field {unknown[0]!r}")
        missing = [field.name for field in dataclasses.fields(kind) if _is_required(field) and field.name not in value]
        if missing:
            raise TypeError(f"no field {missing[0]!r}")
        return kind(**{field: _built(hints[field], item, field) for field, item in value.items()})  # type: ignore[operator]
    if origin in (tuple, list):
        return origin(_built(inner[0], item, name) for item in value)
    return {key: _built(inner[1], item, key) for key, item in value.items()} if origin is dict else value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
