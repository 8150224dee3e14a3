"""The command turkish-clip. Each subcommand imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from turkish_clip.errors import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turkish words and pictures in one space.",
)


@app.callback()
def turkish_clip() -> None:
    """Turkish words and pictures in one space."""


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="Hub id (owner/name) or folder of a published model")],
    image_model: Annotated[
        str | None, typer.Option(help="Hub id or folder of the image model; else the one that the model names")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the model")] = None,
    image_revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the image model")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; else chosen by itself")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the checks as one JSON object")] = False,
) -> None:
    """Load a published model, and check its golden vectors, its pairing and the versions."""
    from turkish_clip import verify as room

    room.quiet()
    checks = room.verify(
        model, image_model=image_model, revision=revision, image_revision=image_revision, device=device
    )
    passed = all(check.passed for check in checks)
    if json:
        result = {"model": model, "passed": passed, "checks": [asdict(check) for check in checks]}
        print(json_format.dumps(result, ensure_ascii=False))
    else:
        print(room.as_lines(checks))
    raise typer.Exit(0 if passed else 1)


def main() -> None:
    """Runs the command; errors become one line on stderr, with exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
