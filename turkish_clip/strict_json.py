"""JSON as the standard has it: Python writes NaN and Infinity, which no other reader takes."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Returns a value as JSON, with null for each number that is undefined or without an end.

    >>> json_text({"kept": [0.5, float("nan")], "ağaç": float("inf")})
    '{"kept": [0.5, null], "ağaç": null}'

    Args:
        value: what `json.dumps` takes.
        indent: spaces for each level; None writes one line.
        ascii_only: whether all other letters are escaped.
    """
    return json.dumps(_finite(value), ensure_ascii=ascii_only, indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    """Returns a value with None for each number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
