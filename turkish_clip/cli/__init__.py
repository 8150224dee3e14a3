"""The command turkish-clip: its subcommands, their arguments, and what they print."""

from turkish_clip.cli.entry import main

__all__ = ["main"]
