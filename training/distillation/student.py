"""The text encoder that is trained: how it is built, and how it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.run.config import DistillConfig
from training.run.distributed import is_main_process
from training.run.objectives import OBJECTIVES
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.verify import RECORD, ModelRecord

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.pairs.dataset import Pairs
    from training.run.record import Run, RunInputs


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


def save(
    student: SentenceTransformer,
    config: DistillConfig,
    run: Run,
    inputs: RunInputs,
    history: list[dict[str, Any]],
    trained_on: dict[str, int | float | None],
) -> dict[str, Any]:
    """Saves the model with its record, atomically, and finishes run.json; returns the summary recorded there.

    Args:
        student: the trained text encoder.
        config: of the run.
        run: its run.
        inputs: of the run; they name the image model.
        history: the trainer's log.
        trained_on: counts and the closed form's figures, for the summary.
    """
    from turkish_clip.atomic import atomic_folder
    from turkish_clip.encoder import save_text_encoder

    weights = weights_sha256(student)
    dim = int(student.get_embedding_dimension() or 0)
    record = ModelRecord(
        kind="text",
        dim=dim,
        max_tokens=int(student.max_seq_length or 0),
        weights_sha256=weights,
        image_model=dict(vars(inputs.image_model)) if inputs.image_model else {},
        matryoshka=sorted({width for width in config.matryoshka if width < dim}, reverse=True) or None,
    )
    with atomic_folder(run.model) as partial:
        save_text_encoder(student, partial)
        (partial / RECORD).write_text(record.to_json(), encoding="utf-8")
    start = trained_on.get("closed_form_validation_mrr")
    scores = [entry["eval_validation_mrr"] for entry in history if "eval_validation_mrr" in entry]
    seconds = [entry["train_runtime"] for entry in history if "train_runtime" in entry]
    summary = {
        "model": str(run.model),
        "weights_sha256": weights,
        **trained_on,
        "best_validation_mrr": max((score for score in (*scores, start) if score is not None), default=None),
        "train_seconds": seconds[-1] if seconds else None,
    }
    run.finish(summary)
    return summary
