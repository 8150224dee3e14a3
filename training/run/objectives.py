"""The objectives of distillation: the regression targets, and the weights of the losses."""

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
BOTH = f"the mean of the image's embedding and {ENGLISH}, scaled to norm 1"
IN_BATCH_CONTRASTIVE = "a contrastive (InfoNCE) loss against in-batch negatives, with a learnt temperature"
BANK = "a contrastive (InfoNCE) loss against a bank of the stored embeddings of all training images"
STRUCTURE = "the squared difference between the cosines of the batch's captions and those of their targets"
NEGATIVES = "a choice between each caption and one with a colour, relation or number exchanged, or with a negation"
SECOND_HALF = "plus, in the second half of the training,"


@dataclass(frozen=True)
class Objective:
    """A regression target and the weights of the losses.

    The contrastive losses are against images, whatever the regression target is: each caption's image is its positive.

    Attributes:
        image: weight in the target of the image's embedding, of norm 1.
        text: weight in the target of the mean text embedding of the image's English captions, each of norm 1.
        mse: weight of the squared distance to the target.
        contrastive: weight of the contrastive (InfoNCE) loss against in-batch negatives.
        bank: weight of the contrastive loss against a bank of the embeddings of training images.
        negatives: weight of the choice between a caption and its false caption (training/pairs/negatives.py).
        structure: weight of the squared difference between the cosines of the captions and those of their targets.
        contrastive_after: fraction of the training after which the contrastive losses are added.
        centred: whether the mean of all training targets is subtracted from each.
        aligned: whether the target is of the English caption alone that a caption translates, where that is known.
        raw: whether targets and student embeddings keep the norm that the models give them, as for the baselines.
        words: the model card's description.
    """

    image: float = 1.0
    text: float = 0.0
    mse: float = 1.0
    contrastive: float = 0.0
    bank: float = 0.0
    negatives: float = 0.0
    structure: float = 0.0
    contrastive_after: float = 0.0
    centred: bool = False
    aligned: bool = False
    raw: bool = False
    words: str = IMAGES + "."

    @property
    def needs_images(self) -> bool:
        """Whether a loss compares captions with the images themselves, beside the regression targets."""
        return bool(self.contrastive or self.bank or self.negatives)

    @property
    def targets_are_images(self) -> bool:
        """Whether the regression target of a caption is the unit embedding of its image, and nothing else."""
        return bool(self.image) and not (self.text or self.centred or self.raw)

    @property
    def needs_batch(self) -> bool:
        """Whether a loss compares the captions of a micro-batch with each other."""
        return bool(self.contrastive or self.structure)


# Sources: mse_translation_raw is M-CLIP (Carlsson et al., Cross-lingual and Multilingual CLIP, 2022), after Reimers and
# Gurevych, Making Monolingual Sentence Embeddings Multilingual, 2020; contrastive is CLIP's loss (Radford et al. 2021,
# figure 3) with a frozen image side, as in LiT (Zhai et al. 2022); mse_then_contrastive is the order of AltCLIP (Chen
# et al. 2022); centred is against the hubs of regression (Shigeto et al., Ridge Regression, Hubness, and Zero-Shot
# Learning, 2015). The bank is that of He et al., Momentum Contrast, 2020, without their momentum, since the teacher is
# frozen and its vectors never go stale; S-SMKE takes one of 65,536 stored teacher vectors, after a regression.
# Structure is relational knowledge distillation (Park et al. 2019) with cosines in place of distances. Negatives are
# those of NegCLIP (Yuksekgonul et al., When and Why Vision-Language Models Behave like Bags-of-Words, 2023), each
# against its own caption alone.
OBJECTIVES = {
    "mse": Objective(),
    "mse_text": Objective(image=0, text=1, words=f"{REGRESSION} {ENGLISH}, scaled to norm 1."),
    "mse_both": Objective(image=0.5, text=0.5, words=f"{REGRESSION} {BOTH}."),
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
        words=f"{IMAGES}; {SECOND_HALF} {IN_BATCH_CONTRASTIVE}.",
    ),
    "bank": Objective(
        mse=0,
        bank=1,
        words="Contrastive distillation: captions go in, the frozen image model's embeddings of their images are the "
        f"positives of {BANK}, with a learnt temperature.",
    ),
    "mse_bank": Objective(bank=1, words=f"{IMAGES}; plus {BANK}."),
    "mse_then_bank": Objective(bank=1, contrastive_after=0.5, words=f"{IMAGES}; {SECOND_HALF} {BANK}."),
    "mse_both_bank": Objective(image=0.5, text=0.5, bank=1, words=f"{REGRESSION} {BOTH}; plus {BANK}."),
    "mse_structure": Objective(structure=1, words=f"{IMAGES}; plus {STRUCTURE}."),
    "mse_bank_structure": Objective(bank=1, structure=1, words=f"{IMAGES}; plus {STRUCTURE}; plus {BANK}."),
    "mse_negatives": Objective(negatives=1, words=f"{IMAGES}; plus {NEGATIVES}."),
    "mse_then_contrastive_negatives": Objective(
        contrastive=1,
        negatives=1,
        contrastive_after=0.5,
        words=f"{IMAGES}; {SECOND_HALF} {IN_BATCH_CONTRASTIVE}; and {NEGATIVES}.",
    ),
    "mse_then_bank_negatives": Objective(
        bank=1, negatives=1, contrastive_after=0.5, words=f"{IMAGES}; {SECOND_HALF} {BANK}; and {NEGATIVES}."
    ),
    "mse_bank_negatives": Objective(bank=1, negatives=1, words=f"{IMAGES}; plus {BANK}; plus {NEGATIVES}."),
}
