"""Zero-shot classification: the probabilities of Turkish labels for each image, without training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from turkish_clip.dual_encoder import map_in_order, with_image_side
from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, ImageLike
from turkish_clip.metrics import Vectors, unit
from turkish_clip.reading import Caution
from turkish_clip.templates import PHOTOGRAPHS, fill
from turkish_clip.text import nfc
from turkish_clip.text_side import TextSide, log_cautions

PROMPTS_AT_ONCE = 10_000  # encoded at a time: bounds the memory for long lists of labels

LABELS_AT_ONCE = 1024  # compared with all others at a time: bounds the memory, too
SAME_LABEL = 1 - 1e-6  # least cosine of what is the same text to a model: its vectors differ by rounding alone


class LabelError(InputError):
    """Labels or templates that can't be used."""


@dataclass(frozen=True)
class Classification:
    """The classification of one image.

    Attributes:
        label: the best label, or None if the image did not open or its `score` is below `reject_below`.
        probability: of `label` among all labels; 0 without one.
        score: the cosine of the image's vector and that of the label with the highest probability.
        probabilities: of all labels, summing to 1; empty if the image did not open.
        error: why the image did not open.
    """

    label: str | None
    probability: float
    score: float
    probabilities: dict[str, float]
    error: ImageError | None = None


class ImageClassifier(ABC):
    """Base class of classifiers of image vectors, by words or by examples.

    Attributes:
        skipped: the errors of the examples that did not open.
    """

    encoder: TextSide
    skipped: tuple[ImageError, ...] = ()

    @abstractmethod
    def classify_vectors(self, vectors: Vectors) -> list[Classification]:
        """Classifies (n, dim) float32 unit vectors of images."""

    def classify(
        self, images: Iterable[ImageLike], *, batch_size: int = 32, workers: int = 2, decode_processes: int = -1
    ) -> list[Classification]:
        """Classifies images in order; one that does not open gives a `Classification` with its error.

        Args:
            images: paths, bytes of files, or PIL images.
            batch_size: images embedded at a time.
            workers: threads that open images, where processes do not.
            decode_processes: as in `DualEncoder.embed_images`.
        """
        how = {"batch_size": batch_size, "workers": workers, "decode_processes": decode_processes}
        return list(self.classify_each(images, **how))

    def classify_each(
        self, images: Iterable[ImageLike], *, batch_size: int = 32, workers: int = 2, decode_processes: int = -1
    ) -> Iterator[Classification]:
        """Yields the results of `classify` one by one, while the next images are read.

        Args:
            images: as in `classify`.
            batch_size: as in `classify`.
            workers: as in `classify`.
            decode_processes: as in `classify`.
        """
        batches = with_image_side(self.encoder, "classify images").embed_images(
            images, batch_size=batch_size, workers=workers, decode_processes=decode_processes
        )
        return map_in_order(batches, self.classify_vectors, lambda error: Classification(None, 0.0, 0.0, {}, error))


class ZeroShotClassifier(ImageClassifier):
    """Classifies images by the cosines of their vectors and those of Turkish labels.

    What the text encoder does not read of the labels stands in `cautions`, and is logged as warnings.

    >>> ZeroShotClassifier(load_dual_encoder("org/turkish-clip"), ["kedi", "köpek"]).classify([photo])  # doctest: +SKIP
    [Classification(label='kedi', probability=0.98, ...)]
    """

    def __init__(
        self,
        encoder: TextSide,
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        *,
        templates: Sequence[str] = PHOTOGRAPHS,
        temperature: float | None = None,
        reject_below: float | None = None,
    ) -> None:
        """Encodes the labels.

        Args:
            encoder: from `load_dual_encoder`; for `classify_vectors`, its text side is enough.
            labels: words, or labels with their synonyms, such as {"araba": ["araba", "otomobil"]}.
            templates: each with one {} that takes the label as it is.
            temperature: of the softmax over cosines; None takes the model's own, or CLIP's 0.01.
            reject_below: the cosine below which an image fits no label, which probabilities that sum to 1 can't show.

        Raises:
            LabelError: fewer than two labels, an empty or repeated one, two that the model reads as the same, a word
                of two labels, no template, a bad template, or a temperature that is not above 0.
        """
        prompts = prompts_of(labels, templates)
        self.labels = list(prompts)
        self.temperature = encoder.temperature if temperature is None else temperature
        self.reject_below = reject_below
        if not self.temperature > 0:
            raise LabelError(f"expected a temperature above 0, got {self.temperature}; CLIP's own is 0.01")
        self.encoder = encoder
        self.cautions = _cautions_of(encoder, labels, templates)
        log_cautions(self.cautions)
        self.label_vectors = prompt_averages(partial(encoder.encode_texts, warn=False), list(prompts.values()))
        told = {text for caution in self.cautions for text in caution.texts}  # all unknown words have one vector
        _check_apart(
            [
                (label, vector)
                for (label, words), vector in zip(_synonyms(labels), self.label_vectors)
                if told.isdisjoint(words)
            ]
        )

    def classify_vectors(self, vectors: Vectors) -> list[Classification]:
        """Classifies (n, dim) float32 unit vectors of images."""
        scores = vectors @ self.label_vectors.T
        results = []
        for row, probabilities in zip(scores, softmax(scores / self.temperature)):
            best = int(row.argmax())
            none = self.reject_below is not None and float(row[best]) < self.reject_below
            results.append(
                Classification(
                    None if none else self.labels[best],
                    0.0 if none else float(probabilities[best]),
                    float(row[best]),
                    dict(zip(self.labels, map(float, probabilities))),
                )
            )
        return results


def _check_apart(labels: Sequence[tuple[str, Vectors]]) -> None:
    """Raises a LabelError if two labels have the same vector, between which the probability would be split."""
    for start in range(0, len(labels), LABELS_AT_ONCE):
        vectors = np.stack([vector for _, vector in labels[start:]])
        cosines = np.triu(vectors[:LABELS_AT_ONCE] @ vectors.T, k=1)
        if (cosines >= SAME_LABEL).any():
            first, second = (
                labels[start + int(place)][0] for place in np.unravel_index(cosines.argmax(), cosines.shape)
            )
            raise LabelError(
                f"expected labels that the model tells apart, got {first!r} and {second!r}, which it reads as the "
                "same; remove one of them"
            )


def _cautions_of(
    encoder: TextSide, labels: Sequence[str] | Mapping[str, Sequence[str]], templates: Sequence[str]
) -> list[Caution]:
    """Returns what the text encoder does not know of the words of labels, and which words it cuts in a template.

    The words of the templates are not judged: they are ours, or were chosen on purpose.

    Args:
        encoder: encodes the prompts.
        labels: as in `ZeroShotClassifier`.
        templates: as in `ZeroShotClassifier`.
    """
    words = [word for _, of_label in _synonyms(labels) for word in of_label]
    said = [caution for caution in encoder.cautions(words) if caution.kind != "cut"]
    for caution in encoder.cautions(fill(template, word) for word in words for template in templates):
        if caution.kind == "cut":
            cut = set(caution.texts)
            long = [word for word in words if any(fill(template, word) in cut for template in templates)]
            said.append(replace(caution, texts=tuple(long), parts=()))
    return said


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the softmax of each row, in float64.

    >>> softmax(np.array([[0.0, 0.0], [1000.0, 0.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    # scipy's is the same, and takes as long to import as everything else that a filter of known vectors needs
    exponentials = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def prompts_of(
    labels: Sequence[str] | Mapping[str, Sequence[str]], templates: Sequence[str] = PHOTOGRAPHS
) -> dict[str, list[str]]:
    """Returns the prompts of each label: each of its words in each template.

    Args:
        labels: as in `ZeroShotClassifier`.
        templates: as in `ZeroShotClassifier`.

    Raises:
        LabelError: the labels or templates can't be used, as in `ZeroShotClassifier`.
    """
    if not templates:
        raise LabelError("expected at least one template, got none; '{}' stands for the label alone")
    try:
        return {label: [fill(t, word) for word in words for t in templates] for label, words in _synonyms(labels)}
    except ValueError as error:
        raise LabelError(str(error)) from error


def _synonyms(labels: Sequence[str] | Mapping[str, Sequence[str]]) -> Iterable[tuple[str, list[str]]]:
    if isinstance(labels, str):
        raise LabelError(f"expected a list of labels, got the text {labels!r}; put it into a list")
    pairs = labels.items() if isinstance(labels, Mapping) else [(label, [label]) for label in labels]
    synonyms: dict[str, list[str]] = {}
    for label, words in pairs:
        if isinstance(words, str):
            raise LabelError(f"expected a list of synonyms for {label!r}, got the text {words!r}; put it into a list")
        synonyms[nfc(label)] = [nfc(word) for word in words if word.strip()] or [nfc(label)]
    if len(synonyms) < 2 or len(synonyms) < len(labels):
        got = ", ".join(map(repr, labels))[:200] if len(labels) else "none"
        raise LabelError(f"expected at least two different labels, got {got}; add or change some")
    if not all(label.strip() for label in synonyms):
        raise LabelError("expected labels with letters, got an empty one; remove it")
    label_of: dict[str, str] = {}
    for label, words in synonyms.items():
        for word in words:
            if label_of.setdefault(word, label) != label:
                raise LabelError(
                    f"expected each word under one label, got {word!r} under {label_of[word]!r} and {label!r}; "
                    "remove it from one of them"
                )
    return synonyms.items()


def prompt_averages(encode: Callable[[list[str]], Vectors], prompts: Sequence[Sequence[str]]) -> Vectors:
    """Returns the (labels, dim) float32 unit vectors of labels: each the normalised mean of its prompts' vectors.

    Source: Radford et al. 2021, section 3.1.4.

    Args:
        encode: maps texts to (n, dim) float32 unit vectors.
        prompts: of each label, at least one.
    """
    flat = [prompt for label in prompts for prompt in label]
    label_of = np.repeat(np.arange(len(prompts)), [len(label) for label in prompts])
    sums = np.zeros((len(prompts), encode(flat[:1]).shape[1]), np.float32)
    for start in range(0, len(flat), PROMPTS_AT_ONCE):
        part = slice(start, start + PROMPTS_AT_ONCE)
        np.add.at(sums, label_of[part], encode(flat[part]))
    return unit(sums)


def parse_labels(text: str) -> dict[str, list[str]]:
    """Parses labels separated by commas, and their synonyms separated by bars; the first synonym is the label.

    >>> parse_labels("araba|otomobil, kedi")
    {'araba': ['araba', 'otomobil'], 'kedi': ['kedi']}

    Raises:
        LabelError: there is a semicolon.
        InputError: a label occurs twice.
    """
    labels: dict[str, list[str]] = {}
    if ";" in text:
        commas = ",".join(part.strip() for part in text.split(";"))
        raise LabelError(
            f"expected labels separated by commas, got {text!r:.80} with a semicolon; write {commas!r:.80}"
        )
    for item in nfc(text).split(","):
        words = [word.strip() for word in item.split("|") if word.strip()]
        if not words:
            continue
        if words[0] in labels:
            raise InputError(f"expected each label once, got {words[0]!r} twice; put its synonyms together with |")
        labels[words[0]] = words
    return labels
