"""The subjects of a sequence: groups of labels, and the images that show one of them alone."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from training.data.samples import Row
from training.run.config import ContinualConfig
from training.run.record import RunError
from turkish_clip.atomic import atomic_write
from turkish_clip.strict_json import json_text
from turkish_clip.text import alphabetical

SPLITS = ("train", "validation")  # that a text encoder learns a subject from


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One subject of a sequence.

    Attributes:
        labels: what its images show.
        train_images: number of images that it is learnt from.
        train_captions: number of their captions.
        images: number of distinct images that it is measured on.
        captions: number of their distinct captions.
        chance: recall of a random order, by the metric's name.
    """

    labels: tuple[str, ...]
    train_images: int = 0
    train_captions: int = 0
    images: int = 0
    captions: int = 0
    chance: dict[str, float]

    @property
    def name(self) -> str:
        """Its labels as people read them."""
        return ", ".join(self.labels)


def divide(labels: Iterable[str], config: ContinualConfig) -> list[tuple[str, ...]]:
    """Returns the labels of each subject: as configured, or all labels in groups of nearly equal size.

    Args:
        labels: of the images that are trained on; repeated ones count once.
        config: gives the subjects, or their number.

    Raises:
        RunError: a subject has a label that no image has or that another subject has, or there are too few labels.
    """
    known = sorted(set(labels), key=alphabetical)
    if not config.subjects:
        count, total = config.subject_count, len(known)
        if total < count:
            raise RunError(
                f"expected {count} labels or more for {count} subjects, got {total} in {config.source_names}; name "
                "their column with --label_column, or lower --subject_count"
            )
        ends = [round(number * total / count) for number in range(count + 1)]
        return [tuple(known[first:last]) for first, last in pairwise(ends)]
    composed = (unicodedata.normalize("NFC", subject) for subject in config.subjects)
    subjects = [tuple(part.strip() for part in subject.split("+") if part.strip()) for subject in composed]
    counts = Counter(label for subject in subjects for label in subject)
    wrong = [label for label, count in counts.items() if count > 1 or label not in known]
    if wrong or not all(subjects):
        what = "an empty subject" if not wrong else f"{wrong[0]!r}, which is none or is repeated"
        listed = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
        raise RunError(f"expected 'subjects' of other labels each, out of {listed}, got {what}; correct it")
    return subjects


def subject_of(row: Row, subjects: Sequence[tuple[str, ...]]) -> int:
    """Returns the number of the only subject that an image shows; -1 for one of none, of several, or of other labels.

    Args:
        row: with the image's labels.
        subjects: their labels.
    """
    found = {number for number, labels in enumerate(subjects) if set(row.labels) & set(labels)}
    known = {label for labels in subjects for label in labels}
    return found.pop() if len(found) == 1 and set(row.labels) <= known else -1


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Writes rows as a table that is a source of captions by itself, atomically; returns its path.

    Args:
        path: of the table, which ends in .jsonl.
        rows: whose images are found by image_id among the image embeddings.
    """
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            image = str(row.image.absolute()) if isinstance(row.image, Path) else row.image_id
            values = {"image": image, "image_id": row.image_id, "split": row.split, "captions": list(row.captions)}
            if row.english:
                values["captions_en"] = list(row.english)
            file.write(json_text({**values, "labels": list(row.labels)}) + "\n")
    return path
