"""The objectives of distillation: the regression targets, and the weights of the two losses."""

from __future__ import annotations

import math
from dataclasses import dataclass

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)  # Source: Radford et al., Learning Transferable Visual Models…, 2021, 2.5
REGRESSION = "MSE distillation: captions go in, the regression target is"
IMAGES = f"{REGRESSION} the frozen image model's embedding of the caption's image, scaled to norm 1"
ENGLISH = "the mean of the frozen image model's text embeddings of the image's English captions"
TRANSLATION = (
    "the frozen image model's text embedding of the English caption that the caption translates (where that is not "
    "known, the mean over the image's English captions)"
)
IN_BATCH_CONTRASTIVE = "a contrastive (InfoNCE) loss against in-batch negatives, with a learnt temperature"


@dataclass(frozen=True)
class Objective:
    """A regression target and the weights of the losses.

    Attributes:
        image: weight in the target of the image's embedding, of norm 1.
        text: weight in the target of the mean text embedding of the image's English captions, each of norm 1.
        mse: weight of the squared distance to the target.
        contrastive: weight of the contrastive (InfoNCE) loss against in-batch negatives.
        contrastive_after: fraction of the training after which the contrastive loss is added.
        centred: whether the mean of all training targets is subtracted from each.
        aligned: whether the target is of the English caption alone that a caption translates, where that is known.
        raw: whether targets and student embeddings keep the norm that the models give them, as for the baselines.
        words: the model card's description.
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
    "mse_text": Objective(image=0, text=1, words=f"{REGRESSION} {ENGLISH}, scaled to norm 1."),
    "mse_both": Objective(
        image=0.5, text=0.5, words=f"{REGRESSION} the mean of the image's embedding and {ENGLISH}, scaled to norm 1."
    ),
    "mse_text_raw": Objective(image=0, text=1, raw=True, words=f"{REGRESSION} {ENGLISH}, not scaled."),
    "mse_translation": Objective(image=0, text=1, aligned=True, words=f"{REGRESSION} {TRANSLATION}, scaled to norm 1."),
    "mse_translation_raw": Objective(
        image=0, text=1, aligned=True, raw=True, words=f"{REGRESSION} {TRANSLATION}, not scaled."
    ),
    "centred": Objective(centred=True, words=f"{IMAGES}, minus the mean of all of them, scaled to norm 1 again."),
    "contrastive": Objective(
        mse=0,
        contrastive=1,
        words="Contrastive distillation: captions go in, the frozen image model's embeddings of their images are the "
        f"positives of {IN_BATCH_CONTRASTIVE}.",
    ),
    "mse_contrastive": Objective(contrastive=0.1, words=f"{IMAGES}; plus, with weight 0.1, {IN_BATCH_CONTRASTIVE}."),
    "mse_then_contrastive": Objective(
        contrastive=1,
        contrastive_after=0.5,
        words=f"{IMAGES}; plus, in the second half of the training, {IN_BATCH_CONTRASTIVE}.",
    ),
}
