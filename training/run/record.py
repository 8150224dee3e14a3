"""The run folder and run.json: what was run, with what, on what, and what came out."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.run.distributed import is_main_process, rank
from training.run.provenance import git_state, library_versions, machine
from turkish_clip.atomic import write_json
from turkish_clip.errors import InputError

log = logging.getLogger("training")
NO_PART_OF_THE_RESULT = ("resume", "json", "max_skipped_fraction", "captions_license", "captions_streaming")


class RunError(InputError):
    """A run folder that can't be used as asked."""


@dataclass(frozen=True)
class Run:
    """One execution's folder: run.json, model/, checkpoints/ and log.jsonl.

    Attributes:
        resumed: whether run.json was there before.
        settings: the configuration, as run.json keeps it.
    """

    folder: Path
    resumed: bool
    settings: dict[str, Any]

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def last_checkpoint(self) -> str | None:
        """The newest whole checkpoint of a resumed run; one cut off while it was written is passed over."""
        if not self.resumed:
            return None
        numbered = {int(path.name.rpartition("-")[2]): path for path in self.checkpoints.glob("checkpoint-*")}
        return next((str(numbered[step]) for step in sorted(numbered, reverse=True) if _is_whole(numbered[step])), None)

    @property
    def summary(self) -> dict[str, Any] | None:
        """What a finished run recorded as its result, or None while there is something left to do."""
        record = _read_record(self.folder)
        return record["summary"] if record.get("status") == "finished" else None

    def begin(self, **inputs: Any) -> None:
        """Writes run.json, once all input has been read and before the first step; a resumed run keeps its own.

        Of several processes the first one writes it, and the others, which come after it, compare.

        Args:
            inputs: what the run depends on beside its configuration, such as hashes of what it reads.

        Raises:
            RunError: a resumed run, or another process, has other facts, or another process finds no run.json.
        """
        if self.resumed or not is_main_process():
            before = _read_record(self.folder)
            if not before:
                raise RunError(
                    f"expected {self.folder} on a disk that all processes share, got no run.json there in process "
                    f"{rank()}; put --run where all machines see it"
                )
            for name, value in inputs.items():
                if before.get(name) != value:
                    where = "" if is_main_process() else f" in process {rank()}"
                    raise RunError(
                        f"expected the {name} that {self.folder} was begun with ({before.get(name)}), got {value}"
                        f"{where}; bring the old input back, or start another --run"
                    )
            return
        state = git_state()
        if state.get("dirty"):
            log.warning("uncommitted changes (%s): this run can't be published", ", ".join(state["changed"]))
        about = {"git": state, "libraries": library_versions(), "machine": machine()}
        write_json(self.folder / "run.json", {"status": "running", "config": self.settings, **inputs, **about})

    def finish(self, summary: dict[str, Any]) -> None:
        """Adds the result to run.json."""
        write_json(self.folder / "run.json", {**_read_record(self.folder), "status": "finished", "summary": summary})


def open_run(config: Any) -> Run:
    """Looks whether a run can start, or go on, in its folder.

    Args:
        config: a configuration with `folder` and `resume`.

    Raises:
        RunError: the folder holds a run already and `resume` is not set, or was made with another configuration.
    """
    folder: Path = config.folder
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    for options in (settings, *settings.get("sources", ())):
        for key in NO_PART_OF_THE_RESULT:
            options.pop(key, None)
    before = _read_record(folder).get("config")
    if before is not None:
        if not config.resume:
            raise RunError(f"expected a new run folder, got {folder}, which holds a run; add --resume or --run OTHER")
        begun = _with_defaults(before, config)
        changed = [key for key in settings if settings[key] != begun.get(key)]
        if changed:
            key = changed[0]
            raise RunError(
                f"expected the configuration that {folder} was begun with, got {key} = {settings[key]!r} instead of "
                f"{before.get(key)!r}; resume with the same, or start another --run"
            )
    return Run(folder, before is not None, settings)


def check_no_run(folder: Path, model: str, more: str = "") -> None:
    """Sees that the results of a model that was named do not go where a run's are.

    Raises:
        RunError: the folder holds a run; tells to add another, and the options `more`.
    """
    if (folder / "run.json").is_file():
        raise RunError(
            f"expected a folder of its own for the results of {model}, got {folder}, which holds a run; "
            f"add --run OTHER{more}"
        )


def _with_defaults(before: dict[str, Any], config: Any) -> dict[str, Any]:
    """A run's configuration with the options that have come since, at their defaults."""

    def defaults(kind: Any) -> dict[str, Any]:
        known = {field.name: field.default for field in dataclasses.fields(kind)}
        for key in NO_PART_OF_THE_RESULT:
            known.pop(key, None)
        return dict(json.loads(json.dumps(known, default=lambda _: None)))

    sources = before.get("sources") or []
    if sources and config.sources:
        before = before | {"sources": [defaults(config.sources[0]) | source for source in sources]}
    return defaults(config) | before


def sources_in(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The sources in a run's configuration: those listed, or the one that `captions` names."""
    return settings.get("sources") or [settings]


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RunError(f"expected the record of a run in {path}, got {error}; move it away") from error
    return dict(record)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))  # the trainer writes it last
    except (OSError, ValueError):
        return False
    return True
