"""The bank: which stored embeddings a step sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.pairs import bank
from training.pairs.bank import Bank


def test_a_small_store_is_seen_whole_without_a_copy() -> None:
    vectors = np.arange(40, dtype=np.float32).reshape(10, 4)
    small = Bank(vectors, 64, seed=0)
    assert small.rows(0).tolist() == small.rows(5).tolist() == list(range(10))
    seen = small.at(3, torch.device("cpu"))
    assert seen.data_ptr() == torch.from_numpy(vectors).data_ptr()
    assert small.at(4, torch.device("cpu")) is seen


def test_of_a_large_store_each_step_sees_another_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "RUN", 4)
    vectors = np.arange(4 * 1001, dtype=np.float32).reshape(1001, 4)
    large = Bank(vectors, 102, seed=0)
    draws = [large.rows(step) for step in range(40)]
    for step, rows in enumerate(draws):
        assert len(set(rows.tolist())) == len(rows) in (97, 100)  # 25 runs of four; the last of the store has one row
        assert rows.tolist() == sorted(rows.tolist())
        assert rows.tolist() == Bank(vectors, 102, seed=0).rows(step).tolist()  # as another rank draws, or a resume
        np.testing.assert_array_equal(large.at(step, torch.device("cpu")), vectors[rows])
    assert draws[0].tolist() != draws[1].tolist()
    assert draws[0].tolist() != Bank(vectors, 102, seed=1).rows(0).tolist()
    assert len(np.unique(np.concatenate(draws))) > 950  # in the end every image is seen
