"""run.json: hashes and versions, the comparison of inputs between ranks, and other formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.run.config import DecoderConfig, DistillConfig
from training.run.provenance import git_state, library_versions, sha256_of
from training.run.record import RunError, RunInputs, RunRecord, open_image_model, open_run
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
    state = git_state()
    assert len(state.commit) in (0, 40)
    assert len(state.changed) <= 5


def test_other_ranks_compare_their_inputs_with_those_of_the_main_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, other = (open_run(DistillConfig(captions="x", run=str(tmp_path))) for _ in range(2))

    def set_rank(rank: int) -> None:
        for name, value in {"RANK": str(rank), "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)

    set_rank(1)
    with pytest.raises(RunError, match="on a disk that all processes share, got no run.json there in process 1"):
        other.begin(RunInputs(captions_sha256="a"))
    set_rank(0)
    main.begin(RunInputs(captions_sha256="a"))
    written = (tmp_path / "run.json").read_bytes()
    set_rank(1)
    other.begin(RunInputs(captions_sha256="a"))
    with pytest.raises(RunError, match=r"expected the captions_sha256 .* \(a\), got b in process 1"):
        other.begin(RunInputs(captions_sha256="b"))
    assert (tmp_path / "run.json").read_bytes() == written


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"status": "finished", "config": {}}', "got an older one; move it away, or start another --run"),
        ('{"format": 99}', "got format 99; "),
        ('{"format": 2, "status": "running"}', "got no field .config."),
        ('{"format": 2, "photos": 3}', "got the unknown field 'photos'; "),
        ("[1]", "got a list; "),
        ("{", "got Expecting property name"),
    ],
)
def test_a_record_of_another_format_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    for read in (RunRecord.read, lambda folder: open_run(DistillConfig(captions="x", run=str(folder), resume=True))):
        with pytest.raises(RunError, match=f"expected run.json of format 2 in .*{reason}") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_an_image_model_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = DecoderConfig(captions="x", run="run", image_model="training/mini/clip", device="cpu")
    model = open_image_model(config)
    assert model.supports("image")
    assert model.get_embedding_dimension() == 512
