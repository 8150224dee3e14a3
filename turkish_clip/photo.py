"""When, where and with which camera a photograph was taken, by its EXIF data; what is missing or invalid is None."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
# Tags of EXIF. Source: CIPA DC-008 (Exif 2.32), sections 4.6.4 to 4.6.6.
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
MAKE, MODEL = 0x010F, 0x0110
DATE_TAGS = (0x9003, 0x9004)  # DateTimeOriginal, then DateTimeDigitized; 0x0132 is the time of the last change
LATITUDE, LONGITUDE = (1, 2), (3, 4)  # the reference, N or S and E or W, and degrees, minutes and seconds
DATE = re.compile(r"\s*([0-9]{4})[:./-]([0-9]{2})[:./-]([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})")
# That of the oldest photograph that is kept, while cameras without a clock write 0000 or 0001; the last whole year that
# 64 bits of nanoseconds hold, as conditions have them.
FIRST_YEAR, LAST_YEAR = 1826, 2261
LONGEST_NAME = 100  # letters of a camera's name


@dataclass(frozen=True)
class Photo:
    """What a photograph's file says of how it was taken.

    Attributes:
        taken: local time without its zone, as EXIF has it.
        lat: degrees north, from -90 to 90; None where the longitude is missing.
        lon: degrees east, from -180 to 180; None where the latitude is missing.
        camera: maker and model, such as "Canon EOS 80D".
    """

    taken: datetime | None = None
    lat: float | None = None
    lon: float | None = None
    camera: str | None = None

    @classmethod
    def of(cls, image: Image.Image) -> Photo:
        """Reads the EXIF data of an image that Pillow has opened; hostile data is no error, but gives None."""
        main = _attempted(image.getexif)
        if not main:
            return cls()
        exif = _attempted(lambda: main.get_ifd(EXIF_IFD)) or {}
        gps = _attempted(lambda: main.get_ifd(GPS_IFD)) or {}
        lat, lon = _attempted(lambda: _place(gps)) or (None, None)
        taken = _attempted(lambda: next(filter(None, (date_of(exif.get(tag)) for tag in DATE_TAGS)), None))
        return cls(taken, lat, lon, _attempted(lambda: camera_of(main.get(MAKE), main.get(MODEL))))


def _attempted(read: Callable[[], T]) -> T | None:
    """Returns what a function reads from the EXIF data of a file; None where that raises."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  Pillow's reader raises many unrelated types on hostile data
        return None


def date_of(value: Any) -> datetime | None:
    """Returns a date as EXIF writes it; None for what is no date.

    >>> date_of("2024:06:15 18:30:05"), date_of("0000:00:00 00:00:00"), date_of("2024:13:01 00:00:00")
    (datetime.datetime(2024, 6, 15, 18, 30, 5), None, None)
    """
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    match = DATE.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        taken = datetime(*map(int, match.groups()))  # type: ignore[arg-type]
    except ValueError:
        return None
    return taken if FIRST_YEAR <= taken.year <= LAST_YEAR else None


def _place(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    """Returns latitude and longitude in degrees; None unless both are valid. 0, 0 is what receivers write of none."""
    lat = _degrees(gps.get(LATITUDE[0]), gps.get(LATITUDE[1]), "NS", 90)
    lon = _degrees(gps.get(LONGITUDE[0]), gps.get(LONGITUDE[1]), "EW", 180)
    return None if lat is None or lon is None or lat == lon == 0 else (lat, lon)


def _degrees(reference: Any, parts: Any, directions: str, limit: int) -> float | None:
    """Returns degrees, minutes and seconds as degrees.

    >>> _degrees("S", (41.0, 0.0, 36.0), "NS", 90), _degrees("", (41.0, 0.0, 36.0), "NS", 90)
    (-41.01, None)
    """
    letter = reference.decode("ascii", "replace") if isinstance(reference, bytes) else str(reference)
    sign = {directions[0]: 1, directions[1]: -1}.get(letter.strip("\0 ").upper()[:1])
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    valid = min(degrees, minutes, seconds) >= 0 and minutes < 60 and seconds < 60 and value <= limit  # False for NaN
    return sign * value if sign is not None and valid and math.isfinite(value) else None


def camera_of(make: Any, model: Any) -> str | None:
    """Returns the name of a camera; the maker is left out where the model begins with it, as many do.

    Args:
        make: the maker, as a file names it.
        model: likewise.

    >>> camera_of("Canon", "Canon EOS 80D"), camera_of("NIKON CORPORATION", "NIKON D90"), camera_of("Apple", "iPhone")
    ('Canon EOS 80D', 'NIKON D90', 'Apple iPhone')
    """
    maker, name = _text(make), _text(model)
    begins = bool(maker) and name.lower().startswith(maker.split()[0].lower())
    return (name if begins else f"{maker} {name}".strip())[:LONGEST_NAME] or None


def _text(value: Any) -> str:
    """Returns a text of EXIF without what can't be printed, on one line."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
