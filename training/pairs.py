"""Captions × targets → what the trainer and the evaluator take."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.captions import Captions, hash_share
from training.config import DistillConfig
from training.labels import labels
from training.perturb import Variants
from training.rows import CaptionsError, Row
from training.targets import REJECTS, Targets
from training.weights import weight_column

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from turkish_clip.evaluator import RetrievalEvaluator

log = logging.getLogger("training")


@dataclass(frozen=True)
class Pairs:
    """What distillation runs on.

    Attributes:
        train: a row a caption; read, it has the columns caption (str, some of them rewritten by `variants`) and label
            ((dim,) float32, looked up by picture: what the objective makes of its target).
        pictures: how many training pictures they are of.
        texts: the training captions as written.
        labels_sha256: of the labels' bytes.
        evaluator: on the validation split, or None where there is none.
        variants: tell it each epoch.
    """

    train: Dataset
    pictures: int
    texts: list[str]
    labels_sha256: str
    evaluator: RetrievalEvaluator | None
    variants: Variants


def load_pairs(captions: Captions, targets: Targets, config: DistillConfig) -> Pairs:
    """Joins the splits' captions with their pictures' targets.

    Raises:
        CaptionsError: no training pictures.
        TargetsError: a picture has no target and was not rejected when the targets were made.
    """
    import torch
    from datasets import Dataset

    train = drawn(with_targets(captions.split("train"), targets), config)
    texts = [caption for row in train for caption in row.captions]
    wanted = labels(train, targets, config)
    label_of_picture = torch.from_numpy(wanted)
    picture_of = [number for number, row in enumerate(train) for _ in row.captions]
    log.info("%d captions of %d pictures to train on", len(texts), len(train))
    variants = Variants(config.ascii_share, config.case_share, config.full_stop_share, config.typo_share, config.seed)

    def look_up(batch: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if "caption" in batch:
            result["caption"] = variants.of(batch["caption"], batch["row"])
            result["label"] = list(label_of_picture[batch["picture"]])
        return result

    lengths = [len(text) for text in texts]
    weights = {source.captions: source.weight for source in config.all_sources}
    columns = {"caption": texts, "picture": picture_of, "row": range(len(texts)), "length": lengths}
    dataset = Dataset.from_dict(columns | weight_column(((row.source, len(row.captions)) for row in train), weights))
    return Pairs(
        dataset.with_transform(look_up),
        len(train),
        texts,
        hashlib.sha256(wanted.tobytes()).hexdigest(),
        _evaluator(captions, targets, config),
        variants,
    )


def drawn(rows: list[Row], config: DistillConfig) -> list[Row]:
    """As many of the rows as the run trains on; a larger number holds the pictures of a smaller one."""
    if not config.train_pictures or config.train_pictures >= len(rows):
        return rows
    order = sorted(range(len(rows)), key=lambda row: hash_share(config.split_seed + 1, rows[row].image_id))
    return [rows[row] for row in sorted(order[: config.train_pictures])]


def with_targets(rows: Sequence[Row], targets: Targets) -> list[Row]:
    """The rows whose pictures opened when the targets were made.

    Raises:
        CaptionsError: none of them did.
    """
    kept = [row for row in rows if row.image_id not in targets.rejected]
    if rows and not kept:
        raise CaptionsError(f"expected pictures that open, got {len(rows)} that are all in {targets.folder / REJECTS}")
    return kept


def say_what_is_cut(model: SentenceTransformer, texts: Sequence[str]) -> int:
    """Says once how many captions are longer than the encoder reads; returns that number."""
    max_tokens: int | None = model.max_seq_length
    if max_tokens is None:
        return 0
    lengths = [len(ids) for ids in model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
    cut = sum(length > max_tokens for length in lengths)
    if cut:
        log.warning(
            "%d of %d captions are longer than %d tokens and are cut (longest: %d); raise --max_tokens to keep them",
            cut,
            len(texts),
            max_tokens,
            max(lengths),
        )
    return cut


def _evaluator(captions: Captions, targets: Targets, config: DistillConfig) -> RetrievalEvaluator | None:
    from turkish_clip.evaluator import RetrievalEvaluator

    rows = with_targets([row for row in captions.rows if row.split == "validation"], targets)
    if not rows:
        log.warning("no validation pictures: the last weights are kept, not the best")
        return None
    return RetrievalEvaluator(
        [row.captions for row in rows], targets.unit_rows([row.image_id for row in rows]), batch_size=config.batch_size
    )
