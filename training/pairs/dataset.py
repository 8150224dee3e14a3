"""The training data set of captions and regression targets, and the evaluator of the validation split."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.sources import Captions, hash_fraction
from training.data.store import Rows
from training.embeddings.manifest import SKIPPED
from training.embeddings.store import ImageEmbeddings, deduplicate
from training.pairs.augment import Augmentation
from training.pairs.bank import Bank
from training.pairs.labels import Labels
from training.pairs.negatives import FalseCaptions, read_exchanges
from training.pairs.replay import REPLAY, Replay, replay_weight, with_replayed
from training.pairs.sampling_weights import WEIGHT, Weights, weight_column
from training.pairs.targets import regression_targets, unit_image_embeddings
from training.run.config import DistillConfig
from training.run.objectives import OBJECTIVES
from training.run.provenance import sha256_of_texts
from training.run.source import SourceError
from training.run.temp_storage import TableWriter, Texts
from turkish_clip.metrics import Vectors
from turkish_clip.reading import unknown_id

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from turkish_clip.evaluator import MeanOfBoth, RetrievalEvaluator

TOKENISED_AT_ONCE = 1024
WORD = re.compile(r"\w+")
# Backbones that know Turkish make 1.1 to 2 tokens of a word, English ones 4, and byte-level English ones more.
MOST_UNKNOWN, MOST_TOKENS_PER_WORD = 0.02, 3.0
NO_IMAGE = -1  # number of the image of a caption without one
FALSE_CAPTION = "false_caption"  # "negative" would be warned of: the host expects a column of that name in third place
REPLAYED = "replayed"  # name of the metrics of the old validation split
log = logging.getLogger("training")


@dataclass(frozen=True)
class Block:
    """Some training captions in order, without augmentation.

    Attributes:
        texts: as written.
        targets: (k, dim) float32: the regression target of each.
        weights: (k,) float64: how often an epoch sees each on average.
    """

    texts: list[str]
    targets: Vectors
    weights: Weights


@dataclass(frozen=True)
class Pairs:
    """The training captions with their regression targets, and the evaluator.

    Attributes:
        train: one row per caption, with columns caption (augmented), label (as in training/pairs/labels.py), and for an
            objective with negatives false_caption (empty where there is none).
        images: number of training images.
        text_only: number of captions of text-only sources; they come after those of images.
        replayed: number of captions that are replayed; they come last.
        texts: the training captions as written.
        targets_sha256: of the bytes of all regression targets.
        evaluator: on the validation split; None where there is none.
        augmentation: of the captions; its epoch is to be set as each begins.
        bank: of the embeddings of all training images; None where the objective has no bank.
    """

    train: Dataset
    images: int
    text_only: int
    replayed: int
    texts: Texts
    targets_sha256: str
    evaluator: RetrievalEvaluator | MeanOfBoth | None
    augmentation: Augmentation
    bank: Bank | None
    _table: pa.Table
    _targets: Vectors

    @property
    def all_imaged(self) -> bool:
        """Whether each caption is of an image."""
        return not self.text_only and not self.replayed

    def blocks(self, rows: int = TOKENISED_AT_ONCE) -> Iterator[Block]:
        """Yields all training captions with their targets and weights, in order, some rows at a time."""
        for batch in self._table.to_batches(max_chunksize=rows):
            numbers = batch["target"].to_numpy()
            weighted = WEIGHT in batch.schema.names
            weights = batch[WEIGHT].to_numpy() if weighted else np.ones(len(batch))
            yield Block(batch["caption"].to_pylist(), self._targets[numbers], weights)


def load_pairs(
    captions: Captions, embeddings: ImageEmbeddings, config: DistillConfig, replay: Replay | None = None
) -> Pairs:
    """Joins the captions with their images' embeddings; both stay on disk.

    Args:
        captions: the splits' captions, and those without an image.
        embeddings: of all their images that were not skipped.
        config: names the objective, the sampling weights, the augmentation and the folder of temporary files.
        replay: old captions to train on again; None: none. They are regressed alone, with no part in other losses.

    Raises:
        SourceError: there are no training images, the objective's English captions or text tower are missing, or the
            list of exchanges can't be read.
        RunError: the objective needs the image model, which has other weights now.
        EmbeddingsError: an image has no embedding and was not skipped when the embeddings were made.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    objective = OBJECTIVES[config.objective]
    train, texts_alone = sample_images(without_skipped(captions.split("train"), embeddings), config), captions.texts
    targets = regression_targets(train, embeddings, config, texts_alone)
    text_only = sum(len(row.captions) for row in texts_alone or ())
    old = replay.captions.split("train") if replay else None
    replayed = sum(len(row.captions) for row in old or ())
    if replay is not None:
        targets = with_replayed(targets, replay, config)
    targets_sha256 = hashlib.sha256(targets.data).hexdigest()
    images = None
    if objective.needs_images:
        same = objective.targets_are_images
        images = targets[: len(train)] if same else unit_image_embeddings(train, embeddings, config)
    without_image = [rows for rows in (texts_alone, old) if rows is not None]
    beside = Rows.joined(without_image) if without_image else None
    table = caption_table(train, config.folder, beside, aligned=objective.aligned)
    texts = Texts(table.select(["caption"]))
    weights = {source.captions: source.weight for source in config.all_sources}
    counts = [(row.source, len(row.captions)) for row in chain(train, texts_alone or ())]
    if old is not None:
        new = sum(weights[source] * count for source, count in counts)
        weights[REPLAY] = replay_weight(new, replayed, config.replay_fraction)
        counts += [(REPLAY, len(row.captions)) for row in old]
    for name, values in weight_column(counts, weights).items():
        table = table.append_column(name, pa.array(values))
    log.info("%d captions of %d images to train on", len(texts) - text_only - replayed, len(train))
    if text_only:
        log.info("%d captions without an image beside them", text_only)
    if replayed:
        log.info("%d old captions, which are %g of those of an epoch", replayed, config.replay_fraction)
    augmentation = Augmentation(
        config.ascii_probability,
        config.case_probability,
        config.full_stop_probability,
        config.typo_probability,
        config.seed,
    )
    false_captions = FalseCaptions(config.seed, read_exchanges(config.exchanges)) if objective.negatives else None
    dataset = Dataset(InMemoryTable(table), fingerprint=sha256_of_texts(texts)[:16])  # memory-mapped despite its name
    return Pairs(
        dataset.with_transform(TargetLookup(targets, targets_sha256, augmentation, images, false_captions)),
        len(train),
        text_only,
        replayed,
        texts,
        targets_sha256,
        _evaluator_of_both(captions, embeddings, config, replay),
        augmentation,
        Bank(images, config.bank_size, config.seed) if objective.bank and images is not None else None,
        table,
        targets,
    )


def caption_table(rows: Rows, temp_dir: Path, texts: Rows | None = None, *, aligned: bool = False) -> pa.Table:
    """Returns a memory-mapped table of captions.

    Its columns: caption, image (its row's number, -1 without an image), row (its own number), target (that of its
    regression target), length (in characters).

    Args:
        rows: images with their captions.
        temp_dir: where the table's unnamed file lies.
        texts: captions without an image, which come last; None: none.
        aligned: whether each caption has a regression target of its own, and not each image.
    """
    import pyarrow as pa

    columns = [("caption", pa.string()), *((name, pa.int64()) for name in ("image", "row", "target", "length"))]
    writer, number = TableWriter(pa.schema(columns), temp_dir), 0
    for image, row in enumerate(rows):
        for caption in row.captions:
            writer.add((caption, image, number, number if aligned else image, len(caption)))
            number += 1
    before = 0 if aligned else number - len(rows)  # captions minus targets of the images
    for row in texts or ():
        for caption in row.captions:
            writer.add((caption, NO_IMAGE, number, number - before, len(caption)))
            number += 1
    return writer.finish()


class TargetLookup:
    """The data set's transform: rows of `caption_table` become the columns caption, label and false_caption."""

    def __init__(
        self,
        targets: Vectors,
        targets_sha256: str,
        augmentation: Augmentation,
        images: Vectors | None = None,
        false_captions: FalseCaptions | None = None,
    ) -> None:
        """Keeps the regression targets as a tensor that shares their memory.

        Args:
            targets: (n, dim) float32 regression targets.
            targets_sha256: of their bytes.
            augmentation: of the captions.
            images: (m, dim) float32 unit embeddings of the training images; None leaves them out of the labels.
            false_captions: makes the column false_caption; None: no such column.
        """
        import torch

        self._targets = torch.from_numpy(targets)
        self._targets_sha256 = targets_sha256
        self._augmentation = augmentation
        self._images = None if images is None else torch.from_numpy(images)
        self._false_captions = false_captions

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if "caption" in batch:
            result["caption"] = self._augmentation.apply(batch["caption"], batch["row"])
            false = [""] * len(batch["caption"])
            if self._false_captions is not None:
                false = result[FALSE_CAPTION] = self._false(self._false_captions, batch)
            result["label"] = list(self._labels(batch, false).joined())
        return result

    def _false(self, false_captions: FalseCaptions, batch: dict[str, Any]) -> list[str]:
        """Returns the false captions, rewritten as the captions are; empty without one, or without an image."""
        epoch = self._augmentation.epoch
        texts = [
            "" if image == NO_IMAGE else false_captions.of(text, epoch, row)
            for text, image, row in zip(batch["caption"], batch["image"], batch["row"])
        ]
        rewritten = self._augmentation.apply(texts, batch["row"])
        return [text and other for text, other in zip(texts, rewritten)]

    def _labels(self, batch: dict[str, Any], false: list[str]) -> Labels:
        import torch

        targets = self._targets[batch["target"]]
        if self._images is None:
            return Labels(targets)
        images = torch.zeros(len(targets), self._images.shape[1])
        numbers = torch.tensor(batch["image"])
        images[numbers != NO_IMAGE] = self._images[numbers[numbers != NO_IMAGE]]
        return Labels(targets, images, torch.tensor([float(bool(text)) for text in false]))

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
        model: with the tokenizer and the prompt; one without a limit cuts none.
        texts: captions, read once.
    """
    from turkish_clip.encoder import max_tokens_of, prompt_of

    max_tokens = max_tokens_of(model)
    if not max_tokens:
        return 0

    cut = longest = total = 0
    prompt, lengths_of = prompt_of(model), _token_counter(model.tokenizer)
    remaining = (prompt + text for text in texts)
    while batch := list(islice(remaining, TOKENISED_AT_ONCE)):
        lengths = lengths_of(batch)
        cut += sum(length > max_tokens for length in lengths)
        longest, total = max(longest, *lengths), total + len(batch)
    if cut:
        message = "%d of %d captions are longer than %d tokens and are cut (longest: %d); raise --max_tokens"
        log.warning(message, cut, total, max_tokens, longest)
    return cut


def _token_counter(tokenizer: Any) -> Callable[[list[str]], list[int]]:
    """Returns what counts the tokens of texts that are not cut, special ones included: a fast tokenizer's own part."""
    from turkish_clip.encoder import bare_tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda batch: [len(ids) for ids in tokenizer(batch, truncation=False, verbose=False)["input_ids"]]
    bare, special = bare_tokenizer(backend), tokenizer.num_special_tokens_to_add()
    return lambda batch: [len(one.ids) + special for one in bare.encode_batch_fast(batch, add_special_tokens=False)]


def warn_torn(model: SentenceTransformer, texts: Iterable[str]) -> bool:
    """Warns of a tokenizer that does not know the captions' letters, or tears their words into pieces.

    Args:
        model: with the tokenizer.
        texts: captions, of which the first are looked at.

    Returns:
        Whether there was a warning.
    """
    sample = list(islice(texts, TOKENISED_AT_ONCE))
    tokenizer: Any = model.tokenizer
    if hasattr(tokenizer, "encode_batch"):  # of the library tokenizers, as static models have it
        unknown = unknown_id(tokenizer)
        ids = [encoding.ids for encoding in tokenizer.encode_batch(sample, add_special_tokens=False)]
    else:
        unknown = getattr(tokenizer, "unk_token_id", None)
        ids = tokenizer(sample, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    tokens = sum(map(len, ids))
    words = sum(len(WORD.findall(text)) for text in sample)
    share = sum(row.count(unknown) for row in ids) / max(1, tokens)
    if share <= MOST_UNKNOWN and tokens <= MOST_TOKENS_PER_WORD * words:
        return False
    if type(getattr(tokenizer, "model", None)).__name__ == "WordLevel":  # of word vectors, whose tokens are words
        known, advice = "word vectors do", "take a file or a number of --words that has more of them"
    else:
        known, advice = "backbone's tokenizer does", "choose a backbone that knows Turkish"
    log.warning(
        "the %s not know %.1f %% of the tokens of the captions, with %.1f tokens a word; %s",
        known,
        100 * share,
        tokens / max(1, words),
        advice,
    )
    return True


def _evaluator_of_both(
    captions: Captions, embeddings: ImageEmbeddings, config: DistillConfig, replay: Replay | None
) -> RetrievalEvaluator | MeanOfBoth | None:
    """Returns the evaluator of the validation split, and of the replayed one; None, after a warning, without images."""
    from turkish_clip.evaluator import MeanOfBoth

    new = _evaluator(captions, embeddings, config, "validation")
    if new is None:
        log.warning("no validation images: the weights of the last step are saved, not the best ones")
    old = _evaluator(replay.captions, replay.embeddings, config, REPLAYED) if replay else None
    return MeanOfBoth(new, old) if new is not None and old is not None else new


def _evaluator(
    captions: Captions, embeddings: ImageEmbeddings, config: DistillConfig, name: str
) -> RetrievalEvaluator | None:
    """Returns the evaluator of a validation split, each image once; None where it has no images."""
    from turkish_clip.evaluator import RetrievalEvaluator

    rows = deduplicate(without_skipped(captions.rows.of_split("validation"), embeddings), embeddings)
    if not rows:
        return None
    return RetrievalEvaluator(
        [row.captions for row in rows],
        embeddings.unit_rows([row.image_id for row in rows]),
        name=name,
        batch_size=config.batch_size,
    )
