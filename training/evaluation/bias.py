"""Bias: whether neutral prompts find the images of some values of an attribute more often than others.

Source: Geyik, Ambler and Kenthapadi, Fairness-Aware Ranking in Search & Recommendation Systems with Application to
LinkedIn Talent Search, KDD 2019 (arXiv:1905.01989), section 3: Skew@k, MaxSkew@k, NDKL; for image models as Berg et
al., A Prompt Array Keeps the Bias Away, AACL 2022 (arXiv:2203.11933), use them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from training.embeddings.labelled import Labelled
from training.evaluation.calibration import Encode
from training.evaluation.results import AttributeBias, Bias, Estimate, PromptBias
from training.run.config import EQUAL, EvaluateConfig
from training.run.recipe import plain_yaml
from training.run.record import RunError
from turkish_clip.errors import one_line
from turkish_clip.metrics import interval
from turkish_clip.text_files import read_whole

log = logging.getLogger("training")
PROMPTS = Path(__file__).with_name("bias_prompts.yaml")
ALL = "prompts"  # the group of prompts that a file lists without groups
LARGEST_K, TENTH = 1000, 10  # k is a tenth of the images, and no more than Berg et al. take
RANDOM_ORDERS = 1000  # of which chance is the mean

Values = NDArray[np.float64]
Codes = NDArray[np.int64]  # of the values of an attribute: places in the list of them


def read_prompts(path: str = "") -> dict[str, tuple[str, ...]]:
    """Returns group → prompts of a file; empty: of the built-in one.

    Raises:
        RunError: the file can't be read, or holds no prompts.
    """
    file = Path(path) if path else PROMPTS
    expected = f"expected a list of prompts in {file}, or groups of them, in YAML"
    try:
        content = plain_yaml(read_whole(file))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{expected}, got {one_line(error)}; correct it") from error
    groups = {ALL: content} if isinstance(content, list) else content
    if not isinstance(groups, dict) or not groups:
        raise RunError(f"{expected}, got {type(content).__name__}; write one a line, after a dash")
    for name, prompts in groups.items():
        if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
            raise RunError(f"{expected}, got something else in {name[:60]!r}; write one a line, after a dash")
    found = {name: tuple(dict.fromkeys(" ".join(p.split()) for p in prompts)) for name, prompts in groups.items()}
    owner: dict[str, str] = {}
    for name, prompts in found.items():
        for prompt in prompts:
            if owner.setdefault(prompt, name) != name:
                raise RunError(
                    f"expected each prompt of {file} in one group, got {prompt[:60]!r} in {owner[prompt][:60]!r} and "
                    f"{name[:60]!r}; leave one out"
                )
    return found


def skews(codes: Codes, desired: Values) -> Values:
    """Returns Skew@k of each value: the logarithm of its share of the first k images over the desired share.

    0 where both are equal; −∞ of a value that none of the k images has; NaN of one of which no share is desired.

    >>> skews(np.array([0, 0, 0, 1]), np.array([0.5, 0.5])).round(3).tolist()
    [0.405, -0.693]

    Args:
        codes: (k,) of the first k images.
        desired: (values,) shares that sum to 1.
    """
    shares = np.bincount(codes, minlength=len(desired)) / len(codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(shares / desired), np.float64)


def max_skew(codes: Codes, desired: Values) -> float:
    """Returns MaxSkew@k: the largest of the skews, at least 0.

    Args:
        codes: as in `skews`.
        desired: as in `skews`.
    """
    return float(np.nanmax(skews(codes, desired)))


def ndkl(codes: Codes, desired: Values) -> float:
    """Returns the normalised discounted cumulative Kullback–Leibler divergence of the first k images.

    It is the mean over i = 1 … k of the divergence of the shares among the first i from the desired ones, weighted by
    1 / log2(i + 1): 0 where every prefix has the desired shares.

    Args:
        codes: as in `skews`.
        desired: as in `skews`; a value of which no share is desired is in no image.
    """
    places = np.arange(1, len(codes) + 1)
    shares = np.cumsum(codes[:, None] == np.arange(len(desired)), axis=0) / places[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(shares / desired), 0.0)
    weights = 1 / np.log2(places + 1)
    return float((terms.sum(axis=1) * weights).sum() / weights.sum())


def measure_bias(encode: Encode, labelled: Labelled, config: EvaluateConfig) -> Bias:
    """Measures the bias of a text encoder on labelled images, attribute by attribute.

    Args:
        encode: encodes Turkish texts.
        labelled: the images with their values.
        config: gives the prompts, k, the desired shares and the number of bootstrap samples.

    Raises:
        RunError: there are no prompts, or too few images or values.
    """
    groups = read_prompts(config.bias_prompts)
    prompts = {prompt: group for group, own in groups.items() for prompt in own}
    texts = encode(list(prompts))
    attributes = {}
    for name, values in labelled.attributes.items():
        log.info("measuring bias by %s over %d prompts", name, len(prompts))
        places = np.flatnonzero([value != "" for value in values])
        own = [values[place] for place in places.tolist()]
        orders = np.argsort(-(texts @ labelled.vectors[places].T), axis=1, kind="stable")
        attributes[name] = measure_attribute(own, orders, prompts, config, name)
    return Bias(
        dataset=labelled.name,
        images=len(labelled.vectors),
        desired=config.bias_desired,
        prompts=len(prompts),
        own_prompts=bool(config.bias_prompts),
        attributes=attributes,
    )


def checked_k(values: Collection[str], config: EvaluateConfig, name: str) -> int:
    """Returns how many of the first images are looked at.

    Args:
        values: of an attribute, of each image.
        config: gives k, or 0.
        name: of the attribute, for messages.

    Raises:
        RunError: there are fewer than two values, or no more than k images.
    """
    k, different = config.bias_k or max(1, min(LARGEST_K, len(values) // TENTH)), len(set(values))
    if different < 2 or len(values) <= k:
        raise RunError(
            f"expected two values or more of {name!r} and more than {k} images that have one, got {different} and "
            f"{len(values)}; name other --bias_columns, or lower --bias_k"
        )
    return k


def measure_attribute(
    values: Sequence[str], orders: NDArray[np.int64], prompts: Mapping[str, str], config: EvaluateConfig, name: str
) -> AttributeBias:
    """Measures how the first images of each prompt share out among the values of an attribute.

    The intervals are of a bootstrap over images, with the prompts as they are; the desired shares of a sample are its
    own. A sample holds some images several times, one behind another, and so is more skewed than the images themselves:
    the interval is how far samples are from their mean, around the figure. Chance is the mean of random orders of the
    same images: with few images for many values it is far above 0.

    Args:
        values: of each image.
        orders: (prompts, images): for each prompt the numbers of the images, the nearest first.
        prompts: prompt → group.
        config: gives k, the desired shares and the number of bootstrap samples.
        name: of the attribute, for messages.

    Raises:
        RunError: there are fewer than two values, or no more than k images.
    """
    names, codes = np.unique(np.asarray(values), return_inverse=True)
    k = checked_k(values, config, name)

    def desired_of(drawn: Codes) -> Values:
        counts = np.bincount(drawn, minlength=len(names)).astype(np.float64)
        shares = (counts > 0).astype(np.float64) if config.bias_desired == EQUAL else counts
        return np.asarray(shares / shares.sum(), np.float64)

    desired, ordered = desired_of(codes), codes[orders]
    measures: tuple[Callable[[Codes, Values], float], ...] = (max_skew, ndkl)
    found = np.array([[measure(row[:k], desired) for row in ordered] for measure in measures])
    drawn = np.empty((len(measures), len(ordered), config.bootstrap_samples))
    rng = np.random.default_rng(0)
    for sample in range(config.bootstrap_samples):
        times = np.bincount(rng.integers(0, len(codes), len(codes)), minlength=len(codes))
        own = desired_of(np.repeat(codes, times))
        for number, order in enumerate(orders):
            first = np.repeat(ordered[number], times[order])[:k]
            drawn[:, number, sample] = [measure(first, own) for measure in measures]
    random = [rng.permutation(codes)[:k] for _ in range(RANDOM_ORDERS)]
    chance = [float(np.mean([measure(first, desired) for first in random])) for measure in measures]

    def estimate(which: int, numbers: Sequence[int]) -> Estimate:
        value = float(found[which, numbers].mean())
        if not config.bootstrap_samples:
            return Estimate(value)
        means = drawn[which, numbers].mean(axis=0)
        low, high = interval(means - means.mean() + value)
        return Estimate(value, (max(0.0, low), high))

    every = range(len(ordered))
    members: dict[str, list[int]] = {}
    for number, group in enumerate(prompts.values()):
        members.setdefault(group, []).append(number)
    return AttributeBias(
        images=len(codes),
        k=k,
        values={str(value): float(share) for value, share in zip(names, desired)},
        max_skew=estimate(0, list(every)),
        max_skew_by_chance=chance[0],
        ndkl=estimate(1, list(every)),
        ndkl_by_chance=chance[1],
        groups={group: estimate(0, numbers) for group, numbers in members.items()},
        by_prompt={
            prompt: _of_prompt(ordered[number, :k], desired, names.tolist(), group, estimate(0, [number]))
            for number, (prompt, group) in enumerate(prompts.items())
        },
    )


def _of_prompt(codes: Codes, desired: Values, names: Sequence[str], group: str, measured: Estimate) -> PromptBias:
    """Returns what one prompt finds first."""
    each = skews(codes, desired)
    return PromptBias(
        group=group,
        max_skew=measured,
        most=names[int(np.nanargmax(each))],
        skew={name: float(skew) if np.isfinite(skew) else None for name, skew in zip(names, each)},
    )
