"""Readers of Hub data sets and of folders in their layout: downloaded, or streamed row by row without a local copy."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from training.data.lazy_images import LazyImage, MissingImage, StreamedImage, one_line_errors
from training.data.readers.parquet import parquet_rows
from training.data.readers.webdataset import IMAGES
from training.data.samples import Record
from training.data.splits import HUB_SPLITS, SplitMeanings, splits_of_files, splits_of_folders
from training.run.provenance import commit_of
from training.run.source import LEFT_OUT, SourceError
from turkish_clip.errors import InputError, one_line
from turkish_clip.images import ImageError

if TYPE_CHECKING:
    from datasets import IterableDataset

log = logging.getLogger("training")
HUB_FILE = "hf://"
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
Files = tuple[tuple[str, tuple[str, ...]], ...]  # split → files, where not all that `datasets` would read
NO_FILES = "a path in a data set without files"


@dataclass(frozen=True)
class DatasetImage(LazyImage):
    """An image in a row of a downloaded data set."""

    dataset: Any
    row: int
    column: str

    @property
    def place(self) -> str:
        return f"row {self.row + 1} of the split {self.dataset.split}"

    def read(self) -> bytes | Path:
        value = self.dataset[self.row][self.column]
        if isinstance(value, dict):
            value = value["path"] if value["bytes"] is None else value["bytes"]
        if not value:
            raise ImageError(f"row {self.row + 1}", "no image")
        return value if isinstance(value, bytes) else Path(value)


def hub_records(name: str, config: str | None, revision: str | None, meanings: SplitMeanings) -> Iterator[Record]:
    """Reads a data set of the Hub, downloaded or from the local cache, and leaves its images undecoded.

    Args:
        name: Hub id; a folder that is there has a reader of its own.
        config: configuration of the data set; None means its only one.
        revision: branch, tag or commit; None means main.
        meanings: what names of splits mean in the source.

    Raises:
        SourceError: the data set can't be loaded; the message gives the reason.
    """
    from datasets import DatasetDict, Image, load_dataset

    with _loading(name):
        files = None if config else _files_by_split(_builder(name, config, revision), meanings)
        loaded = load_dataset(name, config, revision=revision, data_files=files)
    splits = loaded if isinstance(loaded, DatasetDict) else DatasetDict({"": loaded})
    meanings.check_layout(map(str, splits), HUB_SPLITS)
    for split, dataset in splits.items():
        for column, feature in dataset.features.items():
            if isinstance(feature, Image):
                dataset = dataset.cast_column(column, Image(decode=False))
        images = [column for column, feature in dataset.features.items() if _holds_images(feature)]
        texts = dataset.remove_columns(images)
        rows: Iterator[dict[str, Any]] = iter(texts) if texts.column_names else iter([{}] * len(dataset))
        for number, values in enumerate(rows, start=1):
            stored = {column: DatasetImage(dataset, number - 1, column) for column in images}
            yield Record({**values, **stored}, None, True, number, split=str(split))


def _builder(name: str, config: str | None, revision: str | None) -> Any:
    from datasets import load_dataset_builder

    return load_dataset_builder(name, config or None, revision=revision or None)


def _files_by_split(builder: Any, meanings: SplitMeanings) -> dict[str, list[str]] | None:
    """Returns split → files of a data set of which `datasets` would read a part alone, by the names of its files.

    With a file such as kedi_train.png or dev-hayvanlar.parquet in a repository, `datasets` (5.2) takes the files with
    such names for the splits, and passes over the others in silence. Images are of a split by their folders alone.

    Args:
        builder: the data set's, as `datasets` would read it.
        meanings: what names of splits mean in the source.

    Returns:
        The files, or None where `datasets` reads all of them, or the data set's README names those to read.

    Raises:
        SourceError: some files have no split while others are named for training.
    """
    chosen = getattr(builder.config, "data_files", None)
    root = str(getattr(builder, "base_path", None) or "")
    if not chosen or not root:
        return None
    found = _listed(root)
    read = {str(path).removeprefix(HUB_FILE) for paths in chosen.values() for path in paths}
    kinds = {PurePosixPath(path).suffix.lower() for path in read}
    if builder.name == "imagefolder":
        kinds |= {f".{kind}" for kind in IMAGES}
    prefix = root.removeprefix(HUB_FILE).rstrip("/") + "/"
    names = [path.removeprefix(prefix) for path in found if PurePosixPath(path).suffix.lower() in kinds]
    names = sorted(name for name in names if not any(part.startswith((".", "__")) for part in name.split("/")))
    left = [name for name in names if prefix + name not in read]
    if not left:
        return None
    where = meanings.source.captions
    if _names_files(root):
        log.warning("%s: %d files are left out, since its README names others (%s …)", where, len(left), left[0])
        return None
    log.warning(
        "%s: %d of its %d files have a split's name among other words; all are read, not those alone",
        where, len(names) - len(left), len(names),
    )  # fmt: skip
    if builder.name == "imagefolder":
        folders = splits_of_folders(sorted({name.rpartition("/")[0] for name in names}), meanings)
        splits = [folders[name.rpartition("/")[0]] for name in names]
    else:
        splits = splits_of_files([str(PurePosixPath(name).with_suffix("")) for name in names], meanings)
    files: dict[str, list[str]] = {}
    for name, split in zip(names, splits):
        files.setdefault(meanings.known(split) or "train", []).append(name)
    if files.pop(LEFT_OUT, []):
        log.info("%s: files of splits that --split_names leaves out are not read", where)
    metadata = [path.removeprefix(prefix) for path in found if path.rpartition("/")[2] in METADATA]
    return {
        split: [f"{root.rstrip('/')}/{name}" for name in (*part, *(set(metadata) - set(part)))]
        for split, part in files.items()
    }


def _listed(root: str) -> list[str]:
    """Returns the files of a repository on the Hub, or in a folder; none where the network is off."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(root)
        return [str(found) for found in system.find(path)]
    except (OSError, RuntimeError, ValueError):
        return []


def _names_files(root: str) -> bool:
    """Returns whether a data set's README names the files of its splits."""
    import fsspec

    try:
        with fsspec.open(f"{root.rstrip('/')}/README.md", "rb") as file:
            return b"data_files:" in file.read()
    except (OSError, ValueError):
        return False


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turns any error while a data set is looked up or downloaded into a SourceError; an `InputError` passes."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the client raises its own, the network's and the file system's errors alike
        raise SourceError(
            f"expected a folder, a table or a Hub data set, got {name!r}: {type(error).__name__}: {one_line(error)}; "
            "check the name and the connection"
        ) from error


def _holds_images(feature: Any) -> bool:
    """Returns whether a column holds images: the Hub's image type, bytes, or records of bytes and path."""
    from datasets import Image, Value

    if isinstance(feature, dict):
        feature = feature.get("bytes")
    return isinstance(feature, Image) or (isinstance(feature, Value) and "binary" in feature.dtype)


@dataclass(frozen=True)
class HubFileImage(LazyImage):
    """An image that is a file of a Hub repository, alone or inside an archive; `address` is its hf:// address."""

    address: str

    @property
    def place(self) -> str:
        return self.address

    @property
    def is_remote(self) -> bool:
        return True

    def read(self) -> bytes:
        import fsspec

        with one_line_errors(self.address), fsspec.open(self.address, "rb") as file:
            return bytes(file.read())


@dataclass(frozen=True)
class HubImageStore:
    """A column of images in a streamed Hub data set, which can only be read from its first row on."""

    name: str
    config: str
    revision: str
    split: str
    column: str
    files: Files = ()

    def __str__(self) -> str:
        return self.name

    @property
    def is_remote(self) -> bool:
        return True

    def start(self, number: int) -> int:
        return 0

    def size(self) -> int:
        return 0

    def cells(self, start: int) -> Iterator[Any]:
        with one_line_errors(self.name):
            for values in _split(self.name, self.config, self.revision, self.split, self.files):
                yield values[self.column]

    def image(self, cell: Any, number: int) -> bytes | Path:
        """Returns the bytes in a cell.

        Args:
            cell: bytes, or a record of bytes and path.
            number: its row, from 0, for the message.

        Raises:
            ImageError: it holds none.
        """
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes) or not content:
            raise ImageError(f"row {number + 1} of {self.name}", "no image")
        return content


def streamed_records(name: str, config: str, revision: str, meanings: SplitMeanings) -> Iterator[Record]:
    """Reads a data set row by row, without a local copy of it.

    Of Parquet files only the columns without images are read; other files are read whole, and their images dropped.
    The records hold `StreamedImage`s, which are read when needed: in order, that takes one more pass over the files.

    Args:
        name: Hub id; a folder that is there has a reader of its own.
        config: configuration of the data set; empty means its only one.
        revision: branch, tag or commit; empty means main.
        meanings: what names of splits mean in the source.

    Raises:
        SourceError: the data set can't be loaded; the message gives the reason.
    """
    with _loading(name):
        builder = _builder(name, config, revision)
        chosen = None if config else _files_by_split(builder, meanings)
    files = chosen or getattr(builder.config, "data_files", None)
    if builder.name == "parquet" and files:
        root = Path(name) if Path(name).is_dir() else None
        meanings.check_layout(map(str, files), HUB_SPLITS)
        for split, paths in files.items():
            parts = (parquet_rows(str(path), root, confined=True, paths_are_names=False) for path in paths)
            for number, values in enumerate(itertools.chain.from_iterable(parts), start=1):
                yield Record(values, root, True, number, split=str(split))
        return
    commit = commit_of(name, revision, "dataset") or revision  # rows and images of one commit
    fixed = tuple((split, tuple(paths)) for split, paths in (chosen or {}).items())
    splits = list(chosen) if chosen else _splits(name, config, commit)
    meanings.check_layout(splits, HUB_SPLITS)
    for split in splits:
        stores: dict[str, HubImageStore] = {}  # one object per column, shared by all rows
        with one_line_errors(name):
            for number, values in enumerate(_split(name, config, commit, split, fixed), start=1):
                for column in values:
                    stores.setdefault(column, HubImageStore(name, config, commit, split, column, fixed))
                cells = {column: _cell(value, number, stores[column]) for column, value in values.items()}
                yield Record(cells, None, True, number, split=split)


def _cell(value: Any, number: int, store: HubImageStore) -> Any:
    """Returns a cell as it is, or a lazy image without the bytes if it holds an image."""
    if isinstance(value, bytes):
        return StreamedImage(store, number - 1)
    if not (isinstance(value, dict) and set(value) == {"bytes", "path"}):
        return value
    if value["bytes"] is not None:
        return StreamedImage(store, number - 1)
    path = str(value["path"] or "")
    if path.rpartition("::")[2].startswith(HUB_FILE):
        return HubFileImage(path)
    return MissingImage(path, NO_FILES if path else "no image named")


def _splits(name: str, config: str, revision: str) -> list[str]:
    from datasets import load_dataset

    with _loading(name):
        return [str(split) for split in load_dataset(name, config or None, revision=revision or None, streaming=True)]


def _split(name: str, config: str, revision: str, split: str, files: Files) -> IterableDataset:
    """Returns the rows of one split with undecoded images."""
    from datasets import load_dataset

    chosen = {one: list(paths) for one, paths in files} or None
    rows = load_dataset(name, config or None, revision=revision or None, split=split, streaming=True, data_files=chosen)
    return rows.decode(False) if rows.features else rows
