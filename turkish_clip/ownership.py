"""Tells what this project wrote from what others did: an output never replaces a file or a folder of somebody else.

Each kind of file that is written shows by its content where it comes from: `GENERATOR` in HTML, `SOFTWARE` in PNG,
a comment in GIF, known fields in JSON and JSON lines, and the metadata of Parquet and safetensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turkish_clip.errors import InputError, printable

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

MARK = "turkish-clip"
GENERATOR = f'<meta name="generator" content="{MARK}">'  # in the head of a page
SOFTWARE = ("Software", MARK)  # key and text of a PNG's chunk
KIND = "turkish-clip-kind"  # what tells outputs of one suffix apart: SHEET or DRAWING, as GENERATOR and SOFTWARE stand
SHEET, DRAWING = "sheet", "drawing"
COMMENT = f"# {MARK}: "  # begins a YAML file
WRITER = {"writer": MARK}  # in the metadata of safetensors
HEAD_BYTES = 4096
LINES = (  # the fields of a line of skipped.jsonl, leaked.jsonl, log.jsonl and of a table
    frozenset({"image_id", "path", "reason"}),
    frozenset({"image_id", "benchmark_ids"}),
    frozenset({"step", "epoch"}),
    frozenset({"image", "image_id", "split", "captions", "labels"}),  # of a study's subjects
)
FIELDS = (  # of a JSON file, one of which it has all
    frozenset({"of", "results"}),  # cell.json, judged.json
    frozenset({"dataset", "rows", "image_model"}),  # ablation.json
    frozenset({"format", "measured", "rows"}),  # compare.json
    frozenset({"format", "config", "inputs"}),  # run.json
    frozenset({"format", "subjects", "methods"}),  # continual.json
    frozenset({"format", "options", "known"}),  # stage.json
    frozenset({"format", "text_to_image", "image_to_text"}),  # results.json
    frozenset({"format", "weights_sha256", "image_model"}),  # manifest, model, benchmark, classifier
    frozenset({"format", "weights_sha256", "precision"}),  # turkish_clip_onnx.json
    frozenset({"format", "text_weights_sha256", "precision"}),  # text-encoder.json
)
SCRATCH = {"format", "seed"}  # all fields of what a backbone from scratch records
CACHE = f".{MARK}.npy"  # ends the names of arrays that a command keeps for itself
TENSORS = ({"writer"}, {"penalty", "validation_mrr"})  # metadata of a classifier and of a closed form
MAX_HEADER = 1 << 20  # of safetensors


class ForeignFileError(InputError):
    """An output that would replace a file or a folder that this project did not write."""


def kind_in_page(kind: str) -> str:
    """Returns what stands in the head of a page, beside GENERATOR, to tell its kind."""
    return f'<meta name="{KIND}" content="{kind}">'


def png_marks(kind: str = "") -> PngInfo:
    """Returns the text chunks by which a PNG shows where it comes from, and of which kind it is.

    Args:
        kind: SHEET or DRAWING; empty: none.
    """
    from PIL.PngImagePlugin import PngInfo

    marks = PngInfo()
    marks.add_text(*SOFTWARE)
    if kind:
        marks.add_text(KIND, kind)
    return marks


def check_replaceable(path: Path, kind: str = "") -> None:
    """Checks that a path is free, or holds a file that this project wrote or that is empty.

    Args:
        path: of the output.
        kind: SHEET or DRAWING, which a page or PNG that is there must be, too; empty: any.

    Raises:
        ForeignFileError: it holds something else.
    """
    if not path.exists():
        return
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no regular file"
        raise ForeignFileError(f"expected a name for a file, got {printable(str(path))}, {found}; name another")
    if not is_ours(path):
        raise ForeignFileError(
            f"expected a new name or an earlier output of the same kind, got {printable(str(path))}, which "
            "turkish-clip did not write; name another, or move that file away"
        )
    if kind and path.stat().st_size and not any(mark in _head(path) for mark in _kind_marks(kind)):
        raise ForeignFileError(
            f"expected a new name or an earlier {kind}, got {printable(str(path))}, which is another output of "
            "turkish-clip; name another, or move that file away"
        )


def _kind_marks(kind: str) -> tuple[bytes, bytes]:
    return kind_in_page(kind).encode(), b"tEXt" + f"{KIND}\0{kind}".encode()


def check_replaceable_folder(path: Path, marker: str | None, may_hold: re.Pattern[str] | None = None) -> None:
    """Checks that a path is free, or a folder that is empty or that this project wrote.

    Args:
        path: the folder.
        marker: a file that each such folder has; None where the caller knows that what is there is its own.
        may_hold: the paths of files that belong into such a folder, relative to it; None allows any.

    Raises:
        ForeignFileError: it is something else, or holds a file that does not belong there.
    """
    if not path.exists():
        return
    where = printable(str(path))
    if not path.is_dir():
        raise ForeignFileError(f"expected a name for a folder, got {where}, a file; name another")
    inside = files_in(path)
    if not inside and not any(path.iterdir()):
        return
    if marker is not None and not (path / marker).is_file():
        raise ForeignFileError(
            f"expected a new folder or an earlier output of the same kind, got {where}, which holds something else; "
            "name another, or move it away"
        )
    others = sorted(name for name in inside if may_hold is not None and name != marker and not may_hold.fullmatch(name))
    if others:
        raise ForeignFileError(
            f"expected nothing but an earlier output in {where}, which is replaced, got {printable(others[0])!r}; "
            "move it away, or name another folder"
        )


def files_in(folder: Path) -> set[str]:
    """Returns the paths of all files and links below a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def is_ours(path: Path) -> bool:
    """Returns whether a file is empty or was written by this project; of an unknown kind, it was not."""
    if path.name.endswith(CACHE):
        return True
    shows = KINDS.get(path.suffix.lower())
    try:
        return path.stat().st_size == 0 or (shows is not None and shows(path))
    except (OSError, ValueError, RecursionError):
        return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _is_record(path: Path) -> bool:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        return False
    return value.keys() == SCRATCH or any(fields <= value.keys() for fields in FIELDS)


def _is_list(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        line = json.loads(file.readline())
    return isinstance(line, dict) and any(fields <= line.keys() for fields in LINES)


def _is_table(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return b"skipped" in (pq.read_schema(path).metadata or {})
    except pa.ArrowException:
        return False


def _is_tensors(path: Path) -> bool:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: Any = json.loads(file.read(size)) if size <= MAX_HEADER else {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and any(fields <= metadata.keys() for fields in TENSORS)


KINDS: dict[str, Callable[[Path], bool]] = {
    ".html": lambda path: GENERATOR.encode() in _head(path),
    ".gif": lambda path: b"\x21\xfe" + bytes([len(MARK)]) + MARK.encode() in _head(path),
    ".png": lambda path: b"tEXt" + "\0".join(SOFTWARE).encode() in _head(path),
    ".yaml": lambda path: _head(path).startswith(COMMENT.encode()),
    ".json": _is_record,
    ".jsonl": _is_list,
    ".parquet": _is_table,
    ".safetensors": _is_tensors,
}
