"""python -m training.pretrain recipe.yaml: a small CLIP from scratch, on any captioned pictures."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.captions import read_captions
from training.command import print_result, quiet_hosts, run_command
from training.config import PretrainConfig, read
from training.duplicates import Apart, apart_by, digests_of_files, once_by
from training.objectives import INITIAL_LOGIT_SCALE
from training.row_table import SPLITS
from training.rows import CaptionsError, Row
from training.run_record import open_run, sha256_of_texts

if TYPE_CHECKING:
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer, TrainingArguments

log = logging.getLogger("training")
ACTIVATION = "gelu"  # one kernel; the three of quick_gelu cost a third of a step on a CPU
WORD_END = "</w>"  # CLIP's mark of a token that ends a word
ENCODE_AT_ONCE = 512  # opened pictures held in memory


def main(argv: list[str]) -> dict[str, Any]:
    """Trains, saves and measures a small CLIP; returns what it measured."""
    config = read(PretrainConfig, argv)
    run = open_run(config)
    if run.summary is not None:
        print_result(run.summary, config.json)
        return run.summary

    quiet_hosts()
    captions = read_captions(config)
    apart = apart_by(captions, digests_of_files(captions.rows, len(captions.rows)))
    captions = apart.captions
    texts = [text for row in captions.split("train") for text in row.captions]

    from transformers import Trainer

    from training.callbacks import ClampScale, KeepLog, TellEpoch, with_bar
    from training.clip_batches import ClipBatches
    from training.device import training_device
    from training.losses import clip_loss

    training_device(config.device)
    processor = build_processor(texts, config)
    model = build_clip(processor, config)
    batches = ClipBatches.read(captions, processor, run.folder / "pictures.npy", config)

    run.begin(captions_sha256=sha256_of_texts(texts), **apart.as_json())
    trainer = Trainer(
        model=model,
        args=training_arguments(config, run.checkpoints, len(batches)),
        train_dataset=batches,
        data_collator=batches.collate,
        compute_loss_func=clip_loss,
        callbacks=[TellEpoch(batches.set_epoch), KeepLog(run.folder / "log.jsonl"), ClampScale()],
    )
    with_bar(trainer).train(resume_from_checkpoint=run.last_checkpoint)

    save_clip(model, processor, run.model, half=config.half)
    (run.folder / "pictures.npy").unlink()
    results = {"model": str(run.model), "dataset": captions.name, **measure(run.model, apart, config)}
    write_card(run.model, results, config)
    run.finish(results)
    print_result(results, config.json)
    return results


def build_processor(texts: Sequence[str], config: PretrainConfig) -> CLIPProcessor:
    """CLIP's byte-level BPE tokenizer, learnt from the captions, and its picture processor at our size."""
    from transformers import CLIPImageProcessor, CLIPProcessor

    tokenizer = learn_bpe(texts, config.vocabulary, config.caption_tokens)
    half = [0.5, 0.5, 0.5]
    side = config.picture_size
    pictures = CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=half, image_std=half
    )
    return CLIPProcessor(image_processor=pictures, tokenizer=tokenizer)


def learn_bpe(texts: Sequence[str], size: int, max_tokens: int) -> CLIPTokenizer:
    """CLIP's byte-level BPE tokenizer over tokens learnt from texts; the same texts give the same tokens.

    As in `backbone`, the trainer would number the letters that end words in the order of a hash map; handing them
    over as its special tokens fixes their numbers, and with them the ties between merges.
    """
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    empty = CLIPTokenizer()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    first = [empty.bos_token, empty.eos_token, *letters, *(letter + WORD_END for letter in letters)]
    learner = Tokenizer(models.BPE(unk_token=empty.unk_token, end_of_word_suffix=WORD_END))
    learner.normalizer = empty.backend_tokenizer.normalizer
    learner.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=max(size, len(first)), special_tokens=first, end_of_word_suffix=WORD_END, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=max_tokens)


def build_clip(processor: CLIPProcessor, config: PretrainConfig) -> CLIPModel:
    """A CLIPModel of the configured size with fresh weights."""
    from transformers import CLIPConfig, CLIPModel, set_seed

    set_seed(config.seed)
    tokenizer = processor.tokenizer
    return CLIPModel(
        CLIPConfig(
            projection_dim=config.dim,
            logit_scale_init_value=INITIAL_LOGIT_SCALE,
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_act": ACTIVATION,
                "hidden_size": config.text_hidden,
                "intermediate_size": 2 * config.text_hidden,
                "num_hidden_layers": config.text_layers,
                "num_attention_heads": config.text_hidden // 32,
                "max_position_embeddings": config.caption_tokens,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
                "projection_dim": config.dim,
            },
            vision_config={
                "hidden_act": ACTIVATION,
                "hidden_size": config.vision_hidden,
                "intermediate_size": 4 * config.vision_hidden,
                "num_hidden_layers": config.vision_layers,
                "num_attention_heads": config.vision_hidden // 32,
                "image_size": config.picture_size,
                "patch_size": config.patch_size,
                "projection_dim": config.dim,
            },
        )
    )


def save_clip(model: CLIPModel, processor: CLIPProcessor, folder: Path, *, half: bool = False) -> None:
    """Saves the model as a folder that both transformers and SentenceTransformer load, as float32 in either case."""
    from turkish_clip.atomic import whole_folder

    weights = {name: tensor.half() if half else tensor for name, tensor in model.state_dict().items()}
    with whole_folder(folder) as partial:
        model.save_pretrained(partial, state_dict=weights)
        processor.save_pretrained(partial)


def training_arguments(config: PretrainConfig, checkpoints: Path, pictures: int) -> TrainingArguments:
    """Our configuration as the trainer's arguments: the only place that maps one onto the other."""
    from transformers import TrainingArguments

    steps = max(1, math.ceil(pictures / config.batch_size * config.epochs))
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup_fraction * steps),
        weight_decay=config.weight_decay,
        adam_beta2=0.98,  # Source: Radford et al. 2021, table 19
        save_steps=math.ceil(steps / config.evaluations),
        save_total_limit=2,
        logging_steps=max(1, steps // 100),
        bf16=config.bf16,
        use_cpu=config.device == "cpu",
        seed=config.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        dataloader_drop_last=pictures > config.batch_size,  # a short batch has fewer pictures to be told from
        report_to="none",
    )


def measure(folder: Path, apart: Apart, config: PretrainConfig) -> dict[str, Any]:
    """Loads the saved model as a reader would and measures it on the validation and test splits, each picture once.

    Returns:
        Per split: images, captions, text_to_image and image_to_text, as in results.json.
    """
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from training.device import device_of
    from turkish_clip.metrics import Relevance, unit

    model = SentenceTransformer(str(folder), device=device_of(config.device))
    captions, digests = apart.captions, apart.digests
    results: dict[str, Any] = {}
    for split in ("validation", "test"):
        places = np.flatnonzero(captions.rows.splits == SPLITS.index(split))
        if not len(places):
            continue
        rows = once_by(captions.rows.take(places), digests[places])
        kept, vectors = [], []
        for some in opened(rows, config.picture_size):
            kept += [row for row, _ in some]
            vectors.append(model.encode([picture for _, picture in some], show_progress_bar=False))
        if not kept:
            raise CaptionsError(f"expected {split} pictures that open in {captions.name}, got none of {len(rows)}")
        relevance = Relevance.of([row.captions for row in kept])
        pictures = unit(np.concatenate(vectors))
        texts = unit(model.encode(relevance.texts, show_progress_bar=False))
        results[split] = {
            "images": len(kept),
            "captions": len(relevance.texts),
            "text_to_image": asdict(relevance.text_to_image(texts, pictures, bootstrap_samples=1000)),
            "image_to_text": asdict(relevance.image_to_text(texts, pictures, bootstrap_samples=1000)),
        }
    return results


def write_card(folder: Path, results: dict[str, Any], config: PretrainConfig) -> None:
    """Puts results.json and a README with its figures beside the weights."""
    from turkish_clip.atomic import write_json, write_text

    write_json(folder / "results.json", results)
    lines = [
        f"A small CLIP trained from scratch on {results['dataset']}: {config.picture_size}-pixel pictures, "
        f"{config.dim}-wide vectors, captions of at most {config.caption_tokens} tokens.",
        "Loads with `SentenceTransformer(folder)` and with transformers' `CLIPModel`.",
        "",
        "| split | pictures | captions | direction | recall@1 | recall@5 | recall@10 |",
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


def opened(rows: Sequence[Row], side: int) -> Iterator[list[tuple[Row, Image.Image]]]:
    """Rows with their pictures, some at a time; those that do not open are passed over with a warning."""
    from turkish_clip.images import ImageError

    for start in range(0, len(rows), ENCODE_AT_ONCE):
        some = []
        for row in rows[start : start + ENCODE_AT_ONCE]:
            try:
                some.append((row, row.open(min_side=side)))
            except ImageError as error:
                log.warning("left out: %s", error)
        if some:
            yield some


if __name__ == "__main__":
    run_command(main)
