"""The set-up of a distillation run: checks of the machine, the inputs, and the trainer's arguments."""

from __future__ import annotations

import logging
import math
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from training.data.sources import Captions, read_captions
from training.distillation.computing import Computing, computing_of
from training.distillation.sharding import BatchSharding
from training.embeddings.manifest import MANIFEST
from training.embeddings.store import ImageEmbeddings, read_embeddings
from training.run.config import DistillConfig
from training.run.distributed import is_main_process, join_process_group, rank, world_size
from training.run.objectives import OBJECTIVES
from training.run.provenance import commit_of, sha256_of, sha256_of_texts
from training.run.recipe import ConfigError
from training.run.record import Duplicates, RunInputs
from turkish_clip.records import ImageModel

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformerTrainingArguments

    from training.pairs.dataset import Pairs

log = logging.getLogger("training")

FRESH = r"^(_orig_mod\.)?(model\.[12]\.linear\.|logit_scale$)"  # what the backbone lacks, by its names in the loss
COMPILERS = (os.environ.get("CXX", "g++"), "c++", "clang++", "cl")  # one of which torch.compile runs


def join_ranks(config: DistillConfig) -> None:
    """Checks the batch size and this machine, and joins the process group if there are several processes.

    Raises:
        InputError: a batch has fewer captions than shards, there is no compiler or no device for each process, or the
            processes can't connect.
    """
    parts = world_size() * config.gradient_accumulation
    if config.batch_size < parts:
        raise ConfigError(
            f"expected 'batch_size' of at least {parts} ({world_size()} processes × gradient_accumulation "
            f"{config.gradient_accumulation}), got {config.batch_size}; raise it, or lower those"
        )
    if config.compile and not any(map(shutil.which, COMPILERS)):
        raise ConfigError(
            f"expected a C++ compiler for 'compile', got none of {', '.join(COMPILERS)}; install one, or leave it out"
        )
    if OBJECTIVES[config.objective].needs_batch and config.gradient_accumulation > 1 and is_main_process():
        message = "%s: captions are compared with those of the micro-batch alone, not with those of the batch"
        log.warning(message, config.objective)
    from training.run.distributed import training_device

    device = training_device(config.device)
    if world_size() > 1:
        join_process_group(device)


def read_sources(config: DistillConfig) -> tuple[Captions, ImageEmbeddings]:
    """Reads the captions, and the embeddings of their images.

    Raises:
        SourceError: a source can't be read, or skips too much.
        EmbeddingsError: the image embeddings are missing, unfinished, damaged, or of another image model.
    """
    captions = read_captions(config, check_files=False)
    return captions, read_embeddings(
        config.embeddings_folder, image_model=config.image_model, revision=config.image_model_revision
    )


def inputs(
    config: DistillConfig, pairs: Pairs, embeddings: ImageEmbeddings, duplicates: Duplicates | None
) -> RunInputs:
    """Returns what the run depends on beside its configuration.

    Args:
        config: of the run.
        pairs: the captions and regression targets.
        embeddings: what the targets were made from.
        duplicates: counts of removed and repeated rows; None if unknown.
    """
    manifest = embeddings.manifest
    return RunInputs(
        captions_sha256=sha256_of_texts(pairs.texts),
        targets_sha256=pairs.targets_sha256,
        manifest_sha256=sha256_of(embeddings.folder / MANIFEST),
        backbone_revision=commit_of(*config.loaded_from),
        captions_revisions=tuple(
            commit_of(source.captions, source.captions_revision, "dataset") for source in config.all_sources
        ),
        image_model=ImageModel(manifest.image_model, manifest.revision, manifest.weights_sha256),
        duplicates=duplicates,
        exchanges_sha256=sha256_of(Path(config.exchanges)) if config.exchanges else "",
    )


def sharding_of(config: DistillConfig, captions: int) -> BatchSharding:
    """Returns how the batches are sharded over ranks and micro-batches.

    Args:
        config: gives the batch size and the number of micro-batches.
        captions: number of captions in an epoch.
    """
    return BatchSharding(captions, config.batch_size, world_size(), rank(), config.gradient_accumulation)


def training_arguments(
    config: DistillConfig,
    checkpoints: Path,
    captions: int,
    computing: Computing | None = None,
    *,
    evaluates: bool,
    loader_processes: int = 0,
) -> SentenceTransformerTrainingArguments:
    """Returns the configuration as the trainer's arguments; nothing else maps one onto the other.

    Args:
        config: of the run.
        checkpoints: folder of the checkpoints.
        captions: number of captions in an epoch.
        computing: how the device computes; None: as it is chosen for this machine.
        evaluates: whether there is a validation split, which then chooses the best weights.
        loader_processes: as in training/distillation/loader.py.
    """
    from sentence_transformers import SentenceTransformerTrainingArguments

    from training.distillation.batches import ShardedBatchSampler
    from training.distillation.loader import BATCHES_AHEAD

    computing = computing or computing_of(config)
    sharding = sharding_of(config, captions)
    steps = max(1, math.ceil(sharding.steps * config.epochs_of(sharding.steps)))
    if is_main_process():
        log.info("%d steps of %d captions: %.3g epochs", steps, config.batch_size, steps / sharding.steps)
        log.info("computing %s, %d processes that tokenise", computing, loader_processes)
    interval = math.ceil(steps / config.evaluations)
    return SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=sharding.largest_shard,
        gradient_accumulation_steps=sharding.micro_batches,
        batch_sampler=partial(ShardedBatchSampler, sharding=sharding, length_window=config.length_window),
        learning_rate=config.peak_learning_rate,
        learning_rate_mapping={FRESH: config.peak_dense_learning_rate},
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup_fraction * steps),
        weight_decay=config.weight_decay,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        load_best_model_at_end=evaluates,
        metric_for_best_model="eval_validation_mrr" if evaluates else None,
        greater_is_better=True,
        logging_steps=max(1, steps // 200),
        logging_first_step=True,
        prompts=config.prompt or None,
        bf16=computing.bf16,
        tf32=computing.tf32,
        **({"optim": computing.optimizer} if computing.optimizer else {}),
        torch_compile=config.compile,
        use_cpu=computing.device == "cpu",
        logging_nan_inf_filter=False,  # which would wait for the device at each step
        seed=config.seed,
        dataloader_pin_memory=computing.pinned,
        accelerator_config={"non_blocking": computing.pinned},
        dataloader_num_workers=loader_processes,
        dataloader_prefetch_factor=BATCHES_AHEAD if loader_processes else None,
        report_to="none",
    )
