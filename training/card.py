"""The model card: model_card.md filled with what run.json and results.json hold, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.config import HUB_ID, DistillConfig, EmbedConfig, PublishConfig, Source
from training.hub import full_id
from training.perturb import SPELLINGS
from turkish_clip.errors import InputError

TEMPLATE = Path(__file__).parent.parent / "model_card.md"
PEERS = Path(__file__).with_name("peers.yaml")
HUB = "https://huggingface.co"
METRICS = (("recall_at_1", "recall@1"), ("recall_at_5", "recall@5"), ("recall_at_10", "recall@10"), ("mrr", "MRR"))
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
UNFILLED = re.compile(r"\{\{|\}\}|\bNone\b|\bundefined\b|\bTODO\b|\bnan\b|\| *\|$", re.MULTILINE)
TABLE_HEADS = ("| | |", "|---|")


class CardError(InputError):
    """A card that can't be filled, or that the Hub would refuse."""


def render(facts: dict[str, Any]) -> str:
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
    card = templates.get_template(TEMPLATE.name).render(facts)
    check(card)
    return card


def check(card: str) -> None:
    """Reads the card with the Hub's own classes and looks for gaps.

    Raises:
        CardError: an empty field, or a head that the classes refuse; names the line.
    """
    from huggingface_hub import ModelCard

    for number, line in enumerate(card.splitlines(), start=1):
        if not line.startswith(TABLE_HEADS) and UNFILLED.search(line):
            raise CardError(
                f"expected a filled field, got {line.strip()[:120]!r} in line {number} of the card; fill it"
            )
    try:
        data = ModelCard(card).data
    except Exception as error:  # YAML's, and the classes' own
        reason = " ".join(str(error).split())[:200]
        raise CardError(f"expected a head that the Hub reads, got {reason}; look at {TEMPLATE.name}") from error
    missing = [name for name in ("license", "language", "library_name", "pipeline_tag") if not data.get(name)]
    if missing or not data.get("eval_results"):
        raise CardError(
            f"expected the card's head to say {', '.join(missing) or 'results'}, got nothing; see {TEMPLATE.name}"
        )


def card_facts(
    config: PublishConfig, record: dict[str, Any], results: dict[str, Any], model: dict[str, Any]
) -> dict[str, Any]:
    """What the template is filled with.

    Args:
        config: the recipe's facts: ids, licence, author, limits.
        record: run.json.
        results: results.json.
        model: what the built model itself tells: dim, max_tokens, architecture, parameters, requires, image_model,
            record (the name of its golden file) and year.
    """
    trained, summary = record["config"], record["summary"]
    backbone = trained["backbone"]
    hub_backbone = bool(HUB_ID.fullmatch(backbone)) and backbone != "scratch" and not Path(backbone).is_dir()
    image_model = model["image_model"]
    image_model |= {"link": link(image_model["id"]), "on_hub": is_hub_model(image_model["id"])}
    base_models = [backbone] if hub_backbone else []
    if config.paired and is_hub_model(image_model["id"]):
        base_models.append(full_id(image_model["id"]))
    return {
        **model,
        "repository": config.repository,
        "name": config.repository.partition("/")[2],
        "license": config.license,
        "paired": config.paired,
        "paired_id": config.paired_id,
        "text_link": link(config.text_id),
        "image_model": image_model,
        "base_models": base_models,
        "base_model_relation": "merge" if len(base_models) > 1 else "finetune",
        "hub_data": [source.captions for source in config.all_sources if HUB_ID.fullmatch(source.captions)],
        "data": [about_source(source, record) for source in config.all_sources],
        "metrics": [{"key": key, "label": label} for key, label in METRICS],
        "directions": DIRECTIONS,
        "tests": tests(results, revisions(record)),
        "split": results["split"],
        "spellings": [
            {"label": label, "recall": results["robustness"][name]["recall_at_1"], **kept(results, name)}
            for label, name in SPELLINGS
        ],
        "peers": yaml.safe_load(PEERS.read_text(encoding="utf-8")),
        "backbone": about_backbone(record, hub_backbone),
        "training": {
            **trained,
            "learning_rate": f"{trained['learning_rate'] or (1e-3 if backbone == 'scratch' else 5e-5):g}",
            "epochs": f"{trained['epochs']:g}",
            "pictures": summary["training_pictures"],
            "captions": summary["training_captions"],
            "cut": summary["captions_cut"],
            "seconds": summary["train_seconds"],
            "machine": f"{record['machine']['cores']} cores ({record['machine']['processor']})",
            "libraries": {
                name: record["libraries"][name] for name in ("sentence-transformers", "transformers", "torch")
            },
        },
        "limits": " ".join(config.limits.split()),
        "commit": record["git"]["commit"],
        "recipe": recipe(trained),
        "weights_sha256": results["weights_sha256"],
        "captions_sha256": record["captions_sha256"],
        "author": config.author or config.repository.partition("/")[0],
        "citation_key": re.sub(r"\W+", "_", config.repository.partition("/")[2]),
    }


def kept(results: dict[str, Any], name: str) -> dict[str, float]:
    return {"kept": results["robustness"][name]["kept"]}


def cells(figures: dict[str, Any]) -> str:
    """The cells of a result's line: value and interval."""
    shown = []
    for key, _ in METRICS:
        low, high = figures["ci95"].get(key, (None, None))
        shown.append(f"{figures[key]:.3f}" + ("" if low is None else f" ({low:.3f}–{high:.3f})"))
    return " | ".join([*shown, f"{figures['median_rank']:g}"])


def tests(results: dict[str, Any], commits: dict[str, str]) -> list[dict[str, Any]]:
    """The test sets: each source where there are several, else the one."""
    by_source = results.get("sources") or {results["dataset"]: results}
    return [
        {
            "name": public_name(name),
            "label": "The miniature world (mini)" if name == "mini" else public_name(name),
            "type": name if HUB_ID.fullmatch(name) else "local",
            "revision": commits.get(name, ""),
            "figures": figures,
        }
        for name, figures in by_source.items()
    ]


def about_source(source: Source, record: dict[str, Any]) -> dict[str, str]:
    """A source as the card lists it; the commit is the one that was read."""
    return {
        "link": link(source.captions, f"{HUB}/datasets")
        if HUB_ID.fullmatch(source.captions)
        else public_name(source.captions),
        "revision": revisions(record).get(source.captions, ""),
        "license": source.captions_license,
    }


def revisions(record: dict[str, Any]) -> dict[str, str]:
    """The commit of each source that was read, as run.json has it."""
    sources = record["config"].get("sources") or [record["config"]]
    return {source["captions"]: commit for source, commit in zip(sources, record.get("captions_revisions", []))}


def about_backbone(record: dict[str, Any], on_hub: bool) -> str:
    """The backbone in words."""
    trained = record["config"]
    if trained["backbone"] == "scratch":
        return (
            f"a new BERT of {trained['scratch_layers']} layers, {trained['scratch_hidden']} wide, with a vocabulary "
            "learnt from the training captions"
        )
    if not on_hub:
        return f"`{public_name(trained['backbone'])}`"
    revision = record.get("backbone_revision")
    return link(trained["backbone"]) + (f", revision `{revision}`" if revision else "")


def recipe(trained: dict[str, Any]) -> str:
    """The run's options that are not the defaults, as a recipe; paths of the maker's machine by their last part."""
    defaults: dict[str, Any] = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for kind in (EmbedConfig, DistillConfig)
        for field in dataclasses.fields(kind)
    }
    different = {
        name: public_values(value)
        for name, value in trained.items()
        if name not in ("run", "targets", "device") and value != defaults.get(name)
    }
    return yaml.safe_dump(different, allow_unicode=True, sort_keys=False, width=120).strip()


def public_values(value: Any) -> Any:
    """A configuration's value without empty fields and without paths of this machine."""
    if isinstance(value, dict):
        return {key: public_values(item) for key, item in value.items() if item not in ("", [], None)}
    if isinstance(value, list):
        return [public_values(item) for item in value]
    return public_name(value) if isinstance(value, str) else value


def public_name(name: str) -> str:
    """A name as others may read it: of an absolute path its last part.

    >>> public_name("/data/someone/pictures"), public_name("mini"), public_name("owner/set")
    ('pictures', 'mini', 'owner/set')
    """
    return " + ".join(Path(part).name if Path(part).is_absolute() else part for part in name.split(" + "))


def link(name: str, root: str = HUB) -> str:
    """A model or data set as Markdown: a link where it is on the Hub."""
    return f"[{name}]({root}/{full_id(name)})" if is_hub_model(name) else f"`{name}`"


def is_hub_model(model_id: str) -> bool:
    """Whether a name is a Hub id: owner/name, or one of sentence-transformers' own without its owner."""
    return not Path(model_id).is_dir() and bool(HUB_ID.fullmatch(full_id(model_id)))


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
