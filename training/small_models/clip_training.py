"""Training and evaluation of a small CLIP: the trainer's arguments, the retrieval metrics and the README."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from training.data.duplicates import DisjointSplits, deduplicate_by_digest
from training.data.samples import SPLITS, Row
from training.run.config import AutoencoderConfig, DecoderConfig, PretrainConfig
from training.run.source import SourceError

if TYPE_CHECKING:
    from PIL import Image
    from transformers import TrainingArguments

log = logging.getLogger("training")
SmallModelConfig: TypeAlias = PretrainConfig | AutoencoderConfig | DecoderConfig

LOADS = {
    "vit": "Loads with `SentenceTransformer(folder)` and with transformers' `CLIPModel`.",
    "resnet": "Its image tower is a ResNet. Loads with `SentenceTransformer(folder)`.",
}
ENCODE_AT_ONCE = 512  # decoded images held in memory


def reading_negatives(config: PretrainConfig) -> PretrainConfig:
    """Returns the configuration by which sources are read: hard negatives take the place of English captions.

    Pretraining has no other use for those, and they are put beside the captions by the same rule.
    """
    if not config.negative_columns:
        return config
    columns = config.negative_columns
    sources = tuple(replace(source, english_columns=columns) for source in config.sources)
    return replace(config, english_columns=columns, sources=sources)


def training_arguments(config: PretrainConfig, checkpoints: Path, images: int) -> TrainingArguments:
    """Returns the trainer's arguments; nothing else maps the configuration onto them.

    Args:
        config: of the run.
        checkpoints: the trainer's output folder.
        images: number of training images, one caption of each in an epoch.
    """
    steps = steps_of(config, images)
    return arguments_of_small_models(
        config,
        checkpoints,
        steps,
        warmup_steps=round(config.warmup_fraction * steps),
        weight_decay=config.weight_decay,
        adam_beta2=0.98,  # Source: Radford et al. 2021, table 19
        dataloader_drop_last=images > config.batch_size,  # a smaller batch has fewer negatives
    )


def steps_of(config: SmallModelConfig, images: int) -> int:
    """Returns the number of optimizer steps of a training.

    Args:
        config: of the run.
        images: number of training images.
    """
    return max(1, math.ceil(images / config.batch_size * config.epochs))


def arguments_of_small_models(
    config: SmallModelConfig, checkpoints: Path, steps: int, **more: Any
) -> TrainingArguments:
    """Returns the trainer's arguments that the trainings on decoded images have in common.

    Args:
        config: of the run.
        checkpoints: the trainer's output folder.
        steps: from `steps_of`.
        more: other arguments.
    """
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        save_steps=math.ceil(steps / config.evaluations),
        logging_steps=max(1, steps // 100),
        bf16=config.bf16,
        use_cpu=config.device == "cpu",
        seed=config.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to="none",
        **more,
    )


def evaluate_clip(folder: Path, disjoint: DisjointSplits, config: PretrainConfig) -> dict[str, Any]:
    """Loads the saved model as its users do, and measures retrieval on the validation and test splits, each image once.

    Args:
        folder: of the saved model.
        disjoint: captions and the digests of their images.
        config: has the image size and the device.

    Returns:
        For each split that has rows: images, captions, text_to_image and image_to_text, as in results.json.

    Raises:
        SourceError: no image of a split opens.
    """
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from training.run.distributed import device_of
    from turkish_clip.encoder import as_texts
    from turkish_clip.metrics import Relevance, unit

    model = SentenceTransformer(str(folder), device=device_of(config.device))
    captions, digests = disjoint.captions, disjoint.digests
    results: dict[str, Any] = {}
    for split in ("validation", "test"):
        places = np.flatnonzero(captions.rows.splits == SPLITS.index(split))
        if not len(places):
            continue
        rows = deduplicate_by_digest(captions.rows.take(places), digests[places])
        opened, vectors = [], []
        for batch in _opened_batches(rows, config.image_size):
            opened += [row for row, _ in batch]
            vectors.append(model.encode([image for _, image in batch], show_progress_bar=False))
        if not opened:
            raise SourceError(f"expected {split} images that open in {captions.name}, got none of {len(rows)}")
        relevance = Relevance.from_captions([row.captions for row in opened])
        images = unit(np.concatenate(vectors))
        texts = unit(model.encode(as_texts(model, relevance.texts), show_progress_bar=False))
        results[split] = {
            "images": len(opened),
            "captions": len(relevance.texts),
            "text_to_image": asdict(relevance.text_to_image(texts, images, bootstrap_samples=1000)),
            "image_to_text": asdict(relevance.image_to_text(texts, images, bootstrap_samples=1000)),
        }
    return results


def write_card(folder: Path, results: dict[str, Any], config: PretrainConfig) -> None:
    """Writes results.json, and a README with the recalls, into the model's folder.

    Args:
        folder: of the saved model.
        results: of `evaluate_clip`, with the names of model and dataset.
        config: of the run.
    """
    from turkish_clip.atomic import write_json, write_text

    write_json(folder / "results.json", results)
    lines = [
        f"A small CLIP trained from scratch on {results['dataset']}: {config.image_size}-pixel images, "
        f"{config.dim}-wide vectors, captions of at most {config.caption_tokens} tokens.",
        LOADS[config.image_tower],
        "",
        "| split | images | captions | direction | recall@1 | recall@5 | recall@10 |",
        "|---|---|---|---|---|---|---|",
    ]
    for split in ("validation", "test"):
        measured = results.get(split, {})
        for direction in ("text_to_image", "image_to_text"):
            if measured:
                recalls = " | ".join(f"{measured[direction][f'recall_at_{k}']:.4f}" for k in (1, 5, 10))
                counts = f"{measured['images']} | {measured['captions']}"
                lines.append(f"| {split} | {counts} | {direction.replace('_', ' ')} | {recalls} |")
    write_text(folder / "README.md", "\n".join(lines) + "\n")


def _opened_batches(rows: Sequence[Row], side: int) -> Iterator[list[tuple[Row, Image.Image]]]:
    """Yields batches of rows with their decoded images; those that do not open are left out with a warning."""
    from turkish_clip.images import ImageError

    for start in range(0, len(rows), ENCODE_AT_ONCE):
        batch = []
        for row in rows[start : start + ENCODE_AT_ONCE]:
            try:
                batch.append((row, row.open(min_side=side)))
            except ImageError as error:
                log.warning("left out: %s", error)
        if batch:
            yield batch
