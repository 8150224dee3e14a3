"""The model card: model_card.md filled with what run.json and results.json hold, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.evaluation.corruptions import CORRUPTION_LABELS
from training.evaluation.published import read_baselines
from training.evaluation.results import Results
from training.run.config import DistillConfig, EmbedConfig, PublishConfig, default_learning_rate
from training.run.objectives import OBJECTIVES
from training.run.provenance import full_id
from training.run.record import RunRecord
from training.run.source import Source
from turkish_clip.errors import InputError, one_line
from turkish_clip.metrics import METRIC_LABELS, Retrieval
from turkish_clip.records import ImageModel
from turkish_clip.verify import RECORD

TEMPLATE = Path(__file__).parents[2] / "model_card.md"
PROJECT = "https://github.com/turkish-clip/turkish-clip"
HUB = "https://huggingface.co"
DIRECTIONS = (
    {
        "key": "text_to_image",
        "task": "text to image retrieval",
        "turkish": "Turkish text → image",
        "english": "English text → image, the image model's own text tower",
    },
    {
        "key": "image_to_text",
        "task": "image to text retrieval",
        "turkish": "image → Turkish text",
        "english": "image → English text, the image model's own text tower",
    },
)
UNFILLED = re.compile(r"\{\{|\}\}|\bNone\b|\bundefined\b|\bTODO\b|\bnan\b|^\|.*\|\s*\|")
TABLE_HEADS = ("| | |", "|---|", "| | recall@1 |")


class CardError(InputError):
    """A card that can't be filled, or that the Hub would refuse."""


def render(fields: dict[str, Any]) -> str:
    """The card as Markdown with its YAML head.

    Raises:
        CardError: the template asks for something that is not known, or a field came out empty or invalid.
    """
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
        "row": lambda values: " / ".join("–" if value is None else f"{value:.3f}" for value in values),
    }
    card = templates.get_template(TEMPLATE.name).render(fields)
    check(card, said=[fields["limits"], *(item["license"] for item in fields["data"])])
    return card


def check(card: str, said: Sequence[str] = ()) -> None:
    """Reads the card with the Hub's own classes and looks for gaps.

    Args:
        card: Markdown with a YAML head.
        said: what the maker wrote, which may hold any word.

    Raises:
        CardError: an empty field, or a head that the classes refuse; names the line.
    """
    from huggingface_hub import ModelCard

    filled = card
    for text in said:
        filled = filled.replace(text, "…") if text else filled
    for number, line in enumerate(filled.splitlines(), start=1):
        if not line.startswith(TABLE_HEADS) and UNFILLED.search(line):
            raise CardError(
                f"expected a filled field, got {line.strip()[:120]!r} in line {number} of the card; fill it"
            )
    try:
        data = ModelCard(card).data
    except Exception as error:  # YAML's, and the classes' own
        reason = one_line(error)
        raise CardError(f"expected a head that the Hub reads, got {reason}; look at {TEMPLATE.name}") from error
    missing = [name for name in ("license", "language", "library_name", "pipeline_tag") if not data.get(name)]
    if missing or not data.get("eval_results"):
        raise CardError(
            f"expected the card's head to say {', '.join(missing) or 'results'}, got nothing; see {TEMPLATE.name}"
        )


@dataclasses.dataclass(frozen=True)
class Named:
    """A model or data set as others may read it: a Hub id, or the last part of a path of the maker's machine."""

    name: str
    on_hub: bool
    revision: str = ""
    root: str = HUB

    @property
    def link(self) -> str:
        """As Markdown."""
        return f"[{self.name}]({self.root}/{full_id(self.name)})" if self.on_hub else f"`{self.name}`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AboutModel:
    """What a built model says of itself, for its card and its record.

    Attributes:
        parameters: how many it has.
        requires: the oldest library versions that load it.
        image_model: as others find it.
        images_are_unit: whether the image model's own vectors have norm 1.
        year: of publication.
    """

    repository: str
    dim: int
    max_tokens: int
    parameters: int
    architecture: str
    requires: dict[str, str]
    image_model: Named
    images_are_unit: bool
    year: int


def trained_image_model(record: RunRecord) -> ImageModel:
    """Returns the image model that a run was trained for.

    Raises:
        CardError: run.json names none, as of a run that trained no text encoder.
    """
    if record.inputs.image_model is None:
        raise CardError("expected a run of training.distill, got one without an image model; train a text encoder")
    return record.inputs.image_model


def named(name: str, commit: str | None, root: str = HUB) -> Named:
    """What run.json recorded under a name: on the Hub where it recorded a commit."""
    return Named(name if commit else public_name(name), bool(commit), commit or "", root)


def sources_of(record: RunRecord) -> list[Named]:
    """The data that a run was trained on, numbered where two have one name."""
    commits = record.inputs.captions_revisions or [""] * len(record.sources)
    found = [named(source["captions"], commit, f"{HUB}/datasets") for source, commit in zip(record.sources, commits)]
    names = [source.name for source in found]
    return [
        dataclasses.replace(source, name=f"{source.name} ({number})") if names.count(source.name) > 1 else source
        for number, source in enumerate(found, start=1)
    ]


def card_fields(
    config: PublishConfig,
    record: RunRecord,
    results: Results,
    model: AboutModel,
    benchmark: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """What the template is filled with.

    Args:
        config: the recipe's facts: ids, licences, author, limits.
        record: run.json.
        results: results.json.
        model: what the built model itself tells: dim, max_tokens, architecture, parameters, requires, image_model (a
            `Named`), images_are_unit, record (the name of its golden file) and year.
        benchmark: our rows and the baselines' on published tests (`benchmark_table.rows_of`), where they were measured.
    """
    data = sources_of(record)
    measured = tests(results, record)
    owner, _, name = config.repository.partition("/")
    return {
        **vars(model),
        "record": RECORD,
        "repository": config.repository,
        "name": name,
        "license": config.license,
        "paired": config.paired,
        "paired_id": config.paired_id,
        "text_link": Named(config.text_id, True).link,
        **_based_on(config, record, model.image_model),
        "hub_data": [source.name for source in data if source.on_hub],
        "own_images": [source.name for source in data if not source.on_hub and source.name != "mini"],
        "has_teacher_reference": any(test["figures"].teacher_captions for test in measured),
        "has_intervals": bool(results.text_to_image.ci95),
        "project": PROJECT,
        "data": [
            {"source": source, "license": terms.replace("|", "/")}
            for source, terms in zip(data, licences(config, record))
        ],
        "metrics": [{"key": key, "label": label} for key, label in METRIC_LABELS.items()],
        "directions": DIRECTIONS,
        "tests": measured,
        "split": results.split,
        "clean": results.text_to_image.recall_at_1,
        "corruptions": [{"label": label, **vars(results.robustness[name])} for label, name in CORRUPTION_LABELS],
        "baselines": benchmark or read_baselines(),
        "has_benchmark": bool(benchmark),
        "training": training(record),
        "limits": " ".join(config.limits.split()),
        "commit": record.git.commit,
        "recipe": recipe(record),
        "weights_sha256": results.weights_sha256,
        "captions_sha256": record.inputs.captions_sha256,
        "author": config.author or owner,
        "citation_key": re.sub(r"\W+", "_", name),
    }


def _based_on(config: PublishConfig, record: RunRecord, image_model: Named) -> dict[str, Any]:
    """The models that this one is made from: in words, and as the Hub's head names them."""
    trained = record.config
    backbone = None
    if trained["backbone"] == "scratch":
        size = f"{trained['scratch_layers']} layers, {trained['scratch_hidden']} wide"
        words = f"a new BERT of {size}, with a vocabulary learnt from the training captions"
    else:
        backbone = named(trained["backbone"], record.inputs.backbone_revision)
        words = backbone.link + (f", revision `{backbone.revision}`" if backbone.revision else "")
    models = [backbone] if backbone else []
    models += [image_model] if config.paired else []
    ids = [full_id(model.name) for model in models if model.on_hub]
    return {"backbone": words, "base_models": ids, "base_model_relation": "merge" if len(ids) > 1 else "finetune"}


def licences(config: PublishConfig, record: RunRecord) -> list[str]:
    """The licence of each source of the run, as the recipe has it; empty where it names none."""
    known = {source.captions: source.captions_license for source in config.all_sources}
    return [known.get(source["captions"], "") for source in record.sources]


def training(record: RunRecord) -> dict[str, Any]:
    """The procedure: the run's options, what it saw, how long it took, on what."""
    trained, summary = record.config, record.summary or {}
    return {
        **trained,
        "method": OBJECTIVES[trained.get("objective", "mse")].words,
        "typo_probability": trained.get("typo_probability", 0),
        "learning_rate": f"{trained['learning_rate'] or default_learning_rate(trained['backbone']):g}",
        "epochs": f"{trained['epochs']:g}",
        "images": summary["training_images"],
        "captions": summary["training_captions"],
        "cut": summary["captions_truncated"],
        "seconds": summary["train_seconds"],
        "machine": f"{record.machine.cores} cores ({record.machine.processor})",
        "libraries": {name: record.libraries[name] for name in ("sentence-transformers", "transformers", "torch")},
    }


def cells(figures: Retrieval) -> str:
    """The cells of a result's line: value and interval."""
    shown = []
    for key in METRIC_LABELS:
        low, high = figures.ci95.get(key, (None, None))
        shown.append(f"{getattr(figures, key):.3f}" + ("" if low is None else f" ({low:.3f}–{high:.3f})"))
    return " | ".join([*shown, f"{figures.median_rank:g}"])


def tests(results: Results, record: RunRecord) -> list[dict[str, Any]]:
    """The test sets: each source that has test images where there are several, else the one."""
    by_source = results.sources or {results.dataset: results}
    return [
        {
            "name": source.name,
            "label": "The miniature world (mini)" if source.name == "mini" else source.name,
            "type": source.name if source.on_hub else "local",
            "revision": source.revision,
            "figures": by_source[options["captions"]],
        }
        for source, options in zip(sources_of(record), record.sources)
        if options["captions"] in by_source
    ]


def recipe(record: RunRecord) -> str:
    """The run's options that are not the defaults, as a recipe, with the commits that were loaded."""
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
    commits = {"image_model": trained_image_model(record).revision, "backbone": record.inputs.backbone_revision}
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
    """A configuration's value without empty fields and without paths of this machine."""
    if isinstance(value, dict):
        return {key: _public_values(item) for key, item in value.items() if item not in ("", [], None)}
    if isinstance(value, list):
        return [_public_values(item) for item in value]
    return public_name(value) if isinstance(value, str) else value


def public_name(name: str) -> str:
    """A name as others may read it: of a path that leaves the working folder, its last part.

    >>> public_name("/data/someone/images"), public_name("../a/images"), public_name("owner/set")
    ('images', 'images', 'owner/set')
    """
    leaves = Path(name).is_absolute() or name.startswith(("~", ".."))
    return Path(name).name if leaves else name


def not_finite(value: Any, where: str = "") -> Iterator[str]:
    """The places of numbers that are none.

    >>> list(not_finite({"a": {"b": float("nan")}, "c": 1}))
    ['a.b']
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from not_finite(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from not_finite(item, f"{where}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield where
