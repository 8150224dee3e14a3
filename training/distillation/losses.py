"""The losses: captions against targets, images, false captions and each other, over ranks and micro-batches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer.losses import MSELoss
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from training.distillation.callbacks import MAX_LOGIT_SCALE
from training.distillation.computing import exact_products
from training.distillation.sharding import StepState
from training.pairs.labels import Labels
from training.run.distributed import world_size
from training.run.objectives import INITIAL_LOGIT_SCALE, Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers.models.clip.modeling_clip import CLIPOutput

    from training.pairs.bank import Bank

SAME_IMAGE = 1 - 1e-5  # cosine above which two regression targets are of one image


def loss_for(
    model: SentenceTransformer,
    objective: Objective,
    step_state: StepState,
    *,
    bank: Bank | None = None,
    widths: Sequence[int] = (),
    all_imaged: bool = False,
) -> nn.Module:
    """Returns the loss of an objective: `ShardedMSELoss` for a plain regression, else `FrozenImageLoss`.

    Args:
        model: the text encoder that is trained.
        objective: the weights of its parts.
        step_state: the micro-batch that is being computed.
        bank: embeddings of the training images, for an objective with a bank.
        widths: shorter widths that are trained beside the full one.
        all_imaged: whether each caption is of an image; otherwise each step waits for the device to say which are.
    """
    if objective.needs_images or objective.needs_batch or widths:
        return FrozenImageLoss(model, objective, step_state, bank=bank, widths=widths, all_imaged=all_imaged)
    return ShardedMSELoss(model, step_state)


class ShardedMSELoss(MSELoss):  # type: ignore[misc]
    """The MSELoss of Sentence Transformers, times the weight of this shard in its optimizer step (1 without shards)."""

    def __init__(self, model: SentenceTransformer, step_state: StepState) -> None:
        super().__init__(model)
        self.step_state = step_state

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Returns the scalar loss.

        Args:
            sentence_features: one column of b tokenised captions.
            labels: (b, dim) regression targets, of norm 1 unless the objective is raw.
        """
        loss: Tensor = super().forward(sentence_features, labels)
        return loss * self.step_state.weight


class FrozenImageLoss(nn.Module):
    """The squared distance to the regression target, plus the objective's other losses, each with its weight.

    The squared distance is summed over the components and halved: 1 - cosine for unit vectors. The others are
    `contrastive_loss`, `bank_loss` and `negatives_loss`, which share a learnt temperature, and `structure_loss`. The
    frozen image side gets no gradient. In-batch negatives and structure are those of the micro-batch, over all ranks:
    each rank computes them over the rows of all. Each loss is a mean over all captions, to which those without an image
    or without a false caption add nothing, so that a caption weighs the same whatever else is in its batch.

    With shorter widths, the loss is the mean over the full width and these: of the first components of captions,
    targets and images, scaled to norm 1 again. Source: Kusupati et al., Matryoshka Representation Learning, 2022. The
    MatryoshkaLoss of Sentence Transformers would leave the targets shorter than 1, and knows no images in the labels.

    Attributes:
        progress: fraction of the training that is done, set by `TrackProgress`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        objective: Objective,
        step_state: StepState,
        *,
        bank: Bank | None = None,
        widths: Sequence[int] = (),
        all_imaged: bool = False,
    ) -> None:
        """Takes what `loss_for` describes; the widths are all shorter than the model's."""
        super().__init__()
        self.model = model
        self.objective = objective
        self.step_state = step_state
        self.bank = bank
        self.widths = widths
        self.all_imaged = all_imaged
        self.progress = 0.0
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Returns the scalar loss.

        Args:
            sentence_features: a column of b tokenised captions, and for an objective with negatives one of their false
                captions.
            labels: (b, dim) or (b, 2 · dim + 1), as in training/pairs/labels.py.
        """
        captions, *false_captions = sentence_features
        texts = self.model(captions)["sentence_embedding"].float()
        against_images = self.progress >= self.objective.contrastive_after
        false_texts = None
        if self.objective.negatives:
            false_texts = self.model(false_captions[0])["sentence_embedding"].float()
        exactly = exact_products(texts.device)
        with exactly, torch.autocast(texts.device.type, enabled=False):  # bf16 would take similar images for the same
            batch = _Batch.of(texts, labels.to(texts), false_texts, self)
            scale = self.logit_scale.exp()
            if scale.requires_grad:  # no part of the model, whose gradients the trainer averages over the ranks
                scale.register_hook(_mean_over_ranks)  # type: ignore[no-untyped-call]
            loss = self._of(batch, scale, against_images)
            for width in self.widths:
                loss = loss + self._of(batch.shortened(width), scale, against_images)
            return loss / (1 + len(self.widths))

    def _of(self, batch: _Batch, scale: Tensor, against_images: bool) -> Tensor:
        objective, step_state, own, every = self.objective, self.step_state, batch.own, batch.every
        distance = (batch.texts - own.targets).square().sum(dim=1).mean() / 2
        loss: Tensor = objective.mse * distance * step_state.weight
        if objective.structure and any(step_state.sizes):
            structure = structure_loss(batch.every_text, every.targets)
            loss = loss + objective.structure * structure * step_state.weight_of_all
        if own.images is None or own.has_false is None or every.images is None:
            return loss
        if batch.false_texts is not None:
            choice = negatives_loss(batch.texts, batch.false_texts, own.images, scale) * own.has_false
            loss = loss + objective.negatives * choice.mean() * step_state.weight
        if not against_images:
            return loss
        if objective.contrastive and any(step_state.sizes):
            in_batch = self._contrastive(batch.every_text, every, every.images, scale)
            loss = loss + objective.contrastive * in_batch * step_state.weight_of_all
        if batch.bank is not None and batch.same is not None:
            against_bank = bank_loss(batch.texts, own.images, batch.bank, scale, batch.same) * own.has_image
            loss = loss + objective.bank * against_bank.mean() * step_state.weight
        return loss

    def _contrastive(self, texts: Tensor, labels: Labels, images: Tensor, scale: Tensor) -> Tensor | float:
        """Returns the contrastive loss of the captions of images, times their part of all captions."""
        if self.all_imaged:
            return contrastive_loss(texts, images, scale)
        imaged = labels.has_image
        if not imaged.any():
            return 0.0
        return contrastive_loss(texts[imaged], images[imaged], scale) * imaged.float().mean()


@dataclass(frozen=True)
class _Batch:
    """What the losses of one micro-batch are computed of, at one width.

    Attributes:
        texts: (b, dim) embeddings of this rank's captions.
        own: their labels.
        every_text: (n, dim) embeddings of the captions of all ranks, where a loss compares them; else this rank's.
        every: their labels.
        false_texts: (b, dim) embeddings of this rank's false captions; None: no loss needs them.
        bank: (m, dim) embeddings of images; None: no loss needs them.
        same: (b, m) bool: which of them are of the caption's own image.
    """

    texts: Tensor
    own: Labels
    every_text: Tensor
    every: Labels
    false_texts: Tensor | None = None
    bank: Tensor | None = None
    same: Tensor | None = None

    @classmethod
    def of(cls, texts: Tensor, labels: Tensor, false_texts: Tensor | None, loss: FrozenImageLoss) -> _Batch:
        """Gathers what the losses need, from the other ranks and from the bank."""
        own, step_state = Labels.split(labels, texts.shape[1]), loss.step_state
        every_text, every = texts, own
        if loss.objective.needs_batch and any(step_state.sizes):
            every_text, gathered = _gather_ranks(texts, labels, step_state)
            every = Labels.split(gathered, texts.shape[1])
        bank = same = None
        if loss.bank is not None and own.images is not None and loss.progress >= loss.objective.contrastive_after:
            bank = loss.bank.at(step_state.step, texts.device)
            same = own.images @ bank.T > SAME_IMAGE
        return cls(texts, own, every_text, every, false_texts, bank, same)

    def shortened(self, width: int) -> _Batch:
        """Returns the batch with the first components of all vectors, scaled to norm 1."""

        def shorter(vectors: Tensor) -> Tensor:
            return functional.normalize(vectors[:, :width], dim=1)

        def if_any(vectors: Tensor | None) -> Tensor | None:
            return None if vectors is None else shorter(vectors)

        def shorter_labels(labels: Labels) -> Labels:
            return replace(labels, targets=shorter(labels.targets), images=if_any(labels.images))

        return replace(
            self,
            texts=shorter(self.texts),
            own=shorter_labels(self.own),
            every_text=shorter(self.every_text),
            every=shorter_labels(self.every),
            false_texts=if_any(self.false_texts),
            bank=if_any(self.bank),
        )


def _mean_over_ranks(gradient: Tensor) -> Tensor:
    """Returns the mean of a gradient over the ranks, on each of them."""
    if world_size() == 1:
        return gradient
    mean = gradient.clone()
    torch.distributed.all_reduce(mean)
    return mean / world_size()


def contrastive_loss(texts: Tensor, images: Tensor, scale: Tensor) -> Tensor:
    """Returns the symmetric InfoNCE loss of captions and images; images of equal embedding are no negatives.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, figure 3.

    Args:
        texts: (b, dim) of norm 1; row i captions image i.
        images: (b, dim) of norm 1; equal rows are one image.
        scale: scalar factor of the cosines, 1 / temperature.
    """
    return _symmetric_cross_entropy(scale * texts @ images.T, images @ images.T > SAME_IMAGE)


def bank_loss(texts: Tensor, images: Tensor, bank: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Returns for each caption the cross-entropy of its image among the bank: (b,).

    For cosines c with the bank and the cosine o with its own image: log(exp(s o) + Σ_j exp(s c_j)) - s o, where the sum
    leaves out the rows of the bank that are its own image. Source: He et al., Momentum Contrast for Unsupervised Visual
    Representation Learning, 2020, equation 1.

    Args:
        texts: (b, dim) of norm 1.
        images: (b, dim) of norm 1: the image of each caption.
        bank: (m, dim) of norm 1.
        scale: scalar factor of the cosines, 1 / temperature.
        same: (b, m) bool: which rows of the bank are the caption's own image.
    """
    own = scale * (texts * images).sum(dim=1, keepdim=True)
    others = (scale * texts @ bank.T).masked_fill(same, -math.inf)
    return torch.logsumexp(torch.cat([own, others], dim=1), dim=1) - own[:, 0]


def negatives_loss(texts: Tensor, false_texts: Tensor, images: Tensor, scale: Tensor) -> Tensor:
    """Returns for each caption the negative log-likelihood that its image prefers it to its false caption: (b,).

    For a difference d of the two cosines with the image: -log σ(s d).

    Args:
        texts: (b, dim) of norm 1.
        false_texts: (b, dim) of norm 1: the false caption of each caption.
        images: (b, dim) of norm 1: the image of each caption.
        scale: scalar factor of the cosines, 1 / temperature.
    """
    return functional.softplus(-scale * ((texts - false_texts) * images).sum(dim=1))


def structure_loss(texts: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean squared difference of the cosines of all pairs of captions and of their targets; 0 for one.

    Source: Park et al., Relational Knowledge Distillation, 2019, equation 2, with cosines as the relation.

    Args:
        texts: (b, dim) of norm 1.
        targets: (b, dim) of norm 1.
    """
    itself = torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    difference = (texts @ texts.T - targets @ targets.T).masked_fill(itself, 0)
    return difference.square().sum() / max(1, len(texts) * (len(texts) - 1))


def _symmetric_cross_entropy(logits: Tensor, same: Tensor) -> Tensor:
    """Returns the mean of the cross-entropies of the rows and of the columns, without false negatives.

    For logits l: -1/(2b) Σ_i log(exp(2 l_ii) / (Σ_j exp(l_ij) · Σ_k exp(l_ki))), where the sums leave out every j and
    k ≠ i that is the same as i; k goes over the hard negatives, too. Sources: Radford et al. 2021, figure 3, whose
    sums leave out none; for hard negatives Yuksekgonul et al., When and why vision-language models behave like
    bags-of-words, 2023, section 5.

    Args:
        logits: (b + h, b) float; row i has caption i against all images, its own on the diagonal; the last h rows are
            of captions that belong to none.
        same: (b + h, b) bool; pairs that belong together: off the diagonal, these are the false negatives.
    """
    images = logits.shape[1]
    diagonal = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(same & ~diagonal, -math.inf)
    positives = torch.arange(images, device=logits.device)
    return (functional.cross_entropy(logits[:images], positives) + functional.cross_entropy(logits.T, positives)) / 2


def clip_loss(outputs: CLIPOutput, labels: Tensor, **_: Any) -> Tensor:
    """Returns CLIP's loss (`compute_loss_func` of the trainer); images with equal captions are no negatives.

    Args:
        outputs: with logits_per_text, (b + h, b): of the captions of b images, and of h hard negatives.
        labels: (b + h,) integers, equal for equal captions.
    """
    logits = outputs.logits_per_text
    return _symmetric_cross_entropy(logits, labels[:, None] == labels[: logits.shape[1]])


def label_loss(images: Tensor, present: Tensor, vectors: Tensor) -> Tensor:
    """Returns the cross-entropy of choosing each label of an image among all labels, averaged over images with labels.

    The labels' vectors are fixed, so the loss teaches the image tower what captions can't as long as the text tower
    does not know the order of words. Source: Huang et al., Classification Done Right for Vision-Language Pre-Training,
    2024, whose labels are the tokens of captions and have a layer that is learnt.

    Args:
        images: (b, dim) of norm 1.
        present: (b, n) bool, which labels an image has; at least one image has some.
        vectors: (n, dim) of norm 1.
    """
    log_probabilities = functional.log_softmax(math.exp(INITIAL_LOGIT_SCALE) * images @ vectors.T, dim=1)
    counts = present.sum(dim=1)
    of_image = -(log_probabilities * present).sum(dim=1) / counts.clamp(min=1)
    return of_image.sum() / (counts > 0).sum().clamp(min=1)


class ClipLoss:
    """`compute_loss_func` of the trainer: `clip_loss`, and with a weight `label_loss`."""

    def __init__(self, label_vectors: Tensor, weight: float) -> None:
        """Keeps the labels' vectors, (n, dim) of norm 1, and the weight of their loss."""
        self.label_vectors = label_vectors
        self.weight = weight

    def __call__(self, outputs: CLIPOutput, labels: Tensor, **_: Any) -> Tensor:
        """Returns the scalar loss.

        Args:
            outputs: with logits_per_text, (b + h, b), and image_embeds, (b, dim).
            labels: (b + h, 1 + n) integers: of a caption a number, equal for equal captions; then of its image for each
                label 1 if it has it.
        """
        loss = clip_loss(outputs, labels[:, 0])
        if self.weight:
            present = labels[: outputs.logits_per_text.shape[1], 1:] > 0
            loss = loss + self.weight * label_loss(outputs.image_embeds, present, self.label_vectors.to(loss))
        return loss


def _gather_ranks(texts: Tensor, labels: Tensor, step_state: StepState) -> tuple[Tensor, Tensor]:
    """Returns the (n, dim) texts and (n, k) labels of all ranks in this micro-batch, in the order of the ranks.

    Only this rank's rows carry a gradient, times world_size: the mean of the gradients over the ranks, which the
    trainer takes, is then the gradient of a single process with all rows.

    Args:
        texts: (b, dim) of this rank.
        labels: (b, k) that belong to them.
        step_state: how many rows each rank has.
    """
    sharding, sizes = step_state.sharding, step_state.sizes
    if sharding.world_size == 1:
        return texts, labels
    own = sizes[sharding.rank]
    rows = torch.cat([texts.detach(), labels], dim=1)[:own]
    padded = functional.pad(rows, (0, 0, 0, max(sizes) - own))  # all_gather needs equal shapes
    gathered = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(gathered, padded)
    shards = [shard[:size].tensor_split([texts.shape[1]], dim=1) for shard, size in zip(gathered, sizes)]
    with_gradient = texts[:own].detach() + sharding.world_size * (texts[:own] - texts[:own].detach())
    all_texts = [with_gradient if rank == sharding.rank else shard[0] for rank, shard in enumerate(shards)]
    return torch.cat(all_texts), torch.cat([shard[1] for shard in shards])


class TrackProgress(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Passes the progress of the training to a loss, and keeps its temperature in bounds and in the checkpoints.

    The logit scale is no weight of the model: it is saved with the trainer's state, and read from there on resume.
    """

    def __init__(self, loss: FrozenImageLoss, resume_from: str | None) -> None:
        self.loss = loss
        if resume_from is not None:
            state = json.loads((Path(resume_from) / "trainer_state.json").read_text(encoding="utf-8"))
            saved = state["stateful_callbacks"][type(self).__name__]["attributes"]
            loss.logit_scale.data.fill_(saved["logit_scale"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.loss.progress = state.global_step / state.max_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.loss.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)

    def state(self) -> dict[str, Any]:
        """Returns what the trainer writes into trainer_state.json."""
        return {"args": {}, "attributes": {"logit_scale": self.loss.logit_scale.item()}}
