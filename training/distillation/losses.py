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
from training.distillation.sharding import Turn
from training.run.objectives import INITIAL_LOGIT_SCALE, Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers.models.clip.modeling_clip import CLIPOutput

SAME_PICTURE = 1 - 1e-5  # cosine from which two labels are of one picture


def loss_for(model: SentenceTransformer, objective: Objective, turn: Turn) -> nn.Module:
    """The host's own MSELoss where it is all that is asked for, else `FrozenPictureLoss`."""
    return FrozenPictureLoss(model, objective, turn) if objective.contrastive else PartOfMSE(model, turn)


class PartOfMSE(MSELoss):  # type: ignore[misc]
    """The host's MSELoss, times what the rows at hand weigh in their update: 1 where they are all of it."""

    def __init__(self, model: SentenceTransformer, turn: Turn) -> None:
        super().__init__(model)
        self.turn = turn

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """From one column of tokenised captions and (b, dim) labels: a scalar."""
        loss: Tensor = super().forward(sentence_features, labels)
        return loss * self.turn.weight


class FrozenPictureLoss(nn.Module):
    """Squared distance to the picture's vector, and the cross-entropy of telling it from the batch's other pictures.

    The cross-entropy is CLIP's, symmetric, with a learnt temperature (Source: Radford et al. 2021, figure 3), where the
    picture side gets no gradient. Captions of one picture, and pictures of one vector, are no negatives of each other.
    The squared distance is summed over the components and halved: 1 - cosine for unit vectors.

    Several processes tell a picture from those of all of them: each computes the cross-entropy of all their rows. An
    update in several micro-batches tells it from those of the micro-batch alone.

    Attributes:
        progress: of the training, 0 to 1; `FollowProgress` sets it.
    """

    def __init__(self, model: SentenceTransformer, objective: Objective, turn: Turn) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.turn = turn
        self.progress = 0.0
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """From one column of tokenised captions and (b, dim) labels of norm 1: a scalar."""
        (features,) = sentence_features
        texts = self.model(features)["sentence_embedding"].float()
        pictures = labels.to(texts)
        distance = (texts - pictures).square().sum(dim=1).mean() / 2
        loss: Tensor = self.objective.mse * distance * self.turn.weight
        if self.progress >= self.objective.after and any(self.turn.sizes):
            all_texts, all_pictures = of_all_processes(texts, pictures, self.turn)
            told_apart = contrastive(all_texts, all_pictures, self.logit_scale.exp())
            loss = loss + self.objective.contrastive * told_apart * self.turn.weight_of_all
        return loss


def contrastive(texts: Tensor, pictures: Tensor, scale: Tensor) -> Tensor:
    """The mean of both directions' cross-entropies.

    Args:
        texts: (b, dim) of norm 1; row i captions picture i.
        pictures: (b, dim) of norm 1; equal rows are one picture.
        scale: by which cosines are multiplied, 1 / temperature.
    """
    return both_ways(scale * texts @ pictures.T, pictures @ pictures.T > SAME_PICTURE)


def both_ways(logits: Tensor, same: Tensor) -> Tensor:
    """CLIP's loss (Source: Radford et al. 2021, figure 3), where what is the same is no negative.

    Args:
        logits: (b, b) float; row i is caption i against all pictures, and the diagonal is right.
        same: (b, b) bool, which pairs off the diagonal are right, too; they are left out of the sums.

    Returns:
        The mean of the cross-entropies of the rows and of the columns.
    """
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(same & ~own, -math.inf)
    right = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def clip_loss(outputs: CLIPOutput, labels: Tensor, **_: Any) -> Tensor:
    """The trainer's slot for a loss of both towers: pictures of one caption are no negatives of it.

    Args:
        outputs: with logits_per_text (b, b).
        labels: (b,) equal numbers for equal captions.
    """
    return both_ways(outputs.logits_per_text, labels[:, None] == labels)


def of_all_processes(texts: Tensor, pictures: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
    """The rows of all processes in this micro-batch, in the order of the processes; the same in each.

    This process's rows alone carry a gradient, as many times as there are processes: the gradients' mean, which the
    trainer takes, is then that of one process with all rows. The values are those of one process.

    Args:
        texts: (b, dim) of this process.
        pictures: (b, dim) that belong to them.
        turn: how many rows each process has.

    Returns:
        (n, dim) texts and pictures.
    """
    shares, sizes = turn.shares, turn.sizes
    if shares.processes == 1:
        return texts, pictures
    most, own = max(sizes), sizes[shares.process]
    rows = torch.cat([texts.detach(), pictures], dim=1)[:own]
    padded = functional.pad(rows, (0, 0, 0, most - own))  # gathering wants equal shapes
    gathered = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(gathered, padded)
    parts = [part[:size].tensor_split(2, dim=1) for part, size in zip(gathered, sizes)]
    with_gradient = texts[:own].detach() + shares.processes * (texts[:own] - texts[:own].detach())
    all_texts = [with_gradient if number == shares.process else part[0] for number, part in enumerate(parts)]
    return torch.cat(all_texts), torch.cat([part[1] for part in parts])


class FollowProgress(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Tells a loss how far the training is, bounds its temperature, and keeps it in the checkpoints' trainer state."""

    def __init__(self, loss: FrozenPictureLoss, resume_from: str | None) -> None:
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
