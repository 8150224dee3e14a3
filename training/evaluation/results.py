"""results.json: what training.evaluate measured, and the check that a run is measured on its own splits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from training.run.provenance import Machine
from training.run.record import Duplicates, RunError, RunRecord, check_no_run
from turkish_clip.atomic import write_text
from turkish_clip.bank import TextBank, read_bank
from turkish_clip.metrics import Retrieval
from turkish_clip.records import as_json, read_record, write_record
from turkish_clip.resolve import RUN_RECORD
from turkish_clip.verify import RECORD, TEMPERATURES, ModelRecord

if TYPE_CHECKING:
    from training.run.config import EvaluateConfig
    from training.run.source import Source

RESULTS = "results.json"
FEW_IMAGES = 100  # of which figures say little
FEW_FOUND = 10  # captions that were found before a change, of fewer of which the retention says nothing
MEASURED = ("dataset", "split", "images", "captions", "text_to_image", "image_to_text")  # in a model's record, too
# The options that decide which images of a source are its test images.
SPLIT_OPTIONS = ("split_seed", "test_fraction", "validation_fraction")
SOURCE_SPLIT_OPTIONS = ("split_column", "id_column", "image_column", "captions_config", "captions_revision")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The retrieval metrics of a set of images and their captions; the teacher's are None where it was not measured.

    Attributes:
        images: number of images.
        captions: number of distinct Turkish captions.
        teacher_captions: number of distinct English captions.
        chance: direction → recall of a random order; None where it was not reckoned.
    """

    images: int
    captions: int
    text_to_image: Retrieval
    image_to_text: Retrieval
    chance: dict[str, dict[str, float]] | None = None
    teacher_captions: int | None = None
    teacher_text_to_image: Retrieval | None = None
    teacher_image_to_text: Retrieval | None = None


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What a fine-tuning has changed: the figures of the text encoder that it went on from, and those of old captions.

    Attributes:
        init: the text encoder before, as the run names it.
        before: its figures on the split that was measured.
        old_before: its figures on the same split of the captions that `replay` names; None without.
        old_after: the figures of the fine-tuned text encoder there.
    """

    init: str
    before: Figures
    old_before: Figures | None = None
    old_after: Figures | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean or ratio, and the ends of its 95 % interval from a bootstrap over images; None without one."""

    value: float
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class Corrupted(Retrieval):
    """Text → image retrieval with corrupted captions.

    Attributes:
        changed: number of captions that the corruption changes.
        found: how many of these found their image before they were changed.
        retention: recall@1 of the changed captions as a fraction of their clean recall@1; None where none was found.
    """

    changed: int
    found: int
    retention: Estimate | None = None


@dataclass(frozen=True)
class Hubness:
    """The hubness of each direction, as `turkish_clip.metrics.hubness` defines it."""

    text_to_image: float
    image_to_text: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The accuracy of forced choices between a caption and one minimal change of it.

    Attributes:
        pairs: number of choices.
        images: number of images that they are about.
        chance: the accuracy of guesses.
        student: of the text encoder.
        teacher: of the image model's own text tower on the English pairs; None where a pair has no English texts.
    """

    pairs: int
    images: int
    chance: float
    student: Estimate
    teacher: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class PromptSpread:
    """The zero-shot accuracy of the source's labels, with each template by itself and with all of them.

    Attributes:
        images: number of images that have labels.
        labels: number of labels to choose among.
        chance: the accuracy of guesses.
        templates: template → accuracy.
        standard_deviation: over the templates.
        ensemble: of the normalised mean of all templates' vectors, as `ZeroShotClassifier` has it.
    """

    images: int
    labels: int
    chance: float
    templates: dict[str, float]
    mean: float
    min: float
    max: float
    standard_deviation: float
    ensemble: Estimate


@dataclass(frozen=True, kw_only=True)
class Slice(Figures):
    """The retrieval metrics of a slice among its own images and captions.

    Attributes:
        shift: by the direction's name among the figures: recall@1 of the slice less that of all other images, both in a
            gallery as large as the smaller of the two; empty where either has too few images.
    """

    shift: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a split's negatives, labels and slices measure.

    Attributes:
        probes: by name; empty where the source has no negatives.
        prompts: None where the images have no labels.
        slices: by name; empty where the source has none.
    """

    probes: dict[str, Probe] = field(default_factory=dict)
    prompts: PromptSpread | None = None
    slices: dict[str, Slice] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PromptBias:
    """What one prompt finds first (`training.evaluation.bias`).

    Attributes:
        group: of the prompt.
        max_skew: MaxSkew@k.
        most: the value that is overrepresented most.
        skew: value → Skew@k; None where none of the first k images has it, which is −∞.
    """

    group: str
    max_skew: Estimate
    most: str
    skew: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class AttributeBias:
    """The bias of all prompts by one attribute.

    Attributes:
        images: number of images that have one value.
        k: number of images found first that are looked at.
        values: value → desired share.
        max_skew: mean of MaxSkew@k over the prompts: 0 where each finds the values in the desired shares.
        max_skew_by_chance: of random orders of the images.
        ndkl: mean of NDKL of the first k images over the prompts.
        ndkl_by_chance: of random orders.
        groups: group of prompts → mean of MaxSkew@k.
        by_prompt: prompt → what it finds.
    """

    images: int
    k: int
    values: dict[str, float]
    max_skew: Estimate
    max_skew_by_chance: float
    ndkl: Estimate
    ndkl_by_chance: float
    groups: dict[str, Estimate]
    by_prompt: dict[str, PromptBias]


@dataclass(frozen=True, kw_only=True)
class Bias:
    """Whether prompts find some values of attributes first.

    Attributes:
        dataset: the labelled images.
        images: their number.
        desired: which shares count as unbiased: set or equal.
        prompts: number of prompts.
        own_prompts: whether they are others than the built-in ones.
        attributes: by the attribute's name.
    """

    dataset: str
    images: int
    desired: str
    prompts: int
    own_prompts: bool
    attributes: dict[str, AttributeBias]


@dataclass(frozen=True, kw_only=True)
class HubCorrected:
    """Retrieval with the correction of hubs that an index makes (`turkish_clip.metrics.hub_scores`).

    Attributes:
        texts: number of texts in the model's text bank.
        neighbours: of which the hub score of an image is the mean cosine.
        weight: of the hub score.
        text_to_image: the metrics; an index does not correct the other direction.
        hubness: of that direction.
    """

    texts: int
    neighbours: int
    weight: float
    text_to_image: Retrieval
    hubness: float


@dataclass(frozen=True, kw_only=True)
class Csls:
    """Retrieval by CSLS, for comparison: it corrects by the measured queries themselves, which no search has.

    Attributes:
        text_to_image: the metrics.
        image_to_text: the metrics.
        hubness: of each direction.
    """

    text_to_image: Retrieval
    image_to_text: Retrieval
    hubness: Hubness


@dataclass(frozen=True, kw_only=True)
class Results(Figures, Probed):
    """What results.json holds; metrics are fractions of 1.

    Attributes:
        sources: the metrics of each of several sources; empty for a single one.
        widths: the metrics at each shorter width that the model was trained for; empty for a model of one width.
        robustness: by the corruption's name.
        fine_tuning: before and after, of a run that went on from another text encoder; else None.
        temperature: of zero-shot probabilities, as `calibrate` describes it; empty where it could not be fitted.
        hub_corrected: None for a model without a text bank.
        csls: for comparison.
        bias: on labelled images; None where none were named.
        cosines: percentiles of the cosines of matching and of other pairs.
        wall_seconds: by command.
    """

    FORMAT: ClassVar[int] = 6  # 5 had no bias; files of format 1 have no number

    model: str
    weights_sha256: str
    image_model: str
    dataset: str
    split: str
    hubness: Hubness
    robustness: dict[str, Corrupted]
    hub_corrected: HubCorrected | None = None
    csls: Csls | None = None
    bias: Bias | None = None
    sources: dict[str, Figures] = field(default_factory=dict)
    widths: dict[str, Figures] = field(default_factory=dict)
    duplicates: Duplicates | None = None
    fine_tuning: FineTuning | None = None
    temperature: dict[str, Any] = field(default_factory=dict)
    cosines: dict[str, Any] = field(default_factory=dict)
    wall_seconds: dict[str, float] = field(default_factory=dict)
    machine: Machine | None = None

    def __post_init__(self) -> None:
        """Checks the fitted temperature, which may come from a file of anybody; raises a ValueError."""
        value, (low, high) = self.temperature.get("value"), TEMPERATURES
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and low <= value <= high):
            raise ValueError(f"{str(value)[:40]!r} as the value of 'temperature', not a number from {low} to {high}")

    @classmethod
    def read(cls, folder: Path, advice: str = "run training.evaluate first") -> Results:
        """Reads the results.json of a run folder.

        Args:
            folder: the run folder.
            advice: what to do where it can't be read.

        Raises:
            RunError: there is none, or none of this format.
        """
        return read_record(cls, folder / RESULTS, advice, RunError)

    def write(self, folder: Path) -> None:
        """Writes results.json into a folder, atomically."""
        write_record(folder / RESULTS, self)

    def as_json(self) -> dict[str, Any]:
        """Returns what results.json holds."""
        return as_json(self)


def few_images(images: int) -> str:
    """Returns the sentence that stands beside the figures of a small test; empty for a large one.

    >>> few_images(89), few_images(100)
    ('only 89 images: these figures say little', '')
    """
    few = f"only {images} image{'s' if images != 1 else ''}: these figures say little"
    return few if images < FEW_IMAGES else ""


def measured_part(results: Results) -> dict[str, Any]:
    """Returns the fields of the results that a model's record has too."""
    return {name: value for name, value in results.as_json().items() if name in MEASURED}


def read_model_record(folder: Path) -> ModelRecord:
    """Reads the record in the folder of a run's own model.

    Raises:
        RunError: there is none, or it is damaged or of another format.
    """
    return read_record(ModelRecord, folder / RECORD, "train again with training.distill", RunError)


def read_model_bank(folder: Path) -> TextBank | None:
    """Reads the text bank in the folder of a run's own model; returns None if its record names none.

    Raises:
        RunError: there is no record, or it is damaged or of another format.
        BankError: the bank is missing or damaged.
    """
    named = read_model_record(folder).bank
    return read_bank(str(folder), None, named) if named else None


def add_to_model_record(folder: Path, results: Results) -> None:
    """Adds the metrics and the fitted temperature to the record in a model's folder.

    Args:
        folder: of the run's own model.
        results: of that model.
    """
    record = replace(
        read_model_record(folder), measured=measured_part(results), temperature=results.temperature.get("value")
    )
    write_text(folder / RECORD, record.to_json())


def check_same_splits(config: EvaluateConfig) -> None:
    """Checks that a run is measured on the splits that it was trained with, and that a named model has its own folder.

    Raises:
        RunError: the run was trained with other splits of these sources, or a model is named for its folder.
    """
    if not (config.folder / RUN_RECORD).is_file():
        return
    if config.model:
        check_no_run(config.folder, config.model, f" --embeddings {config.embeddings_folder}")
    record = RunRecord.read(config.folder, "train again in another --run")
    if [source["captions"] for source in record.sources] != [source.captions for source in config.all_sources]:
        return
    compared: list[tuple[dict[str, Any], Source, tuple[str, ...]]] = [(record.config, config, SPLIT_OPTIONS)]
    compared += [(then, now, SOURCE_SPLIT_OPTIONS) for then, now in zip(record.sources, config.all_sources)]
    for then, now, names in compared:
        for name in names:
            if then.get(name, "") != getattr(now, name):
                raise RunError(
                    f"expected the splits that {config.folder} was trained with, got {name} = {getattr(now, name)!r} "
                    f"instead of {then.get(name)!r}, which could measure on training images; use the same, or the "
                    "same recipe"
                )
