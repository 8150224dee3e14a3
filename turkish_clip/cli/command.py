"""A subcommand that names everything that it needs and was not given, instead of one thing at a time."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from turkish_clip.errors import InputError

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
    "verify": "verify FOLDER_OR_ID",
    "export": "export FOLDER_OR_ID --format onnx",
}


class Command(TyperCommand):
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


def _shown(parameter: Any) -> str:
    return str(parameter.name).upper() if parameter.param_type_name == "argument" else str(max(parameter.opts, key=len))
