"""The objectives of distillation: which vector a caption's should become, and what else is asked of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)  # Source: Radford et al., Learning Transferable Visual Models…, 2021, 2.5
LABELS = "the frozen image model's vectors of their images, scaled to norm 1, are the labels"
IMAGES = f"MSE distillation: captions go in, {LABELS}"
ENGLISH = "the mean of the frozen image model's text vectors of the image's English captions"
TRANSLATION = "the frozen image model's text vector of the English caption in its place (else of all of them)"
IN_BATCH_CONTRASTIVE = (
    "a cross-entropy of telling the caption's image from the batch's others, with a learnt temperature"
)


@dataclass(frozen=True)
class Objective:
    """What distillation asks for.

    Attributes:
        image: the share of a label that is the image's unit vector.
        text: the share that is the mean of the image model's unit vectors of the image's English captions.
        mse: the weight of the squared distance to the label.
        contrastive: the weight of the cross-entropy of telling the image from the batch's others.
        contrastive_after: the share of the training after which the cross-entropy comes in.
        centred: whether the mean of the training labels is taken away from each.
        aligned: whether the label is of the English text alone that a caption translates, where that is known.
        raw: the text tower's vectors as they are, and no normalisation of ours: as the baselines do it.
        words: what the model card says of it.
    """

    image: float = 1.0
    text: float = 0.0
    mse: float = 1.0
    contrastive: float = 0.0
    contrastive_after: float = 0.0
    centred: bool = False
    aligned: bool = False
    raw: bool = False
    words: str = IMAGES + "."


# Sources: mse_translation_raw is M-CLIP (Carlsson et al., Cross-lingual and Multilingual CLIP, 2022), after Reimers and
# Gurevych, Making Monolingual Sentence Embeddings Multilingual, 2020; contrastive is CLIP's loss (Radford et al. 2021,
# figure 3) with a frozen image side, as in LiT (Zhai et al. 2022); mse_then_contrastive is the order of AltCLIP (Chen
# et al. 2022); centred is against the hubs of regression (Shigeto et al., Ridge Regression, Hubness, and Zero-Shot
# Learning, 2015).
OBJECTIVES = {
    "mse": Objective(),
    "mse_text": Objective(image=0, text=1, words=f"MSE distillation: captions go in, {ENGLISH} is the label."),
    "mse_both": Objective(
        image=0.5, text=0.5, words=f"MSE distillation: a label is the mean of the image's vector and {ENGLISH}."
    ),
    "mse_text_raw": Objective(
        image=0, text=1, raw=True, words=f"MSE distillation: captions go in, {ENGLISH}, not scaled, is the label."
    ),
    "mse_translation": Objective(
        image=0, text=1, aligned=True, words=f"MSE distillation: captions go in, {TRANSLATION} is the label of each."
    ),
    "mse_translation_raw": Objective(
        image=0,
        text=1,
        aligned=True,
        raw=True,
        words=f"MSE distillation: captions go in, {TRANSLATION}, not scaled, is the label of each.",
    ),
    "centred": Objective(centred=True, words=f"{IMAGES}, after their mean was taken away."),
    "contrastive": Objective(mse=0, contrastive=1, words=f"Against the image model's vectors: {IN_BATCH_CONTRASTIVE}."),
    "mse_contrastive": Objective(
        contrastive=0.1, words=f"{IMAGES}; to it is added, with weight 0.1, {IN_BATCH_CONTRASTIVE}."
    ),
    "mse_then_contrastive": Objective(
        contrastive=1, contrastive_after=0.5, words=f"{IMAGES}; in the second half is added {IN_BATCH_CONTRASTIVE}."
    ),
}
