"""python -m training.studies.ablate recipe.yaml: objectives × data sizes × seeds, on the same image embeddings."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

from training import evaluate
from training.data.sources import read_captions
from training.embeddings.manifest import MANIFEST
from training.embeddings.store import remove_cross_split_duplicates
from training.evaluation.results import Results
from training.pairs.dataset import without_skipped
from training.run.command import print_result, run_command
from training.run.config import CLOSED_FORM, STATIC, WORDS, AblateConfig, default_epochs, read
from training.run.lock import hold
from training.run.provenance import sha256_of
from training.run.record import RunError, check_outputs
from training.run.source import is_mini
from training.studies.ablation import FIGURES, Cell, figures, name_of, poolings_of, summary, write_page
from training.studies.runs import embedded_once, shared_options, trained
from turkish_clip.atomic import write_json
from turkish_clip.errors import one_line, printable
from turkish_clip.records import from_json
from turkish_clip.text_files import read_whole

log = logging.getLogger("training")


UNLIKE_BERT = {"prompt": "", "learning_rate": 0.0, "dense_learning_rate": 0.0}  # of a static row beside a BERT


def main(argv: list[str]) -> dict[str, Any]:
    """Runs the cells of the ablation that are not yet measured; writes ablation.json and ablation.html."""
    config = read(AblateConfig, argv)
    hold(config.folder)
    check_outputs(config.folder, "recipe.yaml", "ablation.json", "ablation.html")
    images, captions = _prepare(config)
    epochs = config.epochs if config.epochs >= 0 else default_epochs(math.ceil(captions / config.batch_size))
    cells = [
        Cell(objective, size, seed, pooling)
        for seed in config.seeds
        for size in config.sizes
        for objective in config.objectives
        for pooling in poolings_of(objective, config)
    ]
    measured: dict[Cell, dict[str, Any]] = {}
    result: dict[str, Any] = {}
    for number, cell in enumerate(cells, 1):
        log.info("%d of %d: %s", number, len(cells), cell.name)
        measured[cell] = run(cell, epochs * (images / cell.size if cell.size else 1), config)
        result = summary(measured, config)  # after each cell, so that an interrupted ablation leaves its results
        write_json(config.folder / "ablation.json", result)
        write_page(config.folder / "ablation.html", result)
    _show(result, config)
    return result


def _prepare(config: AblateConfig) -> tuple[int, int]:
    """Embeds the images, unless that is done or they were imported; returns the numbers that train, and of captions.

    Raises:
        RunError: a size is larger than that number.
    """
    embeddings = embedded_once(config, shared(config), "ablation")
    captions = remove_cross_split_duplicates(read_captions(config, check_files=False), embeddings).captions
    rows = without_skipped(captions.split("train"), embeddings)
    images = len(rows)
    if max(config.sizes) > images:
        raise RunError(f"expected 'sizes' of at most {images} training images, got {max(config.sizes)}; lower it")
    return images, sum(len(row.captions) for row in rows)


def run(cell: Cell, epochs: float, config: AblateConfig) -> dict[str, Any]:
    """Distils and measures one cell, or reads its results if that is done.

    Args:
        cell: the run to make.
        epochs: passes over its captions: more in a smaller cell, so that all take as many steps; the closed form takes
            none.
        config: of the ablation.

    Returns:
        The cell's results.json and `train_seconds`, None for a resumed run, of which it is unknown.

    Raises:
        RunError: it was measured with other options or other image embeddings.
    """
    folder = config.folder / cell.name
    done = folder / "cell.json"
    options = shared(config) | {
        "run": str(folder),
        "embeddings": str(config.embeddings_folder),
        "objective": cell.objective,
        "seed": cell.seed,
        "pooling": cell.pooling,
        "train_images": cell.size,
        "epochs": epochs,
        "report_queries": 0,
    }
    if cell.objective == CLOSED_FORM:
        options |= {"objective": "mse", "epochs": 0}
    if cell.objective == STATIC:
        options |= {"objective": "mse"} | static_options(config)
    if cell.objective == WORDS:
        options |= {"objective": "mse", "backbone": STATIC, "word_vectors": config.word_vectors, "static_from": ""}
        options |= {} if config.backbone == STATIC else UNLIKE_BERT
    if is_mini(config.captions):  # drawn once, then read as a folder
        options["captions"] = str(config.folder / "data")
    of = {"options": options, "manifest_sha256": sha256_of(config.embeddings_folder / MANIFEST)}
    if done.exists():
        cell_of, results = _read_cell(done)
        if cell_of != of:
            raise RunError(f"expected {folder} to be of these options and embeddings, got others; choose another --run")
        return results
    recipe, run_summary = trained(folder, options, "ablation")
    with contextlib.redirect_stdout(io.StringIO()):
        found = evaluate.main([str(recipe)])
    results = {**found, "train_seconds": run_summary["train_seconds"]}
    write_json(done, {"of": of, "results": results})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return _read_cell(done)[1]


def static_options(config: AblateConfig) -> dict[str, Any]:
    """Returns the options by which the static row differs: a backbone, and rates that were not meant for another."""
    if config.backbone == STATIC:
        return {}
    return {"backbone": STATIC, "static_from": config.static_from or config.backbone, **UNLIKE_BERT}


def _read_cell(done: Path) -> tuple[Any, dict[str, Any]]:
    """Reads what a finished cell is of, and its results.

    Raises:
        RunError: the file is damaged.
    """
    try:
        content = json.loads(read_whole(done))
        of, results = content["of"], content["results"]
        from_json(Results, {name: value for name, value in results.items() if name != "train_seconds"})
        wrong = [f"{value!s:.40} as {label!r}" for label, value in figures(results) if not _is_figure(value)]
        if wrong:
            raise ValueError(wrong[0])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"expected the results of a cell in {printable(str(done))}, got {one_line(error)}; delete it to measure "
            "the cell again"
        ) from error
    return of, dict(results)


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and type(value) is not bool and abs(value) < math.inf)


def shared(config: AblateConfig) -> dict[str, Any]:
    """Returns the fields that all cells share, as a recipe has them."""
    left_out = {"objectives", "poolings", "seeds", "sizes"}
    if config.backbone != STATIC:  # these are of the rows static and words alone
        left_out |= {"static_from"} | ({"word_vectors", "words"} if WORDS in config.objectives else set())
    return shared_options(config, left_out)


def _show(result: dict[str, Any], config: AblateConfig) -> None:
    """Prints the table, or the whole result as JSON."""
    if config.json:
        print_result(result, as_json=True)
        return
    print(f"{result['images']} {result['split']} images, mean ± standard deviation over seeds")
    for row in result["rows"]:
        print(f"\n{name_of(row)}, {row['train_images'] or 'all'} training images, {row['seeds']} seeds")
        for label in [label for label in FIGURES if label in row]:
            mean = "–" if row[label]["mean"] is None else f"{row[label]['mean']:.3f}"
            spread = "" if row[label]["spread"] is None else f" ± {row[label]['spread']:.3f}"
            print(f"  {label:<32}{mean}{spread}")
    print(f"\n{config.folder / 'ablation.json'}\n{config.folder / 'ablation.html'}")


if __name__ == "__main__":
    run_command(main)
