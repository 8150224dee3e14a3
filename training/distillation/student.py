"""The text encoder that is trained: built with weights that the seed decides, and saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.run.config import DistillConfig
from training.run.distributed import is_main_process
from training.run.objectives import OBJECTIVES
from turkish_clip.dual_encoder import weights_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.distillation.dataset import Pairs
    from training.run.record import Run


def build_student(config: DistillConfig, pairs: Pairs, dim: int) -> SentenceTransformer:
    """The text encoder to train, with weights that the seed decides.

    Raises:
        ModelError: the backbone can't be loaded or does not fit.
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


def save(
    student: SentenceTransformer, run: Run, history: list[dict[str, Any]], trained_on: dict[str, int]
) -> dict[str, Any]:
    """Saves the model whole and closes run.json; returns what it recorded."""
    from turkish_clip.atomic import atomic_folder
    from turkish_clip.encoder import save_text_encoder

    with atomic_folder(run.model) as partial:
        save_text_encoder(student, partial)
    scores = [entry["eval_validation_mrr"] for entry in history if "eval_validation_mrr" in entry]
    summary = {
        "model": str(run.model),
        "weights_sha256": weights_sha256(student),
        "best_validation_mrr": max(scores) if scores else None,
        **trained_on,
        "train_seconds": next(
            (entry["train_runtime"] for entry in reversed(history) if "train_runtime" in entry), None
        ),
    }
    run.finish(summary)
    return summary
