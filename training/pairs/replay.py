"""Replay: captions that a published text encoder was trained on are trained on again while it learns new ones.

Source: Rolnick et al., Experience Replay for Continual Learning, 2019: old examples mixed into every batch are the
plainest remedy against forgetting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from training.data.sources import Captions, read_captions
from training.embeddings.manifest import EmbeddingsError
from training.embeddings.store import ImageEmbeddings, read_embeddings, remove_cross_split_duplicates
from training.pairs.targets import regression_targets
from training.run.config import DistillConfig, read
from training.run.objectives import OBJECTIVES
from training.run.temp_storage import unnamed_array
from turkish_clip.metrics import Vectors

REPLAY = "(replay)"  # the source of replayed captions in the sampling weights; no source has this name


@dataclass(frozen=True)
class Replay:
    """The captions to replay, and the embeddings of their images.

    Attributes:
        captions: all splits of the old sources.
        embeddings: of their images, by the same image model as those of the new ones.
    """

    captions: Captions
    embeddings: ImageEmbeddings


def read_replay(config: DistillConfig, embeddings: ImageEmbeddings) -> Replay | None:
    """Reads the sources and embeddings of the recipe or run that `replay` names; returns None where it names none.

    Args:
        config: of the fine-tuning.
        embeddings: of the new images.

    Raises:
        ConfigError: there is no such recipe or run.
        SourceError: its sources can't be read.
        EmbeddingsError: its embeddings are missing, or by another image model.
    """
    if not config.replay:
        return None
    old = read(DistillConfig, [config.replay])
    stored = read_embeddings(old.embeddings_folder)
    if stored.manifest.weights_sha256 != embeddings.manifest.weights_sha256:
        raise EmbeddingsError(
            f"expected 'replay' of the same image model, got embeddings of {stored.manifest.image_model} with other "
            f"weights in {stored.folder}; embed those images again, or leave replay out"
        )
    return Replay(remove_cross_split_duplicates(read_captions(old, check_files=False), stored).captions, stored)


def with_replayed(targets: Vectors, replay: Replay, config: DistillConfig) -> Vectors:
    """Returns regression targets followed by one for each replayed caption, memory-mapped: (n + k, dim) float32.

    Args:
        targets: (n, dim) of the new captions.
        replay: the old captions.
        config: names the objective and the folder of temporary files.

    Raises:
        SourceError: the objective needs English captions that the old sources lack.
    """
    rows = replay.captions.split("train")
    old = regression_targets(rows, replay.embeddings, replace(config, text_shift=False))
    counts = [len(row.captions) for row in rows]
    numbers = np.arange(len(old)) if OBJECTIVES[config.objective].aligned else np.repeat(np.arange(len(rows)), counts)
    joined: Vectors = unnamed_array((len(targets) + len(numbers), targets.shape[1]), np.float32, config.folder)
    joined[: len(targets)] = targets
    joined[len(targets) :] = old[numbers]
    return joined


def replay_weight(new: float, old: int, fraction: float) -> float:
    """Returns how often an epoch sees each old caption on average, so that they are the fraction of all it sees.

    >>> replay_weight(new=200, old=1000, fraction=0.5)
    0.2

    Args:
        new: number of new captions that an epoch sees.
        old: number of old captions.
        fraction: of the captions of an epoch, below 1.
    """
    return new * fraction / (1 - fraction) / old
