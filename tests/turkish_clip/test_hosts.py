"""The import of the host libraries: with the garbage collector paused, and only in commands."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
from turkish_clip.hosts import import_hosts
collected = []
gc.callbacks.append(lambda phase, info: collected.append(phase))
frozen = gc.get_freeze_count()
collected.clear()
import_hosts("{name}")
assert "{name}" in sys.modules and not collected, collected
assert gc.isenabled() and gc.get_freeze_count() > frozen + 1000
gc.unfreeze()
import_hosts("{name}")  # there already: what this process has made since stays to be collected
assert not gc.get_freeze_count()
gc.disable()
import_hosts("{other}")
assert not gc.isenabled()  # as the caller had it
try:
    import_hosts("no_such_library")
except ModuleNotFoundError:
    gc.enable()
"""


def test_the_collector_waits_while_libraries_are_imported() -> None:
    program = PROGRAM.format(name="numpy", other="xml.dom.minidom")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
