"""Builds the folder that is published from a finished run, and checks it in an isolated process."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import turkish_clip.verify
from training.evaluation.published import BENCHMARK_FORMAT, published_tests, read_benchmark, rows_of, text_rows
from training.evaluation.results import Results, measured_part, read_model_bank, read_model_record
from training.release.card import (
    AboutModel,
    Named,
    card_fields,
    public_name,
    render,
    sources_of,
    trained_image_model,
)
from training.release.checks import is_tracked, others_have
from training.release.isolated import run_isolated
from training.release.turkish import NAME as TURKISH_NAME
from training.release.turkish import render_turkish
from training.run.config import PublishConfig
from training.run.provenance import commit_of
from training.run.record import CHECKOUT, RunError, RunRecord, locate_model
from turkish_clip.atomic import atomic_folder, write_text
from turkish_clip.bank import write_bank
from turkish_clip.dual_encoder import image_side_of, weights_sha256
from turkish_clip.records import ImageModel
from turkish_clip.resolve import MODEL_FOLDER
from turkish_clip.verify import RECORD, TEXT_TOLERANCE, ModelRecord, golden

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("training")

# The oldest versions under which published folders were tested; `make lowest` tests them again.
REQUIRES = {"sentence-transformers": "5.4.0", "transformers": "4.57.1"}
REQUIRES_PAIRED = {"sentence-transformers": "5.4.0", "transformers": "5.0.0"}
# The first version of transformers that has the model, for a pair of an image model that is newer than that.
NEWER_MODELS = {"embedding_gemma2": "5.19.0"}


def finished_run(folder: Path) -> RunRecord:
    """Reads the run.json of a finished run.

    Raises:
        RunError: there is none, or the run is not finished.
    """
    record = RunRecord.read(folder, "run training.distill first")
    if record.status != "finished":
        raise RunError(f"expected a finished run in {folder}, got one that is {record.status}; --resume it")
    return record


def raise_failed_checks(reasons: list[str]) -> None:
    """Stops the command if checks have failed.

    Raises:
        RunError: there are reasons; the message lists all of them.
    """
    if reasons:
        listed = " ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, start=1))
        checks = "1 failed check" if len(reasons) == 1 else f"{len(reasons)} failed checks"
        raise RunError(f"expected a run that can be published, got {checks}: {listed}")


def benchmark_of(run: Path, weights: str, image_weights: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of a run's benchmark.json on published tests, ours and the baselines', and on text; else [], [].

    Args:
        run: the run folder.
        weights: hash of the text encoder; a benchmark of other weights is ignored, with a warning.
        image_weights: hash of the image model; likewise.

    Raises:
        BenchmarkError: the file is damaged.
    """
    path = run / "benchmark.json"
    if not path.is_file():
        return [], []
    result = read_benchmark(path)
    measured = (result.get("weights_sha256"), result.get("image_weights_sha256"), result.get("subset"))
    if measured != (weights, image_weights, "tr") or result.get("format") != BENCHMARK_FORMAT:
        log.warning("%s is of other weights, language or format, and is left out of the card; measure again", path)
        return [], []
    public_tests = published_tests(result)
    return [row for row in rows_of(result) if row["test"] in public_tests], text_rows(result)


def build(config: PublishConfig, record: RunRecord, results: Results) -> None:
    """Writes the folder that is published, atomically.

    Args:
        config: ids, licences, and whether the pair is published.
        record: of the finished run.
        results: of its model.

    Raises:
        RunError: the text encoder or the image model has other weights than were measured.
        ModelError: one of them can't be loaded.
        CardError: the card can't be filled.
        BankError: the model's text bank is damaged.
    """
    from turkish_clip.encoder import load_model, pair, save_text_encoder

    student = load_model(config.folder / MODEL_FOLDER, device="cpu")
    if weights_sha256(student) != results.weights_sha256:
        raise RunError(
            f"expected the weights that results.json was measured with, got others in {config.folder / MODEL_FOLDER}; "
            "run training.evaluate again"
        )
    trained_for = trained_image_model(record)
    image = _load_image_model(config, trained_for)
    model = pair(student, image, device="cpu") if config.paired else student
    bank = read_model_bank(config.folder / MODEL_FOLDER)
    about = _about_model(config, trained_for, student, model, images_are_unit=gives_unit_vectors(image))
    with atomic_folder(config.output, RECORD) as partial:
        save_text_encoder(model, partial)
        public_results = with_public_names(results, record, about)
        public_results.write(partial)
        model_record = ModelRecord(
            kind="paired" if config.paired else "text",
            dim=about.dim,
            max_tokens=about.max_tokens,
            weights_sha256=results.weights_sha256,
            image_model={
                "id": about.image_model.name,
                "revision": about.image_model.revision,
                "weights_sha256": trained_for.weights_sha256,
            },
            requires=about.requires,
            golden=golden(student, image),
            measured=measured_part(public_results),
            temperature=results.temperature.get("value"),
            matryoshka=list(about.matryoshka) or None,
            bank=None if bank is None else bank.describe(),
        )
        if bank is not None:
            write_bank(partial, bank)
        write_text(partial / RECORD, model_record.to_json())
        rows, text = benchmark_of(config.folder, results.weights_sha256, trained_for.weights_sha256)
        fields = card_fields(config, record, results, about, rows, text)
        write_text(partial / "README.md", render(fields))
        write_text(partial / TURKISH_NAME, render_turkish(fields))


def _load_image_model(config: PublishConfig, trained_for: ImageModel) -> SentenceTransformer:
    """Loads the image model by its published name, and checks that it has the weights that the run was trained with."""
    from turkish_clip.encoder import load_model

    name = config.image_model_id or locate_model(trained_for.id, config.folder)
    image = load_model(name, revision="" if config.image_model_id else trained_for.revision, device="cpu")
    if weights_sha256(image) != trained_for.weights_sha256:
        raise RunError(
            f"expected the image model that the run was trained with, got other weights in {name}; "
            "restore the former one, or embed and train again"
        )
    return image


def _about_model(
    config: PublishConfig,
    trained_for: ImageModel,
    student: SentenceTransformer,
    model: SentenceTransformer,
    *,
    images_are_unit: bool,
) -> AboutModel:
    """Returns the properties of the built model for its card and its record."""
    from turkish_clip.encoder import max_tokens_of

    dim = student.get_embedding_dimension()
    return AboutModel(
        repository=config.repository,
        dim=int(dim or 0),
        max_tokens=max_tokens_of(student),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        architecture=f"{_layers_of(student)} → dense {student[0].get_embedding_dimension()} → {dim} → normalise"
        + (f", beside {_class_of(model[0].sub_modules['image'][0])}" if config.paired else ""),
        requires=requirements(image_side_of(model)[0].config.model_type) if config.paired else REQUIRES,
        image_model=_published_image_model(config, trained_for),
        others_have_images=bool(config.image_model_id) or others_have(trained_for, config.folder),
        images_are_unit=images_are_unit,
        year=datetime.datetime.now(tz=datetime.timezone.utc).year,
        matryoshka=read_model_record(config.folder / MODEL_FOLDER).matryoshka or (),
    )


def _layers_of(student: SentenceTransformer) -> str:
    """Returns what a text encoder has below its dense layer, in words."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    first: Any = student[0]
    if isinstance(first, StaticEmbedding):
        return f"one vector for each of {first.num_embeddings} tokens → mean over the tokens"
    pooling = "[CLS]" if getattr(student[1], "pooling_mode", "mean") in ("cls", ("cls",)) else "mean"
    return f"{type(first.auto_model).__name__} → {pooling} pooling"


def requirements(model_type: str) -> dict[str, str]:
    """Returns for each library the oldest version that loads a pair whose image model is of a type of transformers'.

    >>> requirements("clip")["transformers"], requirements("embedding_gemma2")["transformers"]
    ('5.0.0', '5.19.0')
    """
    newer = {"transformers": NEWER_MODELS[model_type]} if model_type in NEWER_MODELS else {}
    return {**REQUIRES_PAIRED, **newer}


def _published_image_model(config: PublishConfig, trained_for: ImageModel) -> Named:
    """Returns the image model under the name by which others find it."""
    if config.image_model_id:
        return Named(config.image_model_id, True, commit_of(config.image_model_id))
    if trained_for.revision:
        return Named(trained_for.id, True, trained_for.revision)
    path = Path(locate_model(trained_for.id, config.folder)).resolve()
    return Named(str(path.relative_to(CHECKOUT)) if is_tracked(path) else path.name, False)


def with_public_names(results: Results, record: RunRecord, about: AboutModel) -> Results:
    """Returns the results with public names in place of this machine's paths.

    Args:
        results: as measured.
        record: of the run, which names the sources.
        about: the built model, which gives the public names of both models.
    """
    data = sources_of(record)
    public = {
        source.name: results.sources[own["captions"]]
        for source, own in zip(data, record.sources)
        if own["captions"] in results.sources
    }
    return dataclasses.replace(
        results,
        model=about.repository,
        image_model=about.image_model.name,
        dataset=" + ".join(source.name for source in data),
        sources=public,
        bias=results.bias and dataclasses.replace(results.bias, dataset=public_name(results.bias.dataset)),
    )


def gives_unit_vectors(image: SentenceTransformer) -> bool:
    """Returns whether the image model itself gives vectors of norm 1."""
    from turkish_clip.verify import encode_each, golden_images, unit

    vectors = encode_each(image, golden_images())
    return bool(abs(vectors - unit(vectors)).max() < TEXT_TOLERANCE)


def check_isolated(folder: Path, record: RunRecord, run: Path) -> list[dict[str, Any]]:
    """Runs the checks of turkish_clip.verify in an isolated process without network; returns each check as JSON.

    Args:
        folder: the built folder.
        record: of the run, which names the image model.
        run: the run folder, from which a relative path to the image model may start.

    Raises:
        RunError: the process itself failed, or took too long.
    """
    log.info("checking %s in an isolated offline process with plain sentence-transformers", folder)
    trained_for = trained_image_model(record)
    argv = [str(folder), "--image-model", locate_model(trained_for.id, run), "--json"]
    argv += ["--image-revision", trained_for.revision] if trained_for.revision else []
    try:
        done = run_isolated(Path(turkish_clip.verify.__file__), *argv, offline=True)
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"expected the checks of {folder} to finish, got no result in {error.timeout:g} s; try again"
        ) from error
    try:
        checks = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        reason = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise RunError(f"expected the checks of {folder} to run, got {reason[:200]}; nothing was uploaded") from None
    return list(checks)


def _class_of(module: Any) -> str:
    """Returns the class name of the transformers model inside a sentence-transformers module."""
    return type(getattr(module, "model", module)).__name__
