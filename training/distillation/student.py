"""The text encoder that is trained: how it is built, and how it is saved."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.run.config import SCRATCH, STATIC, DistillConfig
from training.run.distributed import is_main_process
from training.run.objectives import OBJECTIVES
from training.run.record import locate_model
from turkish_clip.bank import MIN_TEXTS, BankError, TextBank, write_bank
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.metrics import Vectors, unit
from turkish_clip.verify import RECORD, ModelRecord

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.embeddings.manifest import Manifest
    from training.pairs.dataset import Pairs
    from training.run.record import Run, RunInputs

WIDGET = [{"text": "karda oynayan iki köpek"}]  # for the trainer's card, which would compute one
log = logging.getLogger("training")


def build_student(config: DistillConfig, pairs: Pairs, manifest: Manifest) -> SentenceTransformer:
    """Builds the text encoder to train, with weights that the seed decides, or loads the one to go on from.

    Args:
        config: gives the backbone, its size if it is trained from scratch, the objective and the seed.
        pairs: their captions give a backbone from scratch its vocabulary.
        manifest: of the image embeddings: their width, and the weights of their image model.

    Raises:
        ConfigError: a shorter width is larger than that of the embeddings.
        ModelError: the backbone or the text encoder to go on from can't be loaded or is not suitable.
    """
    from transformers import set_seed

    from training.run.distributed import device_of
    from training.small_models.models import write_scratch_backbone
    from training.small_models.static import build_static_encoder, write_static_backbone
    from training.small_models.word_vectors import write_word_backbone
    from turkish_clip.encoder import build_text_encoder

    config.shorter_widths(manifest.dim)
    if config.init:
        return _load_init(config, manifest)
    source, revision = config.loaded_from
    backbone: str | Path = source
    if source == SCRATCH:
        backbone = config.folder / "backbone"
        if is_main_process():
            write_scratch_backbone(backbone, pairs.texts, config)
    normalise = not OBJECTIVES[config.objective].raw
    if config.backbone == STATIC:
        if is_main_process():
            if config.word_vectors:
                write_word_backbone(config, pairs.texts)
            else:
                write_static_backbone(config, pairs.texts, str(backbone))
        student = build_static_encoder(config, manifest.dim, normalise=normalise)
    else:
        set_seed(config.seed)
        student = build_text_encoder(
            locate_model(str(backbone), config.folder),
            dim=manifest.dim,
            max_tokens=config.max_tokens,
            revision=revision or None,
            device=device_of(config.device),
            normalise=normalise,
            prompt=config.prompt,
            pooling=config.pooling,
        )
    student.model_card_data.widget = WIDGET
    return student


def _load_init(config: DistillConfig, manifest: Manifest) -> SentenceTransformer:
    """Loads the text encoder to go on from, its Dense layer included; its dropout is as it was trained.

    Raises:
        ModelError: it is no text encoder as this project makes them, or of another width, prompt or image model.
    """
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
    from transformers import set_seed

    from training.run.distributed import device_of
    from turkish_clip.encoder import ModelError, load_model, max_tokens_of, prompt_of
    from turkish_clip.resolve import resolve_models

    spec = resolve_models(locate_model(config.init, config.folder), None, revision=config.init_revision or None)
    set_seed(config.seed)
    student = load_model(spec.text, revision=spec.revision or None, device=device_of(config.device))
    modules = list(student.children())
    static = isinstance(modules[0], StaticEmbedding)
    kinds = (StaticEmbedding, Dense, Normalize) if static else (Transformer, Pooling, Dense, Normalize)
    if len(kinds) - len(modules) not in (0, 1) or not all(map(isinstance, modules, kinds)):
        found = ", ".join(type(module).__name__ for module in modules)
        raise ModelError(
            f"expected a text encoder of Transformer, Pooling, Dense and Normalize for 'init', got {config.init} with "
            f"{found}; name one that training.distill made"
        )
    if static != (config.backbone == STATIC):
        raise ModelError(
            f"expected 'backbone' {STATIC} beside an 'init' that is static, and no other, got {config.backbone} with "
            f"{config.init}; {f'add --backbone {STATIC}' if static else 'leave it out'}"
        )
    if student.get_embedding_dimension() != manifest.dim:
        raise ModelError(
            f"expected a text encoder of width {manifest.dim}, that of the image embeddings, got {config.init} with "
            f"{student.get_embedding_dimension()}; embed with the image model that it was trained for"
        )
    trained_for = (spec.record.image_model if spec.record else {}).get("weights_sha256")
    if trained_for and manifest.weights_sha256 and trained_for != manifest.weights_sha256:
        raise ModelError(
            f"expected embeddings of the image model that {config.init} was trained for, got those of "
            f"{manifest.image_model} with other weights; embed with the image model that its card names"
        )
    pooling = "mean" if static else modules[1].pooling_mode
    if pooling not in (config.pooling, (config.pooling,)):
        raise ModelError(
            f"expected the pooling that {config.init} was trained with, {pooling}, got {config.pooling}; give it as "
            "--pooling"
        )
    if prompt_of(student) != config.prompt:
        raise ModelError(
            f"expected the prompt that {config.init} was trained with, {prompt_of(student)!r}, got {config.prompt!r}; "
            "give it as --prompt"
        )
    if not static:
        student.max_seq_length = min(config.max_tokens, max_tokens_of(student) or config.max_tokens)
    student.model_card_data.widget = WIDGET
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
    config: DistillConfig,
    run: Run,
    inputs: RunInputs,
    history: list[dict[str, Any]],
    trained_on: dict[str, int | float | None],
    texts: Iterable[str],
) -> dict[str, Any]:
    """Saves the model with its record and its text bank, atomically, and finishes run.json; returns its summary.

    Args:
        student: the trained text encoder.
        config: of the run.
        run: its run.
        inputs: of the run; they name the image model.
        history: the trainer's log.
        trained_on: counts and the closed form's figures, for the summary.
        texts: the training captions.
    """
    from turkish_clip.atomic import atomic_folder
    from turkish_clip.encoder import max_tokens_of, save_text_encoder

    weights = weights_sha256(student)
    dim = int(student.get_embedding_dimension() or 0)
    bank = text_bank(student, texts, weights)
    record = ModelRecord(
        kind="text",
        dim=dim,
        max_tokens=max_tokens_of(student),
        weights_sha256=weights,
        image_model=dict(vars(inputs.image_model)) if inputs.image_model else {},
        matryoshka=list(config.shorter_widths(dim)) or None,
        bank=None if bank is None else bank.describe(),
    )
    with atomic_folder(run.model, RECORD) as partial:
        save_text_encoder(student, partial)
        if bank is not None:
            write_bank(partial, bank)
        (partial / RECORD).write_text(record.to_json(), encoding="utf-8")
    start = trained_on.get("closed_form_validation_mrr")
    scores = [entry["eval_validation_mrr"] for entry in history if "eval_validation_mrr" in entry]
    seconds = [entry["train_runtime"] for entry in history if "train_runtime" in entry]
    summary = {
        "model": str(run.model),
        "weights_sha256": weights,
        **trained_on,
        "steps": max((entry["step"] for entry in history), default=0),
        "epochs": max((entry["epoch"] for entry in history), default=0),
        "best_validation_mrr": max((score for score in (*scores, start) if score is not None), default=None),
        "train_seconds": seconds[-1] if seconds else None,
    }
    run.finish(summary)
    return summary
