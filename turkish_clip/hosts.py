"""Imports the host libraries for a command, which takes seconds, with Python's garbage collector paused."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

HOSTS = ("torch", "sentence_transformers")


def import_hosts(*names: str) -> None:
    """Imports libraries, by default torch and sentence-transformers, in two thirds of the time that `import` takes.

    They leave millions of objects that stay to the end. The collector would go through all of them again and again
    while they are made, and once more as the process ends; afterwards it passes them over. That is for the process to
    decide, so commands call this, and the library does not.
    """
    names = names or HOSTS
    if all(name in sys.modules for name in names):
        return
    collects = gc.isenabled()
    gc.disable()
    try:
        for name in names:
            import_module(name)
    finally:
        gc.freeze()
        if collects:
            gc.enable()
