"""What the captions of a picture should become: its label, made of its target and of its English captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.atomic import whole_file
from training.objectives import OBJECTIVES
from training.rows import CaptionsError, Row
from training.run_record import sha256_of_texts
from turkish_clip.metrics import Vectors, unit

if TYPE_CHECKING:
    from training.config import DistillConfig
    from training.targets import Targets

TEXTS_AT_ONCE = 256


def labels(rows: Sequence[Row], targets: Targets, config: DistillConfig) -> Vectors:
    """What the captions of each picture should become: (n, dim) float32, of norm 1 unless the objective is raw.

    A mix of two labels is their mean: the squared distances to both differ from the one to the mean by a constant.

    Raises:
        CaptionsError: the objective wants English captions, and a picture has none.
    """
    objective = OBJECTIVES[config.objective]
    wanted: Vectors = np.zeros((len(rows), targets.manifest.dim), np.float32)
    if objective.picture:
        wanted += np.float32(objective.picture) * targets.unit_rows([row.image_id for row in rows])
    if objective.text:
        wanted += np.float32(objective.text) * english_vectors(rows, targets, config, raw=objective.raw)
    if objective.centred:
        wanted -= wanted.mean(axis=0)
    return wanted if objective.raw else unit(wanted)


def english_vectors(rows: Sequence[Row], targets: Targets, config: DistillConfig, *, raw: bool) -> Vectors:
    """The mean of the image model's vectors of each picture's English captions: (n, dim) float32.

    They are computed once and kept beside the targets.

    Raises:
        CaptionsError: a picture has no English caption.
    """
    without = [row.image_id for row in rows if not row.english]
    if without:
        raise CaptionsError(
            f"expected English captions for objective {config.objective!r}, got none for {len(without)} of {len(rows)} "
            f"pictures, the first {without[0]!r}; name --english_columns, or choose objective mse"
        )
    texts = list(dict.fromkeys(text for row in rows for text in row.english))
    key = sha256_of_texts([targets.manifest.weights_sha256, str(raw), *texts])[:16]
    path = targets.folder / f"english-{key}.npy"
    if not path.is_file():
        vectors = _encode(texts, targets, config, raw)
        with whole_file(path) as partial, partial.open("wb") as stream:
            np.save(stream, vectors)
    vectors = np.load(path)
    row_of = {text: number for number, text in enumerate(texts)}
    return np.stack([vectors[[row_of[text] for text in row.english]].mean(axis=0) for row in rows])


def _encode(texts: list[str], targets: Targets, config: DistillConfig, raw: bool) -> Vectors:
    from training.teacher import load_teacher

    teacher = load_teacher(targets, config)
    if teacher is None:
        raise CaptionsError(
            f"expected an image model with a text tower for objective {config.objective!r}, got {config.image_model}, "
            "which has none; choose objective mse"
        )
    vectors = np.asarray(teacher.encode(texts, batch_size=TEXTS_AT_ONCE, show_progress_bar=False), np.float32)
    return vectors if raw else unit(vectors)
