"""RAW files as cameras write them: Adobe's DNG, with a preview as JPEG beside the sensor's values."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import Image

SHORT, LONG, ASCII, BYTE, RATIONAL = 3, 4, 2, 1, 5
SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8}
CODES = {BYTE: "B", SHORT: "H", LONG: "I", RATIONAL: "I"}


def _directory(entries: dict[int, tuple[int, Any]], at: int) -> bytes:
    """A TIFF directory that will stand at an offset, with the values that do not fit into it behind it."""
    head, rest = struct.pack("<H", len(entries)), b""
    behind = at + 2 + 12 * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        if kind == ASCII:
            data, count = value.encode() + b"\0", len(value) + 1
        else:
            numbers = list(value) if isinstance(value, (tuple, list)) else [value]
            data = struct.pack(f"<{len(numbers)}{CODES[kind]}", *numbers)
            count = len(data) // SIZES[kind]
        if len(data) > 4:
            field = struct.pack("<I", behind + len(rest))
            rest += data + b"\0" * (len(data) % 2)
        else:
            field = data.ljust(4, b"\0")
        head += struct.pack("<HHI", tag, kind, count) + field
    return head + struct.pack("<I", 0) + rest


def dng(preview: Image.Image | None, *, sensor: int = 64, taken: str | None = None, turn: int = 1) -> bytes:
    """A DNG of a red sensor.

    Args:
        preview: is stored as JPEG; None leaves it out.
        sensor: side of the sensor in pixels.
        taken: the date, as EXIF has it.
        turn: the orientation, as EXIF has it.
    """
    jpeg = io.BytesIO()
    if preview is not None:
        preview.save(jpeg, "JPEG", quality=95)
    row = struct.pack("<2H", 60000, 9000) * (sensor // 2), struct.pack("<2H", 9000, 3000) * (sensor // 2)
    values = b"".join(row) * (sensor // 2)
    preview_at, values_at = 8, 8 + len(jpeg.getvalue()) + len(jpeg.getvalue()) % 2
    dirs_at = values_at + len(values)
    identity = (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1)
    matrix = tuple(n if i % 2 == 0 else 1 for i, n in enumerate(identity))
    raw: dict[int, tuple[int, Any]] = {
        254: (LONG, 0),
        256: (LONG, sensor),
        257: (LONG, sensor),
        258: (SHORT, 16),
        259: (SHORT, 1),
        262: (SHORT, 32803),
        273: (LONG, values_at),
        277: (SHORT, 1),
        278: (LONG, sensor),
        279: (LONG, len(values)),
        33421: (SHORT, (2, 2)),
        33422: (BYTE, (0, 1, 1, 2)),
        50717: (LONG, 65535),
    }
    about: dict[int, tuple[int, Any]] = {
        271: (ASCII, "Leica"),
        272: (ASCII, "Leica Q3"),
        274: (SHORT, turn),
        50706: (BYTE, (1, 4, 0, 0)),
        50708: (ASCII, "Leica Q3"),
        50721: (RATIONAL, matrix),
        50728: (RATIONAL, (1, 1, 1, 1, 1, 1)),
    }
    shown: dict[int, tuple[int, Any]] = {}
    if preview is not None:
        shown = {
            254: (LONG, 1),
            256: (LONG, preview.width),
            257: (LONG, preview.height),
            258: (SHORT, (8, 8, 8)),
            259: (SHORT, 7),
            262: (SHORT, 6),
            273: (LONG, preview_at),
            277: (SHORT, 3),
            278: (LONG, preview.height),
            279: (LONG, len(jpeg.getvalue())),
        }
    exif = {0x9003: (ASCII, taken)} if taken else {}
    body = b""
    raw_at = dirs_at
    if preview is not None:
        body += _directory(raw, dirs_at)
    exif_at = dirs_at + len(body)
    if exif:
        body += _directory(exif, exif_at)
    main = {**about, **({0x8769: (LONG, exif_at)} if exif else {})}
    main |= {**shown, 330: (LONG, raw_at)} if preview is not None else raw
    main_at = dirs_at + len(body)
    body += _directory(main, main_at)
    pad = b"\0" * (values_at - 8 - len(jpeg.getvalue()))
    return b"II*\0" + struct.pack("<I", main_at) + jpeg.getvalue() + pad + values + body
