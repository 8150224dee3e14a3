"""Runs the command turkish-clip as `python -m turkish_clip.cli`."""

from turkish_clip.cli import main

main()
