"""Pre-publish checks: why a run can't be published as it is, every reason with what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from training.evaluation.corruptions import CORRUPTION_LABELS
from training.evaluation.results import Results
from training.release.card import licences, not_finite, public_name, sources_of
from training.run.config import PublishConfig
from training.run.provenance import git_state
from training.run.record import RunRecord
from turkish_clip.metrics import METRIC_NAMES
from turkish_clip.records import ImageModel

ENOUGH_IMAGES = 50  # below, chance finds much by itself
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")  # the Hub's abbreviations
CHECKOUT = Path(__file__).parents[2]


def failed_checks(config: PublishConfig, record: RunRecord, results: Results) -> list[str]:
    """Returns why a run can't be published as it is, each reason with what to do; empty where it can.

    Args:
        config: what the maker says: ids, licences.
        record: of the finished run.
        results: of its model.
    """
    return [*_run_failures(record, results), *_recipe_failures(config, record)]


def _run_failures(record: RunRecord, results: Results) -> list[str]:
    """Returns what is wrong with the run and its results."""
    summary = record.summary or {}
    if record.inputs.image_model is None or "training_captions" not in summary:
        return ["run.json is not of a text encoder; train it with training.distill"]
    found = []
    if results.weights_sha256 != summary["weights_sha256"]:
        found.append("results.json is of other weights than the run's model; run training.evaluate again")
    if results.dataset != " + ".join(source["captions"] for source in record.sources):
        found.append(f"results.json is of other data ({results.dataset}) than the run's; evaluate on the run's")
    if results.split != "test":
        found.append(f"results.json is of the {results.split} split; run training.evaluate on the test split")
    found += [f"results.json holds no fraction at {place}; measure again" for place in _bad_figures(results)]
    if not found and _is_chance(results):
        recall, images = results.text_to_image.recall_at_10, results.images
        found.append(f"recall@10 {recall:.3f} among {images} images is what chance finds; train longer or on more data")
    for state, when in ((record.git, "when it was trained"), (git_state(), "now")):
        if not state.commit:
            found.append(f"no git commit {when}, so the card can't say what reproduces it; work in a git checkout")
        elif state.changed:
            found.append(
                f"uncommitted changes {when} ({', '.join(state.changed)}), so no commit reproduces it; commit, and train "
                "again if it was then"
            )
    return found


def _bad_figures(results: Results) -> list[str]:
    """Returns the places of results.json that hold no fraction, or no count, where there should be one."""
    values = results.as_json()
    bad = list(not_finite(values))
    groups = {"text_to_image": values["text_to_image"], "image_to_text": values["image_to_text"]}
    groups |= {f"robustness.{name}": values["robustness"].get(name, {}) for _, name in CORRUPTION_LABELS}
    for group, figures in groups.items():
        for name in METRIC_NAMES:
            value = figures.get(name)
            if not isinstance(value, (int, float)) or not (0 <= value <= 1 or value != value):
                bad.append(f"{group}.{name}")
    return bad + [name for name in ("images", "captions") if not isinstance(values[name], int)]


def _is_chance(results: Results) -> bool:
    """Whether ten images drawn at random would have found as much."""
    found = results.text_to_image
    low = found.ci95.get("recall_at_10", (found.recall_at_10,))[0]
    return bool(results.images >= ENOUGH_IMAGES and low <= 10 / results.images)


def _recipe_failures(config: PublishConfig, record: RunRecord) -> list[str]:
    """Returns what is missing or wrong in what the maker says."""
    found = []
    if not LICENSE.fullmatch(config.license):
        found.append(f"no licence of the weights ({config.license!r}); add --license, for example apache-2.0")
    image_model = record.inputs.image_model
    if image_model is not None:
        found += [
            f"no licence of the data {source.name}; add --captions_license, or captions_license in the recipe's sources"
            for source, terms in zip(sources_of(record), licences(config, record))
            if not terms
        ]
        if not config.paired and not config.image_model_id and not _others_have(image_model):
            found.append(
                f"the image model is the folder {public_name(image_model.id)}, which nobody else has; "
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


def _others_have(image_model: ImageModel) -> bool:
    """Whether the image model is on the Hub, or in this checkout for anyone who clones it."""
    return bool(image_model.revision) or is_tracked(Path(image_model.id))


def is_tracked(folder: Path) -> bool:
    """Whether a folder's files are in this checkout's git, not just beside them."""
    found = folder.resolve()
    if not found.is_dir() or not found.is_relative_to(CHECKOUT):
        return False
    listed = subprocess.run(["git", "ls-files", str(found)], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return bool(listed.stdout.strip())
