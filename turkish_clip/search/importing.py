"""Makes an index of vectors that another program has stored, without embedding an image."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from turkish_clip.atomic import atomic_folder
from turkish_clip.errors import InputError, printable
from turkish_clip.images import IMAGE_SUFFIXES, KIND_OF_SUFFIX
from turkish_clip.metrics import hub_scores, unit
from turkish_clip.search.files import Collection, File, examined
from turkish_clip.search.storage import check_place, folder_of, holds_index
from turkish_clip.search.tables import ImageTables, IndexMetadata

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.metrics import Vectors
    from turkish_clip.search.vector_sources import VectorBatch, VectorSource

log = logging.getLogger("turkish_clip")
PROBES = 8  # images that are embedded to compare
LOOKED_THROUGH = 100_000  # names among which they are looked for
SHOWN_SUFFIXES = IMAGE_SUFFIXES | KIND_OF_SUFFIX.keys()  # a name of another file, such as a key, is of no image here
SAME_MODEL = 0.99  # least median cosine; half precision gives 0.9999, a preview in place of the original a little less


class ImportVectorsError(InputError):
    """Vectors that can't be taken over."""


@dataclass(frozen=True)
class ImportSummary:
    """What was taken over.

    Attributes:
        source: what it is, for people.
        images: in the index now.
        repeated: names that were there before, left out.
        without_image: vectors whose images the source itself has no more, or in its bin, left out.
        without_vector: images without a vector, or with one of zeros or of numbers that are not finite, left out.
        not_here: images in the index whose files are not on this machine.
        example: the path of one of these, as the index has it; empty without one.
        probed: images that were embedded and compared.
        cosine: the median cosine of their own vectors with those of the source; None where none was compared.
        bank_texts: as in `UpdateSummary`.
    """

    source: str
    images: int
    repeated: int
    without_image: int
    without_vector: int
    not_here: int
    example: str
    probed: int
    cosine: float | None
    bank_texts: int


def import_vectors(
    source: VectorSource,
    place: str,
    encoder: DualEncoder,
    metadata: IndexMetadata,
    *,
    prefix: tuple[str, str] | None = None,
    probe: bool = True,
    progress: Callable[[int, int], Any] | None = None,
) -> ImportSummary:
    """Makes an index of stored vectors.

    Args:
        source: of the vectors.
        place: a new or empty folder, the index of an earlier import of the same source, which is replaced, or an
            address on object storage; in a folder it is made whole or not at all.
        encoder: with the image model that made them, by which they are checked, and with the text bank.
        metadata: of the index.
        prefix: the beginning of names in the source, and what stands for it on this machine.
        probe: embed some images and compare.
        progress: called with the number of images read so far, twice, since their number is not known.

    Raises:
        VectorSourceError: the source can't be read.
        ImportVectorsError: the vectors are of another width or model, there are none, or the place is taken.
        ImageIndexError: the index can't be written.
    """
    located, folder = _located(source, prefix), folder_of(place)
    check_new_place(place, source)
    probed, cosine = _compared(located, encoder, source) if probe else (0, None)
    with ExitStack() as stack:
        target = place if folder is None else str(stack.enter_context(atomic_folder(folder, None)))
        tables = ImageTables.connect(target)
        if tables.metadata() is not None:
            raise ImportVectorsError(
                f"expected a new place for the index, got one in {place}; delete all that is there, or name another"
            )
        return _written(tables, located, encoder, metadata, source, (probed, cosine), progress)


def check_new_place(place: str, source: VectorSource) -> None:
    """Checks that an index can be made at a place: there is none, or one of the same source alone.

    Object storage is not asked.

    Args:
        place: as in `import_vectors`.
        source: as in `import_vectors`.

    Raises:
        ImportVectorsError: there is something.
        ImageIndexError: it can't be written.
    """
    folder = folder_of(place)
    if folder is not None and holds_index(folder):
        before = ImageTables.connect(place).collection()
        if before.imported != str(source.path.absolute()):
            made_of = before.imported or "a folder of images"
            raise ImportVectorsError(
                f"expected a new folder for the index, got {folder}, an index made of {made_of}; name another, or "
                "delete that folder first"
            )
        if before.left_out:  # each folder that was added stands there
            raise ImportVectorsError(
                f"expected a new folder for the index, got {folder}, to which {', '.join(before.left_out)} was added "
                "since; name another, or delete that folder first"
            )
    elif folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ImportVectorsError(
            f"expected a new or empty folder for the index, got {folder}, which holds something; name another"
        )
    check_place(place)


@dataclass(frozen=True)
class _Located:
    """A batch with the files of its images: with `reason` where they are not here."""

    batch: VectorBatch
    files: list[File]


def _located(source: VectorSource, prefix: tuple[str, str] | None) -> Callable[[], Iterator[_Located]]:
    """Returns what reads a source with the paths that its images have here, if they are here."""

    def read() -> Iterator[_Located]:
        for batch in source.batches():
            yield _Located(batch, [_file_of(name, prefix, source.path) for name in batch.names])

    return read


def _file_of(name: str, prefix: tuple[str, str] | None, source: Path) -> File:
    """Returns the file of a name as an index has it, with the hash of its name; with `reason` if it is not here."""
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")  # JSON can hold halves of letters
    path = prefix[1] + name.removeprefix(prefix[0]) if prefix is not None and name.startswith(prefix[0]) else name
    content = hashlib.sha256(f"name:{path}".encode("utf-8", "surrogateescape")).hexdigest()
    if path and "://" not in path and "\0" not in path:
        here = os.path.normpath(Path(path).absolute())
        file = examined(here, str(Path(here).parent))
        if not file.reason and Path(here).is_file() and Path(here).suffix.lower() in SHOWN_SUFFIXES:
            return replace(file, content=content)
    return File(path, str(source.absolute()), 0, 0, content, "not here")


def _compared(
    located: Callable[[], Iterator[_Located]], encoder: DualEncoder, source: VectorSource
) -> tuple[int, float | None]:
    """Embeds some of the images that are here; returns how many and their median cosine with the source's vectors.

    Raises:
        ImportVectorsError: the vectors are of another width or model.
    """
    paths, vectors, seen = list[str](), list[NDArray[np.float32]](), 0
    for part in located():
        _check_width(part.batch, encoder, source)
        for file, vector in zip(part.files, part.batch.vectors):
            if not file.reason and _is_usable(vector[None])[0]:
                paths.append(file.path)
                vectors.append(vector)
        seen += len(part.files)
        if len(paths) >= 4 * PROBES or seen >= LOOKED_THROUGH:
            break
    spread = [round(place) for place in np.linspace(0, len(paths) - 1, min(len(paths), 4 * PROBES))]
    cosines = list[float]()
    chosen = iter(dict.fromkeys(spread))
    while len(cosines) < PROBES and (some := list(islice(chosen, PROBES - len(cosines)))):
        batch = next(encoder.embed_images([Path(paths[place]) for place in some], batch_size=PROBES))
        own = unit(np.stack([vectors[place] for place in some]))[batch.opened]
        cosines += np.sum(own * batch.vectors, axis=1).tolist()
    if not cosines:
        return 0, None
    median = float(np.median(cosines))
    if median < SAME_MODEL:
        raise ImportVectorsError(
            f"expected vectors that {encoder.image_name} makes in {source.path}, got others: of {len(cosines)} images "
            f"that are here, the median cosine to its own is {median:.3f}, less than {SAME_MODEL}; name the text "
            "encoder of the model that made them, or give --no-probe if the files have changed since"
        )
    return len(cosines), median


def _written(
    tables: ImageTables,
    located: Callable[[], Iterator[_Located]],
    encoder: DualEncoder,
    metadata: IndexMetadata,
    source: VectorSource,
    compared: tuple[int, float | None],
    progress: Callable[[int, int], Any] | None,
) -> ImportSummary:
    """Writes the tables."""
    bank = encoder.bank
    tables.create(metadata)
    if bank is not None:
        tables.correct(bank)
    seen, repeated, gone, without, not_here, read, example = _Seen(), 0, 0, 0, 0, 0, ""
    for part in located():
        _check_width(part.batch, encoder, source)
        gone += part.batch.without_image
        usable = _is_usable(part.batch.vectors) & np.array([bool(file.path) for file in part.files], bool)
        without += int((~usable).sum())
        kept = [place for place in np.flatnonzero(usable).tolist() if seen.is_new(part.files[place].content)]
        repeated += int(usable.sum()) - len(kept)
        if kept:
            files = [part.files[place] for place in kept]
            vectors = unit(part.batch.vectors[kept].astype(np.float64))
            scores = hub_scores(vectors, bank.unit_vectors) if bank is not None else np.zeros(len(kept), np.float32)
            tables.append(_rows(files, vectors, scores, [part.batch.taken[place] for place in kept]), files)
            away = [file.path for file in files if file.reason]
            not_here, example = not_here + len(away), example or next(iter(away), "")
        seen.settle()
        read += len(part.files)
        if progress is not None:
            progress(read, read)
    if not tables.count():
        raise ImportVectorsError(
            f"expected vectors in {source.path}, got none"
            + (f" but {without} of zeros or without numbers" if without else "")
        )
    tables.optimize()
    tables.remember(Collection(imported=str(source.path.absolute())))
    texts = 0 if bank is None else len(bank.vectors)
    return ImportSummary(source.kind, tables.count(), repeated, gone, without, not_here, example, *compared, texts)


def _rows(files: list[File], vectors: Vectors, scores: Vectors, taken: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "content": file.content,
            "path": file.path,
            "also_at": [],
            "bytes": file.size,
            "modified": None if file.reason else file.modified,
            "taken": date,
            "vector": vector,
            "hub_score": score,
        }
        for file, vector, score, date in zip(files, vectors, scores, taken)
    ]


class _Seen:
    """The names that were read, in eight bytes each."""

    def __init__(self) -> None:
        self._sorted, self._new = np.empty(0, np.uint64), set[int]()

    def is_new(self, content: str) -> bool:
        """Returns whether a name was not there before, by its hash, and notes it."""
        key = int(content[:16], 16)
        place = int(np.searchsorted(self._sorted, np.uint64(key)))
        if key in self._new or (place < len(self._sorted) and int(self._sorted[place]) == key):
            return False
        self._new.add(key)
        return True

    def settle(self) -> None:
        """Puts the names of a batch to the others."""
        new = np.fromiter(self._new, np.uint64, len(self._new))
        self._sorted = np.sort(np.concatenate([self._sorted, new]))
        self._new.clear()


def _is_usable(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns which vectors have a direction."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return np.asarray(np.isfinite(norms) & (norms > 0))


def _check_width(batch: VectorBatch, encoder: DualEncoder, source: VectorSource) -> None:
    width = batch.vectors.shape[1]
    if width not in (0, encoder.dim):
        name = printable(batch.names[0]) if batch.names else ""
        raise ImportVectorsError(
            f"expected vectors of {encoder.dim} numbers, as {encoder.image_name} makes them, got {width} in "
            f"{source.path} (of {name}); name the text encoder of the model that made them with --model"
        )
