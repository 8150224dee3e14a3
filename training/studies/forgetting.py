"""continual.json and continual.html: what is known of each subject after each, and what of it was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from training.evaluation.report import fill_page
from training.run.config import JOINT, NAIVE, REPLAYED
from training.studies.ablation import COLOURS, TEMPLATES
from training.studies.subjects import Subject
from turkish_clip.metrics import METRIC_LABELS, Retrieval

SHOWN = ("recall_at_1", "recall_at_10")  # metrics with a matrix on the page
PLOT = (440, 220)  # width and height
TITLES = {
    NAIVE: "without replay",
    REPLAYED: "with replay of the earlier subjects",
    JOINT: "all subjects at once",
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of the study, as stage.json has it.

    Attributes:
        options: of the training.
        manifest_sha256: hash of the manifest of the image embeddings.
        rows_sha256: hash of the table of all subjects.
        known: text → image retrieval of each subject's captions among the measured images of all subjects.
        steps: optimizer steps.
        train_seconds: None for a resumed training, of which they are unknown.
    """

    FORMAT: ClassVar[int] = 1

    options: dict[str, Any]
    manifest_sha256: str
    rows_sha256: str
    known: tuple[Retrieval, ...]
    steps: int
    train_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a matrix says in a few figures, as `summarise` reckons them.

    Attributes:
        average: of what is known of all subjects at the end.
        backward_transfer: how much more is known of a subject at the end than just after it was learnt; below 0:
            forgotten. None where all are learnt at once, as the next two.
        forgetting: how much less is known of a subject at the end than at the best time before.
        forward_transfer: how much more than by chance is known of a subject just before it is learnt.
    """

    average: float
    backward_transfer: float | None = None
    forgetting: float | None = None
    forward_transfer: float | None = None


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What one way of learning led to.

    Attributes:
        known: the matrix: after each subject, what is known of each; of all at once one row.
        steps: optimizer steps of each row.
        train_seconds: of each row; None for a resumed training.
        summary: by the metric's name; empty until all subjects are learnt.
    """

    known: tuple[tuple[Retrieval, ...], ...]
    steps: tuple[int, ...]
    train_seconds: tuple[float | None, ...]
    summary: dict[str, Summary] = field(default_factory=dict)

    @classmethod
    def of(cls, stages: Sequence[Stage], subjects: Sequence[Subject], finished: bool) -> Learnt:
        """Joins the trainings of one way of learning.

        Args:
            stages: those that are measured, in order.
            subjects: of the sequence.
            finished: whether no training is missing.
        """
        known = tuple(stage.known for stage in stages)
        summary = {}
        if finished:
            for name in METRIC_LABELS:
                chance = [subject.chance[name] for subject in subjects] if name in subjects[0].chance else None
                summary[name] = summarise([[getattr(one, name) for one in row] for row in known], chance)
        seconds = tuple(stage.train_seconds for stage in stages)
        return cls(known=known, steps=tuple(stage.steps for stage in stages), train_seconds=seconds, summary=summary)


@dataclass(frozen=True, kw_only=True)
class Continual:
    """What continual.json holds; metrics are fractions of 1.

    Attributes:
        images: number of distinct images of all subjects that are measured, among which captions find theirs.
        captions: number of their distinct captions.
        left_out: number of images, of all splits, that show labels of several subjects or of none.
        replay_fraction: of the captions of an epoch, with replay.
        methods: by their names in the option `methods`; those that were trained so far.
    """

    FORMAT: ClassVar[int] = 1

    dataset: str
    image_model: str
    split: str
    images: int
    captions: int
    subjects: tuple[Subject, ...]
    left_out: int
    replay_fraction: float
    methods: dict[str, Learnt]


def summarise(matrix: Sequence[Sequence[float]], chance: Sequence[float] | None = None) -> Summary:
    """Returns the average, the transfers and the forgetting of a matrix R, where R[i][j] is known of j after i.

    Of T subjects: the average is the mean of R[T][j]; backward transfer the mean of R[T][j] − R[j][j] over all but the
    last; forward transfer the mean of R[j−1][j] − chance[j] over all but the first (Lopez-Paz and Ranzato, Gradient
    Episodic Memory for Continual Learning, NeurIPS 2017, section 2; chance stands for the untrained model). Forgetting
    is the mean of max over i < T of R[i][j], less R[T][j], over all but the last (Chaudhry et al., Riemannian Walk for
    Incremental Learning, ECCV 2018, section 3).

    >>> found = summarise([[0.8, 0.1], [0.5, 0.9]], [0.05, 0.05])
    >>> found.average, round(found.backward_transfer, 6), round(found.forgetting, 6), found.forward_transfer
    (0.7, -0.3, 0.3, 0.05)

    Args:
        matrix: a row for each subject; a single one of subjects that were learnt at once has an average alone.
        chance: what an untrained model knows of each subject; None leaves the forward transfer out.
    """
    last, count = matrix[-1], len(matrix[-1])
    average = sum(last) / count
    if len(matrix) < count or count < 2:
        return Summary(average=average)
    before = range(count - 1)
    ahead = None
    if chance is not None:
        ahead = sum(matrix[subject][subject + 1] - chance[subject + 1] for subject in before) / (count - 1)
    return Summary(
        average=average,
        backward_transfer=sum(last[subject] - matrix[subject][subject] for subject in before) / (count - 1),
        forgetting=sum(max(row[subject] for row in matrix[:-1]) - last[subject] for subject in before) / (count - 1),
        forward_transfer=ahead,
    )


def write_page(path: Path, result: Continual) -> None:
    """Writes continual.html atomically: the matrices as heat maps, their summaries, and a plot of the averages.

    Args:
        path: of the page.
        result: what is measured so far.
    """
    fill_page(
        path,
        TEMPLATES / "continual.html.jinja",
        result=result,
        titles=TITLES,
        shown={name: METRIC_LABELS[name] for name in SHOWN},
        joint=JOINT,
        colours=dict(zip(TITLES, COLOURS)),
        plots={name: plot(result, name) for name in SHOWN},
        size=PLOT,
    )


def plot(result: Continual, metric: str) -> dict[str, list[tuple[float, float]]]:
    """Returns for each way of learning points in SVG coordinates: the average over all subjects after each of them.

    All subjects at once are a level line.

    Args:
        result: what is measured so far.
        metric: the field of `Retrieval` that is plotted.
    """
    lines = {}
    step = PLOT[0] / max(1, len(result.subjects) - 1)
    for name, learnt in result.methods.items():
        means = [sum(getattr(one, metric) for one in row) / len(row) for row in learnt.known]
        level = name == JOINT
        heights = [PLOT[1] * (1 - mean) for mean in (means * len(result.subjects) if level else means)]
        lines[name] = [(round(number * step, 1), round(height, 1)) for number, height in enumerate(heights)]
    return lines
