"""A reader of WebDataset shards: tar files whose members of one name before the first dot are one captioned image.

A shard is read once from start to end for its captions; of an image only the offset in the file is noted, so that the
image can be read later. Nothing is unpacked: a member's name is used as a name, never as a path.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.lazy_images import LazyImage, MissingImage
from training.data.samples import SAMPLE_IMAGE, Record
from training.data.splits import SplitMeanings, splits_of_files
from training.run.source import SourceError
from turkish_clip.errors import one_line
from turkish_clip.folders import is_hidden
from turkish_clip.images import MAX_PIXELS

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("training")
IMAGES = frozenset("jpg jpeg png webp gif bmp tif tiff avif jp2 ppm".split())
TEXTS = frozenset(["txt"])
FIELDS = "json"
MAX_IMAGE_BYTES = 4 * MAX_PIXELS  # the largest image that `open_image` accepts, uncompressed
MAX_TEXT_BYTES = 1_000_000  # of a .txt or .json; no caption is a tenth as long
MAX_HEADER_BYTES = 1_000_000  # of a long name or of extended attributes, which tarfile reads into memory
MAX_SHARDS = 100_000  # of one pattern
MAX_KINDS = 20  # of members, in a line
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class ShardImage(LazyImage):
    """An image in a shard: `size` bytes from `offset` on."""

    shard: str
    offset: int
    size: int
    name: str

    @property
    def place(self) -> str:
        return f"{self.name} in {self.shard}"

    def read(self) -> bytes:
        try:
            with Path(self.shard).open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise SourceError(
                f"expected the shard {self.shard}, got {error.strerror}; restore it, and give the same command again"
            ) from error
        if len(content) < self.size:
            raise SourceError(
                f"expected {self.shard} as it was when its captions were read, got a shorter file; start again"
            )
        return content


def is_shards(name: str) -> bool:
    """Returns whether a source's name is that of a tar file, or a pattern of such names."""
    return name.endswith((".tar", *COMPRESSED))


def shards_of(name: str) -> list[Path]:
    """Returns the tar files of a name or of a pattern such as ``shard-{000000..000009}.tar``, in order.

    Raises:
        SourceError: a file is compressed or missing, or the pattern gives none or more than MAX_SHARDS.
    """
    if name.endswith(COMPRESSED):
        raise SourceError(
            f"expected an uncompressed .tar, got {name}, in which no single image can be read; uncompress it "
            "(images hardly shrink)"
        )
    paths = [Path(path) for path in itertools.islice(_expanded(name), MAX_SHARDS + 1)]
    if not 0 < len(paths) <= MAX_SHARDS:
        raise SourceError(f"expected 1 to {MAX_SHARDS} shards, got none or more from {name}; correct the pattern")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise SourceError(
            f"expected {len(paths)} shards by the name {name}, got {len(paths) - len(missing)}, without {missing[0]}; "
            "fetch the missing ones, or give a narrower pattern"
        )
    return paths


def shard_records(shards: list[Path], meanings: SplitMeanings, folder: Path | None = None) -> Iterator[Record]:
    """Yields the samples of shards as records: the fields of .json, the text of .txt as column txt, and the image.

    A .txt is one caption, as img2dataset writes it; several captions are .tr.txt and .en.txt, or fields of .json.
    An image is named after its shard and its key, since shards may use the same keys. Its split is named by its shard,
    or the shard's folder. Where names have dots of their own (10.30.03.png, 10.30.03.txt), what has one name before the
    last dot is a sample.

    Args:
        shards: the tar files, in order.
        meanings: what names of splits mean in the source.
        folder: what the names of shards are relative to; None means their common folder.

    Raises:
        SourceError: a shard is no tar file, or is cut off or damaged; the message says after how many members.
    """
    root = folder or Path(os.path.commonpath([shard.parent for shard in shards]))
    names = [shard.relative_to(root).with_suffix("").as_posix() for shard in shards]
    number = 0
    others: Counter[str] = Counter()
    for shard, name, split in zip(shards, names, splits_of_files(names, meanings)):
        for sample in _samples(shard, others):
            for part in sample.parts(others):
                number += 1
                yield Record(part.values(), None, True, number, split=split, prefix=f"{name}/")
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(MAX_KINDS))
        log.info("%s: members that are no image, .txt or .json are left out: %s", meanings.source.captions, kinds)


@dataclass
class _Sample:
    """One sample of a shard, filled while its members are read.

    Attributes:
        key: the name of its members before the first dot, or of those with dots of their own before the last.
        images: kind → image; a kind is what follows the key and its dot.
        texts: kind → content of a .txt.
        fields: kind → record of a .json.
        kinds: those of all members.
        faults: kind → why the sample can't be used.
    """

    key: str
    images: dict[str, ShardImage] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether no further member is needed."""
        plain = [kind for kind in self.faults if "." not in kind]
        dotted = [kind for kind in self.faults if "." in kind and not kind.endswith(f".{FIELDS}")]
        return bool(plain or (self.images and (dotted or self.texts or FIELDS in self.fields)))

    def parts(self, others: Counter[str]) -> Iterator[_Sample]:
        """Yields the sample, or the samples that it holds where its members have dots in names of their own.

        These are sure where no member has the key itself as its name, and some image shares its own name with a text or
        record: 30.03.png and 30.03.txt of the key IMG 10, but not left.jpg, right.jpg and txt.

        Args:
            others: counts the members that belong to no sample, by their kind.
        """
        images = {kind.rpartition(".")[0] for kind in self.kinds if kind.rpartition(".")[2] in IMAGES}
        partners = {kind.rpartition(".")[0] for kind in self.kinds if kind.rpartition(".")[2] not in IMAGES}
        if images.isdisjoint(partners) or "" in images | partners:
            for kind in [kind for kind in self.kinds if kind.endswith(f".{FIELDS}")]:
                self.fields.pop(kind, None)
                self.faults.pop(kind, None)
                _count(others, f".{kind}")
            if self.images or self.texts or self.fields or self.faults:
                yield self
            return
        found: dict[str, _Sample] = {}
        for kind in sorted(self.kinds):
            stem, _, last = kind.rpartition(".")
            if stem not in images and stem.rpartition(".")[0] in images:  # a caption's language
                stem, _, language = stem.rpartition(".")
                last = f"{language}.{last}"
            part = found.setdefault(stem, _Sample(f"{self.key}.{stem}"))
            part.kinds.add(last)
            if kind in self.faults:
                part.faults[last] = self.faults[kind]
            elif kind in self.images:
                part.images[last] = replace(self.images[kind], name=part.key)
            elif kind in self.texts:
                part.texts[last] = self.texts[kind]
            else:
                part.fields[last] = self.fields[kind]
        yield from found.values()

    def values(self) -> dict[str, Any]:
        """Returns the sample as column → value."""
        image: LazyImage | MissingImage
        if self.faults or not self.images:
            image = MissingImage(self.key, [*self.faults.values(), "no image beside the caption"][0])
        else:
            image = self.images[min(self.images, key=lambda kind: kind.count("."))]  # a.jpg before a.mask.png
        return {**self.fields.get(FIELDS, {}), **self.texts, **self.images, SAMPLE_IMAGE: image}


def _count(others: Counter[str], kind: str) -> None:
    if kind in others or len(others) < MAX_KINDS:
        others[kind] += 1


def _samples(shard: Path, others: Counter[str]) -> Iterator[_Sample]:
    """Yields the samples of a shard as soon as they are complete; incomplete ones come last.

    Args:
        shard: the tar file.
        others: counts the members that belong to no sample, by their kind.
    """
    incomplete: dict[str, _Sample] = {}
    sample: _Sample | None = None
    with shard.open("rb") as file:
        for member in _members(shard, file):
            folder, _, base = member.name.rpartition("/")
            stem, dot, kind = base.partition(".")
            if is_hidden(member.name):
                if not member.isdir():
                    others["hidden"] += 1
                continue
            if not _is_member(kind.lower()) or not member.isreg() or not stem or not dot:
                if not member.isdir():
                    _count(others, f".{kind}" if stem and dot and member.isreg() else "without a kind")
                continue
            key = f"{folder}/{stem}" if folder else stem
            if sample is not None and sample.key == key and kind.lower() in sample.kinds:  # another of the same name
                yield sample
                sample = _Sample(key)
            if sample is None or sample.key != key:
                if sample is not None and sample.is_whole:
                    yield sample
                elif sample is not None:
                    incomplete[sample.key] = sample
                sample = incomplete.pop(key, None) or _Sample(key)
            sample.kinds.add(kind.lower())
            _add(sample, member, kind.lower(), shard, file)
    yield from (*incomplete.values(), *([sample] if sample else []))


def _is_member(kind: str) -> bool:
    """Returns whether a member of this kind belongs to a sample."""
    last = kind.rpartition(".")[2]
    return last in IMAGES or last in TEXTS or last == FIELDS


def _add(sample: _Sample, member: tarfile.TarInfo, kind: str, shard: Path, file: Any) -> None:
    """Adds a member to its sample: the offset of an image, or the content of a text or record."""
    last = kind.rpartition(".")[2]
    if last in IMAGES:
        if member.issparse():
            sample.faults[kind] = "an image with holes in the tar"
        elif member.size > MAX_IMAGE_BYTES:
            sample.faults[kind] = f"an image of more than {MAX_IMAGE_BYTES} bytes"
        else:
            sample.images[kind] = ShardImage(str(shard), member.offset_data, member.size, sample.key)
    else:
        if member.issparse() or member.size > MAX_TEXT_BYTES:
            sample.faults[kind] = f"a .{kind} of more than {MAX_TEXT_BYTES} bytes"
            return
        file.seek(member.offset_data)
        try:
            text = file.read(member.size).decode("utf-8-sig")
            fields = json.loads(text) if last == FIELDS else None
        except UnicodeDecodeError:
            sample.faults[kind] = f"a .{kind} that is not UTF-8"
        except (ValueError, RecursionError):
            sample.faults[kind] = "a .json that does not read"
        else:
            if last != FIELDS:
                sample.texts[kind] = text
            elif isinstance(fields, dict):
                sample.fields[kind] = fields
            else:
                sample.faults[kind] = "a .json that is no record"


LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _BrokenError(Exception):
    """A tar file that can't be read further."""


class _Header(tarfile.TarInfo):
    """A tar header that raises if it is damaged: tarfile would take it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):  # the end of the archive, or of the file
                raise
            raise _BrokenError(str(error)) from error
        if header.size < 0 or (header.type in LONG_HEADERS and header.size > MAX_HEADER_BYTES):
            raise _BrokenError(f"a header of {header.size} bytes")
        return header


def _members(shard: Path, file: Any) -> Iterator[tarfile.TarInfo]:
    """Yields the members of a tar file, of which only one is in memory.

    Raises:
        SourceError: the file is no tar file, or is cut off or damaged.
    """
    size = shard.stat().st_size
    count = end = 0
    try:
        archive: Any = tarfile.TarFile(fileobj=file, mode="r", tarinfo=_Header)
        with archive:
            while (member := archive.next()) is not None:
                if member.size < 0 or member.offset < end or member.offset_data + member.size > size:
                    raise _BrokenError("a member that is cut off, or has no possible size")
                end = member.offset_data + member.size
                count += 1
                yield member
                archive.members.clear()  # tarfile would keep every header in memory
    except (_BrokenError, tarfile.TarError, OSError, ValueError, RecursionError) as error:
        where = f"is cut off or damaged after {count} members" if count else "is not one"
        raise SourceError(
            f"expected a whole tar file, got {shard}, which {where} ({one_line(error, 80)}); fetch it "
            "again, or remove it"
        ) from error
    if size < (-(-end // tarfile.BLOCKSIZE) + 1) * tarfile.BLOCKSIZE:
        log.warning("%s has no end mark: if it was cut off, its last images are missing", shard)


def _expanded(pattern: str) -> Iterator[str]:
    """Yields the names that a pattern with braces stands for, in order.

    >>> list(_expanded("a-{08..10}.tar")), list(_expanded("{a,b}/{0..1}.tar"))
    (['a-08.tar', 'a-09.tar', 'a-10.tar'], ['a/0.tar', 'a/1.tar', 'b/0.tar', 'b/1.tar'])
    """
    braces = BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    first, last, words = braces.groups()
    width = len(first) if first and first.startswith("0") else 0
    choices = words.split(",") if words else (f"{number:0{width}}" for number in range(int(first), int(last) + 1))
    for choice in choices:
        yield from _expanded(pattern[: braces.start()] + choice + pattern[braces.end() :])
