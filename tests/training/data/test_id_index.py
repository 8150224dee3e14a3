"""An index of ids finds what a dictionary finds."""

from __future__ import annotations

import random

from training.data.store import IdIndex


def test_positions_are_those_of_a_dictionary(rng: random.Random) -> None:
    names = [f"resim-{rng.randrange(300)}" for _ in range(500)]
    asked = [f"resim-{number}" for number in range(400)] + ["", "İstanbul"]
    last = {name: position for position, name in enumerate(names)}
    assert IdIndex(names).find(asked).tolist() == [last.get(name, -1) for name in asked]
    firsts: dict[str, int] = {}
    for position, name in enumerate(names):
        firsts.setdefault(name, position)
    assert IdIndex(names).firsts().tolist() == [firsts[name] for name in names]


def test_an_empty_index() -> None:
    empty = IdIndex([])
    assert (len(empty), empty.firsts().tolist(), empty.find(["a"]).tolist()) == (0, [], [-1])
    assert IdIndex(["a"]).find([]).tolist() == []
