"""The files that the page shows: by a name that it gives them itself, so that no path can be asked for."""

from __future__ import annotations

import hashlib
import hmac
import io
import secrets
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from turkish_clip.clips import open_still
from turkish_clip.thumbnails import JPEG_QUALITY, thumbnail, thumbnail_or_grey

T = TypeVar("T")
THUMBNAIL_SIDE, VIEW_SIDE = 480, 2560  # pixels
THUMBNAIL_BYTES = 64_000_000  # kept in memory
NAMED = 200_000  # files that have a name; those named longest ago lose it
MAX_UPLOAD, UPLOAD_BYTES = 20_000_000, 200_000_000  # of one upload, and of all that are kept
# What browsers show themselves; anything else is shown as a JPEG copy.
SHOWN_BY_BROWSERS = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
}
# What browsers may play themselves: the page asks its browser, and offers the file where it does not.
PLAYED_BY_BROWSERS = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
}


class Kept(Generic[T]):
    """Values in memory up to a total size; those used longest ago go first.

    Args:
        most: total of the sizes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._total = most, 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def put(self, name: str, value: T, size: int) -> None:
        """Keeps a value.

        Args:
            name: to get it by.
            value: to keep.
            size: that counts against the total.
        """
        with self._lock:
            _, before = self._values.pop(name, (None, 0))
            self._values[name] = value, size
            self._total += size - before
            while self._total > self._most and len(self._values) > 1:
                _, (_, gone) = self._values.popitem(last=False)
                self._total -= gone

    def get(self, name: str) -> T | None:
        """Returns a value; None if it is not kept."""
        with self._lock:
            if name not in self._values:
                return None
            self._values.move_to_end(name)
            return self._values[name][0]


class Photos:
    """Names files, and finds those again that it named."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._files: Kept[tuple[Path, Path, float | None]] = Kept(NAMED)
        self._thumbnails: Kept[bytes] = Kept(THUMBNAIL_BYTES)
        self._uploads: Kept[bytes] = Kept(UPLOAD_BYTES)

    def name(self, path: Path, second: float | None = None) -> str:
        """Returns the name of a file as it is now, under which it can be asked for.

        Args:
            path: of the file.
            second: of the frame or spectrogram that is shown, if it is a video or sound.
        """
        real = path.resolve()
        try:
            changed = real.stat().st_mtime_ns
        except OSError:
            changed = 0
        name = hmac.new(self._secret, f"{path}\0{changed}\0{second}".encode(errors="surrogateescape"), hashlib.sha256)
        self._files.put(name.hexdigest()[:32], (path, real, second), 1)
        return name.hexdigest()[:32]

    def path(self, name: str) -> Path | None:
        """Returns the file of a name; None if there is none, or if it is behind another link now."""
        path, real, _ = self._files.get(name) or (None, None, None)
        return path if path is not None and path.is_file() and path.resolve() == real else None

    def second(self, name: str) -> float | None:
        """Returns the second of the frame that a name stands for; None for an image."""
        return (self._files.get(name) or (None, None, None))[2]

    def thumbnail(self, name: str, path: Path) -> bytes:
        """Returns the thumbnail of a file as JPEG; a grey square if it does not open.

        Args:
            name: of the file.
            path: of the file.
        """
        kept = self._thumbnails.get(name)
        if kept is None:
            buffer = io.BytesIO()
            thumbnail_or_grey(path, THUMBNAIL_SIDE, self.second(name)).save(buffer, "JPEG", quality=JPEG_QUALITY)
            kept = buffer.getvalue()
            self._thumbnails.put(name, kept, len(kept))
        return kept

    def keep_upload(self, data: bytes) -> str:
        """Keeps the bytes of an image that was uploaded, in memory alone; returns its name."""
        return self._keep("u", data)

    def keep_drawing(self, data: bytes) -> str:
        """Keeps the PNG of a drawing, in memory alone; returns its name."""
        return self._keep("d", data)

    def _keep(self, kind: str, data: bytes) -> str:
        name = kind + hashlib.sha256(self._secret + data).hexdigest()[:31]
        self._uploads.put(name, data, len(data))
        return name

    def upload(self, name: str) -> bytes | None:
        """Returns the bytes of an upload; None if they are not kept any more."""
        return self._uploads.get(name) if name.startswith("u") else None

    def drawing(self, name: str) -> bytes | None:
        """Returns the PNG of a drawing; None if it is not kept any more."""
        return self._uploads.get(name) if name.startswith("d") else None


def shown_type(path: Path) -> str | None:
    """Returns the media type of a file that browsers show themselves; None for one that they need a copy of."""
    return SHOWN_BY_BROWSERS.get(path.suffix.lower())


def played_type(path: Path) -> str | None:
    """Returns the media type of a video or sound that browsers may play themselves; None for any other file."""
    return PLAYED_BY_BROWSERS.get(path.suffix.lower())


def preview(data: bytes) -> bytes:
    """Returns a small JPEG copy of an upload, for browsers that do not show a file of its kind.

    Raises:
        ImageError: the image does not open.
    """
    buffer = io.BytesIO()
    thumbnail(data, THUMBNAIL_SIDE).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def viewable(path: Path, second: float | None = None) -> bytes:
    """Returns an image as JPEG, at most VIEW_SIDE pixels wide and high.

    Args:
        path: of the image.
        second: of the frame or spectrogram, if it is a video or sound.

    Raises:
        ImageError: the image does not open.
    """
    image = open_still(path, second, min_side=VIEW_SIDE)
    image.thumbnail((VIEW_SIDE, VIEW_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
