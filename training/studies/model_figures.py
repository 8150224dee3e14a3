"""What a comparison of models measures of each: quality on a test, size, memory and times, and why where it can't."""

from __future__ import annotations

import io
import logging
import statistics
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.duplicates import DIGEST_BYTES, deduplicate_by_digest
from training.data.samples import Row
from training.data.sources import read_captions
from training.embeddings.store import ImageEmbeddings, deduplicate, read_embeddings, remove_cross_split_duplicates
from training.pairs.dataset import without_skipped
from training.run.config import CompareConfig
from training.run.provenance import sha256_of, sha256_of_texts
from training.run.source import SourceError
from training.studies.model_process import PYTORCH, ModelProcess, ModelProcessError, ModelSubject
from turkish_clip.atomic import atomic_write
from turkish_clip.errors import InputError, one_line
from turkish_clip.images import ImageError
from turkish_clip.metrics import Relevance, Retrieval, Vectors, unit
from turkish_clip.ownership import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("training")
QUALITY, SIZE, MEMORY, QUERY, IMAGE = "quality", "size", "memory", "query", "image"  # what may be not measured
NOT_DOWNLOADED = (".bin", ".h5", ".msgpack", ".ot")  # older forms of weights that are there as safetensors, too
TEXTS_AT_ONCE, IMAGES_AT_ONCE = 256, 32
WARM_UP = 3
TIMED_SIDE = (640, 480)  # of the JPEG whose embedding is timed
VECTORS = "image_vectors"


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """What was measured of one model in one form.

    Attributes:
        model: as it was named.
        form: "PyTorch", "ONNX" or "ONNX int8".
        image_model: Hub id or folder of its image model; empty: none, or the same model.
        files_sha256: hash of the files that it was loaded from, of an export those of its model; empty: not loaded.
        text_bytes: size of the files of the text side; of a pair or an image model those of both.
        image_bytes: likewise of the image side; 0 where they are the same files.
        text_memory: most bytes by which a process grows that loads the text side, libraries included, and encodes.
        memory: likewise with the image side.
        query_ms: median time of one text.
        query_ms_quartiles: of the times of one text.
        image_ms: median time of an image in a batch, with the decoding of a JPEG of 640 × 480 pixels.
        text_to_image: recalls on the test.
        image_to_text: likewise.
        not_measured: quality, size, memory, query or image → why not.
    """

    model: str
    form: str
    image_model: str = ""
    files_sha256: str = ""
    text_bytes: int | None = None
    image_bytes: int | None = None
    text_memory: int | None = None
    memory: int | None = None
    query_ms: float | None = None
    query_ms_quartiles: list[float] = field(default_factory=list)
    image_ms: float | None = None
    text_to_image: Retrieval | None = None
    image_to_text: Retrieval | None = None
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all was measured that can be."""
        return self.query_ms is not None

    def without(self, *what: str, why: str) -> ModelRow:
        """Returns the row with a reason.

        Args:
            what: of quality, size, memory, query and image.
            why: they were not measured.
        """
        return replace(self, not_measured={**self.not_measured, **dict.fromkeys(what, why)})


@dataclass(frozen=True)
class CaptionedTest:
    """The images and captions that all models are measured on.

    Attributes:
        rows: one an image.
        relevance: of their captions.
        sha256: of names, images and captions.
        embeddings: stored ones of the images; None: each image model embeds them.
    """

    rows: Sequence[Row]
    relevance: Relevance
    sha256: str
    embeddings: ImageEmbeddings | None

    @classmethod
    def read(cls, config: CompareConfig) -> CaptionedTest | None:
        """Reads the test, by the rules of training.evaluate; None without captions.

        Raises:
            SourceError: there are none in that split, or no image of them opens.
        """
        if not config.captions and not config.sources:
            return None
        if config.embeddings:
            embeddings = read_embeddings(config.embeddings_folder)
            captions = remove_cross_split_duplicates(read_captions(config, check_files=False), embeddings).captions
            rows = deduplicate(without_skipped(captions.split(config.split), embeddings), embeddings)
            digests: Iterable[str] = (embeddings.manifest.image_model, str(embeddings.manifest.dim))
        else:
            embeddings, captions = None, read_captions(config)
            rows, digests = _opened(captions.split(config.split))
        if not rows:
            raise SourceError(
                f"expected images in the {config.split} split of {captions.name}, got none that open; choose another "
                "with --split"
            )
        texts = (text for row in rows for text in (row.image_id, *row.captions))
        sha256 = sha256_of_texts([*digests, *texts])
        return cls(rows, Relevance.from_captions([row.captions for row in rows]), sha256, embeddings)


def _opened(rows: Iterable[Row]) -> tuple[Sequence[Row], list[str]]:
    """Returns the rows whose images open, each image once, and the hex digests of their files."""
    opened, digests, failed = [], [], 0
    for row in rows:
        try:
            content = row.load(min_side=1).content
        except ImageError as error:
            log.warning("left out: %s", error)
            failed += 1
            continue
        opened.append(row)
        digests.append(content[:DIGEST_BYTES])
    if failed:
        log.warning("%d images of the test do not open", failed)
    kept = deduplicate_by_digest(opened, np.array(digests, f"S{DIGEST_BYTES}"))
    return kept, [digest.hex() for digest in digests]


@dataclass
class Candidate:
    """A model in one form on its way through the comparison.

    Attributes:
        row: what is known of it.
        subject: what its process loads; None: it can't be.
        files: folders that it is loaded from, of the text side and of the image side; empty: not on this machine yet.
        process: that has loaded it, while it is timed.
    """

    row: ModelRow
    subject: ModelSubject | None
    files: tuple[str, str] = ("", "")
    process: ModelProcess | None = None

    @property
    def key(self) -> tuple[str, str]:
        """By which a kept row is found."""
        return self.row.model, self.row.form


def size_on_disk(folder: Path) -> int:
    """Returns the bytes of a model's files without those of version control and older forms of the same weights."""
    return sum(path.stat().st_size for path in files_of_model(folder))


def files_of_model(folder: Path) -> list[Path]:
    """Returns the files of a model's folder that its users download, sorted."""
    files = [path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder))]
    if any(path.suffix == ".safetensors" for path in files):
        files = [path for path in files if path.suffix not in NOT_DOWNLOADED]
    return sorted(files)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def sha256_of_files(*folders: str) -> str:
    """Returns the hex SHA-256 of the files in folders, with their names; those that are none count as nothing."""
    lines = []
    for number, folder in enumerate(folders):
        if folder:
            root = Path(folder)
            lines += [f"{number} {path.relative_to(root)} {sha256_of(path)}" for path in files_of_model(root)]
    return sha256_of_texts(lines) if lines else ""


def measure_alone(candidate: Candidate, config: CompareConfig) -> None:
    """Measures the memory of the text side by itself.

    Args:
        candidate: whose row gets it.
        config: of the comparison.

    Raises:
        ModelProcessError: the model can't be loaded.
    """
    if candidate.subject is None:
        return
    with ModelProcess(replace(candidate.subject, text_alone=True)) as process:
        process.texts([config.query])
        candidate.row = replace(candidate.row, text_memory=process.memory())


def open_both(candidate: Candidate, config: CompareConfig, stack: ExitStack) -> ModelProcess | None:
    """Opens the process of a model with both sides, and measures its memory.

    Args:
        candidate: gets the process; its row the memory.
        config: of the comparison.
        stack: closes the process.

    Raises:
        ModelProcessError: the model can't be loaded.
    """
    if candidate.subject is None:
        return None
    process = candidate.process = stack.enter_context(ModelProcess(candidate.subject))
    process.texts([config.query])
    if process.opened.has_images:
        process.images([timed_image()] * config.image_batch_size)
        candidate.row = replace(candidate.row, memory=process.memory())
    else:
        candidate.row = candidate.row.without(IMAGE, why=process.opened.why_none)
    candidate.row = replace(candidate.row, image_model=process.opened.image_model)
    return process


def measure_quality(candidate: Candidate, test: CaptionedTest | None, config: CompareConfig) -> None:
    """Measures recall on the test, with the model's own image vectors, or with those that are there.

    Args:
        candidate: whose row gets it, and whose process is open.
        test: to measure on; None: there is none.
        config: of the comparison.
    """
    process = candidate.process
    if process is None:
        return
    if test is None:
        candidate.row = candidate.row.without(QUALITY, why="no captions were named")
        return
    try:
        images = _image_vectors(candidate, process, test, config)
        texts = np.concatenate([process.texts(part) for part in _parts(test.relevance.texts, TEXTS_AT_ONCE)])
        if texts.shape[1] != images.shape[1]:
            raise ModelProcessError(f"its vectors are {texts.shape[1]} wide, those of the images {images.shape[1]}")
    except InputError as error:
        candidate.row = candidate.row.without(QUALITY, why=one_line(error, None))
        return
    measured: list[Callable[..., Retrieval]] = [test.relevance.text_to_image, test.relevance.image_to_text]
    found = [measure(unit(texts), images, bootstrap_samples=config.bootstrap_samples) for measure in measured]
    candidate.row = replace(candidate.row, text_to_image=found[0], image_to_text=found[1])


def _image_vectors(candidate: Candidate, process: ModelProcess, test: CaptionedTest, config: CompareConfig) -> Vectors:
    """Returns the unit vectors of the test's images: stored ones, those of an earlier model's same tower, or new ones.

    Raises:
        ModelProcessError: there is no image side whose vectors could be had.
    """
    weights = process.opened.image_weights_sha256
    if test.embeddings is not None:
        made_by = test.embeddings.manifest.weights_sha256
        if weights and made_by and weights != made_by:
            raise ModelProcessError("the stored image embeddings are those of other weights than its image model's")
        return test.embeddings.unit_rows([row.image_id for row in test.rows])
    form = candidate.row.form if process.opened.has_images else PYTORCH
    path = config.folder / VECTORS / f"{weights[:16] or 'unknown'}-{test.sha256[:16]}-{form.replace(' ', '-')}{CACHE}"
    if weights and path.is_file():
        try:
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        except (OSError, ValueError):
            log.warning("%s is damaged, and made again", path)
    if not process.opened.has_images:
        raise ModelProcessError(f"no image side: {process.opened.why_none}")
    at_once = min(IMAGES_AT_ONCE, 8 * config.image_batch_size)
    vectors = np.concatenate([process.images([row.file for row in part]) for part in _parts(test.rows, at_once)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.save(file, vectors)
    return np.asarray(vectors, np.float32)


def _parts(values: Sequence[Any], size: int) -> list[Any]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def timed_image() -> bytes:
    """Returns the JPEG whose embedding is timed: smooth noise, the same each time."""
    from PIL import Image

    small = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(TIMED_SIDE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def measure_times(candidates: Sequence[Candidate], config: CompareConfig) -> None:
    """Times a query and images, the models taking turns so that what else the machine does meets all of them.

    Args:
        candidates: those with a process are timed.
        config: of the comparison.
    """
    texts: dict[int, list[float]] = {}
    images: dict[int, list[float]] = {}
    batch = [timed_image()] * config.image_batch_size
    for turn in range(-WARM_UP, config.repeats):
        for number, candidate in enumerate(candidates):
            process = candidate.process
            if process is None:
                continue
            try:
                taken = process.seconds_of_text(config.query)
                images_too = process.opened.has_images and (turn in (-1, 0) or turn % 3 == 0)
                taken_by_images = process.seconds_of_images(batch) if images_too else None
            except ModelProcessError as error:
                candidate.row, candidate.process = candidate.row.without(QUERY, IMAGE, why=one_line(error, None)), None
                continue
            if turn >= 0:
                texts.setdefault(number, []).append(1000 * taken)
                if taken_by_images is not None:
                    images.setdefault(number, []).append(1000 * taken_by_images / len(batch))
    for number, candidate in enumerate(candidates):
        if candidate.process is None or number not in texts:
            continue
        candidate.row = replace(
            candidate.row,
            query_ms=statistics.median(texts[number]),
            query_ms_quartiles=[float(value) for value in np.percentile(texts[number], (25, 75))],
            image_ms=statistics.median(images[number]) if number in images else None,
        )
