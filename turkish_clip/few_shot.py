"""Few-shot classification: a linear classifier on image vectors, fitted on a few labelled images per class.

It is a logistic regression with a Gaussian prior around the zero-shot weights, which are better than those that a few
images alone give; the more images, the less the prior counts. scikit-learn's prior is around zero, with which five
images per class gave a worse classifier than zero-shot; hence scipy's L-BFGS minimizes the loss.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from turkish_clip.atomic import atomic_write
from turkish_clip.dual_encoder import DualEncoder, map_in_order
from turkish_clip.errors import InputError, is_encodable
from turkish_clip.folders import FolderWalk, LeftOut, is_hidden
from turkish_clip.images import ImageError, ImageLike
from turkish_clip.metrics import Vectors, unit
from turkish_clip.ownership import WRITER
from turkish_clip.records import read_record, write_record
from turkish_clip.templates import PHOTOGRAPHS
from turkish_clip.text import nfc
from turkish_clip.zero_shot import Classification, ImageClassifier, ZeroShotClassifier, softmax

log = logging.getLogger("turkish_clip")
WEIGHTS, METADATA = "few_shot.safetensors", "few_shot.json"
WORDS_SCALE = 10.0  # of the zero-shot weights: the logit of an image whose cosine to a label is 1
# Precisions of the prior, for a loss summed over images. Where images are few, the first is used, which was chosen on
# the toy dataset's validation images, five per class (training/LOG.md).
PRIORS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
MAX_WEIGHT = 1e6  # that no fit comes near, and no product with a unit vector overflows
FEWEST_FOR_FOLDS, MOST_FOLDS = 8, 5  # images per class from which there is cross-validation; its folds


class ExampleError(InputError):
    """Examples that no classifier can be fitted on, or a saved classifier that can't be used."""


@dataclass(frozen=True, kw_only=True)
class FewShotMetadata:
    """The content of few_shot.json.

    Attributes:
        labels: in the order of the rows of the weights.
        image_model: Hub id or folder of the image model whose vectors are classified.
        weights_sha256: of that image model.
        examples: label → the number of images that it was fitted on.
        prior: the precision of the Gaussian prior around the zero-shot weights.
    """

    FORMAT: ClassVar[int] = 1

    labels: list[str]
    image_model: str
    weights_sha256: str
    examples: dict[str, int]
    prior: float

    def __post_init__(self) -> None:
        """Checks the values, which may come from a file of anybody; raises a ValueError."""
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels) or not all(map(is_encodable, self.labels)):
            raise ValueError(f"{str(self.labels)[:80]} as 'labels', not two or more different ones in UTF-8")
        if set(self.examples) != set(self.labels) or min(self.examples.values()) < 1:
            raise ValueError(f"{str(self.examples)[:80]} as 'examples', not a number of at least 1 for each label")
        if not self.prior > 0:
            raise ValueError(f"{self.prior:g} as 'prior', not above 0")


@dataclass(frozen=True)
class FewShotClassifier(ImageClassifier):
    """A linear classifier of image vectors.

    Attributes:
        encoder: embeds the images.
        weights: (labels, dim) float32.
        metadata: its labels, image model, examples and prior.
        skipped: the errors of the examples that did not open; empty for a loaded classifier.
    """

    encoder: DualEncoder
    weights: Vectors
    metadata: FewShotMetadata
    skipped: tuple[ImageError, ...] = ()

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
        """Fits a classifier on a few images per class.

        Args:
            encoder: from `load_dual_encoder`.
            examples: label → its images; those that do not open are left out and listed in `skipped`.
            words: label → its synonyms; None, or a label without an entry, takes the label itself.
            templates: for the words, each with one {}.
            seed: of the folds of the cross-validation that chooses the prior, from eight images per class on.

        Raises:
            ExampleError: fewer than two labels, or one without an image that opens.
            LabelError: the words or templates can't be used, as in `ZeroShotClassifier`.
        """
        vectors, numbers, skipped = _embedded(encoder, examples)
        labels = list(examples)
        synonyms = {label: list((words or {}).get(label, [label])) for label in labels}
        label_vectors = ZeroShotClassifier(encoder, synonyms, templates=templates).label_vectors.astype(np.float64)
        zero_shot = label_vectors * WORDS_SCALE
        prior = _choose_prior(vectors, numbers, zero_shot, seed)
        metadata = FewShotMetadata(
            labels=labels,
            image_model=encoder.image_name,
            weights_sha256=encoder.image_weights_sha256,
            examples=dict(zip(labels, np.bincount(numbers).tolist())),
            prior=prior,
        )
        weights = _fit_weights(vectors, numbers, zero_shot, prior).astype(np.float32)
        return cls(encoder, weights, metadata, skipped)

    def classify_vectors(self, vectors: Vectors) -> list[Classification]:
        """Classifies (n, dim) float32 unit vectors of images; `score` is the cosine to the label's row of weights."""
        logits, label_vectors = vectors @ self.weights.T, unit(self.weights)
        results = []
        for vector, probabilities in zip(vectors, softmax(logits)):
            best = int(probabilities.argmax())
            of_labels = dict(zip(self.labels, map(float, probabilities)))
            score = float(vector @ label_vectors[best])
            results.append(Classification(self.labels[best], float(probabilities[best]), score, of_labels))
        return results

    def save(self, folder: str | Path) -> None:
        """Writes few_shot.safetensors and few_shot.json into a folder, which is made if it does not exist."""
        from safetensors.numpy import save_file

        with atomic_write(Path(folder) / WEIGHTS) as partial:
            save_file({"weights": np.ascontiguousarray(self.weights)}, partial, metadata=WRITER)
        write_record(Path(folder) / METADATA, self.metadata)

    @classmethod
    def load(cls, folder: str | Path, encoder: DualEncoder) -> FewShotClassifier:
        """Reads a classifier that `save` wrote.

        Args:
            folder: that it was saved in.
            encoder: with the image model that it was fitted with.

        Raises:
            ExampleError: the folder has no classifier, a damaged one, or one fitted with another image model.
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
        weights, shape = tensors.get("weights"), (len(metadata.labels), encoder.dim)
        if weights is None or weights.dtype != np.float32 or weights.shape != shape:
            found = "none" if weights is None else f"{weights.dtype} of shape {weights.shape}"
            raise ExampleError(
                f"expected float32 weights of shape {shape}, a row for each label, in {source / WEIGHTS}, got {found}; "
                "fit and save a classifier there"
            )
        if not (np.abs(weights) <= MAX_WEIGHT).all():  # nor for NaN
            raise ExampleError(
                f"expected weights of at most {MAX_WEIGHT:g} in {source / WEIGHTS}, got larger ones or none that are "
                "numbers; fit and save a classifier there"
            )
        return cls(encoder, weights, metadata)


def examples_in(folder: str | Path) -> dict[str, list[Path]]:
    """Returns the image paths in each subfolder of a folder and below it, sorted; its name, as NFC, is their label.

    Hidden files and those of kinds that are not read are left out; a line in the log counts them.

    Raises:
        ExampleError: the folder does not exist, has fewer than two subfolders, or one of them has no images.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ExampleError(f"expected a folder with a subfolder for each label, got {folder}, which is not one")
    _check_linked(root)
    examples, left_out = dict[str, list[Path]](), list[LeftOut]()
    for label in sorted(root.iterdir()):
        if label.is_dir() and not is_hidden(label.name):
            walk = FolderWalk(label, sounds=True)
            examples[nfc(label.name)] = sorted(walk.files())
            left_out.append(walk.left_out)
    if len(examples) < 2:
        named = ", ".join(map(repr, examples)) if examples else "none"
        raise ExampleError(f"expected at least two subfolders with images in {folder}, got {named}; add some")
    for (name, images), part in zip(examples.items(), left_out):
        if not images:
            found = part.instead_of_images()
            got = f"got none in {name!r}, but {found}" if found else f"got none in {name!r}; add some"
            raise ExampleError(f"expected images in each subfolder of {folder}, {got}")
    for line in LeftOut.sum(left_out).lines():
        log.warning("%s: %s", folder, line)
    return examples


def _check_linked(root: Path) -> None:
    """Raises an ExampleError where links make one folder the examples of two labels, or of one all the others'."""
    labels: dict[Path, Path] = {}
    for label in sorted(root.iterdir()):
        if not label.is_dir() or is_hidden(label.name):
            continue
        real = label.resolve()
        if real == root.resolve() or real in root.resolve().parents:
            raise ExampleError(
                f"expected a folder of images of its own in {label}, got a link to all of them; remove it"
            )
        for other, first in labels.items():
            if real == other or real in other.parents or other in real.parents:
                raise ExampleError(
                    f"expected each image under one label, got those of {first.name!r} under {label.name!r}, too: a "
                    "link; remove one of them"
                )
        labels[real] = label


def _embedded(
    encoder: DualEncoder, examples: Mapping[str, Sequence[ImageLike]]
) -> tuple[Vectors, NDArray[np.int64], tuple[ImageError, ...]]:
    """Returns the (n, dim) vectors of the examples that open, the numbers of their labels, and the others' errors."""
    if len(examples) < 2:
        named = ", ".join(map(repr, examples)) if examples else "none"
        raise ExampleError(f"expected examples of at least two labels, got {named}; add another")
    images = [image for of_label in examples.values() for image in of_label]
    numbers = np.repeat(np.arange(len(examples)), [len(of_label) for of_label in examples.values()])
    results: list[Any] = list(map_in_order(encoder.embed_images(images), list, lambda error: error))
    kept = [place for place, vector in enumerate(results) if not isinstance(vector, ImageError)]
    numbers = numbers[kept]
    for number, label in enumerate(examples):
        if not (numbers == number).any():
            raise ExampleError(f"expected images of {label!r} that open, got none of {len(examples[label])}; add some")
    errors = tuple(error for error in results if isinstance(error, ImageError))
    return np.stack([results[place] for place in kept]), numbers, errors


def _fit_weights(
    vectors: Vectors, numbers: NDArray[np.int64], zero_shot: NDArray[np.float64], prior: float
) -> NDArray[np.float64]:
    """Returns the (labels, dim) weights of maximal posterior: softmax likelihood, Gaussian prior around `zero_shot`."""
    from scipy.optimize import minimize

    one_hot = np.eye(len(zero_shot))[numbers]
    rows = vectors.astype(np.float64)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(zero_shot.shape)
        probabilities = softmax(rows @ weights.T)
        difference = weights - zero_shot
        value = -np.log((probabilities * one_hot).sum(axis=1) + 1e-300).sum() + prior / 2 * (difference**2).sum()
        return float(value), ((probabilities - one_hot).T @ rows + prior * difference).ravel()

    result = minimize(loss, zero_shot.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(result.x).reshape(zero_shot.shape)


def _choose_prior(vectors: Vectors, numbers: NDArray[np.int64], zero_shot: NDArray[np.float64], seed: int) -> float:
    """Returns the precision of the lowest negative log-likelihood in cross-validation; PRIORS[0] for too few images."""
    fewest = int(np.bincount(numbers).min())
    if fewest < FEWEST_FOR_FOLDS:
        return PRIORS[0]
    folds = min(MOST_FOLDS, fewest)
    order = np.random.default_rng(seed).permutation(len(numbers))
    fold_of = np.empty(len(numbers), np.int64)
    for number in range(len(zero_shot)):  # spreads each class evenly over the folds
        of_class = order[numbers[order] == number]
        fold_of[of_class] = np.arange(len(of_class)) % folds

    def negative_log_likelihood(prior: float) -> float:
        total = 0.0
        for fold in range(folds):
            fitted, held_out = fold_of != fold, fold_of == fold
            weights = _fit_weights(vectors[fitted], numbers[fitted], zero_shot, prior)
            probabilities = softmax(vectors[held_out].astype(np.float64) @ weights.T)
            total -= float(np.log(probabilities[np.arange(int(held_out.sum())), numbers[held_out]] + 1e-300).sum())
        return total

    return min(PRIORS, key=negative_log_likelihood)
