"""The losses: a text tower against frozen image vectors, of which each rank and micro-batch has its part."""

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

SAME_IMAGE = 1 - 1e-5  # cosine from which two labels are of one image


def loss_for(model: SentenceTransformer, objective: Objective, step_state: StepState) -> nn.Module:
    """The host's own MSELoss where it is all that is asked for, else `FrozenImageLoss`."""
    return FrozenImageLoss(model, objective, step_state) if objective.contrastive else ShardedMSELoss(model, step_state)


class ShardedMSELoss(MSELoss):  # type: ignore[misc]
    """The host's MSELoss, times what the rows at hand weigh in their update: 1 where they are all of it."""

    def __init__(self, model: SentenceTransformer, step_state: StepState) -> None:
        super().__init__(model)
        self.step_state = step_state

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """From one column of tokenised captions and (b, dim) labels: a scalar."""
        loss: Tensor = super().forward(sentence_features, labels)
        return loss * self.step_state.weight


class FrozenImageLoss(nn.Module):
    """Squared distance to the image's vector, and the cross-entropy of telling it from the batch's other images.

    The cross-entropy is CLIP's, symmetric, with a learnt temperature (Source: Radford et al. 2021, figure 3), where the
    image side gets no gradient. Captions of one image, and images of one vector, are no negatives of each other.
    The squared distance is summed over the components and halved: 1 - cosine for unit vectors.

    Several processes tell an image from those of all of them: each computes the cross-entropy of all their rows. An
    update in several micro-batches tells it from those of the micro-batch alone.

    Attributes:
        progress: of the training, 0 to 1; `TrackProgress` sets it.
    """

    def __init__(self, model: SentenceTransformer, objective: Objective, step_state: StepState) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.step_state = step_state
        self.progress = 0.0
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """From one column of tokenised captions and (b, dim) labels of norm 1: a scalar."""
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
    """The mean of both directions' cross-entropies.

    Args:
        texts: (b, dim) of norm 1; row i captions image i.
        images: (b, dim) of norm 1; equal rows are one image.
        scale: by which cosines are multiplied, 1 / temperature.
    """
    return _symmetric_cross_entropy(scale * texts @ images.T, images @ images.T > SAME_IMAGE)


def _symmetric_cross_entropy(logits: Tensor, same: Tensor) -> Tensor:
    """CLIP's loss (Source: Radford et al. 2021, figure 3), where what is the same is no negative.

    Args:
        logits: (b, b) float; row i is caption i against all images, and the diagonal is right.
        same: (b, b) bool, which pairs off the diagonal are right, too; they are left out of the sums.

    Returns:
        The mean of the cross-entropies of the rows and of the columns.
    """
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(same & ~own, -math.inf)
    right = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def clip_loss(outputs: CLIPOutput, labels: Tensor, **_: Any) -> Tensor:
    """The trainer's slot for a loss of both towers: images of one caption are no negatives of it.

    Args:
        outputs: with logits_per_text (b, b).
        labels: (b,) equal numbers for equal captions.
    """
    return _symmetric_cross_entropy(outputs.logits_per_text, labels[:, None] == labels)


def _gather_ranks(texts: Tensor, images: Tensor, step_state: StepState) -> tuple[Tensor, Tensor]:
    """The rows of all processes in this micro-batch, in the order of the processes; the same in each.

    This process's rows alone carry a gradient, as many times as there are processes: the gradients' mean, which the
    trainer takes, is then that of one process with all rows. The values are those of one process.

    Args:
        texts: (b, dim) of this process.
        images: (b, dim) that belong to them.
        step_state: how many rows each process has.

    Returns:
        (n, dim) texts and images.
    """
    sharding, sizes = step_state.sharding, step_state.sizes
    if sharding.world_size == 1:
        return texts, images
    most, own = max(sizes), sizes[sharding.rank]
    rows = torch.cat([texts.detach(), images], dim=1)[:own]
    padded = functional.pad(rows, (0, 0, 0, most - own))  # gathering wants equal shapes
    gathered = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(gathered, padded)
    parts = [part[:size].tensor_split(2, dim=1) for part, size in zip(gathered, sizes)]
    with_gradient = texts[:own].detach() + sharding.world_size * (texts[:own] - texts[:own].detach())
    all_texts = [with_gradient if number == sharding.rank else part[0] for number, part in enumerate(parts)]
    return torch.cat(all_texts), torch.cat([part[1] for part in parts])


class TrackProgress(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Tells a loss how far the training is, bounds its temperature, and keeps it in the checkpoints' trainer state."""

    def __init__(self, loss: FrozenImageLoss, resume_from: str | None) -> None:
        self.loss = loss
        if resume_from is not None:
            state = json.loads((Path(resume_from) / "trainer_state.json").read_text(encoding="utf-8"))
            kept = state["stateful_callbacks"][type(self).__name__]["attributes"]
            loss.logit_scale.data.fill_(kept["logit_scale"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.loss.progress = state.global_step / state.max_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.loss.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)

    def state(self) -> dict[str, Any]:
        """What the trainer writes with its own state."""
        return {"args": {}, "attributes": {"logit_scale": self.loss.logit_scale.item()}}
