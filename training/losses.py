"""The loss that sentence-transformers does not have: a text tower against frozen picture vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from training.callbacks import MAX_LOGIT_SCALE
from training.objectives import INITIAL_LOGIT_SCALE, Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SAME_PICTURE = 1 - 1e-5  # cosine from which two labels are of one picture


def loss_for(model: SentenceTransformer, objective: Objective) -> nn.Module:
    """The host's own MSELoss where it is all that is asked for, else `FrozenPictureLoss`."""
    if not objective.contrastive:
        from sentence_transformers.sentence_transformer.losses import MSELoss

        loss: nn.Module = MSELoss(model)
        return loss
    return FrozenPictureLoss(model, objective)


class FrozenPictureLoss(nn.Module):
    """Squared distance to the picture's vector, and the cross-entropy of telling it from the batch's other pictures.

    The cross-entropy is CLIP's, symmetric, with a learnt temperature (Source: Radford et al. 2021, figure 3), where the
    picture side gets no gradient. Captions of one picture, and pictures of one vector, are no negatives of each other.
    The squared distance is summed over the components and halved: 1 - cosine for unit vectors.

    Attributes:
        progress: of the training, 0 to 1; `FollowProgress` sets it.
    """

    def __init__(self, model: SentenceTransformer, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.progress = 0.0
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """From one column of tokenised captions and (b, dim) labels of norm 1: a scalar."""
        (features,) = sentence_features
        texts = self.model(features)["sentence_embedding"].float()
        pictures = labels.to(texts)
        loss: Tensor = self.objective.mse * (texts - pictures).square().sum(dim=1).mean() / 2
        if self.progress >= self.objective.after:
            loss = loss + self.objective.contrastive * contrastive(texts, pictures, self.logit_scale.exp())
        return loss


def contrastive(texts: Tensor, pictures: Tensor, scale: Tensor) -> Tensor:
    """The mean of both directions' cross-entropies.

    Args:
        texts: (b, dim) of norm 1; row i captions picture i.
        pictures: (b, dim) of norm 1; equal rows are one picture.
        scale: by which cosines are multiplied, 1 / temperature.
    """
    logits = scale * texts @ pictures.T
    same = pictures @ pictures.T > SAME_PICTURE
    own = torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    logits = logits.masked_fill(same & ~own, -math.inf)
    right = torch.arange(len(texts), device=texts.device)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


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
