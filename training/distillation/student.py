"""The text encoder that is trained: how it is built, and how it is saved."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.run.config import DistillConfig
from training.run.distributed import is_main_process
from training.run.objectives import OBJECTIVES
from turkish_clip.bank import MIN_TEXTS, BankError, TextBank, write_bank
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.metrics import Vectors, unit
from turkish_clip.verify import RECORD, ModelRecord

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.pairs.dataset import Pairs
    from training.run.record import Run, RunInputs

log = logging.getLogger("training")


def build_student(config: DistillConfig, pairs: Pairs, dim: int) -> SentenceTransformer:
    """Builds the text encoder to train, with weights that the seed decides.

    Args:
        config: gives the backbone, its size if it is trained from scratch, the objective and the seed.
        pairs: their captions give a backbone from scratch its vocabulary.
        dim: width of the image embeddings.

    Raises:
        ModelError: the backbone can't be loaded or is not suitable.
    """
    from transformers import set_seed

    from training.run.distributed import device_of
    from training.small_models.models import write_scratch_backbone
    from turkish_clip.encoder import build_text_encoder

    backbone: str | Path = config.backbone
    if backbone == "scratch":
        backbone = config.folder / "backbone"
        if is_main_process():
            write_scratch_backbone(backbone, pairs.texts, config)
    set_seed(config.seed)
    student = build_text_encoder(
        backbone,
        dim=dim,
        max_tokens=config.max_tokens,
        revision=config.backbone_revision or None,
        device=device_of(config.device),
        normalise=not OBJECTIVES[config.objective].raw,
    )
    student.model_card_data.widget = [{"text": "karda oynayan iki köpek"}]  # given, so the trainer computes none
    return student


def text_bank(student: SentenceTransformer, texts: Iterable[str], weights: str) -> TextBank | None:
    """Returns the text bank of a text encoder, of a part of its training captions; None, with a line, if they are few.

    Args:
        student: the trained text encoder.
        texts: its training captions.
        weights: the hash of its weights.
    """

    def encode(drawn: list[str]) -> Vectors:
        return unit(student.encode(drawn, batch_size=64, show_progress_bar=False))

    try:
        return TextBank.of(texts, encode, int(student.get_embedding_dimension() or 0), weights)
    except BankError:
        log.info("fewer than %d different captions: no text bank, so that an index does not correct hubs", MIN_TEXTS)
        return None


def save(
    student: SentenceTransformer,
    run: Run,
    inputs: RunInputs,
    history: list[dict[str, Any]],
    trained_on: dict[str, int],
    texts: Iterable[str],
) -> dict[str, Any]:
    """Saves the model with its record and its text bank, atomically, and finishes run.json; returns its summary.

    Args:
        student: the trained text encoder.
        run: its run.
        inputs: of the run; they name the image model.
        history: the trainer's log.
        trained_on: counts for the summary.
        texts: the training captions.
    """
    from turkish_clip.atomic import atomic_folder
    from turkish_clip.encoder import save_text_encoder

    weights = weights_sha256(student)
    bank = text_bank(student, texts, weights)
    record = ModelRecord(
        kind="text",
        dim=int(student.get_embedding_dimension() or 0),
        max_tokens=int(student.max_seq_length or 0),
        weights_sha256=weights,
        image_model=dict(vars(inputs.image_model)) if inputs.image_model else {},
        bank=None if bank is None else bank.describe(),
    )
    with atomic_folder(run.model) as partial:
        save_text_encoder(student, partial)
        if bank is not None:
            write_bank(partial, bank)
        (partial / RECORD).write_text(record.to_json(), encoding="utf-8")
    scores = [entry["eval_validation_mrr"] for entry in history if "eval_validation_mrr" in entry]
    seconds = [entry["train_runtime"] for entry in history if "train_runtime" in entry]
    summary = {
        "model": str(run.model),
        "weights_sha256": weights,
        "best_validation_mrr": max(scores, default=None),
        **trained_on,
        "train_seconds": seconds[-1] if seconds else None,
    }
    run.finish(summary)
    return summary
