"""What run.json is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.run.config import DistillConfig
from training.run.provenance import git_state, library_versions, sha256_of
from training.run.record import RunError, open_run
from turkish_clip.dual_encoder import weights_sha256


def test_hashes_and_versions(tmp_path: Path) -> None:
    import torch

    (tmp_path / "empty").write_bytes(b"")
    assert sha256_of(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")
    torch.manual_seed(0)
    layer, same = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    same.load_state_dict(layer.state_dict())
    assert weights_sha256(layer) == weights_sha256(same)
    with torch.no_grad():
        same.bias[0] += 1e-6
    assert weights_sha256(layer) != weights_sha256(same)
    assert library_versions()["torch"].startswith("2.")
    assert set(git_state()) in ({"commit", "dirty"}, {"commit", "dirty", "changed"}, set())


def test_other_processes_compare_with_what_the_first_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = (open_run(DistillConfig(captions="x", run=str(tmp_path))) for _ in range(2))

    def number(rank: int) -> None:
        for name, value in {"RANK": str(rank), "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)

    number(1)
    with pytest.raises(RunError, match="on a disk that all processes share, got no run.json there in process 1"):
        other.begin(captions_sha256="a")
    number(0)
    first.begin(captions_sha256="a")
    written = (tmp_path / "run.json").read_bytes()
    number(1)
    other.begin(captions_sha256="a")
    with pytest.raises(RunError, match=r"expected the captions_sha256 .* \(a\), got b in process 1"):
        other.begin(captions_sha256="b")
    assert (tmp_path / "run.json").read_bytes() == written
