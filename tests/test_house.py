"""The source itself: imports between packages, forbidden constructs, exported names, the wheel."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "turkish_clip").rglob("*.py"))
TRAINING = sorted((ROOT / "training").rglob("*.py"))
COMMANDS = {path.stem for path in (ROOT / "training").glob("*.py")} - {"__init__"}
CALLERS = {"demo"}  # the commands that call the main of others, beside the studies
LEAVES = {"text", "metrics", "errors", "verify"}  # library modules that import none of the others
# Each layer imports from those before it and from itself; the commands, beside these packages, from all of them.
LAYERS = (
    "mini",
    "run",
    "data",
    "embeddings",
    "small_models",
    "pairs",
    "distillation",
    "drawing",
    "evaluation",
    "release",
)
HOOKS = re.compile("on_(train|epoch|step|substep|log|evaluate|save)")  # of the trainer's callbacks
LIBRARY_LAYERS = ("search", "app", "cli")  # above the library's other modules


def module_of(path: Path) -> str:
    """Returns the dotted name of a file's module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int:
    """Returns the number of a module's layer in its package: 0 is the lowest."""
    package, *rest = module.split(".")
    layers = LAYERS if package == "training" else LIBRARY_LAYERS
    if rest and rest[0] in layers:
        return 1 + layers.index(rest[0])
    return len(layers) + 1 if package == "training" else 0


def imported(path: Path) -> Iterator[str]:
    """Yields every module that a file imports: at once, lazily, or for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", LIBRARY, ids=module_of)
def test_the_library_does_not_import_training(path: Path) -> None:
    modules = set(imported(path))
    assert not [name for name in modules if name.split(".")[0] in ("training", "tests")]
    if path.stem in LEAVES:
        assert not [name for name in modules if name.startswith("turkish_clip")]


@pytest.mark.parametrize("path", TRAINING, ids=module_of)
def test_commands_do_not_import_each_other(path: Path) -> None:
    modules = set(imported(path))
    assert not [name for name in modules if name.split(".")[0] == "tests"]
    if path.parent.name == "training" and path.stem in COMMANDS - CALLERS:
        others = {f"training.{name}" for name in COMMANDS - {path.stem}}
        assert not modules & others


def import_graph() -> dict[str, set[str]]:
    """Returns for each module of both packages those of their modules that it imports, without any __init__."""
    modules = {name: path for path in [*LIBRARY, *TRAINING] if path.stem != "__init__" for name in [module_of(path)]}
    return {name: {other for other in imported(path) if other in modules} for name, path in modules.items()}


def test_imports_run_one_way_through_the_layers() -> None:
    upward = [
        f"{name} -> {other}"
        for name, others in import_graph().items()
        for other in others
        if name.split(".")[0] == other.split(".")[0] and layer_of(other) > layer_of(name)
    ]
    assert not upward


def test_no_circle_of_imports() -> None:
    left = import_graph()
    while lowest := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in lowest}
    assert not left  # each of these imports another of them


@pytest.mark.parametrize("folder", [ROOT / "training", *(ROOT / "training").iterdir()], ids=lambda path: path.name)
def test_no_folder_of_training_has_more_than_ten_modules(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= 10


def public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yields the functions and methods without an underscore at the front, of public classes; overloads aside."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child)
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield from [child] * all(ast.unparse(mark) != "overload" for mark in child.decorator_list)


@pytest.mark.parametrize("path", [*LIBRARY, *TRAINING], ids=module_of)
def test_two_parameters_or_more_are_documented(path: Path) -> None:
    if path.parent.name == "cli" and path.stem in ("entry", "images", "models", "regions", "drawing"):
        return  # typer's options have their own texts
    for function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        parameters = {argument.arg for argument in function.args.args + function.args.kwonlyargs} - {"self", "cls"}
        if len(parameters) > 1 and not HOOKS.match(function.name) and "hf_split" not in parameters:  # hooks: the host's
            assert "Args:" in (ast.get_docstring(function) or ""), function.name


@pytest.mark.parametrize("path", [*LIBRARY, *TRAINING], ids=module_of)
def test_no_assert_no_pickle_no_remote_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert "pickle" not in set(imported(path))
    trusting = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword)
        and node.arg == "trust_remote_code"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert not trusting


# What the READMEs import, and the classes that use a model; a new name is a promise to keep it.
EXPORTED = (
    "DualEncoder FewShotClassifier ImageError ImageFilter ImageIndex InputError OnnxTextEncoder RetrievalEvaluator "
    "ZeroShotClassifier build_text_encoder load_dual_encoder open_image pair save_text_encoder"
).split()


def test_importing_the_package_is_light_and_exports_these_names() -> None:
    program = (
        "import sys, turkish_clip\n"
        "assert not {'torch', 'transformers', 'sentence_transformers', 'PIL', 'numpy'} & set(sys.modules)\n"
        f"assert turkish_clip.__all__ == {EXPORTED}\n"
        "for name in turkish_clip.__all__: getattr(turkish_clip, name)\n"
        "try: turkish_clip.nothing\n"
        "except AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert "has no attribute 'nothing'" in done.stdout


def test_the_command_answers_help_without_torch() -> None:
    program = "import sys, turkish_clip.cli; assert not {'torch', 'numpy', 'PIL', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-m", "turkish_clip.cli", "verify", "--help"], capture_output=True, text=True, check=True
    )
    assert "golden" in done.stdout


def test_the_wheel_would_hold_the_library_alone() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'packages = ["turkish_clip"]' in text


def test_no_path_of_a_machine_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    suspicious = ("/" + "root/", "/" + "work/", "/home" + "/")
    found = []
    for name in listed:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".jinja", ".json") and path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [name for word in suspicious if word in text]
    assert not found
