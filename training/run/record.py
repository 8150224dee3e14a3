"""The run folder and run.json: the configuration, inputs, provenance and results of a run."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from training.run.distributed import device_of, is_main_process, rank
from training.run.provenance import GitState, Machine, git_state, library_versions, machine
from turkish_clip.errors import InputError, printable
from turkish_clip.ownership import ForeignFileError, check_replaceable
from turkish_clip.records import ImageModel, read_record, write_record
from turkish_clip.resolve import (
    MODEL_FOLDER,
    RUN_RECORD,
    UnreachableError,
    image_model_folder,
    is_on_this_machine,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("training")
LOG = "log.jsonl"
CHECKOUT = Path(__file__).parents[2]
NOT_COMPARED = ("resume", "json", "max_skipped_fraction", "captions_license", "captions_streaming")  # change no result


class ImageModelOptions(Protocol):
    """The options of a command by which an image model is loaded."""

    @property
    def image_model(self) -> str: ...
    @property
    def image_model_revision(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def device(self) -> str: ...


class RunError(InputError):
    """A run folder that can't be used as the options say."""


@dataclass(frozen=True)
class Duplicates:
    """The numbers of rows that repeat an image of another row, per split.

    Attributes:
        removed: rows left out of a split, since their images are in validation or test.
        repeated: rows that stay, with the image of an earlier row.
    """

    removed: dict[str, int]
    repeated: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """What a run depends on beside its configuration: hashes of its input, and commits on the Hub (empty: none)."""

    captions_sha256: str
    targets_sha256: str = ""
    manifest_sha256: str = ""
    backbone_revision: str = ""
    captions_revisions: tuple[str, ...] = ()
    image_model: ImageModel | None = None
    duplicates: Duplicates | None = None
    exchanges_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of run.json.

    Attributes:
        status: "running" or "finished".
        config: the options, as in a recipe.
        libraries: name → installed version.
        computing: how the trainer computed on its device; None before it is known, and of other commands than distill.
        summary: the result of the command; None before its end.
    """

    FORMAT: ClassVar[int] = 2  # 1 carried no number

    status: str
    config: dict[str, Any]
    inputs: RunInputs
    git: GitState
    libraries: dict[str, str]
    machine: Machine
    summary: dict[str, Any] | None = None
    computing: dict[str, Any] | None = None

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The options of each source: those listed under `sources`, or the one that `captions` names."""
        return self.config.get("sources") or [self.config]

    @classmethod
    def read(cls, folder: Path, advice: str = "move it away, or start another --run") -> RunRecord:
        """Reads run.json.

        Args:
            folder: the run folder.
            advice: what to do if it can't be read, as the end of the message.

        Raises:
            RunError: it is missing, damaged or of another format.
        """
        return read_record(cls, folder / RUN_RECORD, advice, RunError)

    def write(self, folder: Path) -> None:
        """Writes run.json into a run folder, atomically."""
        write_record(folder / RUN_RECORD, self)


@dataclass(frozen=True)
class Run:
    """A run in its folder, which holds run.json, model/, checkpoints/ and log.jsonl.

    Attributes:
        resumed: whether the run was begun before.
        settings: the configuration as in run.json.
    """

    folder: Path
    resumed: bool
    settings: dict[str, Any]

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        return self.folder / MODEL_FOLDER

    @property
    def summary(self) -> dict[str, Any] | None:
        """The result of a finished run; None for an unfinished one."""
        record = _record_if_any(self.folder)
        return record.summary if record and record.status == "finished" else None

    def begin(self, inputs: RunInputs, computing: dict[str, Any] | None = None) -> None:
        """Writes run.json, after all input has been read and before the first step.

        A resumed run, and the other ranks after the main process, compare their inputs with those in run.json instead.

        Args:
            inputs: of the run.
            computing: as in `RunRecord`.

        Raises:
            RunError: the inputs differ, or another rank than the main process finds no run.json.
        """
        if not self.resumed and is_main_process():
            state = git_state()
            if state.changed:
                log.warning("uncommitted changes (%s): this run can't be published", ", ".join(state.changed))
            RunRecord(
                status="running",
                config=self.settings,
                inputs=inputs,
                git=state,
                libraries=library_versions(),
                machine=machine(),
                computing=computing,
            ).write(self.folder)
            return
        record = _record_if_any(self.folder)
        if record is None:
            raise RunError(
                f"expected {self.folder} on a disk that all processes share, got no run.json there in process "
                f"{rank()}; put --run where all machines see it"
            )
        for field in dataclasses.fields(inputs):
            before, now = getattr(record.inputs, field.name), getattr(inputs, field.name)
            if before != now:
                where = "" if is_main_process() else f" in process {rank()}"
                raise RunError(
                    f"expected the {field.name} that {self.folder} was begun with ({before}), got {now}{where}; bring "
                    "the old input back, or start another --run"
                )

    def finish(self, summary: dict[str, Any]) -> None:
        """Marks the run as finished in run.json, with its result."""
        dataclasses.replace(RunRecord.read(self.folder), status="finished", summary=summary).write(self.folder)


def open_run(config: Any) -> Run:
    """Returns a new run, or with `resume` the run that its folder holds, after comparing the configurations.

    Args:
        config: a configuration with `folder` and `resume`.

    Raises:
        RunError: the folder holds a run and `resume` is not set, that run has another configuration, or the folder
            holds a model but no run.
        ForeignFileError: it holds a log that no run wrote.
    """
    folder: Path = config.folder
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    for options in (settings, *settings.get("sources", ())):
        for key in NOT_COMPARED:
            options.pop(key, None)
    record = _record_if_any(folder)
    if record is None:
        run = Run(folder, False, settings)
        if (folder / LOG).exists():  # a trainer's log looks the same whoever ran it
            raise ForeignFileError(
                f"expected a new run folder, got {folder}, which has {LOG} but no {RUN_RECORD}: no run of this project "
                "wrote it; start another --run, or move it away"
            )
        for output in (run.model, run.checkpoints):
            if output.exists() and not (output.is_dir() and not any(output.iterdir())):
                raise RunError(
                    f"expected a new run folder, got {folder}, which has {output.name} but no {RUN_RECORD}: it is no "
                    "run; start another --run"
                )
        return run
    if not config.resume:
        raise RunError(f"expected a new run folder, got {folder}, which holds a run; add --resume or --run OTHER")
    begun = _with_defaults(record.config, config)
    for key, value in settings.items():
        if value != begun.get(key):
            raise RunError(
                f"expected the configuration that {folder} was begun with, got {key} = {value!r} instead of "
                f"{record.config.get(key)!r}; resume with the same, or start another --run"
            )
    return Run(folder, True, settings)


def locate_model(name: str, run: Path) -> str:
    """Returns what to load for a model that a recipe or a run names: the name, or the folder that it means elsewhere.

    A relative folder starts in the current folder. Where it is not there, and no model of the Hub's cache is meant, it
    may start in a folder above the run, where the run was made, or in this checkout, as in the built-in recipes.

    Args:
        name: Hub id or folder.
        run: the run folder.
    """
    try:
        if not name or Path(name).is_absolute() or is_on_this_machine(name):
            return name
    except UnreachableError:  # not the form of a Hub id
        pass
    found = image_model_folder(run, name)
    if found == name:
        found = image_model_folder(CHECKOUT / "run", name)
    if found != name:
        _say_once(f"{printable(name)} is not in this folder: read from {printable(found)}")
    return found


def open_image_model(config: ImageModelOptions) -> SentenceTransformer:
    """Loads the image model that a command's options name, found as `locate_model` finds it.

    Raises:
        ModelError: it can't be loaded.
    """
    from turkish_clip.encoder import load_model

    name = locate_model(config.image_model, config.folder)
    return load_model(name, revision=config.image_model_revision, device=device_of(config.device))


@cache
def _say_once(message: str) -> None:
    log.info("%s", message)


def check_outputs(folder: Path, *names: str) -> None:
    """Checks that files that a command will write replace none of others, before the work.

    Args:
        folder: the run folder.
        names: of the files.

    Raises:
        ForeignFileError: one is there that no command wrote.
    """
    for name in names:
        check_replaceable(folder / name)


def check_no_run(folder: Path, model: str, more: str = "") -> None:
    """Checks that the results of a model named by an option do not go into the folder of a run.

    Args:
        folder: the folder for the results.
        model: the name of the model, for the message.
        more: more options that the message advises.

    Raises:
        RunError: the folder holds a run.
    """
    if (folder / RUN_RECORD).exists():
        raise RunError(
            f"expected a folder of its own for the results of {model}, got {folder}, which holds a run; "
            f"add --run OTHER{more}"
        )


def _with_defaults(before: dict[str, Any], config: Any) -> dict[str, Any]:
    """Returns the configuration of an earlier run, with options that it lacks at their defaults."""

    def defaults(kind: Any) -> dict[str, Any]:
        known = {field.name: field.default for field in dataclasses.fields(kind) if field.name not in NOT_COMPARED}
        return dict(json.loads(json.dumps(known, default=lambda _: None)))

    sources = before.get("sources") or []
    if sources and config.sources:
        before = before | {"sources": [defaults(config.sources[0]) | source for source in sources]}
    return defaults(config) | before


def _record_if_any(folder: Path) -> RunRecord | None:
    return RunRecord.read(folder) if (folder / RUN_RECORD).exists() else None
