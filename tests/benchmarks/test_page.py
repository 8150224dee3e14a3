"""The first result of a warm page at 100,000 images of random vectors, with a text encoder of BERT's size."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from large_index import NOW
from ratios import report
from samples import paint

from turkish_clip.app import build_page
from turkish_clip.bank import TextBank
from turkish_clip.metrics import unit
from turkish_clip.search.files import File
from turkish_clip.search.index import ImageIndex, _metadata_of
from turkish_clip.search.tables import ImageTables

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder

IMAGES, BLOCK, DIM, FILES, QUERIES, SECONDS = 100_000, 10_000, 512, 100, 12, 0.3


@pytest.fixture(scope="module")
def large(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    """Both sides at a width of 512: BERT-base, and a tiny CLIP; random weights."""
    import torch
    from transformers import BertConfig, BertModel

    from training.run.config import PretrainConfig
    from training.small_models.models import build_clip, build_processor, save_clip
    from turkish_clip import build_text_encoder, load_dual_encoder, pair, save_text_encoder

    folder = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    sizes = {"image_size": 32, "vision_layers": 1, "vision_hidden": 32, "text_layers": 1, "text_hidden": 32}
    config = PretrainConfig(captions="x", run="x", vocabulary=514, caption_tokens=16, dim=DIM, **sizes)  # type: ignore[arg-type]
    processor = build_processor(["a red house above a blue bird", "two yellow suns"], config)
    save_clip(build_clip(processor, config), processor, folder / "clip")
    (folder / "bert").mkdir()
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / "bert" / name).write_bytes((tiny_bert / name).read_bytes())
    BertModel(BertConfig(vocab_size=32_000)).save_pretrained(folder / "bert")
    text = build_text_encoder(folder / "bert", dim=DIM, max_tokens=64, device="cpu")
    save_text_encoder(pair(text, folder / "clip", device="cpu"), folder / "pair")
    return load_dual_encoder(folder / "pair", device="cpu")


@pytest.mark.bench
def test_the_first_result_of_a_warm_page(large: DualEncoder, tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    painted = [paint(tmp_path / "painted" / f"{number}.png", number) for number in range(FILES)]
    photos.mkdir()
    tables = ImageTables.connect(str(photos / ".turkish-clip"))
    tables.create(_metadata_of(large))
    for start in range(0, IMAGES, BLOCK):
        names = [str(photos / f"{number:06}.png") for number in range(start, start + BLOCK)]
        for number, name in enumerate(names):
            os.link(painted[number % FILES], name)
        rows = [
            {"content": name, "path": name, "also_at": [], "bytes": 1, "modified": NOW, "vector": vector}
            for name, vector in zip(names, unit(rng.standard_normal((BLOCK, DIM), np.float32)))
        ]
        tables.write(rows, [], [File(name, str(photos), 1, 1, name) for name in names])
    tables.optimize()
    bank = unit(rng.standard_normal((1000, DIM), np.float32))
    tables.correct(TextBank(bank.astype(np.float16), large.text_weights_sha256))
    taken: dict[str, list[float]] = {"search": [], "newest": []}
    with TestClient(build_page(large, ImageIndex.open(photos / ".turkish-clip", large), photos)) as page:
        for number in range(QUERIES + 2):
            for name, given in (("search", {"words": f"kırmızı ev {number}"}), ("newest", {"offset": 24 * number})):
                began = time.perf_counter()
                answer = page.post(f"/ask/{name}", json=given).json()
                assert page.get(f"/thumbnail/{answer['photos'][0]['id']}").status_code == 200
                taken[name].append(time.perf_counter() - began)
    warm = {name: seconds[2:] for name, seconds in taken.items()}
    for name, seconds in warm.items():
        report(f"page, {name}: first image at {IMAGES} images", f"{SECONDS} s", seconds, [SECONDS] * QUERIES)
    assert statistics.median(warm["search"]) <= SECONDS
