"""A handful of labelled images per class: a linear classifier on image vectors, started from the words.

With few images a label's words say more than they do. So the classifier is a logistic regression whose weights are
held near the zero-shot ones (a Gaussian prior around them), the less the more images there are. scikit-learn's holds
weights near zero alone, and was worse than the words with five images a class; hence scipy's L-BFGS on the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from turkish_clip.atomic import atomic_write
from turkish_clip.dual_encoder import DualEncoder, map_in_order
from turkish_clip.errors import InputError
from turkish_clip.images import IMAGE_SUFFIXES, ImageError, ImageLike
from turkish_clip.metrics import Vectors
from turkish_clip.records import read_record, write_record
from turkish_clip.templates import PHOTOGRAPHS
from turkish_clip.text import nfc
from turkish_clip.zero_shot import Classification, ImageClassifier, ZeroShotClassifier, softmax

WEIGHTS, METADATA = "few_shot.safetensors", "few_shot.json"
WORDS_SCALE = 10.0  # of the zero-shot weights, as logits of unit vectors
# How hard the words hold, against the sum over images. The first one by itself where there are few: it was chosen on
# the miniature world's validation images, five a class (training/LOG.md).
PRIORS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
FEWEST_FOR_FOLDS, MOST_FOLDS = 8, 5  # images in each class


class ExampleError(InputError):
    """Examples that can't be learnt from, or a saved classifier that can't be used."""


@dataclass(frozen=True, kw_only=True)
class FewShotMetadata:
    """What few_shot.json holds.

    Attributes:
        labels: in the order of the rows of the weights.
        image_model: name of the image model whose vectors the classifier takes.
        weights_sha256: of that image model.
        examples: label → how many images it was fitted on.
        prior: the precision of the Gaussian prior around the zero-shot weights.
    """

    FORMAT: ClassVar[int] = 1

    labels: list[str]
    image_model: str
    weights_sha256: str
    examples: dict[str, int]
    prior: float


@dataclass(frozen=True)
class FewShotClassifier(ImageClassifier):
    """Labels and the linear map from image vectors to their scores.

    Attributes:
        weights: (labels, dim) float32.
        metadata: which image model its vectors come from, how many examples it saw.
        left_out: why some of the examples did not open.
    """

    encoder: DualEncoder
    weights: Vectors
    metadata: FewShotMetadata
    left_out: tuple[ImageError, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of the rows of the weights."""
        return self.metadata.labels

    @classmethod
    def fit(
        cls,
        encoder: DualEncoder,
        examples: Mapping[str, Sequence[ImageLike]],
        *,
        words: Mapping[str, Sequence[str]] | None = None,
        templates: Sequence[str] = PHOTOGRAPHS,
        seed: int = 0,
    ) -> FewShotClassifier:
        """Learns from a few images a class.

        Args:
            encoder: from `load_dual_encoder`.
            examples: label → its images; those that do not open are left out and told in `left_out`.
            words: label → the words for it, which are one class; where there are none, the label itself.
            templates: for the words, each with one {}.
            seed: of the folds by which it is chosen how hard the words hold, from eight images a class on.

        Raises:
            ExampleError: fewer than two labels, or one without an image that opens.
        """
        vectors, numbers, left_out = _embedded(encoder, examples)
        labels = list(examples)
        synonyms = {label: list((words or {}).get(label, [label])) for label in labels}
        started = ZeroShotClassifier(encoder, synonyms, templates=templates).label_vectors.astype(np.float64)
        start = started * WORDS_SCALE
        prior = _best_prior(vectors, numbers, start, seed)
        metadata = FewShotMetadata(
            labels=labels,
            image_model=encoder.image_name,
            weights_sha256=encoder.image_weights_sha256,
            examples=dict(zip(labels, np.bincount(numbers).tolist())),
            prior=prior,
        )
        return cls(encoder, _learnt(vectors, numbers, start, prior).astype(np.float32), metadata, left_out)

    def classify_vectors(self, vectors: Vectors) -> list[Classification]:
        """Classifies (n, dim) float32 unit vectors of images; `score` is the label's logit."""
        scores = vectors @ self.weights.T
        results = []
        for row, shares in zip(scores, softmax(scores)):
            best = int(row.argmax())
            probabilities = dict(zip(self.labels, map(float, shares)))
            results.append(Classification(self.labels[best], float(shares[best]), float(row[best]), probabilities))
        return results

    def save(self, folder: str | Path) -> None:
        """Writes few_shot.safetensors and few_shot.json into a folder."""
        from safetensors.numpy import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with atomic_write(target / WEIGHTS) as partial:
            save_file({"weights": np.ascontiguousarray(self.weights)}, partial)
        write_record(target / METADATA, self.metadata)

    @classmethod
    def load(cls, folder: str | Path, encoder: DualEncoder) -> FewShotClassifier:
        """Reads what `save` wrote.

        Raises:
            ExampleError: nothing there, or it was learnt on the vectors of another image model.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        source = Path(folder)
        metadata = read_record(FewShotMetadata, source / METADATA, "fit and save a classifier there", ExampleError)
        try:
            tensors = load_file(source / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise ExampleError(f"expected a saved classifier in {folder}, got {error}; save one there first") from error
        if metadata.weights_sha256 != encoder.image_weights_sha256:
            raise ExampleError(
                f"expected the image model {metadata.image_model}, on which {folder} was fitted, got other weights in "
                f"{encoder.image_name}; name that model, or fit again"
            )
        return cls(encoder, tensors["weights"], metadata)


def examples_in(folder: str | Path) -> dict[str, list[Path]]:
    """Labelled images out of a folder of folders: each subfolder is a label.

    Raises:
        ExampleError: no such folder, a subfolder without images, or fewer than two.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ExampleError(f"expected a folder with a subfolder for each label, got {folder}, which is none")
    examples = {
        nfc(label.name): [path for path in sorted(label.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
        for label in sorted(root.iterdir())
        if label.is_dir() and not label.name.startswith(".")
    }
    if len(examples) < 2:
        raise ExampleError(f"expected at least two subfolders with images in {folder}, got {list(examples)}; add some")
    empty = [label for label, images in examples.items() if not images]
    if empty:
        raise ExampleError(f"expected images in each subfolder of {folder}, got none in {empty[0]!r}; add some")
    return examples


def _embedded(
    encoder: DualEncoder, examples: Mapping[str, Sequence[ImageLike]]
) -> tuple[Vectors, NDArray[np.int64], tuple[ImageError, ...]]:
    if len(examples) < 2:
        raise ExampleError(f"expected examples of at least two labels, got {list(examples)}; add another")
    images = [image for some in examples.values() for image in some]
    numbers = np.repeat(np.arange(len(examples)), [len(some) for some in examples.values()])
    found: list[Any] = list(map_in_order(encoder.embed_images(images), list, lambda error: error))
    kept = [place for place, vector in enumerate(found) if not isinstance(vector, ImageError)]
    numbers = numbers[kept]
    for number, label in enumerate(examples):
        if not (numbers == number).any():
            raise ExampleError(f"expected images of {label!r} that open, got none of {len(examples[label])}; add some")
    errors = tuple(error for error in found if isinstance(error, ImageError))
    return np.stack([found[place] for place in kept]), numbers, errors


def _learnt(
    vectors: Vectors, numbers: NDArray[np.int64], words: NDArray[np.float64], prior: float
) -> NDArray[np.float64]:
    """The (labels, dim) weights of highest posterior: softmax likelihood of the images, Gaussian around the words."""
    from scipy.optimize import minimize

    wanted = np.eye(len(words))[numbers]
    rows = vectors.astype(np.float64)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(words.shape)
        probabilities = softmax(rows @ weights.T)
        moved = weights - words
        value = -np.log((probabilities * wanted).sum(axis=1) + 1e-300).sum() + prior / 2 * (moved**2).sum()
        return float(value), ((probabilities - wanted).T @ rows + prior * moved).ravel()

    found = minimize(loss, words.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(found.x).reshape(words.shape)


def _best_prior(vectors: Vectors, numbers: NDArray[np.int64], words: NDArray[np.float64], seed: int) -> float:
    """How hard the words should hold: what predicts held-out images best; the hardest where there are too few."""
    fewest = int(np.bincount(numbers).min())
    if fewest < FEWEST_FOR_FOLDS:
        return PRIORS[0]
    folds = min(MOST_FOLDS, fewest)
    order = np.random.default_rng(seed).permutation(len(numbers))
    place = np.empty(len(numbers), np.int64)
    for number in range(len(words)):  # each class spread over the folds
        own = order[numbers[order] == number]
        place[own] = np.arange(len(own)) % folds

    def negative_log_likelihood(prior: float) -> float:
        total = 0.0
        for fold in range(folds):
            seen, held = place != fold, place == fold
            weights = _learnt(vectors[seen], numbers[seen], words, prior)
            probabilities = softmax(vectors[held].astype(np.float64) @ weights.T)
            total -= float(np.log(probabilities[np.arange(int(held.sum())), numbers[held]] + 1e-300).sum())
        return total

    return min(PRIORS, key=negative_log_likelihood)
