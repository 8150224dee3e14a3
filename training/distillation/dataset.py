"""Captions × regression targets → what the trainer and the evaluator take."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.sources import Captions, hash_fraction
from training.data.store import Rows
from training.distillation.augment import Augmentation
from training.distillation.sampling_weights import weight_column
from training.distillation.targets import regression_targets
from training.embeddings.manifest import SKIPPED
from training.embeddings.store import ImageEmbeddings, deduplicate
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
    """What distillation runs on.

    Attributes:
        train: a row a caption; read, it has the columns caption (str, some of them rewritten by `augmentation`) and label
            ((dim,) float32, looked up: what the objective asks for).
        images: how many training images they are of.
        texts: the training captions as written.
        targets_sha256: of the labels' bytes.
        evaluator: on the validation split, or None where there is none.
        augmentation: tell it each epoch.
    """

    train: Dataset
    images: int
    texts: Texts
    targets_sha256: str
    evaluator: RetrievalEvaluator | None
    augmentation: Augmentation


def load_pairs(captions: Captions, embeddings: ImageEmbeddings, config: DistillConfig) -> Pairs:
    """Joins the splits' captions with their images' image embeddings; both stay on disk.

    Raises:
        SourceError: no training images.
        EmbeddingsError: an image has no target and was not skipped when the image embeddings were made.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    train = drawn(with_embeddings(captions.split("train"), embeddings), config)
    targets = regression_targets(train, embeddings, config)
    each = "row" if OBJECTIVES[config.objective].aligned else "image"
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
    dataset = Dataset(InMemoryTable(table), fingerprint=sha256_of_texts(texts)[:16])  # mapped, whatever the class says
    return Pairs(
        dataset.with_transform(TargetLookup(targets, targets_sha256, augmentation, each)),
        len(train),
        texts,
        targets_sha256,
        _evaluator(captions, embeddings, config),
        augmentation,
    )


def caption_table(rows: Rows, temp_dir: Path) -> pa.Table:
    """The captions of rows, one after the other, on disk: caption, the place of its image, its own, its length."""
    import pyarrow as pa

    columns = [("caption", pa.string()), ("image", pa.int64()), ("row", pa.int64()), ("length", pa.int64())]
    writer, number = TableWriter(pa.schema(columns), temp_dir), count()
    for image, row in enumerate(rows):
        for caption in row.captions:
            writer.add((caption, image, next(number), len(caption)))
    return writer.finish()


class TargetLookup:
    """A few rows of `caption_table` → what the trainer takes: the columns caption and label."""

    def __init__(self, targets: Vectors, targets_sha256: str, augmentation: Augmentation, each: str = "image") -> None:
        """Takes labels of which there is one for each image or each row of the table."""
        import torch

        self._targets = torch.from_numpy(targets)
        self._each = each
        self._targets_sha256 = targets_sha256
        self._variants = augmentation

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if "caption" in batch:
            result["caption"] = self._variants.of(batch["caption"], batch["row"])
            result["label"] = list(self._targets[batch[self._each]])
        return result

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Its name: the host would serialise all labels to tell one transform from another."""
        return str, (self._targets_sha256,)

    def __deepcopy__(self, memo: dict[int, Any]) -> TargetLookup:
        """Itself, as for a function: the host copies the data set's settings."""
        return self


def drawn(rows: Rows, config: DistillConfig) -> Rows:
    """As many of the rows as the run trains on; a larger number holds the images of a smaller one."""
    if not config.train_images or config.train_images >= len(rows):
        return rows
    shares = (hash_fraction(config.split_seed + 1, image_id) for image_id in rows.image_ids())
    order = np.argsort(np.fromiter(shares, np.float64, len(rows)), kind="stable")
    return rows.take(np.sort(order[: config.train_images]))


def with_embeddings(rows: Rows, embeddings: ImageEmbeddings) -> Rows:
    """The rows whose images opened when the image embeddings were made.

    Raises:
        SourceError: none of them did.
    """
    if not embeddings.skipped:
        return rows
    kept = np.flatnonzero([image_id not in embeddings.skipped for image_id in rows.image_ids()])
    if rows and not len(kept):
        raise SourceError(f"expected images that open, got {len(rows)} that are all in {embeddings.folder / SKIPPED}")
    return rows.take(kept)


def warn_truncated(model: SentenceTransformer, texts: Iterable[str]) -> int:
    """Says once how many captions are longer than the encoder reads; returns that number."""
    max_tokens: int | None = model.max_seq_length
    if max_tokens is None:
        return 0
    cut = longest = total = 0
    remaining = iter(texts)
    while some := list(islice(remaining, TOKENISED_AT_ONCE)):
        lengths = [len(ids) for ids in model.tokenizer(some, truncation=False, verbose=False)["input_ids"]]
        cut += sum(length > max_tokens for length in lengths)
        longest, total = max(longest, *lengths), total + len(some)
    if cut:
        log.warning(
            "%d of %d captions are longer than %d tokens and are cut (longest: %d); raise --max_tokens to keep them",
            cut,
            total,
            max_tokens,
            longest,
        )
    return cut


def _evaluator(captions: Captions, embeddings: ImageEmbeddings, config: DistillConfig) -> RetrievalEvaluator | None:
    from turkish_clip.evaluator import RetrievalEvaluator

    rows = deduplicate(with_embeddings(captions.rows.of_split("validation"), embeddings), embeddings)
    if not rows:
        log.warning("no validation images: the last weights are kept, not the best")
        return None
    return RetrievalEvaluator(
        [row.captions for row in rows],
        embeddings.unit_rows([row.image_id for row in rows]),
        batch_size=config.batch_size,
    )
