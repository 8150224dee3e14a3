"""What run.json is made of."""

from __future__ import annotations

from pathlib import Path

from training.run_record import git_state, library_versions, sha256_of
from turkish_clip.towers import weights_sha256


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
