"""The runs of a study: the options that they share, their recipes, and the image embeddings that are made once."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from training import distill, embed_images
from training.embeddings.manifest import Manifest
from training.embeddings.store import ImageEmbeddings, read_embeddings
from turkish_clip.atomic import write_text
from turkish_clip.ownership import COMMENT
from turkish_clip.resolve import RUN_RECORD

if TYPE_CHECKING:
    from training.run.config import AblateConfig, ContinualConfig

RECIPE = "recipe.yaml"
OF_A_STUDY = {"run", "embeddings", "resume", "json"}


def shared_options(config: AblateConfig | ContinualConfig, left_out: set[str]) -> dict[str, Any]:
    """Returns the options that all runs of a study share, as a recipe has them.

    Args:
        config: of the study.
        left_out: the options of the study alone, beside those of OF_A_STUDY.
    """
    return {
        name: value
        for name, value in json.loads(json.dumps(dataclasses.asdict(config))).items()  # lists for tuples, as read back
        if name not in left_out | OF_A_STUDY and value not in ("", [])
    }


def write_recipe(folder: Path, options: dict[str, Any], study: str) -> Path:
    """Writes the recipe of a run, or of a study, into its folder; returns its path.

    Args:
        folder: made where it is not there.
        options: of the run.
        study: what it belongs to, for the comment at its head.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECIPE
    write_text(path, f"{COMMENT}of this {study}\n" + yaml.safe_dump(options, allow_unicode=True))
    return path


def trained(folder: Path, options: dict[str, Any], study: str) -> tuple[Path, dict[str, Any]]:
    """Distils one run of a study, or goes on with what is left of it.

    Args:
        folder: of the run.
        options: of the run.
        study: as in `write_recipe`.

    Returns:
        Its recipe, and what distill returns, with None as `train_seconds` of a resumed run, of which they are unknown.
    """
    recipe = write_recipe(folder, options, study)
    resume = ["--resume"] if (folder / RUN_RECORD).is_file() else []
    with contextlib.redirect_stdout(io.StringIO()):
        summary = distill.main([str(recipe), *resume])
    return recipe, summary | ({"train_seconds": None} if resume else {})


def embedded_once(config: AblateConfig | ContinualConfig, options: dict[str, Any], study: str) -> ImageEmbeddings:
    """Embeds the images of a study, unless that is done or they were imported; returns their embeddings.

    Args:
        config: of the study.
        options: those that its runs share.
        study: as in `write_recipe`.
    """
    path = write_recipe(config.folder, options | {"run": config.run, "embeddings": config.embeddings}, study)
    manifest = Manifest.read(config.embeddings_folder)
    if manifest is None or not manifest.imported_from:
        with contextlib.redirect_stdout(io.StringIO()):
            embed_images.main([str(path)])
    return read_embeddings(config.embeddings_folder)
