"""Peak memory of a process and a source of any number of rows, for the tests and benchmarks of memory.

As a program: python memory.py embed_images ARGV…, with an image tower that looks at no image.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.005
VALIDATION = 100
IMAGE_FILES = 8
WORDS = "kırmızı mavi sarı yeşil bir iki üç ev ağaç çiçek köpek kedi kuş tekne araba üstünde altında yanında".split()


@dataclass(frozen=True)
class Peak:
    """The most that a process held, in bytes.

    Attributes:
        own: memory of its own (RssAnon of Linux), looked at every 5 ms.
        resident: with the pages of mapped files, which the system takes back where memory is short (ru_maxrss).
    """

    own: int
    resident: int


def peak_of(command: Sequence[str]) -> Peak:
    """Runs a command to its end and watches its memory."""
    own, pid = 0, 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        status = Path(f"/proc/{process.pid}/status")
        while not pid:
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text(encoding="utf-8"))
            own = max(own, int(found[1]) * 1024 if found else 0)
            time.sleep(SAMPLE_SECONDS)
            pid, code, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(code)
        said.seek(0)
        assert process.returncode == 0, said.read()[-2000:]
    return Peak(own, usage.ru_maxrss * 1024)


def write_source(folder: Path, rows: int) -> Path:
    """A table of so many images, two captions each, that share a few small files; returns the table."""
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(IMAGE_FILES):
        Image.new("RGB", (32, 32), (30 * number, 0, 0)).save(folder / f"{number}.png")
    rng = random.Random(0)
    captions = [f"{' '.join(rng.choices(WORDS, k=rng.randint(3, 12)))} {number}" for number in range(1000)]
    table = folder / "images.jsonl"
    with table.open("w", encoding="utf-8") as file:
        for number in range(rows):
            split = "validation" if number < VALIDATION else "test" if number < 2 * VALIDATION else "train"
            row = {
                "path": f"{number % IMAGE_FILES}.png",
                "image_id": f"image-{number:09d}",
                "captions": rng.sample(captions, 2),
                "split": split,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return table


def without_looking(model: Any, batches: Any, *, dim: int, **_: Any) -> Iterator[Any]:
    """What `embed_batches` gives, of random vectors: what is left is the keeping of books."""
    import numpy as np

    from training.embeddings.manifest import CONTENT_BYTES
    from turkish_clip.embed import EmbeddedBatch

    rng = np.random.default_rng(0)
    for batch in batches:
        vectors = rng.standard_normal((len(batch), dim), np.float32)
        contents = [rng.bytes(CONTENT_BYTES) for _ in batch]  # as if the files were all different
        yield EmbeddedBatch(list(range(len(batch))), vectors, {}, contents)


def main() -> None:
    command, *argv = sys.argv[1:]
    from training import embed_images
    from training.embeddings import embed

    assert command == "embed_images"
    embed.embed_batches = without_looking
    embed_images.main(argv)


if __name__ == "__main__":
    main()
