"""Prints in one line why the interpreter that runs this can't make the environment, and ok if it can.

Makefile runs it from the checkout's root with whatever PYTHON= names, so Python 2.7 must read it, too.
"""
# ruff: noqa: UP020, UP031

import io
import platform
import re
import shutil
import sys

COMPILERS = ("c++", "g++", "clang++")


def supported():
    """Returns the first and the last minor version of Python 3 that pyproject.toml allows."""
    with io.open("pyproject.toml", encoding="utf-8") as file:
        bounds = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"', file.read(), re.MULTILINE)
    return int(bounds.group(1)), int(bounds.group(2)) - 1


def is_missing(module):
    """Returns whether a module can't be imported."""
    try:
        __import__(module)
    except ImportError:
        return True
    return False


def problem(name):
    """Returns why this interpreter can't make the environment, or None.

    Args:
        name: what it was called by.
    """
    first, last = supported()
    python, version = platform.python_implementation(), tuple(sys.version_info[:2])
    another = "name another, as in PYTHON=python3.%d" % (last - 1)
    if python != "CPython" or not (3, first) <= version <= (3, last):
        got = ("" if python == "CPython" else python + " ") + "%d.%d" % version
        return "expected Python 3.%d to 3.%d, got %s from %s; %s" % (first, last, got, name, another)
    missing = [module for module in ("venv", "ensurepip") if is_missing(module)]  # Debian packs ensurepip with venv
    if missing:
        install = "install python%d.%d-venv" % version
        return "expected Python's module venv, got no %s from %s; %s, or %s" % (missing[0], name, install, another)
    # One package of the tested set is compiled where it has no wheel: pytrec-eval-terrier, which mteb brings.
    has_wheel = not sys.platform.startswith("linux") or platform.machine() == "x86_64" or version == (3, 10)
    if not has_wheel and not any(map(shutil.which, COMPILERS)):
        needed_by = "pytrec-eval-terrier, which has no wheel for Linux on %s" % platform.machine()
        return "expected a C++ compiler for %s, got none of %s; install g++" % (needed_by, ", ".join(COMPILERS))
    return None


if __name__ == "__main__":
    print(problem(sys.argv[1]) or "ok")
