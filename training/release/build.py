"""The folder that goes to the Hub: built from a finished run, and checked in an isolated process."""

from __future__ import annotations

import datetime
import json
import logging
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import turkish_clip.verify
from training.evaluation.published import published_tests
from training.release.card import Named, card_fields, render, sources_of
from training.release.checks import CHECKOUT, is_tracked
from training.release.isolated import run_isolated
from training.run.config import PublishConfig
from training.run.provenance import commit_of
from training.run.record import RunError, sources_in
from turkish_clip.atomic import atomic_folder, write_json, write_text
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.resolve import MEASURED
from turkish_clip.verify import FORMAT, RECORD, TEXT_TOLERANCE, golden

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("training")

# The oldest versions that the published folder was loaded under: `make lowest` does it again.
REQUIRES = {"sentence-transformers": "5.4.0", "transformers": "4.57.1"}
REQUIRES_PAIRED = {"sentence-transformers": "5.4.0", "transformers": "5.0.0"}


def finished_run(folder: Path) -> dict[str, Any]:
    """The run.json of a finished run.

    Raises:
        RunError: there is none, or it is not finished.
    """
    record = _read(folder / "run.json", "run training.distill first")
    if record.get("status") != "finished":
        raise RunError(f"expected a finished run in {folder}, got one that is {record.get('status')}; --resume it")
    return record


def measured(folder: Path) -> dict[str, Any]:
    """The results.json of a run.

    Raises:
        RunError: there is none.
    """
    return _read(folder / "results.json", "run training.evaluate first")


def stop_if_any(reasons: list[str]) -> None:
    """Stops where there is a reason to.

    Raises:
        RunError: with all the reasons, one after another.
    """
    if reasons:
        listed = " ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, start=1))
        raise RunError(f"expected a run that can be published, got {len(reasons)} in the way: {listed}")


def benchmark_of(run: Path, weights: str, image_weights: str) -> list[dict[str, Any]]:
    """The rows of the run's benchmark.json on published Turkish tests, ours and the baselines'.

    None where there is none of these weights, or only other tests.
    """
    path = run / "benchmark.json"
    if not path.is_file():
        return []
    result = _read(path, "run training.benchmark again")
    measured = (result.get("weights_sha256"), result.get("image_weights_sha256"), result.get("subset"))
    if measured != (weights, image_weights, "tr"):
        log.warning("%s is of other weights or another language, and is left out of the card; measure again", path)
        return []
    known = published_tests(result)
    return [row for row in result["table"] if row["test"] in known]


def build(config: PublishConfig, record: dict[str, Any], results: dict[str, Any]) -> None:
    """Writes the folder that goes up, whole or not at all.

    Raises:
        RunError: the model in the run is not the one that was measured.
    """
    from turkish_clip.encoder import load_model, pair, save_text_encoder

    student = load_model(config.folder / "model", device="cpu")
    if weights_sha256(student) != results["weights_sha256"]:
        raise RunError(
            f"expected the weights that results.json is of, got others in {config.folder / 'model'}; evaluate it again"
        )
    image = _load_image_model(config, record)
    model = pair(student, image, device="cpu") if config.paired else student
    about = _about_model(config, record, student, model)
    about["images_are_unit"] = is_unit(image)
    with atomic_folder(config.output) as partial:
        save_text_encoder(model, partial)
        shown = published(results, record, about)
        write_json(partial / "results.json", shown)
        fields = _golden_record(config, record, shown, about, golden(student, image))
        write_text(partial / RECORD, json.dumps(fields, ensure_ascii=False) + "\n")
        weights = results["weights_sha256"], record["image_model"]["weights_sha256"]
        fields = card_fields(config, record, results, about, benchmark_of(config.folder, *weights))
        write_text(partial / "README.md", render(fields))


def _load_image_model(config: PublishConfig, record: dict[str, Any]) -> SentenceTransformer:
    """The image model under the name that the card will have.

    Raises:
        RunError: it has other weights than the one that the run was trained with.
        ModelError: it can't be loaded.
    """
    from turkish_clip.encoder import load_model

    trained_for = record["image_model"]
    name = config.image_model_id or trained_for["id"]
    image = load_model(name, revision="" if config.image_model_id else trained_for["revision"], device="cpu")
    if weights_sha256(image) != trained_for["weights_sha256"]:
        raise RunError(
            f"expected the image model that the run was trained with, got other weights in {name}; "
            "bring that one back, or embed and train again"
        )
    return image


def _about_model(
    config: PublishConfig, record: dict[str, Any], student: SentenceTransformer, model: SentenceTransformer
) -> dict[str, Any]:
    """What the model itself tells, for its card and its record."""
    transformer = student[0]
    hidden, dim = transformer.get_embedding_dimension(), student.get_embedding_dimension()
    return {
        "repository": config.repository,
        "dim": dim,
        "max_tokens": student.max_seq_length,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "architecture": f"{type(transformer.auto_model).__name__} → mean pooling → dense {hidden} → {dim} → normalise"
        + (f", beside {_class_of(model[0].sub_modules['image'][0])}" if config.paired else ""),
        "requires": REQUIRES_PAIRED if config.paired else REQUIRES,
        "image_model": _image_model_of(config, record["image_model"]),
        "record": RECORD,
        "year": datetime.datetime.now(tz=datetime.timezone.utc).year,
    }


def _image_model_of(config: PublishConfig, trained_for: dict[str, Any]) -> Named:
    """The image model as others find it."""
    if config.image_model_id:
        return Named(config.image_model_id, True, commit_of(config.image_model_id))
    if trained_for["revision"]:
        return Named(trained_for["id"], True, trained_for["revision"])
    path = Path(trained_for["id"]).resolve()
    return Named(str(path.relative_to(CHECKOUT)) if is_tracked(path) else path.name, False)


def _golden_record(
    config: PublishConfig,
    record: dict[str, Any],
    results: dict[str, Any],
    about: dict[str, Any],
    vectors: dict[str, Any],
) -> dict[str, Any]:
    """What `turkish-clip verify` reads beside the weights."""
    trained_for = about["image_model"]
    return {
        "format": FORMAT,
        "kind": "paired" if config.paired else "text",
        "dim": about["dim"],
        "max_tokens": about["max_tokens"],
        "weights_sha256": record["summary"]["weights_sha256"],
        "image_model": {
            "id": trained_for.name,
            "revision": trained_for.revision,
            "weights_sha256": record["image_model"]["weights_sha256"],
        },
        "requires": about["requires"],
        "tolerance": TEXT_TOLERANCE,
        "golden": vectors,
        "measured": {name: results[name] for name in MEASURED},
        **({"temperature": results["temperature"]["value"]} if "temperature" in results else {}),
    }


def published(results: dict[str, Any], record: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """results.json without paths of the machine that it was measured on."""
    data = sources_of(record)
    measured = results.get("sources", {})
    told = zip(data, sources_in(record["config"]))
    named = {source.name: measured[own["captions"]] for source, own in told if own["captions"] in measured}
    return {
        **results,
        "model": about["repository"],
        "image_model": about["image_model"].name,
        "dataset": " + ".join(source.name for source in data),
        **({"sources": named} if named else {}),
    }


def is_unit(image: SentenceTransformer) -> bool:
    """Whether the image model's own vectors have norm 1."""
    from turkish_clip.verify import encode_each, golden_images, unit

    vectors = encode_each(image, golden_images())
    return bool(abs(vectors - unit(vectors)).max() < TEXT_TOLERANCE)


def check_isolated(folder: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks of turkish_clip.verify in a fresh, offline process that can't import this project.

    Raises:
        RunError: the process itself failed.
    """
    log.info("checking %s in a fresh process, offline, with plain sentence-transformers", folder)
    trained_for = record["image_model"]
    argv = [str(folder), "--image-model", trained_for["id"], "--json"]
    argv += ["--image-revision", trained_for["revision"]] if trained_for["revision"] else []
    try:
        done = run_isolated(Path(turkish_clip.verify.__file__), *argv, offline=True)
    except subprocess.TimeoutExpired as error:
        raise RunError(f"expected the checks of {folder} to end, got none in {error.timeout:g} s; try again") from error
    try:
        checks = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        reason = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise RunError(f"expected the checks of {folder} to run, got {reason[:200]}; nothing was uploaded") from None
    return list(checks)


def _class_of(module: Any) -> str:
    """The name of the transformers model inside a module of the host."""
    return type(getattr(module, "model", module)).__name__


def _read(path: Path, what_to_do: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}")
        return value
    except FileNotFoundError as error:
        raise RunError(f"expected {path.name} in {path.parent}, got none; {what_to_do}") from error
    except ValueError as error:
        raise RunError(f"expected JSON in {path}, got {error}; {what_to_do}") from error
