"""The image model with its own text tower: the ceiling that evaluate measures, and the labels of some objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.run_record import RunError
from turkish_clip.towers import weights_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.config import TargetsConfig
    from training.targets import Targets


def load_teacher(targets: Targets, config: TargetsConfig) -> SentenceTransformer | None:
    """The image model that the targets are of; None where it has no text tower.

    Raises:
        RunError: it is no longer the one that the targets are of.
    """
    from training.device import device_of
    from turkish_clip.encoder import load_model

    device = device_of(config.device)
    teacher = load_model(config.image_model, revision=config.image_model_revision, device=device)
    if weights_sha256(teacher) != targets.manifest.weights_sha256:
        raise RunError(
            f"expected the image model that {targets.folder} was made with, got other weights in {config.image_model}; "
            "embed again with another --targets"
        )
    return teacher if teacher.supports("text") else None
