"""Reads text files whole, up to a size: what has no end, such as /dev/zero, would fill the memory."""

from __future__ import annotations

import errno
from pathlib import Path

MAX_BYTES = 1 << 28  # two million texts of a hundred letters


def read_whole(path: str | Path, *, limit: int = MAX_BYTES) -> str:
    """Returns the text of a file in UTF-8, without a byte-order mark; of a pipe, such as <(…) of a shell, too.

    Args:
        path: of the file.
        limit: bytes that it has at most.

    Raises:
        OSError: it can't be read, or is larger.
        UnicodeDecodeError: it is not in UTF-8.
    """
    with Path(path).open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit} bytes"
        raise OSError(errno.EFBIG, f"more than {size}, or no end; give a smaller file", str(path))
    return content.decode("utf-8-sig")
