"""Setting up: the interpreter, the tested versions; Makefile, pyproject.toml, CI and CONTRIBUTING.md name the same."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import turkish_clip

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
VERSIONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
# An interpreter that is this one, but for what the test says before the script runs.
STAND_IN = """#!/bin/sh
exec {python} -c 'import platform, runpy, sys
{change}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")' "$@"
"""
Stand = Callable[[str], Path]


def requirements() -> Iterator[Requirement]:
    """Everything that pyproject.toml asks for, extras and groups included."""
    project = PROJECT["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    for line in (line for group in groups for line in group):
        requirement = Requirement(line)
        if requirement.name != project["name"]:
            yield requirement


def holds(requirement: Requirement, version: str) -> bool:
    """Whether a line counts on an x86-64 Linux with this Python."""
    machine = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
    python = {"python_version": version, "python_full_version": f"{version}.2", "implementation_name": "cpython"}
    whole = machine | python | {"platform_python_implementation": "CPython"}
    return requirement.marker is None or requirement.marker.evaluate(whole)


def constraints(version: str) -> dict[str, Requirement]:
    """What constraints.txt says for one Python, by canonical name; a name stands there once."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    named = [(canonicalize_name(line.name), line) for line in lines if holds(line, version)]
    assert len(dict(named)) == len(named)
    return dict(named)


@pytest.mark.parametrize("version", VERSIONS)
def test_constraints_hold_what_pyproject_asks_for(version: str) -> None:
    exact = constraints(version)
    wanted = [requirement for requirement in requirements() if holds(requirement, version)]
    assert len(wanted) > 30
    for requirement in wanted:
        [pin] = exact[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{requirement} and {pin}"


def test_constraints_name_their_command() -> None:
    assert "make constraints" in (ROOT / "constraints.txt").read_text(encoding="utf-8").partition("==")[0]
    assert constraints("3.11")["torch"] == Requirement(
        f"torch=={re.findall(r'^TORCH = (.+)$', MAKEFILE, re.MULTILINE)[0]}"
    )


def test_the_same_pythons_everywhere() -> None:
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if ":: Python :: 3." in line]
    first, last = (int(version.partition(".")[2]) for version in (VERSIONS[0], VERSIONS[-1]))
    assert named == VERSIONS
    assert PROJECT["project"]["requires-python"] == f">=3.{first},<3.{last + 1}"
    assert WORKFLOW["jobs"]["library"]["strategy"]["matrix"]["python"] == VERSIONS


def test_what_ci_runs_is_there() -> None:
    commands = "\n".join(step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step)
    for path in re.findall(r"tests/\S+\.py", commands):
        assert (ROOT / path).is_file()
    for words in re.findall(r"make ([a-z -]+)", commands):
        assert all(f"\n{target}:" in MAKEFILE for target in words.split())


def test_contributing_names_what_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for words in re.findall(r"`?make ([a-z -]+)", "\n".join(re.findall(r"`make [^`]+`|^make .*", text, re.MULTILINE))):
        assert all(f"\n{target}:" in MAKEFILE for target in words.split())
    for path in re.findall(r"`((?:turkish_clip|training|tests|findings)/[\w/]*(?:\.py)?)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("target", ["check", "test", "test-slow", "bench", "demo", "format", "lowest", "consumers"])
def test_each_target_sets_up_by_itself(target: str) -> None:
    assert f"\n{target}: $(INSTALLED)" in MAKEFILE


def test_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == turkish_clip.__version__
    assert citation["license"] == PROJECT["project"]["license"]


@pytest.fixture
def stand_in(tmp_path: Path) -> Stand:
    """Returns a function that writes an interpreter which differs from this one by some lines of Python."""

    def written(change: str) -> Path:
        path = tmp_path / "python3"
        path.write_text(STAND_IN.format(python=sys.executable, change=change), encoding="utf-8")
        path.chmod(0o755)
        return path

    return written


def made(python: str | Path, tmp_path: Path, **environment: str) -> str:
    """What `make install` says with this interpreter, which can't make an environment.

    Args:
        python: the interpreter.
        tmp_path: where the environment would be.
        environment: variables besides PATH.
    """
    make = shutil.which("make")
    assert make is not None
    variables = {"PATH": os.environ["PATH"], "LC_ALL": "C"} | environment  # not the MAKEFLAGS of a make that runs us
    words = [make, "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(words, cwd=ROOT, env=variables, text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert not (tmp_path / "venv").exists()
    [line] = done.stderr.splitlines()
    return line


def test_an_old_interpreter(stand_in: Stand, tmp_path: Path) -> None:
    python = stand_in('sys.version_info = (3, 9, 18, "final", 0)')
    expected = f"*** expected Python 3.10 to 3.14, got 3.9 from {python}; name another, as in PYTHON=python3.13."
    assert expected in made(python, tmp_path)


def test_another_implementation(stand_in: Stand, tmp_path: Path) -> None:
    python = stand_in('platform.python_implementation = lambda: "PyPy"')
    assert "*** expected Python 3.10 to 3.14, got PyPy 3." in made(python, tmp_path)


def test_no_interpreter(tmp_path: Path) -> None:
    assert "*** expected a Python interpreter, got none that runs as nopython3;" in made("nopython3", tmp_path)


def test_a_program_that_is_no_interpreter(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho lorem ipsum\n", encoding="utf-8")
    program.chmod(0o755)
    assert f"*** expected a Python interpreter, got none that runs as {program};" in made(program, tmp_path)


def test_no_venv_module(stand_in: Stand, tmp_path: Path) -> None:
    python = stand_in('sys.modules["ensurepip"] = None')
    line = made(python, tmp_path)
    assert f"*** expected Python's module venv, got no ensurepip from {python}; install python3." in line


def test_no_compiler_where_one_is_needed(stand_in: Stand, tmp_path: Path) -> None:
    change = 'platform.machine = lambda: "aarch64"\nsys.platform = "linux"\nsys.version_info = (3, 12, 0, "final", 0)'
    python = stand_in(change)
    line = made(python, tmp_path, PATH=str(tmp_path))
    assert "*** expected a C++ compiler for pytrec-eval-terrier, which has no wheel for Linux on aarch64, got" in line


def test_the_check_is_read_by_old_interpreters() -> None:
    late = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Match, ast.AsyncFunctionDef, ast.Nonlocal, ast.Starred)
    tree: Any = ast.parse((ROOT / ".ci/interpreter.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, late)]
    assert not [node for node in ast.walk(tree) if getattr(node, "returns", None) or getattr(node, "annotation", None)]
