"""A handful of labelled pictures per class: a linear classifier on picture vectors, started from the words.

With few pictures a label's words say more than they do: each class begins with its prompts' vector as an example of its
own, which counts for as many pictures as `words_count_for`, and the pictures move it from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from turkish_clip.collection import SUFFIXES
from turkish_clip.errors import InputError
from turkish_clip.images import ImageLike
from turkish_clip.metrics import Vectors
from turkish_clip.prompts import PHOTOGRAPHS
from turkish_clip.zero_shot import Classification, PictureClassifier, ZeroShotClassifier, softmax

if TYPE_CHECKING:
    from turkish_clip.towers import Towers

FORMAT = 1
WEIGHTS, FACTS = "few_shot.safetensors", "few_shot.json"
REGULARISATION = 30.0  # scikit-learn's C on unit vectors: chosen by cross-validation where there are enough pictures
CANDIDATES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
ENOUGH_FOR_FOLDS = 5  # pictures in each class


class ExampleError(InputError):
    """Examples that can't be learnt from, or a saved classifier that can't be used."""


@dataclass(frozen=True)
class FewShotClassifier(PictureClassifier):
    """Labels and the linear map from picture vectors to their scores.

    Attributes:
        weights: (labels, dim) float32.
        intercepts: (labels,) float32.
        facts: which image model its vectors come from, how many examples it saw.
    """

    towers: Towers
    labels: list[str]
    weights: Vectors
    intercepts: NDArray[np.float32]
    facts: dict[str, Any]

    @classmethod
    def fit(
        cls,
        towers: Towers,
        examples: Mapping[str, Sequence[ImageLike]],
        *,
        templates: Sequence[str] = PHOTOGRAPHS,
        words_count_for: float = 2.0,
        seed: int = 0,
    ) -> FewShotClassifier:
        """Learns from a few pictures a class.

        Args:
            towers: from `load_towers`.
            examples: label → its pictures; pictures that do not open are left out.
            templates: for the label's words, each with one {}.
            words_count_for: how many pictures the words weigh as much as; 0 leaves them out.
            seed: of the folds by which the strength of the regularisation is chosen.

        Raises:
            ExampleError: fewer than two labels, or one without a picture that opens.
        """
        from sklearn.linear_model import LogisticRegression

        vectors, numbers = _embedded(towers, examples)
        labels = list(examples)
        counts = np.ones(len(vectors))
        if words_count_for > 0:
            words = ZeroShotClassifier(towers, labels, templates=templates).label_vectors
            shift = vectors.mean(axis=0) - words.mean(axis=0)  # texts and pictures lie apart: moved over as a whole
            vectors = np.concatenate([vectors, words + shift])
            numbers = np.concatenate([numbers, np.arange(len(labels))])
            counts = np.concatenate([counts, np.full(len(labels), words_count_for)])
        strength = _strength(vectors, numbers, counts, seed)
        model = LogisticRegression(C=strength, max_iter=1000).fit(vectors, numbers, sample_weight=counts)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(labels) == 2:  # scikit-learn keeps one row for two classes
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        facts = {
            "format": FORMAT,
            "labels": labels,
            "image_model": towers.image_name,
            "weights_sha256": towers.image_weights_sha256,
            "examples": {
                label: int((numbers == number).sum()) - (words_count_for > 0) for number, label in enumerate(labels)
            },
            "regularisation": strength,
        }
        # scikit-learn's arrays may lie column by column, which safetensors would write as if they lay row by row.
        weights = np.ascontiguousarray(coefficients, np.float32)
        return cls(towers, labels, weights, np.ascontiguousarray(intercepts, np.float32), facts)

    def classify_vectors(self, vectors: Vectors) -> list[Classification]:
        """Classifies (n, dim) float32 unit vectors of pictures; `score` is the log-odds."""
        scores = vectors @ self.weights.T + self.intercepts
        results = []
        for row, probabilities in zip(scores, softmax(scores)):
            best = int(row.argmax())
            shares = dict(zip(self.labels, map(float, probabilities)))
            results.append(Classification(self.labels[best], float(probabilities[best]), float(row[best]), shares))
        return results

    def save(self, folder: str | Path) -> None:
        """Writes few_shot.safetensors and few_shot.json into a folder."""
        from safetensors.numpy import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        save_file({"weights": self.weights, "intercepts": self.intercepts}, target / WEIGHTS)
        (target / FACTS).write_text(json.dumps(self.facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, towers: Towers) -> FewShotClassifier:
        """Reads what `save` wrote.

        Raises:
            ExampleError: nothing there, or it was learnt on the vectors of another image model.
        """
        from safetensors.numpy import load_file

        source = Path(folder)
        try:
            facts = json.loads((source / FACTS).read_text(encoding="utf-8"))
            tensors = load_file(source / WEIGHTS)
        except (OSError, ValueError) as error:
            raise ExampleError(f"expected a saved classifier in {folder}, got {error}; save one there first") from error
        if facts["weights_sha256"] != towers.image_weights_sha256:
            raise ExampleError(
                f"expected the image model {facts['image_model']}, on which {folder} was learnt, got other weights in "
                f"{towers.image_name}; name that model, or learn again"
            )
        return cls(towers, list(facts["labels"]), tensors["weights"], tensors["intercepts"], facts)


def examples_in(folder: str | Path) -> dict[str, list[Path]]:
    """Labelled pictures out of a folder of folders: each subfolder is a label.

    Raises:
        ExampleError: no such folder, or fewer than two subfolders with pictures.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ExampleError(f"expected a folder with a subfolder for each label, got {folder}, which is none")
    examples = {
        label.name: [path for path in sorted(label.iterdir()) if path.suffix.lower() in SUFFIXES]
        for label in sorted(root.iterdir())
        if label.is_dir()
    }
    examples = {label: pictures for label, pictures in examples.items() if pictures}
    if len(examples) < 2:
        raise ExampleError(
            f"expected at least two subfolders with pictures in {folder}, got {list(examples)}; add some"
        )
    return examples


def _embedded(towers: Towers, examples: Mapping[str, Sequence[ImageLike]]) -> tuple[Vectors, NDArray[np.int64]]:
    if len(examples) < 2:
        raise ExampleError(f"expected examples of at least two labels, got {list(examples)}; add another")
    pictures = [picture for some in examples.values() for picture in some]
    numbers = np.repeat(np.arange(len(examples)), [len(some) for some in examples.values()])
    vectors, kept, start = [], [], 0
    for batch in towers.embed_pictures(pictures):
        vectors.append(batch.vectors)
        kept += [start + place for place in batch.kept]
        start += len(batch.kept) + len(batch.errors)
    numbers = numbers[kept]
    for number, label in enumerate(examples):
        if not (numbers == number).any():
            raise ExampleError(
                f"expected pictures of {label!r} that open, got none of {len(examples[label])}; add some"
            )
    return np.concatenate(vectors), numbers


def _strength(vectors: Vectors, numbers: NDArray[np.int64], weights: NDArray[np.float64], seed: int) -> float:
    """The C of the best mean accuracy over folds; a fixed one where a class has too few pictures for folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    if np.bincount(numbers).min() < ENOUGH_FOR_FOLDS:
        return REGULARISATION
    folds = list(StratifiedKFold(3, shuffle=True, random_state=seed).split(vectors, numbers))

    def accuracy(strength: float) -> float:
        scores = []
        for seen, held in folds:
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(vectors[seen], numbers[seen], sample_weight=weights[seen])
            scores.append(float((model.predict(vectors[held]) == numbers[held]).mean()))
        return float(np.mean(scores))

    return max(CANDIDATES, key=accuracy)
