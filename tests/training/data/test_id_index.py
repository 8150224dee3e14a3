"""Names by their digests: as a dictionary has them."""

from __future__ import annotations

import random

from training.data.store import IdIndex


def test_found_where_a_dictionary_finds_them(rng: random.Random) -> None:
    names = [f"resim-{rng.randrange(300)}" for _ in range(500)]
    asked = [f"resim-{number}" for number in range(400)] + ["", "İstanbul"]
    last = {name: place for place, name in enumerate(names)}
    assert IdIndex(names).find(asked).tolist() == [last.get(name, -1) for name in asked]
    firsts: dict[str, int] = {}
    for place, name in enumerate(names):
        firsts.setdefault(name, place)
    assert IdIndex(names).firsts().tolist() == [firsts[name] for name in names]


def test_none_at_all() -> None:
    empty = IdIndex([])
    assert (len(empty), empty.firsts().tolist(), empty.find(["a"]).tolist()) == (0, [], [-1])
    assert IdIndex(["a"]).find([]).tolist() == []
