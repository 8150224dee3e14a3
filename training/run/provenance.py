"""The provenance of a run: the checkout's commit, library versions, the machine, hashes, and commits on the Hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from training.run.distributed import world_size

LIBRARIES = (
    "turkish-clip",
    "sentence-transformers",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "pillow",
    "numpy",
)
CODE = ("training", "turkish_clip")


@dataclass(frozen=True)
class Machine:
    """Where a run was made: processor, operating system, number of ranks, and CPU cores of the machine."""

    processor: str
    system: str
    world_size: int
    cores: int | None = None


@dataclass(frozen=True)
class GitState:
    """The checkout's commit (empty outside a checkout), and the first files with uncommitted changes."""

    commit: str = ""
    changed: tuple[str, ...] = ()


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of each library that a result can depend on, by name."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def machine() -> Machine:
    """Describes this machine and the number of ranks."""
    return Machine(platform.machine(), platform.system(), world_size(), os.cpu_count())


def git_state() -> GitState:
    """Returns the checkout's commit and its first five files with uncommitted changes.

    Untracked files count in the code's folders only: others, such as images and recipes, are named by the options.
    """
    folder = Path(__file__).parents[2]

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return GitState()
    changed = (git("status", "--porcelain", "--untracked-files=no") or "").splitlines()
    changed += (git("status", "--porcelain", "--untracked-files=all", "--", *CODE) or "").splitlines()
    names = dict.fromkeys(line.strip().partition(" ")[2].strip() for line in changed)
    return GitState(commit, tuple(names)[:5])


def sha256_of(path: Path) -> str:
    """Returns the hex SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_texts(texts: Iterable[str]) -> str:
    """Returns the hex SHA-256 of texts, in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def full_id(model: str) -> str:
    """Returns a Hub id with its owner, which sentence-transformers' own models may leave out.

    >>> full_id("clip-ViT-B-32")
    'sentence-transformers/clip-ViT-B-32'
    """
    return model if "/" in model else f"sentence-transformers/{model}"


def commit_of(name: str, revision: str = "", kind: str = "model") -> str:
    """Returns the commit (40 hex digits) that was loaded from the Hub, as the client's cache has it, also offline.

    The result is empty for a folder, and for an id that is not in the cache.

    Args:
        name: Hub id, or a folder.
        revision: the branch, tag or commit that was loaded; empty: main.
        kind: "model" or "dataset".
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(name).exists():
        return ""
    for file in ("README.md",) if kind == "dataset" else ("modules.json", "config.json"):
        try:
            found = try_to_load_from_cache(full_id(name), file, revision=revision or None, repo_type=kind)
        except HFValidationError:  # not a valid Hub id, such as the path of a table
            return ""
        if isinstance(found, str):
            return Path(found).parent.name
    return ""
