"""A source with images that do not open, and its image embeddings: made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from samples import embed_arguments

from training import embed_images


@pytest.fixture(scope="session")
def broken_source(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captioned folder with a truncated, an empty and a text file among its images."""
    folder = tmp_path_factory.mktemp("broken") / "images"
    shutil.copytree(captioned_folder, folder)
    whole = (folder / "train" / "00003.png").read_bytes()
    (folder / "train" / "00003.png").write_bytes(whole[:400])
    (folder / "train" / "00011.png").write_bytes(b"")
    (folder / "test" / "00002.png").write_text("merhaba", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished(broken_source: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished")
    embed_images.main(embed_arguments(broken_source, tiny_clip, run, "--max_skipped_fraction", "0.1"))
    return run / "embeddings"
