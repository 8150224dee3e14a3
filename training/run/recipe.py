"""Reads a command's configuration: defaults < recipe file < options on the command line."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from training.run.record import RunRecord
from turkish_clip.errors import InputError, is_encodable, one_line, printable
from turkish_clip.resolve import RUN_RECORD
from turkish_clip.text_files import read_whole

Config = TypeVar("Config")
log = logging.getLogger("training")
RECIPES = Path(__file__).parents[1] / "recipes"
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
KINDS: dict[Any, tuple[str, str]] = {  # of a field's value: its name in --help, and in an error
    bool: ("", "true or false"),
    bool | None: ("", "true, false or auto"),
    int: ("INTEGER", "a whole number"),
    float: ("NUMBER", "a number"),
    str: ("TEXT", "text"),
    tuple[int, ...]: ("INTEGER,…", "a list of whole numbers"),
    tuple[str, ...]: ("TEXT,…", "a list of words"),
}
AUTO = "auto"  # a value of None, of a true-or-false field that is chosen by the machine
RECORDS = ("", "a list of records, as a recipe has them,")
MAX_DEPTH = 8  # a recipe has lists of records of lists
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in "str null bool int float timestamp seq map merge value".split()}
MAX_SEED = (1 << 32) - 1  # of NumPy, which the trainer seeds as well
MAX_INTEGER = (1 << 53) - 1  # larger ones are no sizes or counts; floats hold all up to here
SHOWN_VALUE = 80  # letters of a value in an error
HELP_WIDTH, HELP_INDENT = 100, 35


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
    """Returns one field of a configuration.

    Args:
        default: its value where neither the recipe nor the command line gives one.
        text: its meaning, for --help.
        low: the smallest number allowed; None: no limit.
        high: the largest number allowed; None: no limit.
        choices: the values allowed; empty: any.
        aliases: other names of the field.
    """
    metadata = {"text": text, "low": low, "high": high, "choices": choices, "aliases": aliases}
    return dataclasses.field(default=default, metadata=metadata)


def read_config(
    config_type: type[Config], argv: list[str], *, known_elsewhere: Mapping[str, Any] | None = None
) -> Config:
    """Builds the configuration of one command.

    The command line holds at most one recipe or run folder (whose run.json is a recipe, too), and options as
    `--field value`, `--field=value` or `field=value`; a true-or-false field may stand alone.

    Args:
        config_type: a frozen dataclass whose fields come from `option`.
        argv: the command line without the program.
        known_elsewhere: fields of other commands → types; ignored, so that all commands of a run take the same options.

    Raises:
        ConfigError: a missing recipe, an unknown field (the nearest known one is offered), or a value out of range.
        SystemExit: code 0 after --help.
    """
    if "-h" in argv or "--help" in argv:
        print(_help(config_type))
        raise SystemExit(0)
    elsewhere = dict(known_elsewhere or {})
    names = {name: name for name in elsewhere} | _names(config_type)
    recipe, options = _split(argv, names, elsewhere | get_type_hints(config_type))
    fields = {field.name: field.metadata for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    for key, _ in options:
        if key not in fields:
            log.info("ignored: --%s, an option of another command", key)
    values: dict[str, Any] = {}
    if recipe:
        path = _find_recipe(recipe)
        values = _typed(config_type, _load(path).items(), str(path), elsewhere)
        if "run" in fields:
            values.setdefault("run", f"runs/{path.stem}")
            if path.name == RUN_RECORD:
                values["run"] = str(path.parent)
    values |= _typed(config_type, options, "the command line", elsewhere)
    for name, value in values.items():
        _check_allowed(name, value, fields[name])
    return config_type(**values)


def _find_recipe(name: str) -> Path:
    """Finds a recipe by path, also below training/ or training/recipes/ and without .yaml, or the run.json of a run."""
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


def _split(argv: list[str], names: Mapping[str, str], types: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Splits the command line into the recipe (empty: none) and (field, raw value) pairs."""
    recipe, options, words = "", [], list(argv)
    for word in words:
        if not is_encodable(word):
            raise ConfigError(f"expected options in UTF-8, got {printable(word)!r}; check the terminal's encoding")
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
            values = BOOLEANS if types[key] is bool else (*BOOLEANS, AUTO)
            if types[key] in (bool, bool | None) and (not words or words[0].lower() not in values):
                if words and not _may_follow(words[0]):
                    raise ConfigError(
                        f"expected {KINDS[types[key]][1]} after {word}, or nothing, got {words[0]!r}, which is no "
                        f"recipe; write {word} true, or leave the value out"
                    )
                value = "true"
            elif not words or words[0].startswith("--"):
                found = words[0] if words else "the end of the command line"
                raise ConfigError(f"expected a value after {word}, got {found}; write {word} VALUE")
            else:
                value = words.pop(0)
        options.append((key, value))
    return recipe, options


def _may_follow(word: str) -> bool:
    """Returns whether a word may stand after a true-or-false option without a value: an option, or a recipe."""
    if word.startswith("--") or "=" in word or "/" in word or word.endswith((".yaml", ".yml")) or Path(word).exists():
        return True
    return any((folder / f"{word}.yaml").is_file() for folder in (RECIPES.parent, RECIPES))


def _load(path: Path) -> dict[str, Any]:
    if path.name == RUN_RECORD:
        return RunRecord.read(path.parent, "give a recipe, or the folder of a run of this version").config
    try:
        content = plain_yaml(read_whole(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected YAML in UTF-8 in {path}, got: {one_line(error)}; correct it there") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"expected `field: value` lines in {path}, got a {type(content).__name__}; write those")
    return content


def plain_yaml(text: str) -> Any:
    """Returns what YAML holds, every value but null as the text that it is; None of an empty file.

    Raises:
        yaml.YAMLError: it is no YAML, has a tag or a reference, or a name twice.
    """
    document = yaml.compose(text, Loader=_FlatLoader)
    return None if document is None else _plain(document)


class _FlatLoader(yaml.SafeLoader):
    """A loader that refuses brackets in more than MAX_DEPTH others, and references."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Composes a node after checking its depth and that it is no reference, in the place of the host's.

        Args:
            parent: the node around it.
            index: its place there.
        """
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="a reference; write its value out", problem_mark=event.start_mark)
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} lists in each other", problem_mark=mark)
        self.depth += 1
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        return node


def _plain(node: yaml.Node) -> Any:
    """Returns a node as text, list or dictionary: what a text means, the type of its field decides, and not YAML.

    For YAML, no is false, 1:30 is 90, 010 is 8, and the last of two equal keys counts.
    """
    if node.tag not in PLAIN_TAGS:
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag}; leave it out", problem_mark=node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return None if node.tag.endswith(":null") else node.value
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name is None or name in values:
            problem = "a list as the name of a field" if name is None else f"{name!r} a second time; keep one of them"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        values[name] = _plain(value)
    return values


def _names(kind: Any) -> dict[str, str]:
    """Returns the name of each field of a configuration by its name and aliases."""
    return {
        alias: field.name for field in dataclasses.fields(kind) for alias in (field.name, *field.metadata["aliases"])
    }


def _typed(kind: Any, items: Iterable[tuple[str, Any]], where: str, ignored: Collection[str] = ()) -> dict[str, Any]:
    """Returns raw values by field of a configuration, converted to the types of the fields."""
    names, types = _names(kind), get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in items:
        if key not in names:
            if key not in ignored:
                raise _unknown(key, [*names, *ignored], where)
            continue
        name = names[key]
        if name in values and not isinstance(items, list):
            raise ConfigError(f"expected {name!r} once in {where}, got it a second time as {key!r}; keep one of them")
        try:
            typed = _as_type(value, types[name])
        except ConfigError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            expected = KINDS.get(types[name], RECORDS)[1]
            raise ConfigError(
                f"expected {expected} for {name!r} in {where}, got {_shown(value)}; correct it there"
            ) from error
        if bad := [text for text in (typed if isinstance(typed, tuple) else [typed]) if not _is_plain(text)]:
            raise ConfigError(
                f"expected {name!r} in {where} in UTF-8 and without the character NUL, got "
                f"{printable(_shown(bad[0]))}; correct it there"
            )
        # of NAME=MEANING all are meant, of other lists and of single values the last
        before = values.get(name, typed)
        if before != typed and isinstance(before, tuple) and all("=" in str(item) for item in before):
            raise ConfigError(
                f"expected {name!r} once in {where}, got another list a second time; write one list, with commas"
            )
        values[name] = typed
    return values


def _is_plain(value: Any) -> bool:
    """Returns whether a value can be a name of a file or a column: all but some texts can."""
    return not isinstance(value, str) or ("\0" not in value and is_encodable(value))


def _unknown(key: str, known: Iterable[str], where: str) -> ConfigError:
    if Path(where).name == RUN_RECORD:  # which no one writes by hand
        return ConfigError(
            f"expected a run of this version in {where}, got the unknown option {key!r}; give the recipe, and train in "
            "another --run"
        )
    nearest = difflib.get_close_matches(str(key), list(known), n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "see --help for the fields"
    return ConfigError(f"expected a known field in {where}, got {key!r}; {hint}")


def _as_type(value: Any, kind: Any) -> Any:
    """Converts a raw value to a type of KINDS or a tuple of dataclasses; raises what `_typed` turns into a message."""
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if isinstance(value, dict):  # whose keys would be taken for the items
            raise TypeError
        items = value.split(",") if isinstance(value, str) and inner in KINDS else value
        return tuple(_as_type(item.strip() if isinstance(item, str) else item, inner) for item in items)
    if kind == bool | None:
        return None if value is None or str(value).lower() == AUTO else _as_type(value, bool)
    if kind is bool:
        if str(value).lower() not in BOOLEANS:
            raise ValueError
        return BOOLEANS[str(value).lower()]
    if kind is int and isinstance(value, str):
        return int(value)
    if kind in (int, float):
        number = kind(value)
        if isinstance(value, bool) or not math.isfinite(number) or number != float(value):
            raise ValueError
        return number
    if kind is str and value is not None and not isinstance(value, (dict, list)):
        return str(value)
    if kind not in KINDS and isinstance(value, dict):
        return kind(**_typed(kind, value.items(), f"a record of {kind.__name__.lower()}s"))
    raise TypeError


def _allowed(metadata: Mapping[str, Any]) -> str:
    """Returns in words what a field allows; empty: any value of its type."""
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    if choices:
        return f"one of {', '.join(filter(None, choices))}"
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""


def _check_allowed(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, int) and not isinstance(one, bool) and high is None and abs(one) > MAX_INTEGER:
            allowed = f"at most {MAX_INTEGER}"
        elif (choices and one not in choices) or (low is not None and one < low) or (high is not None and one > high):
            allowed = _allowed(metadata)
        else:
            continue
        raise ConfigError(
            f"expected {name!r} to be {allowed}, got {_shown(one)}; change it in the recipe or by --{name}"
        )


def _shown(value: Any) -> str:
    """Returns a value for an error: the beginning of a long one."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]} … ({len(text)} letters)"


def _module() -> str:
    """Returns the name of the command's module, such as training.studies.ablate: that of the running file."""
    path = Path(sys.argv[0]).resolve()
    root = Path(__file__).resolve().parents[2]
    return ".".join(path.relative_to(root).with_suffix("").parts) if path.is_relative_to(root) else path.stem


def _help(config_type: type) -> str:
    """Returns the usage of a command, what it does, and its options with what is allowed and their defaults."""
    types = get_type_hints(config_type)
    usage = f"usage: python -m {_module()} [recipe.yaml or run folder] [--field value …]"
    lines = [usage, "", *textwrap.wrap(config_type.__doc__ or "", HELP_WIDTH), ""]
    for field in dataclasses.fields(config_type):
        value = "NAME" if field.metadata["choices"] else KINDS.get(types[field.name], RECORDS)[0]
        allowed = _allowed(field.metadata)
        text = field.metadata["text"] + (f" ({allowed})" if allowed else "")
        default: Any = field.default
        if isinstance(default, bool) or default is None:
            default = AUTO if default is None else str(default).lower()
        elif isinstance(default, tuple):
            default = ", ".join(map(str, default))
        lines += textwrap.wrap(
            f"{text} [{'empty' if default == '' else default}]",
            HELP_WIDTH,
            initial_indent=f"  --{field.name} {value}".ljust(HELP_INDENT),
            subsequent_indent=" " * HELP_INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)
