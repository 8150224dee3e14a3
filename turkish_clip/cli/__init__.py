"""The command turkish-clip: its subcommands, their arguments, and what they print."""

from __future__ import annotations

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Runs the command, as `turkish_clip.cli.entry.main` does, which is imported here so that Ctrl-C can end that."""
    from turkish_clip.terminal import end_at_once_while_importing, end_in_order

    end_at_once_while_importing()
    end_in_order()
    from turkish_clip.cli.entry import main as run

    run(argv)
