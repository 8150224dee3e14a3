"""The losses: captions against regression targets or in-batch negatives, over ranks and micro-batches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer.losses import MSELoss
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from training.distillation.callbacks import MAX_LOGIT_SCALE
from training.distillation.sharding import StepState
from training.run.objectives import INITIAL_LOGIT_SCALE, Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers.models.clip.modeling_clip import CLIPOutput

SAME_IMAGE = 1 - 1e-5  # cosine above which two regression targets are of one image


def loss_for(model: SentenceTransformer, objective: Objective, step_state: StepState) -> nn.Module:
    """Returns the loss of an objective: `FrozenImageLoss` where it has a contrastive part, else `ShardedMSELoss`.

    Args:
        model: the text encoder that is trained.
        objective: the weights of its parts.
        step_state: the micro-batch that is being computed.
    """
    return FrozenImageLoss(model, objective, step_state) if objective.contrastive else ShardedMSELoss(model, step_state)


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
    """The squared distance to the regression target, plus a contrastive (InfoNCE) loss against in-batch negatives.

    The squared distance is summed over the components and halved: 1 - cosine for unit vectors. The contrastive loss is
    `contrastive_loss` with a learnt temperature; the frozen image side gets no gradient. Its negatives are those of the
    micro-batch, over all ranks: each rank computes it over the rows of all.

    Attributes:
        progress: fraction of the training that is done, set by `TrackProgress`.
    """

    def __init__(self, model: SentenceTransformer, objective: Objective, step_state: StepState) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.step_state = step_state
        self.progress = 0.0
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Returns the scalar loss.

        Args:
            sentence_features: one column of b tokenised captions.
            labels: (b, dim) regression targets of norm 1.
        """
        (features,) = sentence_features
        texts = self.model(features)["sentence_embedding"].float()
        images = labels.to(texts)
        distance = (texts - images).square().sum(dim=1).mean() / 2
        loss: Tensor = self.objective.mse * distance * self.step_state.weight
        if self.progress >= self.objective.contrastive_after and any(self.step_state.sizes):
            all_texts, all_images = _gather_ranks(texts, images, self.step_state)
            in_batch = contrastive_loss(all_texts, all_images, self.logit_scale.exp())
            loss = loss + self.objective.contrastive * in_batch * self.step_state.weight_of_all
        return loss


def contrastive_loss(texts: Tensor, images: Tensor, scale: Tensor) -> Tensor:
    """Returns the symmetric InfoNCE loss of captions and images; images of equal embedding are no negatives.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, figure 3.

    Args:
        texts: (b, dim) of norm 1; row i captions image i.
        images: (b, dim) of norm 1; equal rows are one image.
        scale: scalar factor of the cosines, 1 / temperature.
    """
    return _symmetric_cross_entropy(scale * texts @ images.T, images @ images.T > SAME_IMAGE)


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


def _gather_ranks(texts: Tensor, images: Tensor, step_state: StepState) -> tuple[Tensor, Tensor]:
    """Returns the (n, dim) texts and images of all ranks in this micro-batch, in the order of the ranks.

    Only this rank's rows carry a gradient, times world_size: the mean of the gradients over the ranks, which the
    trainer takes, is then the gradient of a single process with all rows.

    Args:
        texts: (b, dim) of this rank.
        images: (b, dim) that belong to them.
        step_state: how many rows each rank has.
    """
    sharding, sizes = step_state.sharding, step_state.sizes
    if sharding.world_size == 1:
        return texts, images
    own = sizes[sharding.rank]
    rows = torch.cat([texts.detach(), images], dim=1)[:own]
    padded = functional.pad(rows, (0, 0, 0, max(sizes) - own))  # all_gather needs equal shapes
    gathered = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(gathered, padded)
    shards = [shard[:size].tensor_split(2, dim=1) for shard, size in zip(gathered, sizes)]
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
