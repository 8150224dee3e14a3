"""Labelled images: a source with columns of attributes, or a folder for each value, and their image embeddings."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.data.readers.folders import METADATA_NAMES
from training.data.samples import Row
from training.data.sources import read_captions
from training.data.store import Rows
from training.embeddings.store import ImageEmbeddings
from training.run.config import EvaluateConfig
from training.run.record import RunError
from training.run.source import Source, SourceConfig, is_mini
from turkish_clip.few_shot import examples_in
from turkish_clip.metrics import Vectors, unit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("training")
FOLDER_OF_WORLD = "bias"  # of the run: another miniature world is not drawn over the run's own
FOLDER = "folder"  # the attribute whose values are the names of folders
OF_ITS_SOURCE = frozenset(field.name for field in dataclasses.fields(Source)) - {"captions", "run"}


@dataclass(frozen=True)
class Labelled:
    """Images with the values of attributes.

    Attributes:
        name: the source, as the user named it.
        attributes: name → value of each image; empty where the image has none, or several.
        vectors: (n, dim) float32 unit vectors.
    """

    name: str
    attributes: dict[str, list[str]]
    vectors: Vectors


@dataclass(frozen=True)
class LabelledRows:
    """Labelled images before they are embedded.

    Attributes:
        name: as in `Labelled`.
        values: attribute → image_id → value, of images that have exactly one.
        rows: image_id → the image's row.
        is_own: whether the source is one that the run's image embeddings are of.
    """

    name: str
    values: dict[str, dict[str, str]]
    rows: dict[str, Row]
    is_own: bool


def read_labelled(config: EvaluateConfig) -> LabelledRows:
    """Reads the labelled images that `bias` names: those of the measured split, or all where the source has no such.

    Args:
        config: names them, and the columns of their attributes.

    Raises:
        SourceError: they can't be read.
        ExampleError: the folder has no subfolders with images.
        RunError: no column is named, or no image has one value of it.
    """
    folder = Path(config.bias)
    if folder.is_dir() and not config.bias_columns and not any((folder / name).is_file() for name in METADATA_NAMES):
        rows = {row.image_id: row for row in _rows_of_folders(folder)}
        return LabelledRows(config.bias, {FOLDER: {name: row.labels[0] for name, row in rows.items()}}, rows, False)
    if not config.bias_columns:
        raise RunError(
            f"expected columns of attributes in {config.bias}, got none named; add --bias_columns, such as gender,age"
        )
    own = next((source for source in config.all_sources if source.captions == config.bias), None)
    values: dict[str, dict[str, str]] = {}
    every: dict[str, Row] = {}
    for column in config.bias_columns:
        chosen = _rows_of_column(config, column, own)
        valued = [row for row in chosen if len(row.captions) == 1]
        if not valued:
            raise RunError(
                f"expected images with one value of {column!r} in {config.bias}, got none among {len(chosen)}; name "
                "another of its columns with --bias_columns"
            )
        if len(valued) < len(chosen):
            log.info("%s: %d images have several values of %s", config.bias, len(chosen) - len(valued), column)
        values[column] = {row.image_id: row.captions[0] for row in valued}
        every |= {row.image_id: row for row in valued}
    return LabelledRows(config.bias, values, every, own is not None and len(config.all_sources) == 1)


def _rows_of_column(config: EvaluateConfig, column: str, own: Source | None) -> Rows:
    """Reads the labelled images with an attribute's values as their captions; those without a value are left out."""
    options = {} if own is None else {name: getattr(own, name) for name in OF_ITS_SOURCE}
    cut = {name: getattr(config, name) if own else 0.0 for name in ("validation_fraction", "test_fraction")}
    source = SourceConfig(
        **{
            **options,
            **cut,
            "captions": config.bias,
            "caption_columns": (column,),
            "english_columns": (),
            "label_column": "",
            "negatives_column": "none",
            "slices_column": "none",
            "split_seed": config.split_seed,
            "max_skipped_fraction": 1.0,
            "run": str(config.folder / FOLDER_OF_WORLD) if own is None and is_mini(config.bias) else config.run,
        }
    )
    rows = read_captions(source, numbers_as_texts=True).rows
    measured = rows.of_split(config.split)
    return measured if measured else rows


def _rows_of_folders(folder: Path) -> Iterator[Row]:
    """Yields the images of a folder that has a subfolder for each value.

    Raises:
        ExampleError: there are fewer than two subfolders, or one without images.
    """
    for value, paths in examples_in(folder).items():
        for path in paths:
            yield Row(path.relative_to(folder).as_posix(), path, (value,), (), "", labels=(value,))


def embed_labelled(found: LabelledRows, embeddings: ImageEmbeddings, model: SentenceTransformer | None) -> Labelled:
    """Returns labelled images with their vectors: those that are stored, or by the image model.

    Args:
        found: the images.
        embeddings: those of the run.
        model: the image model, where the images are not among the embeddings.

    Raises:
        RunError: no image opens.
    """
    names = list(found.rows)
    if model is None:
        names = [name for name in names if name not in embeddings.skipped]
        vectors = embeddings.unit_rows(names)
    else:
        names, vectors = _embedded(found, names, model, embeddings.manifest.dim)
    attributes = {attribute: [values.get(name, "") for name in names] for attribute, values in found.values.items()}
    return Labelled(found.name, attributes, vectors)


def _embedded(
    found: LabelledRows, names: list[str], model: SentenceTransformer, dim: int, batch_size: int = 32
) -> tuple[list[str], Vectors]:
    """Embeds images that are not stored; returns the names of those that open, with their vectors."""
    from turkish_clip.embed import embed_batches

    batches = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]
    inputs = ([found.rows[name] for name in batch] for batch in batches)
    opened: list[str] = []
    parts: list[Vectors] = []
    for batch, embedded in zip(batches, embed_batches(model, inputs, dim=dim)):
        opened += [batch[place] for place in embedded.opened]
        parts.append(unit(embedded.vectors))
        for error in embedded.errors.values():
            log.warning("%s does not open: %s", error.name, error.reason)
    if not opened:
        raise RunError(f"expected images that open in {found.name}, got none of {len(names)}; check them")
    return opened, np.concatenate(parts)
