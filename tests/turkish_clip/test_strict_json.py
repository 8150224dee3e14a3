"""No number that JSON lacks is written, whoever writes it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turkish_clip.atomic import write_json
from turkish_clip.records import ImageModel
from turkish_clip.strict_json import json_text
from turkish_clip.terminal import as_json
from turkish_clip.verify import ModelRecord

ROOT = Path(__file__).parents[2]
NAN, INFINITY = float("nan"), float("inf")


def strictly(text: str) -> Any:
    """Parses JSON as other readers do."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("text_of", [json_text, as_json, lambda value: json_text(value, indent=2, ascii_only=True)])
def test_what_is_not_finite_is_null(text_of: Any) -> None:
    value = {"ı": [1, NAN, (INFINITY, "NaN")], "b": {"c": -INFINITY, "d": np.float64("nan")}, "e": None, "f": 0.5}
    assert strictly(text_of(value)) == {"ı": [1, None, [None, "NaN"]], "b": {"c": None, "d": None}, "e": None, "f": 0.5}


def test_files_and_models_records_hold_none(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": NAN})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "a": null\n}\n'
    measured = {"text_to_image": {"ci95": [NAN, 0.5]}}
    record = ModelRecord(
        kind="text", max_tokens=8, weights_sha256="", image_model=vars(ImageModel("x")), dim=2, measured=measured
    )
    assert strictly(record.to_json())["measured"] == {"text_to_image": {"ci95": [None, 0.5]}}


# Where `json.dumps` may stand: the function itself, and what neither holds results nor leaves the process.
OWN_USES = {
    "turkish_clip/strict_json.py": "the function itself",
    "turkish_clip/verify.py": "is published as a single file, and makes null of them itself",
    "turkish_clip/encoder.py": "a tokenizer's own JSON",
    "training/studies/runs.py": "options, read back at once",
    "training/run/record.py": "options, read back at once",
    "training/data/store.py": "paths in a file of this process",
    "training/data/columns.py": "a value of the source in a message",
    "training/data/readers/json_files.py": "a value of the source in a message",
    "training/release/card.py": "texts in YAML",
}


def test_all_other_code_writes_json_by_this_function() -> None:
    found = set()
    for path in [*(ROOT / "turkish_clip").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.dumps", "json.dump"):
                found.add(path.relative_to(ROOT).as_posix())
    assert found == set(OWN_USES)
