"""How the trainer computes: what is chosen on each device, and what the losses keep exact. No GPU is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from training.distillation.computing import Computing, computing_of, exact_products
from training.distillation.setup import training_arguments
from training.run.config import DistillConfig, read
from training.run.recipe import ConfigError

OPTIONS = ["--captions", "x", "--run", "x", "--device", "cpu"]


def test_what_is_chosen_on_each_device() -> None:
    assert Computing.on("cpu") == Computing("cpu", bf16=False, tf32=None, optimizer="", pinned=False)
    assert Computing.on("mps") == Computing("mps")
    recent = Computing("cuda", "H200", bf16=True, tf32=True, optimizer="adamw_torch_fused", pinned=True)
    assert Computing.on("cuda", (9, 0), name="H200") == Computing.on("cuda", (9, 0), name="H200", bf16=True) == recent
    assert Computing.on("cuda", (8, 0), name="H200") == recent
    older = Computing("cuda", "T4", bf16=False, tf32=False, optimizer="adamw_torch_fused", pinned=True)
    assert Computing.on("cuda", (7, 5), name="T4") == older


def test_what_is_asked_for_holds() -> None:
    assert Computing.on("cpu", bf16=True).bf16
    asked = Computing.on("cuda", (9, 0), bf16=False, tf32=False)
    assert (asked.bf16, asked.tf32) == (False, False)
    assert Computing.on("cuda", (7, 5), bf16=False, tf32=False) == Computing.on("cuda", (7, 5))
    for option in ("bf16", "tf32"):
        with pytest.raises(ConfigError, match=f"expected a GPU with {option} .*, got T4 without; leave --{option} out"):
            Computing.on("cuda", (7, 5), name="T4", **{option: True})


@pytest.mark.parametrize(
    ("options", "bf16"), [([], False), (["--bf16"], True), (["--bf16", "auto"], False), (["--bf16", "false"], False)]
)
def test_the_trainer_computes_on_the_cpu_as_before(tmp_path: Path, options: list[str], bf16: bool) -> None:
    config = read(DistillConfig, [*OPTIONS, *options])
    assert vars(computing_of(config)) == {
        "device": "cpu",
        "name": "",
        "bf16": bf16,
        "tf32": None,
        "optimizer": "",
        "pinned": False,
    }
    arguments = training_arguments(config, tmp_path, 1000, evaluates=False)
    assert (arguments.bf16, arguments.tf32, arguments.dataloader_pin_memory) == (bf16, None, False)
    assert arguments.optim == "adamw_torch_fused"  # the host's own default
    assert not arguments.accelerator_config.non_blocking
    assert not arguments.logging_nan_inf_filter


def test_a_gpu_gets_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer's arguments check that there is a GPU, which there is none of here."""
    given: dict[str, object] = {}

    def keep(**options: object) -> None:
        given.update(options)

    monkeypatch.setattr("sentence_transformers.SentenceTransformerTrainingArguments", keep)
    config = read(DistillConfig, OPTIONS)
    training_arguments(config, tmp_path, 1000, Computing.on("cuda", (9, 0)), evaluates=False)
    chosen = {name: given[name] for name in ("bf16", "tf32", "optim", "use_cpu", "dataloader_pin_memory")}
    assert json.dumps(chosen) == json.dumps(
        {"bf16": True, "tf32": True, "optim": "adamw_torch_fused", "use_cpu": False, "dataloader_pin_memory": True}
    )
    assert given["accelerator_config"] == {"non_blocking": True}


def test_losses_multiply_exactly_on_a_gpu_with_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    products = torch.backends.cuda.matmul
    name, fast, exact = (
        ("fp32_precision", "tf32", "ieee") if hasattr(products, "fp32_precision") else ("allow_tf32", True, False)
    )
    before = getattr(products, name)
    try:
        setattr(products, name, fast)
        with exact_products(torch.device("cpu")):
            assert getattr(products, name) == fast
        with exact_products(torch.device("cuda")):
            assert getattr(products, name) == exact
        assert getattr(products, name) == fast
    finally:
        setattr(products, name, before)
