"""Captions that are false by one minimal change: for the probes of validation and test, and for training against them.

A false caption is the true wording of a scene that differs in one attribute, so the two differ in that alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from training.mini.captions import colour_claims, counting_captions, english_caption, turkish_caption
from training.mini.scene import Scene, changes
from training.mini.words import COLOURS

# How often an attribute is changed in a false caption of training: what is hard to learn, oftener.
TRAINING_WEIGHTS = {"binding": 4, "relation": 4, "counting": 2, "position": 4, "fine": 2, "size": 1, "setting": 1}


def probes(scene: Scene, rng: random.Random) -> list[dict[str, str]]:
    """Returns for each attribute that the scene has a true caption and a false one, in Turkish and in English.

    The keys of a record are `probe` (the attribute), `caption`, `negative`, `caption_en` and `negative_en`. Of
    negation there are two: what the image shows against its denial, and a true denial against a false one, so that a
    model which likes or dislikes the words of denial whatever they deny is right in half of them.

    Args:
        scene: the scene of the image.
        rng: draws the wordings.
    """
    changed = changes(scene, rng)
    records = []
    for probe in ("binding", "relation", "position", "fine"):
        if probe in changed:
            captions = [
                _same_wording(scene, changed[probe], caption, rng) for caption in (turkish_caption, english_caption)
            ]
            records.append(_record(probe, *captions))
    if "counting" in changed:
        seed = rng.random()
        true, false = (counting_captions(image, random.Random(seed)) for image in (scene, changed["counting"]))
        records.append(_record("counting", (true[0], false[0]), (true[1], false[1])))

    affirmed, true, false = colour_claims_of(scene, rng)
    records += [_record("negation", *zip(claim, false)) for claim in (affirmed, true)]
    return records


def colour_claims_of(scene: Scene, rng: random.Random) -> tuple[tuple[str, str], ...]:
    """Returns of the first object the affirmation of its colour, a true denial of another and the false one of its own.

    Each is a Turkish and an English caption.

    Args:
        scene: the scene of the image.
        rng: draws the other colour and the wording.
    """
    own, seed = scene.first[1], rng.random()
    other = rng.choice([colour for colour in COLOURS if colour != own])
    claims = ((own, False), (other, True), (own, True))
    return tuple(colour_claims(scene, colour, random.Random(seed), denied=denied) for colour, denied in claims)


def false_caption(scene: Scene, caption: Callable[..., str], seed: float, rng: random.Random) -> str:
    """Returns the wording of a seed for a scene that differs in one attribute which the caption names, else "".

    Args:
        scene: the scene of the image.
        caption: the function of the true caption.
        seed: of its wording.
        rng: draws the attribute.
    """
    changed = changes(scene, rng)
    true = caption(scene, random.Random(seed))
    names = sorted(changed, key=lambda name: rng.random() ** (1 / TRAINING_WEIGHTS[name]), reverse=True)
    wordings = (caption(changed[name], random.Random(seed)) for name in names)
    return next((text for text in wordings if text != true), "")


def _same_wording(scene: Scene, changed: Scene, caption: Callable[..., str], rng: random.Random) -> tuple[str, str]:
    seed = rng.random()
    return caption(scene, random.Random(seed), complete=True), caption(changed, random.Random(seed), complete=True)


def _record(probe: str, turkish: tuple[str, str], english: tuple[str, str]) -> dict[str, str]:
    return {
        "probe": probe,
        "caption": turkish[0],
        "negative": turkish[1],
        "caption_en": english[0],
        "negative_en": english[1],
    }
