"""What the images of the miniature world tell a linear probe: whose a colour is, and which object is where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.mini.scene import Scene
from training.mini.words import COLOURS, INVERSE, OBJECTS, RELATIONS

Facts = Callable[[Scene], list[tuple[str, str]]]


def colours_of(scene: Scene) -> list[tuple[str, str]]:
    """Returns (object class, colour) of each object."""
    return [item for item in (scene.first, scene.second) if item is not None]


def places_of(scene: Scene) -> list[tuple[str, str]]:
    """Returns (object class, where it is, seen from the other) of two objects."""
    if scene.second is None:
        return []
    return [(scene.first[0], scene.relation), (scene.second[0], INVERSE[scene.relation])]


def exchanged(facts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the facts of two objects with what is said of them exchanged."""
    (one, of_one), (two, of_two) = facts
    return [(one, of_two), (two, of_one)]


def probe_accuracy(
    vectors: np.ndarray, scenes: list[Scene], test_vectors: np.ndarray, test_scenes: list[Scene], facts: Facts
) -> float:
    """Returns how often a ridge regression from image embeddings onto facts prefers the true ones to exchanged ones.

    Args:
        vectors: (n, dim), of norm 1, of the training images.
        scenes: that they show.
        test_vectors: (m, dim), of norm 1.
        test_scenes: that they show; those of two objects that differ in the fact count.
        facts: `colours_of` or `places_of`.
    """
    columns = {pair: number for number, pair in enumerate((o, a) for o in OBJECTS for a in (*COLOURS, *RELATIONS))}

    def indicators(pairs: list[tuple[str, str]]) -> np.ndarray:
        row = np.zeros(len(columns))
        row[[columns[pair] for pair in pairs]] = 1
        return row

    ones = np.ones((len(vectors), 1))
    features = np.hstack([vectors, ones]).astype(np.float64)
    targets = np.stack([indicators(facts(scene)) for scene in scenes])
    gram = features.T @ features + 1e-3 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features.T @ targets)
    right = []
    for vector, scene in zip(test_vectors, test_scenes):
        true = facts(scene)
        if scene.second is None or true[0][1] == true[1][1]:
            continue
        scores = np.append(vector, 1.0) @ weights
        right.append(scores @ (indicators(true) - indicators(exchanged(true))) > 0)
    return float(np.mean(right))
