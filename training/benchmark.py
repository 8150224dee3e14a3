"""python -m training.benchmark --run runs/NAME: measures published Turkish benchmarks, of images or of text alone."""

from __future__ import annotations

import logging
import time
from typing import Any

from training.run.command import network_failure, print_result, quiet_hosts, run_command
from training.run.config import BenchmarkConfig, read
from training.run.lock import hold
from training.run.record import check_no_run, check_outputs, locate_model
from turkish_clip.atomic import write_json
from turkish_clip.errors import InputError, not_imported, one_line
from turkish_clip.metrics import METRIC_NAMES

log = logging.getLogger("training")
RECALLS = METRIC_NAMES[:3]
# Our names → MTEB's: what CLIP papers call recall@k is the fraction of queries with a hit among the first k.
FIGURES = {name: name.replace("recall", "hit_rate") for name in (*RECALLS, "ndcg_at_10")}


def main(argv: list[str]) -> dict[str, Any]:
    """Measures the tasks that are not yet measured with these weights; writes benchmark.json and benchmark.html."""
    config = read(BenchmarkConfig, argv)
    hold(config.folder)
    check_outputs(config.folder, "benchmark.json", "benchmark.html")
    quiet_hosts()
    mteb = _mteb()

    from training.evaluation.mteb_encoder import MtebPair
    from training.evaluation.published import (
        BENCHMARK_FORMAT,
        BenchmarkError,
        measure_data,
        rows_of,
        subset_of,
        text_rows,
        write_page,
    )
    from training.run.distributed import device_of
    from turkish_clip.dual_encoder import load_dual_encoder, weights_sha256

    if config.model:
        check_no_run(config.folder, config.model)
    try:
        tasks = [mteb.get_task(name) for name in config.task_names]
    except (KeyError, ValueError) as error:
        raise BenchmarkError(f"expected tasks of MTEB, got {one_line(error)}; see --help") from error
    subsets = [subset_of(task.metadata, config.subset) for task in tasks]
    image_model = locate_model(config.image_model, config.folder) or None
    encoder = load_dual_encoder(config.model or config.run, image_model, device=device_of(config.device))
    pair = MtebPair(encoder, config.batch_size)
    data = measure_data(encoder, config) if config.data else {}  # first, so that errors in it show at once
    result: dict[str, Any] = {
        "format": BENCHMARK_FORMAT,
        "model": encoder.spec.text,
        "image_model": encoder.image_name,
        "weights_sha256": weights_sha256(encoder.text),
        "image_weights_sha256": encoder.image_weights_sha256,
        "revision": pair.mteb_model_meta.revision,
        "mteb": mteb.__version__,
        "subset": config.subset,
        "dim": encoder.dim,
        "tasks": {
            task.metadata.name: run(mteb, pair, task.filter_languages(None, hf_subsets=[subset]), subset, config)
            for task, subset in zip(tasks, subsets)
        },
        "data": data,
    }
    before = _earlier(result, config)
    for kind in ("tasks", "data"):
        result[kind] = before.get(kind, {}) | result[kind]
    result["table"], result["text"] = rows_of(result), text_rows(result)
    write_json(config.folder / "benchmark.json", result)
    write_page(config.folder / "benchmark.html", result)
    _show(result, config)
    return result


def run(mteb: Any, pair: Any, task: Any, subset: str, config: BenchmarkConfig) -> dict[str, Any]:
    """Returns one task's metrics, as MTEB gives them, from its cache in the run's folder if they are there.

    Args:
        mteb: the module.
        pair: the model, an `MtebPair`.
        task: of MTEB.
        subset: of the task.
        config: gives the run's folder and the batch size.

    Raises:
        InputError: the task's data can't be had from the Hub.
    """
    began = time.perf_counter()
    try:
        found = mteb.evaluate(
            pair,
            task,
            co2_tracker=False,
            cache=mteb.ResultCache(config.folder / "mteb"),
            encode_kwargs={"batch_size": config.batch_size},
            show_progress_bar=False,
        )
    except Exception as error:
        if (reason := network_failure(error)) is None:
            raise
        raise InputError(
            f"expected the data of {task.metadata.name} from the Hub ({task.metadata.dataset['path']}), got {reason}; "
            "check the connection, that HF_HUB_OFFLINE is not set, and access to that data set (what was measured "
            "before is kept), or measure a copy of your own with --tasks none --data SOURCE"
        ) from error
    splits = found.task_results[0].scores
    split = "test" if "test" in splits else next(iter(splits))
    scores = next(one for one in splits[split] if one["hf_subset"] == subset)
    about = task.metadata
    log.info("%s: %.1f s", about.name, time.perf_counter() - began)
    return {
        "type": about.type,
        "category": about.category,
        "dataset": about.dataset["path"],
        "subset": subset,
        "split": split,
        "metric": about.main_score,
        "score": float(scores["main_score"]),
        **{ours: float(scores[theirs]) for ours, theirs in FIGURES.items() if theirs in scores},
    }


def _earlier(result: dict[str, Any], config: BenchmarkConfig) -> dict[str, Any]:
    """Returns what benchmark.json already holds of the same weights; only `data` if the subset or MTEB differs."""
    from training.evaluation.published import BenchmarkError, read_benchmark

    path = config.folder / "benchmark.json"
    if not path.exists():
        return {}
    try:
        before = read_benchmark(path)
    except BenchmarkError as error:
        log.warning("%s: all is measured again", error)
        return {}
    if any(before.get(key) != result[key] for key in ("revision", "format")):
        return {}
    same = all(before.get(key) == result[key] for key in ("subset", "mteb"))
    return dict(before) if same else {"data": before.get("data", {})}


def _show(result: dict[str, Any], config: BenchmarkConfig) -> None:
    """Prints a table, or the whole result as JSON."""
    if config.json:
        print_result(result, as_json=True)
        return
    images = {name: found for name, found in result["tasks"].items() if RECALLS[0] in found}
    if images or result["data"]:
        print(f"{'task':<32}{'recall@1':>10}{'@5':>8}{'@10':>8}{'nDCG@10':>10}")
    for name, found in images.items():
        print(f"{name:<32}" + "".join(f"{found[key]:>{width}.3f}" for key, width in zip(FIGURES, (10, 8, 8, 10))))
    for name, found in result["data"].items():
        for direction in ("text_to_image", "image_to_text"):
            cells = "".join(f"{found[direction][key]:>{width}.3f}" for key, width in zip(RECALLS, (10, 8, 8)))
            print(f"{name + ', ' + direction.replace('_', ' '):<32}{cells}")
    for row in result["text"]:
        print(f"{row['test'] + ' (' + row['subset'] + ')':<54}{row['score']:>8.3f} {row['metric']}")
    print(f"\n{config.folder / 'benchmark.json'}\n{config.folder / 'benchmark.html'}")


def _mteb() -> Any:
    try:
        import mteb
    except ImportError as error:
        raise InputError(not_imported(error, "MTEB", "benchmark", "mteb")) from error
    return mteb


if __name__ == "__main__":
    run_command(main)
