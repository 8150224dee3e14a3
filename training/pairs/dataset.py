"""The training data set of captions and regression targets, and the evaluator of the validation split."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.sources import Captions, hash_fraction
from training.data.store import Rows
from training.embeddings.manifest import SKIPPED
from training.embeddings.store import ImageEmbeddings, deduplicate
from training.pairs.augment import Augmentation
from training.pairs.sampling_weights import WEIGHT, Weights, weight_column
from training.pairs.targets import regression_targets
from training.run.config import DistillConfig
from training.run.objectives import OBJECTIVES
from training.run.provenance import sha256_of_texts
from training.run.source import SourceError
from training.run.temp_storage import TableWriter, Texts
from turkish_clip.metrics import Vectors

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from turkish_clip.evaluator import RetrievalEvaluator

TOKENISED_AT_ONCE = 1024
log = logging.getLogger("training")


@dataclass(frozen=True)
class Pairs:
    """The training captions with their regression targets, and the evaluator.

    Attributes:
        train: one row per caption, with columns caption (augmented) and label (its regression target, (dim,) float32).
        images: number of training images.
        texts: the training captions as written.
        targets: all regression targets, memory-mapped: (n, dim) float32.
        index_column: column of the table behind train that numbers a caption's target: image or row.
        targets_sha256: of the bytes of all regression targets.
        evaluator: on the validation split; None where there is none.
        augmentation: of the captions; its epoch is to be set as each begins.
    """

    train: Dataset
    images: int
    texts: Texts
    targets: Vectors
    index_column: str
    targets_sha256: str
    evaluator: RetrievalEvaluator | None
    augmentation: Augmentation

    def blocks(self, captions_at_once: int) -> Iterator[tuple[list[str], Vectors, Weights]]:
        """Yields the training captions as written with their targets, (n, dim), and sampling weights, (n,), in order.

        Args:
            captions_at_once: the captions of a block.
        """
        columns = [name for name in (self.index_column, WEIGHT) if name in self.train.column_names]
        table = self.train.with_format("numpy", columns=columns)
        for start in range(0, len(self.texts), captions_at_once):
            rows = table[start : start + captions_at_once]
            numbers = rows[self.index_column]
            weights = np.asarray(rows[WEIGHT], np.float64) if WEIGHT in rows else np.ones(len(numbers))
            yield list(self.texts[start : start + captions_at_once]), self.targets[numbers], weights


def load_pairs(captions: Captions, embeddings: ImageEmbeddings, config: DistillConfig) -> Pairs:
    """Joins the captions with their images' embeddings; both stay on disk.

    Args:
        captions: the splits' captions.
        embeddings: of all their images that were not skipped.
        config: names the objective, the sampling weights, the augmentation and the folder of temporary files.

    Raises:
        SourceError: there are no training images, or the objective's English captions or text tower are missing.
        RunError: the objective needs the image model, which has other weights now.
        EmbeddingsError: an image has no embedding and was not skipped when the embeddings were made.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    train = sample_images(without_skipped(captions.split("train"), embeddings), config)
    targets = regression_targets(train, embeddings, config)
    index_column = "row" if OBJECTIVES[config.objective].aligned else "image"
    targets_sha256 = hashlib.sha256(targets.data).hexdigest()
    table = caption_table(train, config.folder)
    texts = Texts(table.select(["caption"]))
    weights = {source.captions: source.weight for source in config.all_sources}
    for name, values in weight_column(((row.source, len(row.captions)) for row in train), weights).items():
        table = table.append_column(name, pa.array(values))
    log.info("%d captions of %d images to train on", len(texts), len(train))
    augmentation = Augmentation(
        config.ascii_probability,
        config.case_probability,
        config.full_stop_probability,
        config.typo_probability,
        config.seed,
    )
    dataset = Dataset(InMemoryTable(table), fingerprint=sha256_of_texts(texts)[:16])  # memory-mapped despite its name
    return Pairs(
        dataset.with_transform(TargetLookup(targets, targets_sha256, augmentation, index_column)),
        len(train),
        texts,
        targets,
        index_column,
        targets_sha256,
        _evaluator(captions, embeddings, config),
        augmentation,
    )


def caption_table(rows: Rows, temp_dir: Path) -> pa.Table:
    """Returns a memory-mapped table of captions: caption, image (its row's number), row (its own), length (characters).

    Args:
        rows: images with their captions.
        temp_dir: where the table's unnamed file lies.
    """
    import pyarrow as pa

    columns = [("caption", pa.string()), ("image", pa.int64()), ("row", pa.int64()), ("length", pa.int64())]
    writer, number = TableWriter(pa.schema(columns), temp_dir), count()
    for image, row in enumerate(rows):
        for caption in row.captions:
            writer.add((caption, image, next(number), len(caption)))
    return writer.finish()


class TargetLookup:
    """The data set's transform: rows of `caption_table` become the columns caption (augmented) and label."""

    def __init__(
        self, targets: Vectors, targets_sha256: str, augmentation: Augmentation, index_column: str = "image"
    ) -> None:
        """Keeps the regression targets as a tensor that shares their memory.

        Args:
            targets: (n, dim) float32 regression targets.
            targets_sha256: of their bytes.
            augmentation: of the captions.
            index_column: column of the table that numbers the targets: image, or row where each caption has its own.
        """
        import torch

        self._targets = torch.from_numpy(targets)
        self._index_column = index_column
        self._targets_sha256 = targets_sha256
        self._augmentation = augmentation

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if "caption" in batch:
            result["caption"] = self._augmentation.apply(batch["caption"], batch["row"])
            result["label"] = list(self._targets[batch[self._index_column]])
        return result

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickles as the targets' hash: `datasets` pickles a transform for its fingerprint, with all targets in it."""
        return str, (self._targets_sha256,)

    def __deepcopy__(self, memo: dict[int, Any]) -> TargetLookup:
        """Returns itself, as functions do: `datasets` copies a data set's transform with its format."""
        return self


def sample_images(rows: Rows, config: DistillConfig) -> Rows:
    """Returns the rows that the run trains on, drawn by a hash of their ids; a larger draw contains a smaller one.

    Args:
        rows: of the training split.
        config: has their number (0: all) and the seed.
    """
    if not config.train_images or config.train_images >= len(rows):
        return rows
    fractions = (hash_fraction(config.split_seed + 1, image_id) for image_id in rows.image_ids())
    order = np.argsort(np.fromiter(fractions, np.float64, len(rows)), kind="stable")
    return rows.take(np.sort(order[: config.train_images]))


def without_skipped(rows: Rows, embeddings: ImageEmbeddings) -> Rows:
    """Returns the rows whose images were not skipped when the image embeddings were made.

    Args:
        rows: of one split.
        embeddings: with the ids of the skipped images.

    Raises:
        SourceError: all of them were skipped.
    """
    if not embeddings.skipped:
        return rows
    places = np.flatnonzero([image_id not in embeddings.skipped for image_id in rows.image_ids()])
    if rows and not len(places):
        raise SourceError(
            f"expected images that open, got {len(rows)} that are all in {embeddings.folder / SKIPPED}; "
            "see the reasons there"
        )
    return rows.take(places)


def warn_truncated(model: SentenceTransformer, texts: Iterable[str]) -> int:
    """Returns how many captions are longer than the encoder reads, after a warning where there are any.

    Args:
        model: with the tokenizer, the prompt, and max_seq_length in tokens; None: of no limit.
        texts: captions, read once.
    """
    max_tokens: int | None = model.max_seq_length
    if max_tokens is None:
        return 0
    from turkish_clip.encoder import prompt_of

    cut = longest = total = 0
    prompt = prompt_of(model)
    remaining = (prompt + text for text in texts)
    while batch := list(islice(remaining, TOKENISED_AT_ONCE)):
        lengths = [len(ids) for ids in model.tokenizer(batch, truncation=False, verbose=False)["input_ids"]]
        cut += sum(length > max_tokens for length in lengths)
        longest, total = max(longest, *lengths), total + len(batch)
    if cut:
        message = "%d of %d captions are longer than %d tokens and are cut (longest: %d); raise --max_tokens"
        log.warning(message, cut, total, max_tokens, longest)
    return cut


def _evaluator(captions: Captions, embeddings: ImageEmbeddings, config: DistillConfig) -> RetrievalEvaluator | None:
    """Returns the evaluator of the validation split, each image once; None, after a warning, where it has no images."""
    from turkish_clip.evaluator import RetrievalEvaluator

    rows = deduplicate(without_skipped(captions.rows.of_split("validation"), embeddings), embeddings)
    if not rows:
        log.warning("no validation images: the weights of the last step are saved, not the best ones")
        return None
    return RetrievalEvaluator(
        [row.captions for row in rows],
        embeddings.unit_rows([row.image_id for row in rows]),
        batch_size=config.batch_size,
    )
