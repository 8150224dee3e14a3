"""Text files are read whole up to a size, pipes as well; what has no end does not fill the memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from turkish_clip.cli.arguments import lines_of
from turkish_clip.errors import InputError
from turkish_clip.text_files import read_whole


def test_a_file_up_to_the_limit_is_read_without_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbfku\xc5\x9f")  # 3 bytes of a mark, and 4
    assert read_whole(path, limit=7) == "kuş"
    with pytest.raises(OSError, match="more than 6 bytes, or no end; give a smaller file"):
        read_whole(path, limit=6)
    path.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_whole(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_what_has_no_end_is_refused() -> None:
    with pytest.raises(
        InputError, match="expected a file of texts in UTF-8, .*/dev/zero.*more than 256 MiB, or no end"
    ):
        lines_of(Path("/dev/zero"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("ev\nkuş\n",), kwargs={"encoding": "utf-8"})
    writer.start()
    assert lines_of(path) == ["ev", "kuş"]
    writer.join()
