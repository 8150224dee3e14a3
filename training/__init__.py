"""Trains, measures and publishes a Turkish text encoder: one module per command, and the packages that they use."""

import sys

from turkish_clip.terminal import end_at_once_while_importing

if sys.argv[:1] == ["-m"]:  # `python -m training.NAME` begins to import the command, which takes seconds
    end_at_once_while_importing()
