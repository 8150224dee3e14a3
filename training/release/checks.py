"""Pre-publish checks: why a run can't be published as it is, every reason with what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from training.evaluation.corruptions import CORRUPTION_LABELS
from training.release.card import licences, not_finite, public_name, sources_of
from training.run.config import PublishConfig
from training.run.provenance import git_state
from training.run.record import sources_in

FIGURES = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")
ENOUGH_IMAGES = 50  # below, chance finds much by itself
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")  # the Hub's abbreviations
CHECKOUT = Path(__file__).parents[2]


def failed_checks(config: PublishConfig, record: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """Why this run can't be published as it is, each reason with what to do; empty where nothing stands in the way."""
    return [*_run_failures(record, results), *_recipe_failures(config, record)]


def _run_failures(record: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """What is wrong with the run and its results."""
    if "image_model" not in record or "training_captions" not in record["summary"]:
        return ["run.json is not of a text encoder trained with this version; train it with training.distill"]
    found = []
    if results.get("weights_sha256") != record["summary"]["weights_sha256"]:
        found.append("results.json is of other weights than the run's model; run training.evaluate again")
    if results.get("dataset") != " + ".join(source["captions"] for source in sources_in(record["config"])):
        found.append(f"results.json is of other data ({results.get('dataset')}) than the run's; evaluate on the run's")
    if results.get("split") != "test":
        found.append(f"results.json is of the {results.get('split')} split; run training.evaluate on the test split")
    found += [f"results.json holds no fraction at {place}; measure again" for place in _bad_figures(results)]
    if not found and _is_chance(results):
        recall, images = results["text_to_image"]["recall_at_10"], results["images"]
        found.append(f"recall@10 {recall:.3f} among {images} images is what chance finds; train longer or on more data")
    for state, when in ((record["git"], "when it was trained"), (git_state(), "now")):
        if not state:
            found.append(f"no git commit {when}, so the card can't say what reproduces it; work in a git checkout")
        elif state["dirty"]:
            where = f" ({', '.join(state['changed'])})" if state.get("changed") else ""
            found.append(
                f"uncommitted changes {when}{where}, so no commit reproduces it; commit, and train again if it was then"
            )
    return found


def _bad_figures(results: dict[str, Any]) -> list[str]:
    """Places of results.json that do not hold what evaluate writes there."""
    bad = list(not_finite(results))
    for group in ("text_to_image", "image_to_text", *(f"robustness.{name}" for _, name in CORRUPTION_LABELS)):
        figures: Any = results
        for name in group.split("."):
            figures = figures.get(name) if isinstance(figures, dict) else None
        names = FIGURES if isinstance(figures, dict) else ("",)
        for name in names:
            value = figures.get(name) if isinstance(figures, dict) else None
            if not isinstance(value, (int, float)) or not (0 <= value <= 1 or value != value):
                bad.append(f"{group}.{name}".rstrip("."))
    counts = [name for name in ("images", "captions") if not isinstance(results.get(name), int)]
    return [*bad, *counts]


def _is_chance(results: dict[str, Any]) -> bool:
    """Whether ten images drawn blindly would have found as much."""
    images, found = results["images"], results["text_to_image"]
    low = found.get("ci95", {}).get("recall_at_10", (found["recall_at_10"],))[0]
    return bool(images >= ENOUGH_IMAGES and low <= 10 / images)


def _recipe_failures(config: PublishConfig, record: dict[str, Any]) -> list[str]:
    """What is missing or wrong in what the maker says."""
    found = []
    if not LICENSE.fullmatch(config.license):
        found.append(f"no licence of the weights ({config.license!r}); add --license, for example apache-2.0")
    if "image_model" in record:
        found += [
            f"no licence of the data {source.name}; add --captions_license, or captions_license in the recipe's sources"
            for source, terms in zip(sources_of(record), licences(config, record))
            if not terms
        ]
        if not config.paired and not config.image_model_id and not _others_have(record["image_model"]):
            found.append(
                f"the image model is the folder {public_name(record['image_model']['id'])}, which nobody else has; "
                "publish the pair with --paired, or upload it and name it with --image_model_id"
            )
    kind, other = ("paired_id", config.model_id) if config.paired else ("model_id", config.paired_id)
    if not config.repository:
        found.append(f"no Hub id; add --{kind} or --push")
    elif config.repository == other:
        found.append(
            f"{other} is the id of the {'text encoder' if config.paired else 'pair'}; push to another, or "
            f"{'leave out' if config.paired else 'add'} --paired"
        )
    if config.paired and not config.text_id:
        found.append("no Hub id of the text encoder for the pair's card; add --model_id")
    owners = {name.partition("/")[0] for name in (config.repository, config.model_id, config.paired_id) if name}
    if len(owners) > 1:
        found.append(f"ids of several owners ({', '.join(sorted(owners))}); give --model_id and --paired_id as well")
    return found


def _others_have(image_model: dict[str, Any]) -> bool:
    """Whether the image model is on the Hub, or in this checkout for anyone who clones it."""
    return bool(image_model["revision"]) or is_tracked(Path(image_model["id"]))


def is_tracked(folder: Path) -> bool:
    """Whether a folder's files are in this checkout's git, not just beside them."""
    found = folder.resolve()
    if not found.is_dir() or not found.is_relative_to(CHECKOUT):
        return False
    listed = subprocess.run(["git", "ls-files", str(found)], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return bool(listed.stdout.strip())
