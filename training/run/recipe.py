"""Reads a command's configuration: defaults < recipe file < options on the command line."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import sys
import typing
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml

from training.run.record import RunRecord
from turkish_clip.errors import InputError
from turkish_clip.resolve import RUN_RECORD

Config = TypeVar("Config")
log = logging.getLogger("training")
RECIPES = Path(__file__).parents[1] / "recipes"
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


class ConfigError(InputError):
    """A recipe or an option that does not fit."""


def option(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
) -> Any:
    """One field of a configuration: its default, what it means (shown by --help), and what is allowed."""
    metadata = {"text": text, "low": low, "high": high, "choices": choices, "aliases": aliases}
    return dataclasses.field(default=default, metadata=metadata)


def read_config(
    config_type: type[Config], argv: list[str], *, known_elsewhere: typing.Mapping[str, Any] | None = None
) -> Config:
    """Builds the configuration of one command.

    Args:
        config_type: a frozen dataclass whose fields come from `option`.
        argv: the command line without the program: at most one recipe or run folder (which is a recipe, too: its
            run.json keeps what it was begun with), then `--field value`, `--field=value` or `field=value`; a
            true-or-false field may stand alone.
        known_elsewhere: fields of the other commands and their types: passed over in the recipe and, with a word, on
            the command line, so that the commands of one run can be given the same options.

    Raises:
        ConfigError: a missing recipe, an unknown field (the nearest known one is offered), or a value out of range.
        SystemExit: code 0 after --help.
    """
    fields = {field.name: field for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    if "-h" in argv or "--help" in argv:
        print(_help(config_type))
        raise SystemExit(0)
    names = {alias: name for name, field in fields.items() for alias in (name, *field.metadata["aliases"])}
    types = typing.get_type_hints(config_type)
    elsewhere = dict(known_elsewhere or {})
    recipe, options = _split(argv, {**{name: name for name in elsewhere}, **names}, {**elsewhere, **types})
    for key, _ in options:
        if key not in fields:
            log.info("passed over: --%s is for another command", key)
    options = [(key, value) for key, value in options if key in fields]
    values: dict[str, Any] = {}
    if recipe:
        path = _find_recipe(recipe)
        for key, value in _load(path).items():
            if key in names:
                values[names[key]] = _convert(value, names[key], types, str(path))
            elif key not in elsewhere:
                raise _unknown(key, [*names, *elsewhere], str(path))
        if "run" in fields:
            values.setdefault("run", f"runs/{path.stem}")
            if path.name == RUN_RECORD:
                values["run"] = str(path.parent)
    for key, value in options:
        values[key] = _convert(value, key, types, "the command line")
    for name, value in values.items():
        _check_range(name, value, fields[name].metadata)
    return config_type(**values)


def _find_recipe(name: str) -> Path:
    """A recipe by path, or by its path below training/ or training/recipes/, with or without .yaml; or a run folder."""
    if (Path(name) / RUN_RECORD).is_file():
        return Path(name) / RUN_RECORD
    if Path(name).is_dir():
        raise ConfigError(
            f"expected a recipe or a run folder, got the folder {name}, which has no {RUN_RECORD}; name one"
        )
    for folder in (Path(), RECIPES.parent, RECIPES):
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if candidate.is_file():
                return candidate
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise ConfigError(f"expected a recipe file, got {name!r}, which is not there; the built-in recipes are {known}")


def _split(argv: list[str], names: dict[str, str], types: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Parts the command line into the recipe and (field, raw value) pairs."""
    recipe, options, words = "", [], list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--") and not equals:
            if recipe:
                raise ConfigError(f"expected one recipe, got {recipe!r} and {word!r}; write options as --field value")
            recipe = word
            continue
        key = key.replace("-", "_")
        if key not in names:
            raise _unknown(key, names, "the command line")
        key = names[key]
        if not equals:
            if types[key] is bool and (not words or words[0].lower() not in TRUE + FALSE):
                value = "true"
            elif not words or words[0].startswith("--"):
                found = words[0] if words else "the end of the command line"
                raise ConfigError(f"expected a value after {word}, got {found}; write {word} VALUE")
            else:
                value = words.pop(0)
        options.append((key, value))
    return recipe, options


def _load(path: Path) -> dict[str, Any]:
    if path.name == RUN_RECORD:
        return RunRecord.read(path.parent, "give a recipe, or the folder of a run of this version").config
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected YAML in UTF-8 in {path}, got: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"expected `field: value` lines in {path}, got a {type(content).__name__}")
    return content


def _unknown(key: str, known: typing.Iterable[str], where: str) -> ConfigError:
    nearest = difflib.get_close_matches(str(key), list(known), n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "see --help for the fields"
    return ConfigError(f"expected a known field in {where}, got {key!r}; {hint}")


def _convert(value: Any, name: str, types: dict[str, Any], where: str) -> Any:
    kind = types[name]
    try:
        return _as_type(value, kind)
    except ConfigError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"expected {_wanted(kind)} for {name!r} in {where}, got {value!r}; correct it there"
        ) from error


def _wanted(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a list of records, as a recipe has them," if _is_record(get_args(kind)[0]) else "a list of words"
    return {int: "a whole number", float: "a number"}.get(kind, str(kind.__name__))


def _is_record(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _as_type(value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if _is_record(inner):
            return tuple(_as_record(item, inner) for item in ([] if value == "" else value))
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_as_type(item.strip() if isinstance(item, str) else item, inner) for item in items)
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in TRUE + FALSE:
            return str(value).lower() in TRUE
        raise ValueError
    if kind in (int, float):
        if isinstance(value, bool):
            raise TypeError
        if not math.isfinite(float(value)):
            raise ValueError
        number = kind(value)
        if kind is int and float(value) != number:
            raise ValueError
        return number
    if isinstance(value, (dict, list)) or value is None:
        raise TypeError
    return str(value)


def _as_record(item: Any, kind: type) -> Any:
    """One record of a list, such as a source, from its `field: value` lines."""
    if not isinstance(item, dict):
        raise TypeError
    fields = {field.name: field.metadata for field in dataclasses.fields(kind)}
    names = {alias: name for name, metadata in fields.items() for alias in (name, *metadata["aliases"])}
    types = typing.get_type_hints(kind)
    for key in item:
        if key not in names:
            raise _unknown(key, names, f"a record of {kind.__name__.lower()}s")
    return kind(**{names[key]: _convert(value, names[key], types, "the recipe") for key, value in item.items()})


def _check_range(name: str, value: Any, metadata: typing.Mapping[str, Any]) -> None:
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    if choices and value not in choices:
        raise ConfigError(f"expected {name!r} to be one of {', '.join(choices)}, got {value!r}; choose one of them")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        allowed = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        raise ConfigError(f"expected {name!r} to be {allowed}, got {value!r}; change it in the recipe or by --{name}")


def _help(config_type: type) -> str:
    command = Path(sys.argv[0]).stem
    lines = [
        f"usage: python -m training.{command} [recipe.yaml or run folder] [--field value …]",
        "",
        " ".join((config_type.__doc__ or "").split()),
        "",
    ]
    for field in dataclasses.fields(config_type):
        shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        lines.append(f"  --{field.name:<22} {field.metadata['text']} [{'' if shown is None else shown}]")
    return "\n".join(lines)
