"""A subcommand that names everything that it needs and was not given, instead of one thing at a time."""

from __future__ import annotations

import inspect
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from turkish_clip.errors import InputError
from turkish_clip.language import is_english, translated

# What a subcommand needs beside its required arguments and options → the parameters of which one is enough.
NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "search": {"words or --image": ("query", "also", "image")},
    "classify": {"--labels or --examples": ("labels", "examples")},
    "compare": {"texts to compare with": ("text", "texts")},
    "export": {"a model": ("model",), "a format": ("format",)},
}
EXAMPLES = {
    "index": "index FOLDER",
    "search": "search FOLDER 'kar'",
    "classify": "classify IMAGE --labels kedi,köpek",
    "locate": "locate IMAGE 'kedi'",
    "compare": "compare IMAGE -t 'karda bir ev'",
    "filter": "filter FOLDER --prompt 'karda bir ev'",
    "duplicates": "duplicates FOLDER",
    "draw": "draw 'gece mavi bir balık' --output balik.png",
    "verify": "verify FOLDER_OR_ID",
    "export": "export FOLDER_OR_ID --format onnx",
}


class _Spoken:
    """What a command of typer says in the language of the command where typer says it in English."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Writes the line of usage.

        Args:
            ctx: of the call.
            formatter: of typer, which is written to.
        """
        pieces = self.collect_usage_pieces(ctx)  # type: ignore[attr-defined]
        formatter.write_usage(ctx.command_path, " ".join(map(translated, pieces)), translated("Usage: "))

    def get_help_option(self, ctx: Any) -> Any:
        """Returns the option --help, which typer makes when it is needed."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.help = translated(option.help or "")
        return option


class Group(_Spoken, TyperGroup):
    """The command turkish-clip."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the command with its help, and that of its subcommands, in the language that was chosen.

        Args:
            args: as in typer.
            options: as in typer.
        """
        if not is_english():
            for command in (self, *self.commands.values()):
                _translate_help(command)
        return super().main(*args, **options)


class Command(_Spoken, TyperCommand):
    """A subcommand of turkish-clip."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parses the arguments of a call.

        Args:
            info_name: the name of the subcommand.
            args: what was typed after it.
            parent: the context of turkish-clip.
            extra: as in typer.

        Raises:
            InputError: something that is needed was not given.
        """
        typed = list(args)
        for word in typed:
            if "\0" in word:
                raise InputError(f"expected arguments without the character NUL, got {word!r:.80}; correct it")
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except typer.BadParameter as error:
            if type(error).__name__ != "MissingParameter":  # typer's own or click's, by its version
                raise
            context = super().make_context(info_name, typed, parent, **{**extra, "resilient_parsing": True})
        if missing := [] if extra.get("resilient_parsing") else self._missing(context.params):
            got = "none" if len(missing) == 1 else "none of these"
            raise InputError(
                f"expected {', and '.join(missing)}, got {got}; write: turkish-clip {EXAMPLES[str(info_name)]}"
            )
        return context

    def _missing(self, given: dict[str, Any]) -> list[str]:
        """Returns names for what is needed and was not given."""
        required = [
            _shown(parameter) for parameter in self.params if parameter.required and not given.get(parameter.name)
        ]
        return required + [
            what for what, names in NEEDED.get(self.name or "", {}).items() if not any(map(given.get, names))
        ]


def _translate_help(command: Any) -> None:
    command.help = translated(inspect.cleandoc(command.help or ""))
    for parameter in command.params:
        parameter.help = translated(getattr(parameter, "help", None) or "")
        if isinstance(parameter.show_default, str):
            parameter.show_default = translated(parameter.show_default)


def _shown(parameter: Any) -> str:
    return str(parameter.name).upper() if parameter.param_type_name == "argument" else str(max(parameter.opts, key=len))
