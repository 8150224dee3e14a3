"""The temperature of a run's model, fitted on its validation pictures; how far its probabilities can be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from training.captions import Captions
from training.config import EvaluateConfig
from training.duplicates import once
from training.pairs import with_targets
from training.rows import Row
from training.targets import Targets
from training.temperature import (
    CHOICES,
    Choices,
    choices_among_captions,
    choices_among_labels,
    fit_temperature,
    reliability,
)
from turkish_clip.atomic import write_json
from turkish_clip.metrics import Relevance, Vectors
from turkish_clip.prompts import PHOTOGRAPHS, fill
from turkish_clip.towers import DEFAULT_TEMPERATURE
from turkish_clip.verify import RECORD
from turkish_clip.zero_shot import prompt_averages

Encode = Callable[[list[str]], Vectors]  # texts → (n, dim) float32 unit vectors


def calibrate(
    encode: Encode, captions: Captions, rows: Sequence[Row], targets: Targets, config: EvaluateConfig
) -> dict[str, Any]:
    """The temperature of zero-shot probabilities, fitted on the validation split; left beside the run's own model.

    It is measured on `rows`, those of the measured split.

    Pictures choose among the source's labels, put into the templates of zero-shot classification, where the rows have
    any; among captions where not, which tell more than a label does, so that the temperature comes out too sure for
    labels.

    Returns:
        `temperature`: its value, the pictures that it was fitted on, among what these chose, how many choices there
        were, and on the measured split the share of choices that are right, and how far probabilities can be believed
        with the default temperature (`before`) and with it (`after`); empty where either split has too few pictures.
    """
    fitted_on = once(with_targets(captions.rows.of_split("validation"), targets), targets)
    labels = list(dict.fromkeys(label for row in (*fitted_on, *rows) for label in row.labels))
    named = [[row for row in some if 0 < len(row.labels) < len(labels)] for some in (fitted_on, rows)]
    if min(map(len, named)) < CHOICES:
        labels = []
    else:
        fitted_on, rows = named
    choices_of = partial(_choices, encode, targets, labels)
    fitting, measured = choices_of(fitted_on), choices_of(rows)
    if fitting is None or measured is None:
        return {}
    temperature = round(fit_temperature(fitting), 6)
    if not config.model:
        write_json(config.folder / "model" / RECORD, {"temperature": temperature})
    found: dict[str, Any] = {
        "value": temperature,
        "pictures": len(fitted_on),
        "among": fitting.among,
        "choices": fitting.cosines.shape[1],
        "accuracy": reliability(measured, temperature)["accuracy"],
    }
    if config.split != "validation":  # on which it was fitted
        found["calibration"] = {
            "before": reliability(measured, DEFAULT_TEMPERATURE),
            "after": reliability(measured, temperature),
        }
    return {"temperature": found}


def _choices(encode: Encode, targets: Targets, labels: list[str], rows: Sequence[Row]) -> Choices | None:
    """What pictures choose among: labels if there are any, else captions; None where there are too few of them."""
    if len(rows) < CHOICES:
        return None
    pictures = targets.unit_rows([row.image_id for row in rows])
    if labels:
        vectors = prompt_averages(encode, [[fill(template, label) for template in PHOTOGRAPHS] for label in labels])
        return choices_among_labels(vectors, pictures, [[labels.index(label) for label in row.labels] for row in rows])
    relevance = Relevance.of([row.captions for row in rows])
    return choices_among_captions(relevance, encode(relevance.texts), pictures)
