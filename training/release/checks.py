"""The pre-publish checks: whether a run can be published, and what to do where it can't."""

from __future__ import annotations

import subprocess
from pathlib import Path

from training.evaluation.corruptions import CORRUPTION_TITLES
from training.evaluation.results import Results
from training.release.card import licences, not_finite, public_name, sources_of
from training.release.licences import LICENCES, LISTED_AT, near_licences
from training.run.config import PublishConfig
from training.run.provenance import git_state
from training.run.record import CHECKOUT, RunRecord, locate_model
from turkish_clip.errors import one_line
from turkish_clip.metrics import METRIC_NAMES
from turkish_clip.records import ImageModel

ENOUGH_IMAGES = 50  # among fewer images, recall@10 is high by chance


def failed_checks(config: PublishConfig, record: RunRecord, results: Results) -> list[str]:
    """Returns for each failed check the reason and what to do; [] for a run that can be published.

    Args:
        config: gives ids and licences.
        record: of the finished run.
        results: of its model.
    """
    return [*_run_failures(record, results), *recipe_failures(config, record)]


def _run_failures(record: RunRecord, results: Results) -> list[str]:
    """Returns the failed checks of the run, its results and its git state."""
    summary = record.summary or {}
    if record.inputs.image_model is None or "training_captions" not in summary:
        return ["run.json is not of a text encoder; train it with training.distill"]
    failures = []
    if results.weights_sha256 != summary["weights_sha256"]:
        failures.append("results.json is of other weights than the run's model; run training.evaluate again")
    if results.dataset != " + ".join(source["captions"] for source in record.sources):
        failures.append(f"results.json is of other data ({results.dataset}) than the run's; evaluate on the run's")
    if results.split != "test":
        failures.append(f"results.json is of the {results.split} split; run training.evaluate on the test split")
    failures += [f"results.json has no valid number at {place}; measure again" for place in _bad_figures(results)]
    if not failures and _is_chance(results):
        recall, images = results.text_to_image.recall_at_10, results.images
        failures.append(
            f"recall@10 {recall:.3f} among {images} images is no better than chance; train longer or on more data"
        )
    for state, when in ((record.git, "when it was trained"), (git_state(), "now")):
        if not state.commit:
            failures.append(f"no git commit {when}, so the card can't name one; work in a git checkout")
        elif state.changed:
            failures.append(
                f"uncommitted changes {when} ({', '.join(state.changed)}), so no commit reproduces it; commit them, "
                "and train again if the training used them"
            )
    return failures


def _bad_figures(results: Results) -> list[str]:
    """Returns the fields of results.json that are not finite, and the metrics and counts that are missing or wrong."""
    values = results.as_json()
    bad = list(not_finite(values))
    groups = {"text_to_image": values["text_to_image"], "image_to_text": values["image_to_text"]}
    groups |= {f"robustness.{name}": values["robustness"].get(name, {}) for _, name in CORRUPTION_TITLES}
    for group, figures in groups.items():
        for name in METRIC_NAMES:
            value = figures.get(name)
            if not isinstance(value, (int, float)) or not (0 <= value <= 1 or value != value):
                bad.append(f"{group}.{name}")
    return bad + [name for name in ("images", "captions") if values[name] < 1]


def _is_chance(results: Results) -> bool:
    """Returns whether the interval of recall@10 reaches down to chance, 10 / images."""
    measured = results.text_to_image
    low = measured.ci95.get("recall_at_10", (measured.recall_at_10,))[0]
    return bool(results.images >= ENOUGH_IMAGES and low <= 10 / results.images)


def recipe_failures(config: PublishConfig, record: RunRecord) -> list[str]:
    """Returns the failed checks of the configured licences, Hub ids and image model, which need no results.

    Args:
        config: gives ids and licences.
        record: of the run.
    """
    failures = []
    failures += license_failures(config.license) + _id_failures(config)
    image_model = record.inputs.image_model
    if image_model is not None:
        if not image_model.weights_sha256:
            failures.append(
                f"the weights of the image model {public_name(image_model.id)} are unknown, so nobody can tell that "
                "they have the same; import the embeddings again with --image_model_sha256, and train again"
            )
        failures += [
            f"no licence of the data {source.name}; add --captions_license, or captions_license in the recipe's sources"
            for source, terms in zip(sources_of(record), licences(config, record))
            if not terms
        ]
        if not config.paired and not config.image_model_id and not others_have(image_model, config.folder):
            failures.append(
                f"the image model is the folder {public_name(image_model.id)}, which nobody else has; publish the "
                "pair with --paired and --paired_id OWNER/NAME, or upload it and name it with --image_model_id"
            )
    kind, other = ("paired_id", config.model_id) if config.paired else ("model_id", config.paired_id)
    told_an_id = any("--paired_id OWNER/NAME" in failure for failure in failures)  # of the pair, not of this model
    if not config.repository and not told_an_id:
        failures.append(f"no Hub id; add --{kind} or --push")
    elif config.repository and config.repository == other:
        failures.append(
            f"{other} is the id of the {'text encoder' if config.paired else 'pair'}; push to another, or "
            f"{'leave out' if config.paired else 'add'} --paired"
        )
    owners = {name.partition("/")[0] for name in (config.repository, config.model_id, config.paired_id) if name}
    if len(owners) > 1:
        failures.append(f"ids of several owners ({', '.join(sorted(owners))}); give --model_id and --paired_id as well")
    return failures


def unlisted_data_licences(config: PublishConfig, record: RunRecord) -> list[str]:
    """Returns a line for each licence of the data that is none of the Hub's, as most of a shop or an archive are.

    Args:
        config: gives the licences.
        record: of the run.
    """
    lines = []
    for terms in dict.fromkeys(licences(config, record)):
        if terms and terms not in LICENCES:
            near = near_licences(terms)
            meant = f" (did you mean {near[0]}?)" if near else ""
            lines.append(f"{terms!r} is no licence that the Hub lists{meant}: the card gives the data's as it stands")
    return lines


def license_failures(name: str) -> list[str]:
    """Returns the failed check of the licence of the weights, which has to be one that the Hub knows."""
    if not name:
        return ["no licence id for the weights (''); add --license, for example apache-2.0"]
    if name in LICENCES:
        return []
    near = near_licences(name)
    offered = f"did you mean {', '.join(near)}?" if near else "with other, say in --limits which it is;"
    return [f"the Hub has no licence {name!r} for the weights, and would refuse the card; {offered} see {LISTED_AT}"]


def _id_failures(config: PublishConfig) -> list[str]:
    """Returns the failed checks of the form of ids, and of an image model's id that is a folder here."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    failures = []
    for name in ("push", "model_id", "paired_id", "image_model_id"):
        value = getattr(config, name)
        try:
            validate_repo_id(value or "a/b")
        except HFValidationError as error:
            reason = one_line(error).partition(": ")[2]
            failures.append(f"the Hub has no id such as {value!r} of {name} ({reason}); correct it")
    if config.image_model_id and Path(config.image_model_id).exists():
        failures.append(
            f"{config.image_model_id} of image_model_id is a folder here, which others don't have; give the id that it "
            "has on the Hub, or publish the pair, which holds it, with --paired"
        )
    return failures


def others_have(image_model: ImageModel, run: Path) -> bool:
    """Returns whether others can load the image model: from the Hub, or from a clone of this repository.

    Args:
        image_model: that the run was trained for.
        run: the run folder, from which a relative path to it may start.
    """
    return bool(image_model.revision) or is_tracked(Path(locate_model(image_model.id, run)))


def is_tracked(folder: Path) -> bool:
    """Returns whether git tracks files of a folder in this repository."""
    path = folder.resolve()
    if not path.is_dir() or not path.is_relative_to(CHECKOUT):
        return False
    listed = subprocess.run(["git", "ls-files", str(path)], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return bool(listed.stdout.strip())
