"""Brings an index up to date with a collection, in which files are new, changed, moved or gone."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from turkish_clip.bank import TextBank
from turkish_clip.clips import clip_photo, is_clip, is_read, parts
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.embed import EmbeddedBatch, ImageDecoder
from turkish_clip.folders import LeftOut, is_there
from turkish_clip.images import ImageError
from turkish_clip.metrics import hub_scores
from turkish_clip.photo import Photo
from turkish_clip.search.files import (
    Collection,
    File,
    Scan,
    SkippedFile,
    check_there,
    collection_folder,
    examined,
    hashed,
    scan,
)
from turkish_clip.search.tables import ImageTables, chunks
from turkish_clip.videos import EVERY

log = logging.getLogger("turkish_clip")
ROWS_PER_WRITE = 512  # files per transaction: a kill loses at most these
CLIPS_PER_WRITE = 4  # videos and sounds: each has many rows, which are in memory until they are written
ATTEMPTS = 3  # to read a file whose bytes change between hashing and embedding
CHANGING = "a file that changes while it is read"
SAME_IMAGE = 0.999  # least cosine of a stored vector to that of its image: other dtypes and libraries give 0.9999


@dataclass(frozen=True)
class UpdateSummary:
    """The result of bringing an index up to date, in numbers of files.

    Attributes:
        added: new or changed files, with bytes that are new to the index.
        unchanged: files with the same bytes as before.
        duplicates: new or changed files, with the bytes of another file that still exists.
        moved: new or changed files, with the bytes of a file that is gone.
        vanished: files that are gone and were removed, without the moved ones.
        excluded: files that are there, but left out by a rule now, and were removed.
        images: the number of distinct images in the index afterwards.
        skipped: files that could not be indexed, with the reason, in order of path.
        missing: for each indexed folder that does not exist now, how many of its files the index keeps.
        bank_texts: number of texts by which hubs are corrected when words are searched; 0 without a correction.
        checked: images whose vectors were compared with those of their files; None where that was not asked for.
        mended: paths of images that had the vector of another image, or none, and now have their own.
        left_out: the files of the folder that are left out by a rule, counted.
    """

    added: int
    unchanged: int
    duplicates: int
    moved: int
    vanished: int
    excluded: int
    images: int
    skipped: list[SkippedFile]
    missing: dict[str, int]
    bank_texts: int
    checked: int | None = None
    mended: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass
class _Progress:
    """What has been done so far."""

    unchanged: int
    skipped: list[SkippedFile]
    added: int = 0
    copied: list[str] = field(default_factory=list)  # `content` of new files of which there is an image already


@dataclass(frozen=True)
class IndexUpdater:
    """Updates the tables of an index; the options are as in `ImageIndex.add`.

    `bank` gives the images their hub scores; None leaves the index without a correction. `decoder` opens the images.
    """

    tables: ImageTables
    encoder: DualEncoder
    batch_size: int
    workers: int
    prune: bool
    bank: TextBank | None = None
    verify: bool = False
    exclude: Sequence[str] | None = None
    video_every: float | None = None
    sounds: bool | None = None
    decoder: ImageDecoder | None = None

    def add(
        self, images: str | Path | Sequence[str | Path], progress: Callable[[int, int], Any] | None = None
    ) -> UpdateSummary:
        """Does what `ImageIndex.add` does, on tables that exist.

        Args:
            images: as in `ImageIndex.add`.
            progress: as in `ImageIndex.add`.

        Raises:
            CollectionError: as in `ImageIndex.add`.
            ImageIndexError: the index can't be read or written to.
        """
        if self.bank is not None:
            self.tables.correct(self.bank)
        known = self.tables.files()
        for path in self.tables.remove_orphans(known):
            del known[path]
        collection = self.tables.collection()
        if self.exclude is not None:
            patterns = list(dict.fromkeys(filter(None, self.exclude)))
            if dropped := [pattern for pattern in collection.exclude if pattern not in patterns]:
                log.warning("%s: no longer left out: %s", self.tables.uri, ", ".join(map(repr, dropped)))
            collection = replace(collection, exclude=patterns)
        collection = self._with_video_every(collection)
        if self.sounds is not None:
            collection = replace(collection, sounds=self.sounds)
        every = collection.video_every
        found = scan(images, known, collection.exclude, videos=every > 0, sounds=collection.sounds)
        if collection.imported:  # names that were taken over are kept, whether there are files of them here or not
            kept = [path for path in found.missing if known[path].folder != collection.imported]
            found = replace(found, missing=kept)
        if self.verify:
            pending = [*found.pending, *(replace(known[path], content="") for path in found.unchanged)]
            found = replace(found, pending=sorted(pending, key=lambda file: file.path), unchanged=[])
        so_far, done = _Progress(unchanged=len(found.unchanged), skipped=list(found.skipped)), len(found.unchanged)
        total = done + len(found.pending)
        tell = progress or (lambda done, total: None)
        tell(done, total)
        stills = [file for file in found.pending if not is_clip(file.path)]
        clips = [file for file in found.pending if is_clip(file.path)]
        for files in chain(chunks(stills, ROWS_PER_WRITE), chunks(clips, CLIPS_PER_WRITE)):
            self._add_batch(files, known, so_far, every, each=partial(_tell_more, tell, done, total))
            done += len(files)
            tell(done, total)
        excluded = {path for path in found.vanished if os.path.lexists(path)}
        gone = [*found.vanished, *self._moved_away(found, known, so_far)]
        contents = Counter(known[path].content for path in gone if path not in excluded)
        moved = sum((Counter(so_far.copied) & contents).values())
        removed = self.tables.remove(gone)  # after adding, so that renamed files are not embedded again
        vanished = removed - moved - len(excluded)
        self.tables.repair()
        checked, mended = self._mend(every) if self.verify else (None, [])
        self.tables.optimize()
        self._remember(collection, images, found.left_out)
        missing = Counter(known[path].folder for path in set(found.missing).difference(gone))
        return UpdateSummary(
            so_far.added,
            so_far.unchanged,
            len(so_far.copied) - moved,
            moved,
            vanished,
            len(excluded),
            self.tables.count(),
            sorted(so_far.skipped, key=lambda skipped_file: skipped_file.path),
            dict(missing),
            0 if self.bank is None else len(self.bank.vectors),
            checked,
            mended,
            found.left_out,
        )

    def _remember(self, collection: Collection, images: str | Path | Sequence[str | Path], left_out: LeftOut) -> None:
        """Stores the patterns and what was left out of the folder; what was left out of folders that are gone, goes."""
        of_folder = dict(collection.left_out)
        if isinstance(images, (str, Path)):
            of_folder[collection_folder(images)] = left_out
        used = set(self.tables.folders())
        kept = {folder: part for folder, part in of_folder.items() if folder in used or Path(folder).is_dir()}
        self.tables.remember(replace(collection, left_out=dict(sorted(kept.items()))))

    def _add_batch(
        self,
        files: list[File],
        known: dict[str, File],
        so_far: _Progress,
        every: float,
        attempts: int = ATTEMPTS,
        each: Callable[[int], Any] | None = None,
    ) -> None:
        """Reads, embeds and writes one batch of files; those that change meanwhile, again."""
        begun = time.time_ns()
        read, unread = hashed(files, self.workers)
        touched = [file for file in read if _content(known, file) == file.content]  # only the time is new
        new, copies = self._split([file for file in read if _content(known, file) != file.content])
        rows, indexed, unopened = embedded(new, self.encoder, self.batch_size, self.decoder, each, every)
        check_there([*unread, *unopened])
        rows = self._with_hub_scores(rows)
        changing = {file.content for file in unopened if file.reason == CHANGING} if attempts > 1 else set()
        again = [file for file in (*unopened, *copies) if file.content in changing]
        unopened = [file for file in unopened if file.content not in changing]
        copies = [copy for copy in copies if copy.content not in changing]
        reasons = {file.content: file.reason for file in unopened}
        unopened += [copy.skipped(reasons[copy.content]) for copy in copies if copy.content in reasons]
        copies = [copy for copy in copies if copy.content not in reasons]
        # What could not be read now stays in the index as it is: it may be there again at the next update.
        others = [
            file for file in (*indexed, *copies, *unread, *unopened) if not file.is_unread or not _content(known, file)
        ]
        changed = [known[file.path] for file in others if _content(known, file)]
        self.tables.write(rows, copies, [file.settled(begun) for file in (*touched, *others)], changed)
        self.tables.date(touched)
        so_far.added += len(indexed)
        so_far.unchanged += len(touched)
        so_far.copied += [copy.content for copy in copies]
        so_far.skipped += [SkippedFile(file.path, file.reason) for file in (*unread, *unopened)]
        if again:
            files = [examined(file.path, file.folder) for file in again]
            so_far.skipped += [SkippedFile(file.path, file.reason) for file in files if file.reason]
            self._add_batch([file for file in files if not file.reason], known, so_far, every, attempts - 1)

    def _with_hub_scores(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.bank is None or not rows:
            return rows
        scores = hub_scores(np.stack([row["vector"] for row in rows]), self.bank.unit_vectors)
        return [{**row, "hub_score": score} for row, score in zip(rows, scores)]

    def _with_video_every(self, collection: Collection) -> Collection:
        """Returns what the index remembers with the seconds between frames that were asked for, if any were."""
        if self.video_every is None or self.video_every == collection.video_every:
            return collection
        if self.video_every > 0 and not self.verify and next(self.tables.videos(), None) is not None:
            log.warning(
                "%s: videos that are indexed keep their frames, one every %g seconds; --verify reads them again",
                self.tables.uri,
                collection.video_every,
            )
        return replace(collection, video_every=self.video_every)

    def _mend(self, every: float) -> tuple[int, list[str]]:
        """Embeds every image again and gives it its own vector where another is stored.

        Returns:
            The number of images that have a file now, and the paths of those that were mended.
        """
        checked, mended = 0, list[str]()
        for stored in self.tables.images(ROWS_PER_WRITE):
            left, wrong = stored, []
            while left:  # an image whose first file is gone may have another
                files = [File(row["path"], "", row["bytes"], 0, row["content"]) for row in left]
                rows, opened, _ = embedded(files, self.encoder, self.batch_size, self.decoder)
                own = {row["content"]: row["vector"] for row in rows}
                checked += len(opened)
                for row in left:
                    vector = own.get(row["content"])
                    if vector is not None and not float(np.dot(vector, row["vector"])) >= SAME_IMAGE:
                        wrong.append({**row, "vector": vector})
                left = [
                    {**row, "path": row["also_at"][0], "also_at": [*row["also_at"][1:], row["path"]], "tried": tried}
                    for row in left
                    if row["content"] not in own and (tried := row.get("tried", 0) + 1) <= len(row["also_at"])
                ]
            self.tables.write(self._with_hub_scores([_without(row, "tried") for row in wrong]), [], [])
            mended += [row["path"] for row in wrong]
        for stored in self.tables.videos():
            first = stored[0]
            paths = (path for path in (first["path"], *first["also_at"]) if is_there(path))
            files, _ = hashed([examined(path, "") for path in islice(paths, 1)], self.workers)
            files = [file for file in files if file.content == first["content"]]
            rows, opened, _ = embedded(files, self.encoder, self.batch_size, self.decoder, every=every)
            checked += len(opened)
            if opened and not _same_frames(stored, rows):
                kept = {name: first[name] for name in ("path", "also_at", "modified")}
                rows = self._with_hub_scores([{**row, **kept} for row in rows])
                self.tables.replace_frames(first["content"], rows)
                mended.append(first["path"])
        return checked, mended

    def _split(self, files: list[File]) -> tuple[list[File], list[File]]:
        """Splits files into one for each hash of which there is no image yet, and the others."""
        known = self.tables.contents([file.content for file in files])
        new: dict[str, File] = {}
        copies = []
        for file in files:
            if file.content in known or file.content in new:
                copies.append(file)
            else:
                new[file.content] = file
        return list(new.values()), copies

    def _moved_away(self, found: Scan, known: dict[str, File], so_far: _Progress) -> list[str]:
        """Returns which missing files to remove: to prune all, else one for each new file of the same bytes."""
        if self.prune:
            return found.missing
        new, moved = Counter(so_far.copied), []
        new.subtract(known[path].content for path in found.vanished)  # these were renamed
        for path in found.missing:
            if new[known[path].content] > 0:
                new[known[path].content] -= 1
                moved.append(path)
        return moved


def _tell_more(tell: Callable[[int, int], Any], done: int, total: int, more: int) -> None:
    tell(done + more, total)


def _content(known: dict[str, File], file: File) -> str:
    """Returns the hash of the bytes that a file had when it was indexed; empty if it was not."""
    before = known.get(file.path)
    return before.content if before is not None and not before.reason else ""


def embedded(
    files: list[File],
    encoder: DualEncoder,
    batch_size: int,
    decoder: ImageDecoder | None = None,
    each: Callable[[int], Any] | None = None,
    every: float = EVERY,
) -> tuple[list[dict[str, Any]], list[File], list[File]]:
    """Embeds files; returns the table rows of those that opened, these files, and the others with the reason.

    What is embedded is what was hashed: a file whose bytes are no longer those of its `content` is not opened. A video
    has a row for each of its frames, a sound for each of its spectrograms; it is read in parts, and must have kept its
    size and time meanwhile.

    Args:
        files: one for each image, video or sound.
        encoder: whose image model embeds them.
        batch_size: images embedded at a time.
        decoder: as in `DualEncoder.embed_images`.
        each: called with the number of files done after each batch.
        every: seconds from one frame of a video to the next.
    """
    clips = [file for file in files if is_read(file.path)]  # without the library for it, one does not open
    files = [file for file in files if not is_read(file.path)]
    rows: list[dict[str, Any]] = []
    opened: list[File] = []
    unopened: list[File] = []
    images = encoder.embed_images([Path(f.path) for f in files], batch_size=batch_size, hashed=True, decoder=decoder)
    found: Iterator[Any] = chain.from_iterable(map(_results, images))
    for number, (file, (vector, content, photo)) in enumerate(zip(files, found)):
        if each is not None and number % batch_size == 0:
            each(number)
        if isinstance(vector, ImageError):
            unopened.append(file.skipped(vector.reason))
            continue
        if content.hex() != file.content:
            unopened.append(file.skipped(CHANGING))
            continue
        about = {"bytes": file.size, "modified": file.modified, **asdict(photo)}
        rows.append({"content": file.content, "path": file.path, "also_at": [], "vector": vector, **about})
        opened.append(file)
    for number, file in enumerate(clips, len(files)):
        if each is not None:
            each(number)
        try:
            found_frames = list(_frames_of(file, encoder, batch_size, decoder, every))
        except ImageError as error:
            unopened.append(file.skipped(error.reason))
            continue
        now = examined(file.path, file.folder)
        if (now.size, now.mtime_ns) != (file.size, file.mtime_ns):
            unopened.append(file.skipped(CHANGING))
            continue
        rows += found_frames
        opened.append(file)
    return rows, opened, unopened


def _frames_of(
    file: File, encoder: DualEncoder, batch_size: int, decoder: ImageDecoder | None, every: float
) -> Iterator[dict[str, Any]]:
    """Yields the table rows of the frames of a video, or of the spectrograms of a sound.

    Raises:
        ImageError: it does not open.
    """
    from turkish_clip.encoder import image_side  # imports torch

    about = {"content": file.content, "path": file.path, "also_at": [], "bytes": file.size, "modified": file.modified}
    about |= asdict(clip_photo(file.path))
    seconds: list[float] = []

    def images() -> Iterator[Any]:
        for frame in parts(file.path, every, min_side=image_side(encoder.image)):
            seconds.append(frame.second)
            yield frame.image

    batches = encoder.embed_images(images(), batch_size=batch_size, decoder=decoder)
    for number, (vector, _, _) in enumerate(chain.from_iterable(map(_results, batches))):
        if isinstance(vector, ImageError):
            raise vector
        row = {"key": f"{file.content}:{number}", "frame": number, "second": seconds[number], "vector": vector}
        yield {**about, **row}


def _same_frames(stored: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> bool:
    """Returns whether the stored frames of a video are those that it has, with their vectors."""
    return len(stored) == len(rows) and all(
        before["second"] == now["second"] and float(np.dot(before["vector"], now["vector"])) >= SAME_IMAGE
        for before, now in zip(stored, rows)
    )


def _results(batch: EmbeddedBatch) -> Iterator[tuple[Any, bytes, Photo]]:
    """Yields the vector of each image of a batch, the hash of its file and its date, or the error of one in its place.

    An error, of an image that did not open, stands with an empty hash and no date.
    """
    opened = dict(zip(batch.opened, zip(batch.vectors, batch.contents, batch.photos)))
    for place in range(len(batch.opened) + len(batch.errors)):
        yield opened[place] if place in opened else (batch.errors[place], b"", Photo())


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}
