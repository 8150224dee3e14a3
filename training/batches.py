"""The order in which the training captions are seen: shuffled, or shuffled in batches of similar length.

Both plug into `batch_sampler`, and hold eight bytes a caption.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

from training.weights import order_of_epoch, seen_in_epoch

BATCHES_AT_ONCE = 32  # sorted together: enough to even out lengths, few enough to stay a shuffle


class Shuffled(DefaultBatchSampler):  # type: ignore[misc]
    """Shuffles the rows of an epoch: each comes as often as its source's weight says.

    Without weights these are the batches that the host's own sampler makes, without its list of all row numbers. The
    order depends on the seed and the epoch alone, so that a resumed run sees the same batches.
    """

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = order_of_epoch(self.sampler, self.seed, self.epoch, generator)
        for number in range(len(self)):
            yield order[number * self.batch_size : (number + 1) * self.batch_size].tolist()

    def __len__(self) -> int:
        rows, size = seen_in_epoch(self.sampler), int(self.batch_size)
        return rows // size if self.drop_last else -(-rows // size)


class GroupByLength(Shuffled):
    """Shuffles the rows, sorts each stretch of 32 batches by the `length` column, and shuffles the batches.

    The order depends on the seed and the epoch alone, so that a resumed run sees the same batches.
    """

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        lengths = torch.tensor(self.sampler.with_format("numpy", columns=["length"])[:]["length"])
        order = order_of_epoch(self.sampler, self.seed, self.epoch, generator)
        for stretch in torch.split(order, BATCHES_AT_ONCE * self.batch_size):
            stretch.copy_(stretch[torch.argsort(lengths[stretch], descending=True, stable=True)])
        for number in torch.randperm(len(self), generator=generator).tolist():
            yield order[number * self.batch_size : (number + 1) * self.batch_size].tolist()
