"""The messages that turkish-clip shows to people, read out of its source, and the Turkish catalog that answers them.

`python tests/helpers/messages.py` brings the catalog up to date: new messages are added without a translation, those
that no longer exist go to its end (`#~`) and are taken up again if they come back, and the compiled catalog beside it
is written.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from turkish_clip import language

PACKAGE = Path(language.__file__).parent
CATALOG = language.FOLDER / "tr" / "LC_MESSAGES" / f"{language.DOMAIN}.po"
IN_TURKISH = ("app",)  # folders that hold no English for people
WRAPPERS = set("one_line printable str repr quote first_line _shown shortened len sorted list Path".split())
# Calls whose texts are names, patterns or SQL.
SILENT = set(
    "getattr setattr hasattr open compile sub match search fullmatch split startswith endswith removesuffix "
    "removeprefix find_spec encode decode debug replace partition get strip _has_library rstrip lstrip AttributeError "
    "TypeVar import_module isinstance pop execute executemany getLogger KeyError add_argument NewType cast".split()
)
SHORT = {
    "translated": 0,
    "progress": 0,
    "storage_errors": 1,
    "_unusable": 1,
    "Check": 0,
    "ImageError": 1,
    "VideoError": 1,
    "SoundError": 1,
    "VectorSource": 0,
}
SHORT |= {"UnreadableImageError": 1, "PermissionError": 1, "_need_encoder": 0, "_need_text_side": 0}
PROSE = re.compile(r"[a-z]{2,}[,;:]? +(\W?[a-z]|\{)|\} [a-z]{2,}|[a-z]{2,}: \{")
# Prose that nobody reads as such: settings, parts of SQL, texts to encode, HTML, what is typed.
NOT_SHOWN = re.compile(
    r"turkish-clip index \{|^ --at|^turkish-clip \{|system volume|^(partly|no space|disk q)|^<|^body\{|^Invalid host|"
    r"^Foreign origin|^path, also_at|^\{number\}: \{name\}, |^taken \{|^and or not|^ok    \{|"
    r"^bir fotoğraf|^[.]\w+ [.]|gibi olanlar|artık yerinde|^Her (metne|resme) en|"
    r"^\{number\}[.] grup|^Etiketlere göre"
)
# Lines of the head that change with each day, or that nobody has filled.
HEAD = re.compile(rb'"(Project-Id|Report|POT|PO-R|Last|Language-T|Plural|Generated).*\n')


@dataclass
class Scope:
    """What names stand for in a function or module: the one value that each is given."""

    values: dict[str, ast.expr] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)

    def add(self, name: str, value: ast.expr) -> None:
        """Notes what a name is given; a name that is given several values stands for none."""
        if name in self.values:
            self.several.add(name)
        self.values[name] = value

    def value(self, node: ast.expr) -> ast.expr:
        """Returns the text that a name stands for; any other expression itself."""
        if isinstance(node, ast.Name) and node.id not in self.several:
            value = self.values.get(node.id)
            if value is not None and _is_text(value):
                return value
        return node


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and _is_text(node.left) and _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def messages() -> dict[str, str]:
    """Returns every message in the form of the catalog, with the module that holds it."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0].removesuffix(".py") not in IN_TURKISH:
            for message in _Module(ast.parse(path.read_text(encoding="utf-8"))).messages():
                found.setdefault(message, inside.as_posix())
    for message in _help():
        found.setdefault(message, "help")
    for message in language.FOREIGN:
        found.setdefault(message, "language.py")
    return {message: place for message, place in found.items() if not NOT_SHOWN.search(message)}


def _help() -> Iterator[str]:
    """Yields the texts of --help, and the names of what a subcommand needs."""
    import typer

    from turkish_clip.cli.command import NEEDED
    from turkish_clip.cli.entry import app

    group: Any = typer.main.get_command(app)
    for command in (group, *group.commands.values()):
        yield inspect.cleandoc(command.help)
        for parameter in command.params:
            yield from filter(None, [parameter.help])
            if isinstance(parameter.show_default, str) and re.search("(^| )[a-z]{2}", parameter.show_default):
                yield parameter.show_default
    for needed in NEEDED.values():
        yield from needed


class _Module:
    """The texts of a module."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._quiet = set(map(id, _silent(tree)))
        self._scopes: dict[int, Scope] = {}
        self._module = Scope()
        self._fill(tree, self._module)

    def _fill(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            inner = Scope(dict(scope.values), set(scope.several)) if isinstance(child, ast.FunctionDef) else scope
            if isinstance(child, ast.Assign) and len(child.targets) == 1 and isinstance(child.targets[0], ast.Name):
                scope.add(child.targets[0].id, child.value)
            self._fill(child, inner)
            self._scopes[id(child)] = inner

    def messages(self) -> Iterator[str]:
        """Yields the messages, in order and more than once."""
        inlined: set[int] = set()
        texts = list(self._outermost(self._tree, self._module))
        forms = {id(node): list(self._forms(node, scope, inlined)) for node, scope in texts}
        for node, _ in texts:
            if id(node) not in inlined:
                yield from (form for form in map(_clause, forms[id(node)]) if PROSE.search(form))
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and _called(node) == "_number_of":
                noun = node.args[1]
                yield from (
                    f"{{number}} {noun.value}{ending}" for ending in ("", "s") if isinstance(noun, ast.Constant)
                )
            yield from map(_clause, _short(node, inlined))

    def _outermost(self, node: ast.AST, scope: Scope) -> Iterator[tuple[ast.expr, Scope]]:
        for child in ast.iter_child_nodes(node):
            inner = self._scopes.get(id(child), scope)
            if id(child) in self._quiet:
                continue
            if isinstance(child, ast.expr) and (_is_text(child) or _is_log(child)):
                yield child, inner
            if isinstance(child, (ast.JoinedStr, ast.IfExp, ast.BinOp)) and _is_text(child):
                yield from self._inside(child, inner)
            else:
                yield from self._outermost(child, inner)

    def _inside(self, node: ast.expr, scope: Scope) -> Iterator[tuple[ast.expr, Scope]]:
        """Yields the texts in calls and the like inside the placeholders of a text."""
        for part in ast.walk(node):
            if isinstance(part, ast.FormattedValue) and not _is_text(part.value):
                yield from self._outermost(part, scope)

    def _forms(self, node: ast.expr, scope: Scope, inlined: set[int]) -> Iterator[str]:
        for parts in self._parts(node, scope, inlined, depth=0):
            names: dict[str, int] = {}
            yield "".join(part if isinstance(part, str) else _numbered(part[0], names) for part in parts)

    def _parts(self, node: ast.expr, scope: Scope, inlined: set[int], depth: int) -> Iterator[list[Any]]:
        """Yields a text as its literal parts and the names of its placeholders, in each of its forms."""
        if isinstance(node, ast.Call):
            yield from self._parts_of_log(node, scope, inlined)
        elif isinstance(node, ast.IfExp):
            yield from self._parts(node.body, scope, inlined, depth)
            yield from self._parts(node.orelse, scope, inlined, depth)
        elif isinstance(node, ast.BinOp):
            for pair in product(*(list(self._parts(n, scope, inlined, depth)) for n in (node.left, node.right))):
                yield [*pair[0], *pair[1]]
        elif isinstance(node, ast.Constant):
            yield [str(node.value)]
        elif isinstance(node, ast.JoinedStr):
            choices = [list(self._parts_of_value(value, scope, inlined, depth)) for value in node.values]
            for combination in product(*choices):
                yield [part for parts in combination for part in parts]

    def _parts_of_value(self, node: ast.expr, scope: Scope, inlined: set[int], depth: int) -> Iterator[list[Any]]:
        if not isinstance(node, ast.FormattedValue):
            yield from self._parts(node, scope, inlined, depth)
            return
        value = scope.value(node.value)
        plain = isinstance(value, ast.Constant) and not re.search("[a-z] ", str(value.value))  # a name of a file, say
        if _is_text(value) and depth < 3 and not plain:
            if value is not node.value:
                inlined.add(id(value))
            yield from self._parts(value, scope, inlined, depth + 1)
        else:
            yield [(_name(node.value),)]

    def _parts_of_log(self, node: ast.Call, scope: Scope, inlined: set[int]) -> Iterator[list[Any]]:
        template = scope.value(node.args[0])
        inlined.add(id(template))
        if isinstance(template, ast.Constant):
            arguments = iter(node.args[1:])
            pieces = re.split(r"(%[-.\d]*[sdgrf])", str(template.value))
            yield [(_name(next(arguments)),) if place % 2 else piece for place, piece in enumerate(pieces)]


def _clause(message: str) -> str:
    """Returns a message without what joins it to the one before."""
    return message.removeprefix("; ")


def _short(node: ast.AST, inlined: set[int]) -> Iterator[str]:
    """Yields the texts, also of one word, that fill a placeholder which is translated, or are shown by themselves."""
    values: list[ast.expr] = []
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in language.NESTED for t in node.targets):
        values = [node.value]
    elif isinstance(node, ast.Call) and _called(node) in SHORT:
        values = node.args[SHORT[_called(node)] :][:1]
    elif isinstance(node, ast.Call) and _called(node) == "show_metadata":
        labels = [part for part in ast.walk(node) if isinstance(part, ast.Dict)]
        yield from (
            str(key.value).replace("_", " ") for label in labels for key in label.keys if isinstance(key, ast.Constant)
        )
    for value in values:
        if id(value) in inlined:
            continue
        for part in [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]:
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and re.search("[a-z]{2}", part.value):
                yield part.value


def _silent(tree: ast.Module) -> Iterator[ast.AST]:
    """Yields what holds no messages: docstrings, annotations, keys, what is compared, lists of words."""
    for node in ast.walk(tree):
        silent: list[ast.AST] = []
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            silent = [node]
        elif isinstance(node, ast.Call) and _called(node) in SILENT:
            silent = [*node.args, *node.keywords, *([node.func.value] if _is_text_method(node) else [])]
        elif isinstance(node, ast.Compare):
            silent = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            silent = [] if getattr(node.value, "id", "") == "Annotated" else [node.slice]
        elif isinstance(node, ast.Dict):
            silent = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.keyword) and node.arg in {"metavar", "envvar", "encoding", "description"}:
            silent = [node]
        # A list of words that stands by itself in capital letters is data.
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(isinstance(t, ast.Name) and t.id.isupper() for t in targets) and not _is_text(node.value):
                silent = [node.value]
        for part in silent:
            yield from ast.walk(part)


def _is_text_method(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Constant)


def _is_log(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _called(node) in {"warning", "info"} and bool(node.args)


def _numbered(name: str, names: dict[str, int]) -> str:
    names[name] = names.get(name, 0) + 1
    return f"{{{name}{names[name] if names[name] > 1 else ''}}}"


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _name(node: ast.expr) -> str:
    """Returns the name of a placeholder: that of the variable, the attribute or the function that fills it."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        return (node.id if isinstance(node, ast.Name) else node.attr).strip("_").lower()
    if isinstance(node, ast.Call):
        called = _called(node)
        if node.args and (called in {"join", "map", "min", "max"} or called in WRAPPERS):
            return _name(node.args[-1] if called in {"join", "map"} else node.args[0])
        return called.strip("_").lower() or "value"
    if isinstance(node, ast.BoolOp):
        return _name(node.values[0])
    for inner in ("value", "left", "operand", "body", "elt"):
        part = getattr(node, inner, None)
        if isinstance(part, ast.expr):
            return _name(part)
    return "value"


def read() -> Catalog:
    """Returns the catalog as it is."""
    with CATALOG.open("rb") as file:
        catalog = read_po(file, locale="tr", domain=language.DOMAIN)
    catalog.creation_date = catalog.revision_date = datetime(2026, 1, 1, tzinfo=timezone.utc)  # the same bytes each day
    return catalog


def update() -> list[str]:
    """Brings the catalog up to date with the source, compiles it, and returns the messages without a translation."""
    before = read()
    after = Catalog(locale="tr", domain=language.DOMAIN, header_comment=before.header_comment, fuzzy=False)
    for message, place in sorted(messages().items(), key=lambda item: (item[1], item[0])):
        known = before.get(message) or before.obsolete.pop(message, None)
        after.add(message, known.string if known else "", auto_comments=[place])
    gone = {message.id: message for message in before if message.id and message.string and message.id not in after}
    after.obsolete = {name: message for name, message in {**before.obsolete, **gone}.items() if name not in after}
    written, compiled = BytesIO(), BytesIO()
    write_po(written, after, width=None)
    CATALOG.write_bytes(HEAD.sub(b"", written.getvalue()))
    write_mo(compiled, read())
    CATALOG.with_suffix(".mo").write_bytes(compiled.getvalue())
    return [str(message.id) for message in after if message.id and not message.string]


if __name__ == "__main__":
    missing = update()
    print(f"{CATALOG}: {len(missing)} messages without a translation", *missing, sep="\n")
    sys.exit(bool(missing))
