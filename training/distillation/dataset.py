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

from training.data.sources import Captions, hash_share
from training.data.store import Rows
from training.distillation.augment import Variants
from training.distillation.sampling_weights import weight_column
from training.distillation.targets import labels
from training.embeddings.manifest import REJECTS
from training.embeddings.store import Targets, once
from training.run.config import DistillConfig
from training.run.objectives import OBJECTIVES
from training.run.provenance import sha256_of_texts
from training.run.source import CaptionsError
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
        train: a row a caption; read, it has the columns caption (str, some of them rewritten by `variants`) and label
            ((dim,) float32, looked up: what the objective asks for).
        pictures: how many training pictures they are of.
        texts: the training captions as written.
        labels_sha256: of the labels' bytes.
        evaluator: on the validation split, or None where there is none.
        variants: tell it each epoch.
    """

    train: Dataset
    pictures: int
    texts: Texts
    labels_sha256: str
    evaluator: RetrievalEvaluator | None
    variants: Variants


def load_pairs(captions: Captions, targets: Targets, config: DistillConfig) -> Pairs:
    """Joins the splits' captions with their pictures' targets; both stay on disk.

    Raises:
        CaptionsError: no training pictures.
        TargetsError: a picture has no target and was not rejected when the targets were made.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    train = drawn(with_targets(captions.split("train"), targets), config)
    wanted = labels(train, targets, config)
    each = "row" if OBJECTIVES[config.objective].aligned else "picture"
    labels_sha256 = hashlib.sha256(wanted.data).hexdigest()
    table = caption_table(train, config.folder)
    texts = Texts(table.select(["caption"]))
    weights = {source.captions: source.weight for source in config.all_sources}
    for name, values in weight_column(((row.source, len(row.captions)) for row in train), weights).items():
        table = table.append_column(name, pa.array(values))
    log.info("%d captions of %d pictures to train on", len(texts), len(train))
    variants = Variants(config.ascii_share, config.case_share, config.full_stop_share, config.typo_share, config.seed)
    dataset = Dataset(InMemoryTable(table), fingerprint=sha256_of_texts(texts)[:16])  # mapped, whatever the class says
    return Pairs(
        dataset.with_transform(LookUp(wanted, labels_sha256, variants, each)),
        len(train),
        texts,
        labels_sha256,
        _evaluator(captions, targets, config),
        variants,
    )


def caption_table(rows: Rows, near: Path) -> pa.Table:
    """The captions of rows, one after the other, on disk: caption, the place of its picture, its own, its length."""
    import pyarrow as pa

    columns = [("caption", pa.string()), ("picture", pa.int64()), ("row", pa.int64()), ("length", pa.int64())]
    writer, number = TableWriter(pa.schema(columns), near), count()
    for picture, row in enumerate(rows):
        for caption in row.captions:
            writer.add((caption, picture, next(number), len(caption)))
    return writer.finish()


class LookUp:
    """A few rows of `caption_table` → what the trainer takes: the columns caption and label."""

    def __init__(self, labels: Vectors, labels_sha256: str, variants: Variants, each: str = "picture") -> None:
        """Takes labels of which there is one for each picture or each row of the table."""
        import torch

        self._labels = torch.from_numpy(labels)
        self._each = each
        self._labels_sha256 = labels_sha256
        self._variants = variants

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if "caption" in batch:
            result["caption"] = self._variants.of(batch["caption"], batch["row"])
            result["label"] = list(self._labels[batch[self._each]])
        return result

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Its name: the host would serialise all labels to tell one transform from another."""
        return str, (self._labels_sha256,)

    def __deepcopy__(self, memo: dict[int, Any]) -> LookUp:
        """Itself, as for a function: the host copies the data set's settings."""
        return self


def drawn(rows: Rows, config: DistillConfig) -> Rows:
    """As many of the rows as the run trains on; a larger number holds the pictures of a smaller one."""
    if not config.train_pictures or config.train_pictures >= len(rows):
        return rows
    shares = (hash_share(config.split_seed + 1, image_id) for image_id in rows.image_ids())
    order = np.argsort(np.fromiter(shares, np.float64, len(rows)), kind="stable")
    return rows.take(np.sort(order[: config.train_pictures]))


def with_targets(rows: Rows, targets: Targets) -> Rows:
    """The rows whose pictures opened when the targets were made.

    Raises:
        CaptionsError: none of them did.
    """
    if not targets.rejected:
        return rows
    kept = np.flatnonzero([image_id not in targets.rejected for image_id in rows.image_ids()])
    if rows and not len(kept):
        raise CaptionsError(f"expected pictures that open, got {len(rows)} that are all in {targets.folder / REJECTS}")
    return rows.take(kept)


def say_what_is_cut(model: SentenceTransformer, texts: Iterable[str]) -> int:
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


def _evaluator(captions: Captions, targets: Targets, config: DistillConfig) -> RetrievalEvaluator | None:
    from turkish_clip.evaluator import RetrievalEvaluator

    rows = once(with_targets(captions.rows.of_split("validation"), targets), targets)
    if not rows:
        log.warning("no validation pictures: the last weights are kept, not the best")
        return None
    return RetrievalEvaluator(
        [row.captions for row in rows], targets.unit_rows([row.image_id for row in rows]), batch_size=config.batch_size
    )
