"""python -m training.studies.continual recipe.yaml: subjects learnt one after another, and what is left of each."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.samples import Row
from training.data.sources import read_captions
from training.data.store import Rows
from training.embeddings.manifest import MANIFEST
from training.embeddings.store import ImageEmbeddings, deduplicate, remove_cross_split_duplicates
from training.evaluation.retrieval import encode
from training.pairs.dataset import without_skipped
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import JOINT, NAIVE, REPLAYED, SCRATCH, ContinualConfig, default_epochs, read
from training.run.distributed import device_of
from training.run.lock import hold
from training.run.provenance import sha256_of
from training.run.record import RunError, check_outputs
from training.studies.forgetting import TITLES, Continual, Learnt, Stage, write_page
from training.studies.runs import embedded_once, shared_options, trained, write_recipe
from training.studies.subjects import SPLITS, Subject, divide, subject_of, write_rows
from turkish_clip.hosts import import_hosts
from turkish_clip.metrics import METRIC_LABELS, Relevance, Retrieval, Vectors, ranks, recall_by_chance, summarise
from turkish_clip.records import as_json, read_record, write_record
from turkish_clip.resolve import MODEL_FOLDER

log = logging.getLogger("training")
RESULT, PAGE, STAGE = "continual.json", "continual.html", "stage.json"
TABLES, FIRST, BACKBONE = "subjects", "first", "backbone"  # folders of a study, beside those of its trainings


@dataclass(frozen=True)
class Training:
    """One training of the study, in the folder of its name.

    Attributes:
        method: as in the option `methods`; both naive and replay begin with the training named FIRST.
        number: of the subject that is learnt, from 0; the last where all are learnt at once.
        init: the name of the training that it goes on from; empty: none.
    """

    method: str
    number: int
    name: str
    init: str = ""


@dataclass(frozen=True)
class Test:
    """The measured images of all subjects, with their captions.

    Attributes:
        images: (n, dim) float32 unit vectors.
        members: for each subject, the numbers of the captions that are of its images.
    """

    relevance: Relevance
    images: Vectors
    members: list[list[int]]

    def known(self, texts: Vectors, config: ContinualConfig) -> tuple[Retrieval, ...]:
        """Returns how well the captions of each subject find their image among those of all.

        Args:
            texts: (t, dim) float32 unit vectors of the captions, in order.
            config: gives the number of bootstrap samples.
        """
        rank = ranks(texts, self.images, self.relevance.images_of)
        owners = [images[0] for images in self.relevance.images_of]
        return tuple(
            summarise(rank[own], [owners[text] for text in own], bootstrap_samples=config.bootstrap_samples)
            for own in self.members
        )


def main(argv: list[str]) -> dict[str, Any]:
    """Runs the trainings that are not yet measured; writes continual.json and continual.html."""
    config = read(ContinualConfig, argv)
    hold(config.folder)
    check_outputs(config.folder, "recipe.yaml", RESULT, PAGE)
    quiet_hosts()
    shared = shared_options(config, {"subjects", "subject_count", "methods"})
    embeddings = embedded_once(config, shared, "study")
    result, test, epochs = _prepare(config, embeddings)
    shared |= _alike(config)
    trainings = list(_trainings(config, len(result.subjects)))
    stages: dict[str, Stage] = {}
    for number, training in enumerate(trainings, 1):
        what = "" if training.method == JOINT else f"subject {training.number + 1}, "
        log.info("%d of %d: %s%s", number, len(trainings), what, TITLES[training.method])
        is_new = not (config.folder / training.name / STAGE).exists()
        stages[training.name] = run(training, shared, epochs, test, config)
        result = replace(result, methods=_learnt(trainings, stages, result.subjects, config))
        if is_new or number == len(trainings):  # so that an interrupted study leaves its results, and a damaged one too
            write_record(config.folder / RESULT, result)
            write_page(config.folder / PAGE, result)
    _show(result, config)
    return as_json(result)


def _prepare(config: ContinualConfig, embeddings: ImageEmbeddings) -> tuple[Continual, Test, list[float]]:
    """Divides the images into subjects, and writes the tables that the trainings read.

    Returns:
        The result without a training, what is measured, and for each subject the epochs that it is learnt for, with
        those of all at once at the end.

    Raises:
        RunError: the labels can't be divided so, or a subject has no image to train on or to measure.
    """
    captions = remove_cross_split_duplicates(read_captions(config, check_files=False), embeddings).captions
    train = without_skipped(captions.split("train"), embeddings)
    labels = divide((label for row in train for label in row.labels), config)
    learnt: list[list[list[int]]] = [[] for _ in SPLITS]
    rows_of = [without_skipped(captions.rows.of_split(split), embeddings) for split in SPLITS]
    left_out = 0
    for places, rows in zip(learnt, rows_of):
        numbers = [subject_of(row, labels) for row in rows]
        places += [[place for place, own in enumerate(numbers) if own == subject] for subject in range(len(labels))]
        left_out += numbers.count(-1)
    measured = without_skipped(captions.split(config.split), embeddings)
    distinct = deduplicate(measured, embeddings)
    numbers = [subject_of(row, labels) for row in distinct]
    left_out += 0 if config.split in SPLITS else numbers.count(-1)
    test_rows = [(row, number) for row, number in zip(distinct, numbers) if number >= 0]
    for number, own in enumerate(labels):
        counts = [len(learnt[0][number]), sum(of == number for _, of in test_rows)]
        if not all(counts):
            raise RunError(
                f"expected images of {', '.join(own)} alone to train on and in the {config.split} split, got "
                f"{counts[0]} and {counts[1]}; make larger subjects with --subjects or a smaller --subject_count"
            )
    subjects, test = _subjects(
        labels, [rows_of[0].take(np.array(places)) for places in learnt[0]], test_rows, embeddings
    )
    folder = config.folder / TABLES
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(labels)):
        for name, first in ((_table(number), number), (_tables(number), 0)):
            chosen = (
                row
                for own in range(first, number + 1)
                for rows, places in zip(rows_of, learnt)
                for row in rows.take(np.array(places[own], np.int64))
            )
            write_rows(folder / name, chosen)
    write_rows(folder / "measured.jsonl", (row for row, _ in test_rows))
    sizes = [subject.train_captions for subject in subjects]
    epochs = [_epochs(size, config) for size in sizes]
    epochs.append(sum(own * size for own, size in zip(epochs, sizes)) / sum(sizes))
    result = Continual(
        dataset=captions.name,
        image_model=embeddings.manifest.image_model,
        split=config.split,
        images=len(test.images),
        captions=len(test.relevance.texts),
        subjects=subjects,
        left_out=left_out,
        replay_fraction=config.replay_fraction,
        methods={},
    )
    return result, test, epochs


def _subjects(
    labels: Sequence[tuple[str, ...]],
    train: Sequence[Rows],
    test_rows: Sequence[tuple[Row, int]],
    embeddings: ImageEmbeddings,
) -> tuple[tuple[Subject, ...], Test]:
    """Returns the subjects with their counts, and what is measured."""
    relevance = Relevance.from_captions([row.captions for row, _ in test_rows])
    owner = [test_rows[images[0]][1] for images in relevance.images_of]
    members = [[text for text, own in enumerate(owner) if own == number] for number in range(len(labels))]
    images = embeddings.unit_rows([row.image_id for row, _ in test_rows])
    subjects = []
    for number, (own, rows) in enumerate(zip(labels, train)):
        chance = recall_by_chance([relevance.images_of[text] for text in members[number]], len(test_rows))
        subjects.append(
            Subject(
                labels=own,
                train_images=len(rows),
                train_captions=sum(len(row.captions) for row in rows),
                images=sum(of == number for _, of in test_rows),
                captions=len(members[number]),
                chance=chance,
            )
        )
    return tuple(subjects), Test(relevance, images, members)


def _epochs(captions: int, config: ContinualConfig) -> float:
    """Returns the passes over a subject's captions: as given, or else as many as the defaults make of them."""
    return config.epochs if config.epochs > 0 else default_epochs(math.ceil(captions / config.batch_size))


def _table(number: int) -> str:
    """Returns the name of the table of one subject."""
    return f"{number + 1}.jsonl"


def _tables(number: int) -> str:
    """Returns the name of the table of the subjects up to one."""
    return f"to-{number + 1}.jsonl"


def _alike(config: ContinualConfig) -> dict[str, Any]:
    """Returns the options by which all trainings are alike, wherever they start.

    The vocabulary of a scratch backbone is learnt from the captions of all subjects, so that what differs is what is
    learnt in which order.
    """
    rates = {"learning_rate": config.peak_learning_rate, "dense_learning_rate": config.peak_dense_learning_rate}
    if config.init or config.backbone != SCRATCH:
        return rates
    from training.small_models.models import write_scratch_backbone

    folder = config.folder / BACKBONE
    if not folder.is_dir():
        table = config.folder / TABLES / _tables(len(list((config.folder / TABLES).glob("to-*.jsonl"))) - 1)
        source = replace(config, captions=str(table), sources=(), label_column="", split_column="split")
        texts = [text for row in read_captions(source, check_files=False).split("train") for text in row.captions]
        import_hosts()
        write_scratch_backbone(folder, texts, config)
    start = "ridge" if config.starts_from_closed_form else "random"
    return {**rates, "backbone": str(folder), "dense_start": start}


def _trainings(config: ContinualConfig, subjects: int) -> Iterator[Training]:
    """Yields the trainings in the order in which they run."""
    if JOINT in config.methods:
        yield Training(JOINT, subjects - 1, JOINT)
    one_by_one = [method for method in (NAIVE, REPLAYED) if method in config.methods]
    if one_by_one:
        yield Training(one_by_one[0], 0, FIRST)
    for method in one_by_one:
        before = FIRST
        for number in range(1, subjects):
            name = f"{method}-{number + 1}"
            yield Training(method, number, name, before)
            before = name


def run(
    training: Training, shared: dict[str, Any], epochs: Sequence[float], test: Test, config: ContinualConfig
) -> Stage:
    """Makes and measures one training, or reads its results if that is done.

    Args:
        training: which one.
        shared: the options that all share.
        epochs: of each subject, and of all at once.
        test: what is measured.
        config: of the study.

    Raises:
        RunError: it was measured with other options, images or captions.
    """
    folder, tables = config.folder / training.name, config.folder / TABLES
    is_joint = training.method == JOINT
    options = {name: value for name, value in shared.items() if name not in _OF_SOURCES} | {
        "captions": str(tables / (_tables if is_joint else _table)(training.number)),
        "embeddings": str(config.embeddings_folder),
        "run": str(folder),
        "epochs": epochs[-1 if is_joint else training.number],
        **_WHOLE,
    }
    if training.init:
        options.pop("init_revision", None)
        options["init"] = str(config.folder / training.init / MODEL_FOLDER)
    if training.init and training.method == REPLAYED:
        old = {"captions": str(tables / _tables(training.number - 1)), "run": str(folder / "replayed")} | _WHOLE
        old["embeddings"] = str(config.embeddings_folder)
        options["replay"] = str(write_recipe(folder / "replayed", old, "study"))
    of: dict[str, Any] = {
        "options": options,
        "manifest_sha256": sha256_of(config.embeddings_folder / MANIFEST),
        "rows_sha256": sha256_of(tables / "measured.jsonl") + sha256_of(Path(options["captions"])),
    }
    done = folder / STAGE
    if done.exists():
        stage = read_record(Stage, done, "delete it to measure that training again", RunError)
        if {name: asdict(stage)[name] for name in of} != of:
            raise RunError(f"expected {folder} to be of these options and images, got others; choose another --run")
        return stage
    _, summary = trained(folder, options, "study")
    stage = Stage(
        **of,
        known=test.known(_encoded(folder / MODEL_FOLDER, test, config), config),
        steps=summary["steps"],
        train_seconds=summary["train_seconds"],
    )
    write_record(done, stage)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return stage


# What the table of a subject has no need of: it has the usual names, and its splits.
_OF_SOURCES = frozenset(
    "captions captions_config captions_revision captions_streaming captions_license image_column caption_columns "
    "english_columns label_column negatives_column slices_column image_folder id_column split_column split_names "
    "sources weight text_only model split bootstrap_samples report_queries text_batch_size".split()
)

_WHOLE = {"validation_fraction": 0.0, "test_fraction": 0.0}  # the tables have their splits; no other is cut from train


def _encoded(model: Path, test: Test, config: ContinualConfig) -> Vectors:
    """Returns the (t, dim) float32 unit vectors of the measured captions by a text encoder."""
    from turkish_clip.encoder import load_model

    return encode(load_model(model, device=device_of(config.device)), test.relevance.texts, config)


def _learnt(
    trainings: Sequence[Training], stages: dict[str, Stage], subjects: Sequence[Subject], config: ContinualConfig
) -> dict[str, Learnt]:
    """Returns what each way of learning has led to so far, in the order of TITLES."""
    found = {}
    for method in (method for method in TITLES if method in config.methods):
        names = [one.name for one in trainings if one.method == method and one.name != FIRST]
        names = names if method == JOINT else [FIRST, *names]
        measured = [stages[name] for name in names if name in stages]
        if measured:
            found[method] = Learnt.of(measured, subjects, len(measured) == len(names))
    return found


def _show(result: Continual, config: ContinualConfig) -> None:
    """Prints the matrices and their summaries, or the whole result as JSON."""
    if config.json:
        print_result(as_json(result), as_json=True)
        return
    for number, subject in enumerate(result.subjects, 1):
        print(f"subject {number}: {subject.name} ({subject.train_images} training images, {subject.images} measured)")
    for metric in ("recall_at_1", "recall_at_10"):
        for method, learnt in result.methods.items():
            print(f"\n{METRIC_LABELS[metric]}, {TITLES[method]}")
            for number, row in enumerate(learnt.known, 1):
                after = "all at once" if method == JOINT else f"after subject {number}"
                print(f"  {after:<20}" + "".join(f"{getattr(one, metric):>8.3f}" for one in row))
            found = learnt.summary[metric]
            parts = {
                "average": found.average,
                "backward transfer": found.backward_transfer,
                "forgetting": found.forgetting,
                "forward transfer": found.forward_transfer,
            }
            print("  " + ", ".join(f"{name} {value:+.3f}" for name, value in parts.items() if value is not None))
    print(f"\n{config.folder / RESULT}\n{config.folder / PAGE}")


if __name__ == "__main__":
    run_command(main)
