"""The entry point of turkish-clip. Each subcommand imports what it needs when it runs, so that --help is fast.

Exit codes: 0 done; 1 done, but a check failed or some images could not be read; 2 bad input; 130 interrupted; 143 ended
by SIGTERM.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Annotated, Literal, NoReturn

import typer

from turkish_clip.cli import drawing, images, models, output, regions
from turkish_clip.cli.command import Command, Group
from turkish_clip.errors import InputError, is_disk_full, one_line, printable
from turkish_clip.language import of_environment, speak, taken_from, translated
from turkish_clip.terminal import INTERRUPTED, lenient_output, log_to_stderr

SUBCOMMANDS: dict[str, Callable[..., None]] = {
    "index": images.index,
    "search": images.search,
    "classify": images.classify,
    "locate": regions.locate,
    "compare": images.compare,
    "filter": images.filter_images,
    "duplicates": images.duplicates,
    "draw": drawing.draw,
    "app": images.web_page,
    "info": models.info,
    "verify": models.verify,
    "export": models.export,
}
app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
_Misused: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException: typer's own by now, click's before


@app.callback(invoke_without_command=True)
def turkish_clip(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    lang: Annotated[  # taken out of the arguments before they are parsed, wherever it stands
        Literal["en", "tr"] | None,
        typer.Option(help="language of help and messages, English or Turkish", show_default="the system's, else en"),
    ] = None,
) -> None:
    """Search, classify, compare and filter images by Turkish words."""
    output.collect_warnings()
    if version:
        from importlib import metadata

        print(f"turkish-clip {metadata.version('turkish-clip')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


for name, subcommand in SUBCOMMANDS.items():
    app.command(name, cls=Command)(subcommand)


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the given arguments, or those of the process, and exits; an error becomes one line."""
    lenient_output()
    log_to_stderr(logging.WARNING, translated)
    speak(of_environment())
    try:
        language, rest = taken_from(sys.argv[1:] if argv is None else argv)
        if language is not None:
            speak(language)
            argv = rest
        # Also of a module: `python -m` is no name that a shell can complete.
        code = app(argv, standalone_mode=False, prog_name="turkish-clip")
    except _Misused as error:
        message = translated(" ".join(error.format_message().split()).rstrip("."))  # type: ignore[attr-defined]
        extra = "unexpected extra argument" in str(getattr(error, "message", ""))
        advice = "; names and texts with spaces stand in quotes" if extra else ""
        _fail(f"{message}{advice}; see {_path_of(error)} --help")
    except InputError as error:
        _fail(one_line(error, None))
    except typer.Abort:
        _fail("expected whole files, got one that ends too early; check the disk, and run the command again")
    except OSError as error:
        _fail_if_full(error)
        reason = one_line(error, None)
        _fail(f"expected to read and write files, got {reason}; check the path, its permissions and the disk")
    except Exception as error:  # of writers that have types of their own, such as that of safetensors
        _fail_if_full(error)
        raise
    if code == INTERRUPTED:
        print(translated("interrupted; give the same command again to go on"), file=sys.stderr)
    raise SystemExit(code or 0)


def _path_of(misused: Exception) -> str:
    """Returns the subcommand that was called wrongly, as it was typed."""
    return getattr(getattr(misused, "ctx", None), "command_path", "turkish-clip")


def _fail_if_full(error: Exception) -> None:
    """Ends the command if an error means a full disk."""
    if is_disk_full(error):
        _fail(f"expected free disk space, got a full disk ({one_line(error)}); free some and run it again")


def _fail(message: str) -> NoReturn:
    """Prints an error and exits with code 2."""
    print(printable(translated(f"error: {message}")), file=sys.stderr)
    raise SystemExit(2)
