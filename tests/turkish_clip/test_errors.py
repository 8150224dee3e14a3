"""What is said where a library is missing, and where one is there and fails."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path
from typing import Any

import pytest

from turkish_clip.app import build_page
from turkish_clip.errors import not_imported
from turkish_clip.serving import AppError

PACKAGES = [path for name in ("turkish_clip", "training") for path in (Path(__file__).parents[2] / name).rglob("*.py")]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'starlette'", name="starlette"),
            "expected Starlette, got none installed; run in",
        ),
        (
            ModuleNotFoundError("No module named 'starlette.x'", name="starlette.x"),
            "expected Starlette, got none installed; ",
        ),
        (
            ModuleNotFoundError("No module named 'anyio'", name="anyio"),
            "the module 'anyio'; install that, too",
        ),
        (
            ImportError("Using SOCKS proxy, but\nno socksio"),
            "(ImportError: Using SOCKS proxy, but no socksio); ",
        ),
        (
            ImportError("libx.so: cannot open", name="starlette"),
            "can not be imported (ImportError: libx.so: cannot open)",
        ),
    ],
)
def test_only_the_library_itself_is_called_missing(
    error: ImportError, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in not_imported(error, "Starlette", "app", "starlette")
    real = builtins.__import__

    def failing(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "starlette":
            raise error
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", failing)
    with pytest.raises(AppError) as raised:
        build_page(None, None)  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_each_failed_import_that_becomes_a_message_says_why() -> None:
    """A handler of ImportError that raises an error of ours asks `not_imported` what to say."""
    for path in PACKAGES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ExceptHandler)
                and node.type is not None
                and ast.unparse(node.type) == "ImportError"
            ):
                for raised in [one for one in ast.walk(node) if isinstance(one, ast.Raise)]:
                    assert "not_imported" in ast.unparse(raised), f"{path}:{raised.lineno}"
