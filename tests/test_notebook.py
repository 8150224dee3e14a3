"""The notebook in examples/ runs from the top down, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "words_and_images.ipynb"
PARAMETERS = "parameters"  # the id of the cell that names the model and the images


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


def run(book: Any, parameters: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Runs a notebook with other parameters, in a folder, and returns what each cell printed."""
    cell = next(cell for cell in book.cells if cell.id == PARAMETERS)
    cell.source = parameters
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder / "data"))
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return {
        cell.id: "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")
        for cell in book.cells
        if cell.cell_type == "code"
    }


def test_the_notebook_is_valid_and_holds_no_outputs() -> None:
    book = read()
    nbformat.validate(book)
    assert book.nbformat_minor >= 5  # cells have ids
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert code[0].id == PARAMETERS


def test_the_notebook_runs(
    tmp_path: Path, pair_folder: Path, captioned_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = (
        "from pathlib import Path\n"
        f"MODEL, IMAGES = Path({str(pair_folder)!r}), Path({str(captioned_folder / 'test')!r})\n"
        f"INDEX = Path({str(tmp_path / 'index')!r})\n"
    )
    book = read()
    printed = run(book, parameters, tmp_path, monkeypatch)
    assert "10 new, 0 as they were; 10 distinct images" in printed["index"]
    assert len(printed["search"].splitlines()) == 5
    assert printed["regions"].startswith("Region(box=(")
    shown = [
        cell.id for cell in book.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert shown == ["show", "search", "query", "regions", "things"]
