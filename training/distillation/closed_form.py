"""The closed form: ridge regression from the backbone's pooled embeddings onto the targets, where training starts."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.run.distributed import is_main_process, main_process_first
from training.run.record import RunError
from turkish_clip.atomic import atomic_write, set_aside
from turkish_clip.errors import one_line, printable

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from training.pairs.dataset import Pairs
    from training.run.config import DistillConfig
    from training.run.record import Run
    from turkish_clip.evaluator import RetrievalEvaluator

log = logging.getLogger("training")
FILE = "closed_form.safetensors"
# Tried on the validation split, as multiples of the mean variance of the pooled embeddings' components.
PENALTIES = tuple(10 ** (half / 2) for half in range(-12, 3))
DEFAULT_PENALTY = 1e-3  # without a validation split; both worlds of training/LOG.md choose one within a factor of ten
CAPTIONS_AT_ONCE = 4096  # captions whose pooled embeddings are held in memory
TINY = 1e-12  # keeps the equations solvable where all inputs are equal
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class ClosedForm:
    """A dense layer: y = weight · x + bias.

    Attributes:
        weight: (dim, hidden) float32.
        bias: (dim,) float32.
        penalty: the chosen one of PENALTIES.
        validation_mrr: of the validation split; None without one.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    penalty: float
    validation_mrr: float | None

    def apply(self, student: SentenceTransformer) -> None:
        """Sets the weights of a text encoder's Dense layer."""
        import torch

        linear = _dense(student)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))

    def write(self, path: Path) -> None:
        """Writes the layer atomically as safetensors, with penalty and MRR in its metadata."""
        from safetensors.numpy import save_file

        metadata = {
            "penalty": repr(self.penalty),
            "validation_mrr": repr(math.nan if self.validation_mrr is None else self.validation_mrr),
        }
        metadata["sha256"] = self._sha256()
        with atomic_write(path) as partial:
            weight = np.ascontiguousarray(self.weight)  # of a transposed array, safetensors would write other numbers
            save_file({"weight": weight, "bias": self.bias}, partial, metadata=metadata)

    @classmethod
    def read(cls, path: Path) -> ClosedForm:
        """Reads what `write` wrote.

        Raises:
            RunError: it is damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as stored:
                metadata = stored.metadata()
                weight, bias = (stored.get_tensor(name) for name in ("weight", "bias"))
            penalty, mrr = (float(metadata[name]) for name in ("penalty", "validation_mrr"))
            form = cls(weight, bias, penalty, None if math.isnan(mrr) else mrr)
            if metadata["sha256"] != form._sha256():
                raise ValueError("other numbers than were written")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RunError(f"expected a closed form in {printable(str(path))}, got {one_line(error)}") from error
        return form

    def _sha256(self) -> str:
        """Returns the hash of all its numbers."""
        arrays = [(str(one.dtype), one.shape, np.ascontiguousarray(one).tobytes()) for one in (self.weight, self.bias)]
        numbers = repr([self.penalty, self.validation_mrr, *(array[:2] for array in arrays)])
        return hashlib.sha256(numbers.encode() + b"".join(array[2] for array in arrays)).hexdigest()

    def check(self, path: Path, hidden: int, dim: int) -> None:
        """Checks that it fits a Dense layer, and that its numbers can be those of a regression.

        Args:
            path: of its file, for the message.
            hidden: width of the layer's inputs.
            dim: width of its outputs.

        Raises:
            RunError: it does not.
        """
        shapes = [(one.shape, str(one.dtype)) for one in (self.weight, self.bias)]
        fits = shapes == [((dim, hidden), "float32"), ((dim,), "float32")]
        finite = fits and all(np.isfinite(one).all() for one in (self.weight, self.bias))
        measured = self.validation_mrr is None or 0 <= self.validation_mrr <= 1
        if not (finite and measured and self.penalty in (*PENALTIES, DEFAULT_PENALTY)):
            raise RunError(
                f"expected a closed form of {dim} rows of {hidden} finite numbers in {printable(str(path))}, got "
                f"{shapes}, penalty {self.penalty:g}, validation MRR {self.validation_mrr}"
            )


class NormalEquations:
    """The sums that a ridge regression needs, from blocks of rows: memory does not depend on how many rows there are.

    Source: Hoerl and Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems, 1970, with weighted rows
    and an intercept that is not penalised.
    """

    def __init__(self, hidden: int, dim: int) -> None:
        """Starts with no rows.

        Args:
            hidden: width of the inputs.
            dim: width of the targets.
        """
        self.weight = 0.0
        self.inputs: Matrix = np.zeros(hidden)
        self.targets: Matrix = np.zeros(dim)
        self.squares: Matrix = np.zeros((hidden, hidden))
        self.products: Matrix = np.zeros((hidden, dim))

    def add(self, inputs: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any]) -> None:
        """Adds a block of n rows.

        Args:
            inputs: (n, hidden).
            targets: (n, dim).
            weights: (n,) how much each row counts.
        """
        inputs, targets, weights = (np.asarray(block, np.float64) for block in (inputs, targets, weights))
        weighted = inputs * weights[:, None]
        self.weight += weights.sum()
        self.inputs += weighted.sum(axis=0)
        self.targets += weights @ targets
        self.squares += weighted.T @ inputs
        self.products += weighted.T @ targets

    def solve(self, penalty: float) -> tuple[Matrix, Matrix]:
        """Returns weight, (dim, hidden), and bias, (dim,), both float64.

        They minimise the weighted mean of |weight · x + bias - y|² plus the penalty, times the mean variance of the
        inputs' components, times the sum of the squared weights.

        Args:
            penalty: above 0.
        """
        x, y = self.inputs / self.weight, self.targets / self.weight
        covariance = self.squares / self.weight - np.outer(x, x)
        ridge = penalty * max(float(np.trace(covariance)) / len(x), TINY)
        slope = np.linalg.solve(covariance + ridge * np.eye(len(x)), self.products / self.weight - np.outer(x, y))
        weight: Matrix = np.asarray(slope.T, np.float64)
        return weight, y - weight @ x


def start_from_closed_form(student: SentenceTransformer, pairs: Pairs, run: Run, config: DistillConfig) -> ClosedForm:
    """Gives the Dense layer of a text encoder the weights of the closed form, the same on all ranks, and returns it.

    The main process fits it once and writes it into the run folder, where the other ranks and a resumed run read it; a
    damaged one is fitted again.

    Args:
        student: with the backbone's own weights.
        pairs: as in `fit`.
        run: that has begun.
        config: gives the batch size.
    """
    path = run.folder / FILE
    linear = _dense(student)

    def fitted() -> None:
        if run.resumed and os.path.lexists(path):
            try:
                ClosedForm.read(path).check(path, linear.in_features, linear.out_features)
                return
            except RunError as error:
                log.warning("%s: it is computed again, and that file stays as %s", error, set_aside(path).name)
        fit(student, pairs, config.batch_size).write(path)

    main_process_first(lambda: fitted() if is_main_process() else None)
    start = ClosedForm.read(path)
    start.apply(student)
    if is_main_process():
        found = "no validation split" if start.validation_mrr is None else f"validation MRR {start.validation_mrr:.4f}"
        log.info("the closed form: penalty %.1e, %s", start.penalty, found)
    return start


def improved(history: list[dict[str, Any]], start: ClosedForm) -> bool:
    """Returns whether an evaluation of the training had a better MRR than its start; True where nothing was compared.

    Args:
        history: the trainer's log.
        start: where the training started.
    """
    scores = [entry["eval_validation_mrr"] for entry in history if "eval_validation_mrr" in entry]
    return not scores or start.validation_mrr is None or max(scores) > start.validation_mrr


def fit(student: SentenceTransformer, pairs: Pairs, batch_size: int) -> ClosedForm:
    """Fits the Dense layer in one pass over the training captions as written, weighted as their sources are.

    The penalty is the one with the best mean reciprocal rank on the validation split. Shorter widths (`matryoshka`)
    need nothing of their own: each component is regressed by itself, so that the first ones alone solve the regression
    onto the shortened targets.

    Args:
        student: whose backbone and pooling give the inputs.
        pairs: the captions, targets and the evaluator of the validation split.
        batch_size: captions encoded at a time.
    """
    from sentence_transformers import SentenceTransformer
    from tqdm import tqdm

    linear = _dense(student)
    pooled = SentenceTransformer(
        modules=list(student.children())[: _dense_place(student)],
        device=str(student.device),
        prompts=student.prompts,
        default_prompt_name=student.default_prompt_name,
    )
    equations = NormalEquations(linear.in_features, linear.out_features)
    with tqdm(total=len(pairs.texts), desc="closed form", unit="caption", mininterval=1) as bar:
        for block in pairs.blocks(CAPTIONS_AT_ONCE):
            inputs = pooled.encode(block.texts, batch_size=batch_size, show_progress_bar=False)
            equations.add(inputs, block.targets, block.weights)
            bar.update(len(block.texts))
    evaluator = pairs.evaluator
    if evaluator is None:
        weight, bias = equations.solve(DEFAULT_PENALTY)
        return ClosedForm(weight.astype(np.float32), bias.astype(np.float32), DEFAULT_PENALTY, None)
    inputs = pooled.encode(evaluator.relevance.texts, batch_size=batch_size, show_progress_bar=False)
    return max(
        (_measured(equations, penalty, inputs, evaluator) for penalty in PENALTIES),
        key=lambda fitted: fitted.validation_mrr or 0.0,
    )


def _measured(
    equations: NormalEquations, penalty: float, inputs: NDArray[np.float32], evaluator: RetrievalEvaluator
) -> ClosedForm:
    """Returns the solution for a penalty, with its MRR on the validation split."""
    weight, bias = (array.astype(np.float32) for array in equations.solve(penalty))
    return ClosedForm(weight, bias, penalty, evaluator.mrr(inputs @ weight.T + bias))


def _dense_place(student: SentenceTransformer) -> int:
    from sentence_transformers.base.modules import Dense

    return next(place for place, module in enumerate(student.children()) if isinstance(module, Dense))


def _dense(student: SentenceTransformer) -> nn.Linear:
    linear: nn.Linear = list(student.children())[_dense_place(student)].linear
    return linear
