"""The model card: model_card.md filled with what the recipe, run.json and results.json hold, and nothing else."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.embeddings.manifest import Manifest
from training.evaluation.corruptions import CORRUPTION_TITLES
from training.evaluation.published import read_baselines, read_notes
from training.evaluation.results import Bias, Estimate, Results, few_images
from training.run.config import BACKBONE, SCRATCH, STATIC, DistillConfig, EmbedConfig, PublishConfig
from training.run.objectives import OBJECTIVES
from training.run.provenance import full_id
from training.run.record import RunRecord
from training.run.source import Source, is_mini
from turkish_clip.errors import InputError, one_line
from turkish_clip.metrics import METRIC_LABELS, Retrieval
from turkish_clip.records import ImageModel
from turkish_clip.verify import RECORD

TEMPLATE = Path(__file__).parents[2] / "model_card.md"
PROJECT = "https://github.com/turkish-clip/turkish-clip"
HUB = "https://huggingface.co"
# For each direction its key in results.json, its task in the card's metadata, and the names of its rows in the tables:
# that of the text encoder (turkish) and that of the teacher reference (english).
DIRECTIONS = (
    {
        "key": "text_to_image",
        "task": "text to image retrieval",
        "turkish": "Turkish text → image",
        "english": "English text → image, teacher reference",
    },
    {
        "key": "image_to_text",
        "task": "image to text retrieval",
        "turkish": "image → Turkish text",
        "english": "image → English text, teacher reference",
    },
)
UNFILLED = re.compile(r"\{\{|\}\}|\bNone\b|\bundefined\b|\bTODO\b|\bnan\b|^\|.*\|\s*\|")
TABLE_HEADS = ("| | |", "|---|", "| | recall@1 |")  # the only lines that may have empty cells


class CardError(InputError):
    """A card that can't be filled, or that the Hub would refuse."""


def render(fields: dict[str, Any]) -> str:
    """Renders the card as Markdown with its metadata as YAML.

    Raises:
        CardError: a field is empty or invalid.
    """
    card = environment_of().get_template(TEMPLATE.name).render(fields)
    check(card, free_texts=[fields["limits"], *(item["license"] for item in fields["data"])])
    return card


def environment_of() -> Environment:
    """Returns the templates of cards with the filters that write figures in them."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=False,  # noqa: S701 - Markdown; the Hub sanitises it. What goes into YAML is quoted by the filter
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "yaml": lambda value: json.dumps(value, ensure_ascii=False),
        "figure": lambda value: f"{value:.3f}",
        "cells": cells,
        "estimate": estimate,
        "percent": percent,
        "code": code,
        "recall": lambda figures: estimate(Estimate(figures.recall_at_1, figures.ci95.get("recall_at_1"))),
        "difference": lambda shift: estimate(shift, signed=True) if shift else "–",
        "row": lambda values: " / ".join("–" if value is None else f"{value:.3f}" for value in values),
    }
    return templates


def check(card: str, free_texts: Sequence[str] = ()) -> None:
    """Checks that a card has no empty field, and that the Hub's own classes read its metadata.

    Args:
        card: Markdown with its metadata as YAML.
        free_texts: the publisher's own sentences, which are not searched for words such as TODO.

    Raises:
        CardError: a field is empty, or the metadata are refused or incomplete.
    """
    from huggingface_hub import ModelCard

    check_filled(card, free_texts)
    try:
        data = ModelCard(card).data
    except Exception as error:  # those of YAML and of the classes
        reason = one_line(error)
        raise CardError(f"expected metadata that the Hub reads, got {reason}; correct {TEMPLATE.name}") from error
    missing = [name for name in ("license", "language", "library_name", "pipeline_tag") if not data.get(name)]
    if missing or not data.get("eval_results"):
        raise CardError(
            f"expected {', '.join(missing) or 'results'} in the card's metadata, got none; correct {TEMPLATE.name}"
        )


def check_filled(card: str, free_texts: Sequence[str] = ()) -> None:
    """Checks that a card has no empty field.

    Args:
        card: Markdown.
        free_texts: as in `check`.

    Raises:
        CardError: a field is empty.
    """
    filled = card
    for text in free_texts:
        filled = filled.replace(text, "…") if text else filled
    for number, line in enumerate(filled.splitlines(), start=1):
        if not line.startswith(TABLE_HEADS) and UNFILLED.search(line):
            raise CardError(
                f"expected a filled field, got {line.strip()[:120]!r} in line {number} of the card; fill it"
            )


@dataclasses.dataclass(frozen=True)
class Named:
    """The public name of a model or data set: a Hub id, or the last part of a local path."""

    name: str
    on_hub: bool
    revision: str = ""
    root: str = HUB

    @property
    def link(self) -> str:
        """The name in Markdown, as a link if it is on the Hub."""
        return f"[{self.name}]({self.root}/{full_id(self.name)})" if self.on_hub else f"`{code(self.name)}`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AboutModel:
    """The properties of a built model that its card and its record give.

    Attributes:
        parameters: their number.
        requires: library → the oldest version that loads it.
        image_model: under its public name.
        others_have_images: whether others can load the image model by itself, and so use the text encoder alone.
        images_are_unit: whether the image model itself gives vectors of norm 1.
        year: of publication.
        matryoshka: the shorter widths that it was trained for, descending.
    """

    repository: str
    dim: int
    max_tokens: int
    parameters: int
    architecture: str
    requires: dict[str, str]
    image_model: Named
    others_have_images: bool
    images_are_unit: bool
    year: int
    matryoshka: Sequence[int] = ()


def plain(text: str) -> str:
    """Returns a text of data, such as the name of a folder or a probe, as Markdown shows it: no HTML, link or cell.

    >>> plain("<img src=x> | mavi")
    '&lt;img src=x&gt; / mavi'
    """
    text = html.escape(" ".join(text.replace("|", "/").split()), quote=False)
    return re.sub(r"([\[\]`*])", r"\\\1", text)


def code(text: str) -> str:
    """Returns a text as it may stand between backticks in a cell of a table."""
    return " ".join(text.replace("|", "/").replace("`", "'").split())


def _embeddings_command(config: PublishConfig, record: RunRecord) -> str:
    """Returns the command by which the image embeddings of a run are made, which others may have computed."""
    manifest = Manifest.read(Path(record.config.get("embeddings") or config.folder / "embeddings"))
    if manifest is None or not manifest.imported_from:
        return "training.embed_images recipe.yaml"
    return f"{manifest.maker} recipe.yaml --vectors FOLDER"


def trained_image_model(record: RunRecord) -> ImageModel:
    """Returns the image model that a run was trained for.

    Raises:
        CardError: run.json names none, since the run trained no text encoder.
    """
    if record.inputs.image_model is None:
        raise CardError("expected a run of training.distill, got one without an image model; train a text encoder")
    return record.inputs.image_model


def public_reference(name: str, commit: str | None, root: str = HUB) -> Named:
    """Returns the public name of a model or data set of a run.

    Args:
        name: as configured.
        commit: the recorded one; None or empty if the name is not a Hub id.
        root: URL before the id in links.
    """
    return Named(name if commit else public_name(name), bool(commit), commit or "", root)


def sources_of(record: RunRecord) -> list[Named]:
    """Returns the public names of the data that a run was trained on, numbered where two are the same."""
    commits = record.inputs.captions_revisions or [""] * len(record.sources)
    sources = [
        public_reference(source["captions"], commit, f"{HUB}/datasets")
        for source, commit in zip(record.sources, commits)
    ]
    names = [source.name for source in sources]
    return [
        dataclasses.replace(source, name=f"{source.name} ({number})") if names.count(source.name) > 1 else source
        for number, source in enumerate(sources, start=1)
    ]


def card_fields(
    config: PublishConfig,
    record: RunRecord,
    results: Results,
    model: AboutModel,
    benchmark: Sequence[dict[str, Any]] = (),
    text_tasks: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Returns the fields of the template.

    Args:
        config: gives ids, licences, author and limits.
        record: of the run.
        results: of its model.
        model: the built model.
        benchmark: rows on published tests, ours and the baselines'; empty shows the published baselines alone.
        text_tasks: rows of MTEB's text tasks.
    """
    data = sources_of(record)
    measured = test_sets(results, record)
    baselines = benchmark or read_baselines()
    owner, _, name = config.repository.partition("/")
    return {
        **vars(model),
        "record": RECORD,
        "repository": config.repository,
        "name": name,
        "license": config.license,
        "paired": config.paired,
        "static": record.config["backbone"] == STATIC,
        "paired_id": config.paired_id,
        "text_link": Named(config.text_id, True).link if config.text_id and model.others_have_images else "",
        **_based_on(config, record, model.image_model),
        "hub_data": [source.name for source in data if source.on_hub],
        "own_images": [plain(source.name) for source in data if not source.on_hub and not is_mini(source.name)],
        "has_teacher_reference": any(test["figures"].teacher_captions for test in measured),
        "has_intervals": bool(results.text_to_image.ci95),
        "embeddings_command": _embeddings_command(config, record),
        "project": PROJECT,
        "data": [{"source": source, "license": plain(terms)} for source, terms in zip(data, licences(config, record))],
        "metrics": [{"key": key, "label": label} for key, label in METRIC_LABELS.items()],
        "directions": DIRECTIONS,
        "tests": measured,
        "split": results.split,
        "widths": {width: figures.text_to_image.recall_at_10 for width, figures in results.widths.items()},
        "full_width": results.text_to_image.recall_at_10,
        "clean": results.text_to_image.recall_at_1,
        "captions": results.captions,
        "corruptions": [{"label": label, **vars(results.robustness[name])} for label, name in CORRUPTION_TITLES],
        "probes": _named(results.probes),
        "prompts": results.prompts,
        "slices": _named(results.slices),
        "bias": _bias(results.bias) if results.bias else None,
        "baselines": baselines,
        "notes": read_notes(baselines),
        "text_tasks": text_tasks,
        "has_benchmark": bool(benchmark),
        "training": training(record),
        "limits": " ".join(config.limits.split()),
        "commit": record.git.commit,
        "recipe": recipe(record),
        "weights_sha256": results.weights_sha256,
        "captions_sha256": record.inputs.captions_sha256,
        "author": " ".join((config.author or owner).replace("`", "'").split()),
        "citation_key": re.sub(r"\W+", "_", name),
    }


def _named(records: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the fields of records with their names, as the cells of a table can hold these."""
    return [{"name": plain(name), **vars(record)} for name, record in records.items()]


def _bias(bias: Bias) -> dict[str, Any]:
    """Returns the fields of the card about bias, with the prompt of the largest skew for each attribute."""
    attributes = []
    for found in _named(bias.attributes):
        prompt, one = max(found["by_prompt"].items(), key=lambda item: item[1].max_skew.value)
        finds = f"“{plain(prompt)}” → {plain(one.most)}"
        attributes.append(found | {"largest": one.max_skew.value, "finds": finds})
    return {**vars(bias), "dataset": plain(public_name(bias.dataset)), "attributes": attributes}


def _based_on(config: PublishConfig, record: RunRecord, image_model: Named) -> dict[str, Any]:
    """Returns the models that this one is made from, in words and as the metadata name them."""
    trained = record.config
    backbone = None
    layers, hidden = trained["scratch_layers"], trained["scratch_hidden"]
    size = f"{layers} layer{'s' if layers != 1 else ''}, {hidden} wide"
    if trained.get("init"):
        backbone = public_reference(trained["init"], record.inputs.backbone_revision)
        words = f"fine-tuned from {backbone.link if backbone.on_hub else 'a text encoder that is not on the Hub'}"
    elif trained["backbone"] == STATIC and trained.get("static_from") == SCRATCH:
        words = f"token vectors of an untrained BERT of {size}, with a vocabulary learnt from the training captions"
    elif trained["backbone"] == STATIC and trained.get("word_vectors"):
        words = f"word vectors of the file `{plain(Path(trained['word_vectors']).name)}`"
    elif trained["backbone"] == STATIC:
        backbone = public_reference(trained.get("static_from") or BACKBONE, record.inputs.backbone_revision)
        words = f"token vectors of {backbone.link if backbone.on_hub else 'an encoder that is not on the Hub'}"
    elif trained["backbone"] == SCRATCH:
        words = f"a new BERT of {size}, with a vocabulary learnt from the training captions"
    else:
        backbone = public_reference(trained["backbone"], record.inputs.backbone_revision)
        words = backbone.link + (f", revision `{backbone.revision}`" if backbone.revision else "")
    models = [backbone] if backbone else []
    models += [image_model] if config.paired else []
    ids = [full_id(model.name) for model in models if model.on_hub]
    return {"backbone": words, "base_models": ids, "base_model_relation": "merge" if len(ids) > 1 else "finetune"}


def licences(config: PublishConfig, record: RunRecord) -> list[str]:
    """Returns the licence of each source of a run; "" for a source without one.

    Args:
        config: gives the licences.
        record: of the run, whose sources are meant.
    """
    known = {source.captions: source.captions_license for source in config.all_sources}
    return [known.get(source["captions"], "") for source in record.sources]


RATES = ("init", "backbone", "learning_rate", "dense_learning_rate")  # options that decide the learning rates


def training(record: RunRecord) -> dict[str, Any]:
    """Returns the card's fields about the training: options, counts, seconds, machine and libraries."""
    trained, summary = record.config, record.summary or {}
    config = DistillConfig(**{name: trained[name] for name in RATES if name in trained}, captions="-", run="-")
    return {
        **trained,
        "bf16": record.computing["bf16"] if record.computing else trained.get("bf16"),
        "method": OBJECTIVES[trained.get("objective", "mse")].words,
        "typo_probability": trained.get("typo_probability", 0),
        "learning_rate": f"{config.peak_learning_rate:g}",
        "dense_learning_rate": f"{config.peak_dense_learning_rate:g}",
        "epochs": f"{summary['epochs']:.3g}",
        "steps": summary["steps"],
        "closed_form": summary.get("closed_form_penalty"),
        "replayed": summary.get("captions_replayed", 0),
        "images": summary["training_images"],
        "captions": summary["training_captions"],
        "without_image": summary.get("captions_without_image", 0),
        "cut": summary["captions_truncated"],
        "seconds": summary["train_seconds"],
        "machine": f"{record.machine.cores} cores ({record.machine.processor})",
        "libraries": {name: record.libraries[name] for name in ("sentence-transformers", "transformers", "torch")},
    }


def cells(figures: Retrieval) -> str:
    """Returns the cells of a table row: each metric with its interval, and the median rank."""
    shown = []
    for key in METRIC_LABELS:
        low, high = figures.ci95.get(key, (None, None))
        shown.append(f"{getattr(figures, key):.3f}" + ("" if low is None else f" ({low:.3f}–{high:.3f})"))
    return " | ".join([*shown, f"{figures.median_rank:g}"])


def estimate(measured: Estimate, *, signed: bool = False) -> str:
    """Returns an estimate with its interval.

    >>> estimate(Estimate(0.5, (0.25, 0.75))), estimate(Estimate(0.5), signed=True)
    ('0.500 (0.250–0.750)', '+0.500')

    Args:
        measured: the estimate.
        signed: whether it is a difference, with its sign.
    """
    number, between = ("%+.3f", " to ") if signed else ("%.3f", "–")
    ends = f" ({number % measured.ci95[0]}{between}{number % measured.ci95[1]})" if measured.ci95 else ""
    return f"{number % measured.value}{ends}"


def percent(measured: Estimate | None) -> str:
    """Returns an estimate in percent with its interval; a dash for none.

    >>> percent(Estimate(0.5, (0.25, 0.755))), percent(Estimate(1.5)), percent(None)
    ('50.0 % (25.0–75.5)', '150.0 %', '–')
    """
    if measured is None:
        return "–"
    ends = f" ({100 * measured.ci95[0]:.1f}–{100 * measured.ci95[1]:.1f})" if measured.ci95 else ""
    return f"{100 * measured.value:.1f} %{ends}"


def test_sets(results: Results, record: RunRecord) -> list[dict[str, Any]]:
    """Returns the card's test sets: each source with test images, or the only source.

    Args:
        results: of the run's model.
        record: of the run, which names the sources.
    """
    by_source = results.sources or {results.dataset: results}
    return [
        {
            "name": source.name,
            "label": plain(f"The miniature world ({source.name})" if is_mini(source.name) else source.name),
            "type": source.name if source.on_hub else "local",
            "revision": source.revision,
            "figures": by_source[options["captions"]],
            "few": few_images(by_source[options["captions"]].images),
        }
        for source, options in zip(sources_of(record), record.sources)
        if options["captions"] in by_source
    ]


def recipe(record: RunRecord) -> str:
    """Returns a recipe in YAML with the options that are not the defaults, and the commits that were loaded."""
    trained = record.config
    defaults: dict[str, Any] = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for kind in (EmbedConfig, DistillConfig)
        for field in dataclasses.fields(kind)
    }
    different = {
        name: _public_values(value)
        for name, value in trained.items()
        if name not in ("run", "embeddings", "device") and value != defaults.get(name)
    }
    loaded = "init" if trained.get("init") else "backbone"
    commits = {"image_model": trained_image_model(record).revision, loaded: record.inputs.backbone_revision}
    different |= {f"{name}_revision": commit for name, commit in commits.items() if commit}
    usual = {field.name: field.default for field in dataclasses.fields(Source)}
    if "sources" in different:
        different["sources"] = [
            {name: value for name, value in options.items() if value != usual[name]} for options in different["sources"]
        ]
    listed = different.get("sources") or [different]
    for options, source in zip(listed, sources_of(record)):
        options |= {"captions_revision": source.revision} if source.revision else {}
    return yaml.safe_dump(different, allow_unicode=True, sort_keys=False, width=120).strip()


def _public_values(value: Any) -> Any:
    """Returns a configured value without empty fields and without paths of this machine."""
    if isinstance(value, dict):
        return {key: _public_values(item) for key, item in value.items() if item not in ("", [], None)}
    if isinstance(value, list):
        return [_public_values(item) for item in value]
    return public_name(value) if isinstance(value, str) else value


def public_name(name: str) -> str:
    """Returns a name for the public: the last part of a path that leaves the working folder, else the name itself.

    >>> public_name("/data/someone/images"), public_name("../a/images"), public_name("owner/set")
    ('images', 'images', 'owner/set')
    """
    leaves = Path(name).is_absolute() or name.startswith(("~", ".."))
    return Path(name).name if leaves else name


def not_finite(value: Any, where: str = "") -> Iterator[str]:
    """Yields the positions of NaN and infinity in a JSON value.

    >>> list(not_finite({"a": {"b": float("nan")}, "c": 1}))
    ['a.b']

    Args:
        value: of dicts, lists, tuples, numbers and texts.
        where: its own position, which precedes the others.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from not_finite(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from not_finite(item, f"{where}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield where
