"""Brings an index up to date with a collection: what is new, changed, moved or gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from turkish_clip.dual_encoder import DualEncoder, map_in_order
from turkish_clip.images import ImageError
from turkish_clip.search.files import File, Scan, SkippedFile, hashed, scan
from turkish_clip.search.tables import ImageTables, chunks

ROWS_PER_WRITE = 512  # images per transaction: what a kill loses at most


@dataclass(frozen=True)
class UpdateSummary:
    """What adding did, in files.

    Attributes:
        added: with bytes that are new to the index.
        unchanged: as they were.
        duplicates: new, with the bytes of others that are still there.
        moved: new, with the bytes of one that is gone.
        vanished: gone, and taken out.
        images: distinct ones that are then in the index.
        skipped: what could not be indexed, and why.
        missing: indexed folder that is not there now → how many of its files the index keeps.
    """

    added: int
    unchanged: int
    duplicates: int
    moved: int
    vanished: int
    images: int
    skipped: list[SkippedFile]
    missing: dict[str, int]


@dataclass
class _Progress:
    """What adding has done so far."""

    untouched: int
    skipped: list[SkippedFile]
    added: int = 0
    copied: list[str] = field(default_factory=list)  # the bytes of new files that hold the same as others


@dataclass(frozen=True)
class IndexUpdater:
    """Adds to the tables of an index; its arguments are those of `ImageIndex.add`."""

    tables: ImageTables
    encoder: DualEncoder
    batch_size: int
    workers: int
    prune: bool

    def add(
        self, images: str | Path | Sequence[str | Path], progress: Callable[[int, int], Any] | None = None
    ) -> UpdateSummary:
        """What `ImageIndex.add` says, for tables that are there."""
        known = self.tables.files()
        for path in self.tables.remove_orphans(known):
            del known[path]
        found = scan(images, known)
        taken, done = _Progress(untouched=len(found.unchanged), skipped=list(found.skipped)), len(found.unchanged)
        total = done + len(found.pending)
        for files in chunks(found.pending, ROWS_PER_WRITE):
            self._take_in(files, known, taken)
            done += len(files)
            if progress is not None:
                progress(done, total)
        gone = [*found.vanished, *self._to_forget(found, known, taken)]
        moved = sum((Counter(taken.copied) & Counter(known[path].content for path in gone)).values())
        vanished = self.tables.remove(gone) - moved  # last: the bytes of renamed files are known till then
        self.tables.repair()
        self.tables.optimize()
        missing = Counter(known[path].folder for path in set(found.missing).difference(gone))
        return UpdateSummary(
            taken.added,
            taken.untouched,
            len(taken.copied) - moved,
            moved,
            vanished,
            self.tables.count(),
            sorted(taken.skipped, key=lambda skipped_file: skipped_file.path),
            dict(missing),
        )

    def _take_in(self, files: list[File], known: dict[str, File], taken: _Progress) -> None:
        """Reads some files and writes what they hold."""
        fresh, bad = hashed(files, self.workers)
        touched = [file for file in fresh if _content(known, file) == file.content]
        new, copies = self._part([file for file in fresh if _content(known, file) != file.content])
        rows, indexed, unread = embedded(new, self.encoder, self.batch_size, self.workers)
        why = {file.content: file.reason for file in unread}
        unread += [copy.skipped(why[copy.content]) for copy in copies if copy.content in why]
        copies = [copy for copy in copies if copy.content not in why]
        others = [*indexed, *copies, *bad, *unread]
        changed = [known[file.path] for file in others if _content(known, file)]
        self.tables.write(rows, copies, [*touched, *others], changed)
        taken.added += len(rows)
        taken.untouched += len(touched)
        taken.copied += [copy.content for copy in copies]
        taken.skipped += [SkippedFile(file.path, file.reason) for file in (*bad, *unread)]

    def _part(self, files: list[File]) -> tuple[list[File], list[File]]:
        """New contents, one file each, and the other files with those bytes or with bytes already indexed."""
        known = self.tables.contents([file.content for file in files])
        new: dict[str, File] = {}
        copies = []
        for file in files:
            if file.content in known or file.content in new:
                copies.append(file)
            else:
                new[file.content] = file
        return list(new.values()), copies

    def _to_forget(self, found: Scan, known: dict[str, File], taken: _Progress) -> list[str]:
        """The files of folders that are not there whose bytes came in now, file for file; all of them, to prune."""
        if self.prune:
            return found.missing
        new, moved = Counter(taken.copied), []
        new.subtract(known[path].content for path in found.vanished)  # these were renamed
        for path in found.missing:
            if new[known[path].content] > 0:
                new[known[path].content] -= 1
                moved.append(path)
        return moved


def _content(known: dict[str, File], file: File) -> str:
    """The hash that a file's bytes had; empty for a new file, and for one that could not be indexed."""
    before = known.get(file.path)
    return before.content if before is not None and not before.reason else ""


def embedded(
    files: list[File], encoder: DualEncoder, batch_size: int, workers: int
) -> tuple[list[dict[str, Any]], list[File], list[File]]:
    """The rows of the files that opened, those files, and the others with the reason."""
    rows: list[dict[str, Any]] = []
    done: list[File] = []
    unread: list[File] = []
    images = encoder.embed_images([Path(f.path) for f in files], batch_size=batch_size, workers=workers)
    found: Iterator[Any] = map_in_order(images, list, lambda error: error)
    for file, vector in zip(files, found):
        if isinstance(vector, ImageError):
            unread.append(file.skipped(vector.reason))
            continue
        about = {"bytes": file.size, "modified": datetime.fromtimestamp(file.mtime_ns // 10**9, timezone.utc)}
        rows.append({"content": file.content, "path": file.path, "also_at": [], "vector": vector, **about})
        done.append(file)
    return rows, done, unread
