"""The rules of the house, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "turkish_clip").rglob("*.py"))
TRAINING = sorted((ROOT / "training").rglob("*.py"))
COMMANDS = {
    "embed_images",
    "distill",
    "evaluate",
    "pretrain",
    "publish",
    "demo",
    "readme",
    "ablate",
    "benchmark",
    "leakage",
}
CALLERS = {"demo", "ablate"}  # that run the others' main
LEAVES = {"text", "metrics", "errors", "verify"}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_library_does_not_know_of_training(path: Path) -> None:
    modules = set(imported(path))
    assert not [name for name in modules if name.split(".")[0] in ("training", "tests")]
    if path.stem in LEAVES:
        assert not [name for name in modules if name.startswith("turkish_clip")]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_commands_meet_in_files_alone(path: Path) -> None:
    modules = set(imported(path))
    assert not [name for name in modules if name.split(".")[0] == "tests"]
    if path.stem in COMMANDS - CALLERS:
        others = {f"training.{name}" for name in COMMANDS - {path.stem}}
        assert not modules & others


@pytest.mark.parametrize("path", [*LIBRARY, *TRAINING], ids=lambda path: path.stem)
def test_no_assert_no_pickle_no_remote_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert "pickle" not in set(imported(path))
    trusting = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword)
        and node.arg == "trust_remote_code"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert not trusting


def test_importing_the_package_is_light_and_exports_few_names() -> None:
    program = (
        "import sys, turkish_clip\n"
        "assert not {'torch', 'transformers', 'sentence_transformers', 'PIL', 'numpy'} & set(sys.modules)\n"
        "assert len(turkish_clip.__all__) <= 8\n"
        "for name in turkish_clip.__all__: getattr(turkish_clip, name)\n"
        "try: turkish_clip.nothing\n"
        "except AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert "has no attribute 'nothing'" in done.stdout


def test_the_command_answers_help_without_torch() -> None:
    program = "import sys, turkish_clip.cli; assert not {'torch', 'numpy', 'PIL', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-m", "turkish_clip.cli", "verify", "--help"], capture_output=True, text=True, check=True
    )
    assert "golden" in done.stdout


def test_the_wheel_would_hold_the_library_alone() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'packages = ["turkish_clip"]' in text


def test_no_path_of_a_machine_in_the_tree() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    suspicious = ("/" + "root/", "/" + "work/", "/home" + "/")
    found = []
    for name in listed:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".jinja", ".json") and path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [name for word in suspicious if word in text]
    assert not found
