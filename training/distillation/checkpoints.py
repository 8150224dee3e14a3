"""Checkpoints that a resumed training can trust: each is sealed with the sums of its files when it is complete.

Of a training there are two: the last one, and the one with the best weights or, where they are the same, the one with
the best before, so that a damaged checkpoint never costs more than the steps since the other.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import Trainer, TrainerCallback

from training.distillation.callbacks import with_progress_bar
from training.run.distributed import broadcast_from_main, world_size
from training.run.provenance import sha256_of
from training.run.record import Run, RunError
from turkish_clip.atomic import write_json
from turkish_clip.errors import InputError, one_line, printable
from turkish_clip.ownership import files_in
from turkish_clip.records import as_json, read_record

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("training")
SEAL, STATE = "sealed.json", "trainer_state.json"
NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Seal:
    """The content of sealed.json: the SHA-256 of each other file of a checkpoint."""

    FORMAT: ClassVar[int] = 1

    sha256: dict[str, str]


class SealCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Seals each checkpoint when all ranks have written their files, and only then removes an older one.

    The files are summed in a thread, so that the device computes meanwhile; the next checkpoint waits for it. The
    trainer's own rotation goes by the times of folders, which a clock set back turns round, and would come before.

    As a context, it ends when the last checkpoint is sealed. An error of the thread is raised at the next checkpoint or
    at the end.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="seal-checkpoints")
        self.running: Future[None] | None = None

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        """Waits for the last checkpoint; an error of the training goes before one of the thread."""
        self.thread.shutdown()
        if error is None:
            self._wait()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if world_size() > 1:
            import torch

            torch.distributed.barrier()  # each rank writes the state of its random numbers
        if state.is_world_process_zero:
            self._wait()
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            older = no_longer_needed(checkpoint, state.best_model_checkpoint)
            self.running = self.thread.submit(seal, checkpoint, older)

    def _wait(self) -> None:
        if self.running is not None:
            self.running.result()
            self.running = None


def train_sealed(trainer: Trainer, checkpoint: str | None) -> None:
    """Runs a trainer with a progress bar and sealed checkpoints.

    Args:
        trainer: whose own rotation of checkpoints is off.
        checkpoint: from `last_checkpoint`.
    """
    with SealCheckpoints() as sealing:
        trainer.add_callback(sealing)
        with_progress_bar(trainer).train(resume_from_checkpoint=checkpoint)


def seal(checkpoint: Path, older: Sequence[Path] = ()) -> None:
    """Writes the sums of a checkpoint's files.

    Args:
        checkpoint: with all its files.
        older: checkpoints that are removed when it is sealed.
    """
    sums = {name: sha256_of(checkpoint / name) for name in sorted(files_in(checkpoint) - {SEAL})}
    write_json(checkpoint / SEAL, as_json(Seal(sums)), ours=True)
    for path in older:
        shutil.rmtree(path, ignore_errors=True)


def no_longer_needed(checkpoint: Path, best: str | None) -> list[Path]:
    """Returns the checkpoints beside the newest one that can go when it is sealed.

    Args:
        checkpoint: the newest.
        best: the one with the best weights; None where nothing is compared.
    """
    older = {int(match[1]): path for path in checkpoint.parent.iterdir() if (match := NAME.fullmatch(path.name))}
    older = {step: path for step, path in older.items() if path != checkpoint}
    newest = int(checkpoint.name.rpartition("-")[2])
    whole = [step for step in older if step < newest]  # later ones were damaged, else it had gone on from them
    if not whole:
        return list(older.values())
    kept = older[max(whole)] if best is None else older[min(whole)]  # the best one is older than all that were worse
    if best is not None and Path(best).name != checkpoint.name:
        kept = checkpoint.parent / Path(best).name
    return [path for path in older.values() if path != kept]


def last_checkpoint(run: Run, max_steps: int) -> str | None:
    """Returns the newest whole checkpoint of a resumed run, the same on all ranks; None if there is none.

    Newer ones that were not written to their end or that have changed since are named in the log.

    Args:
        run: that is resumed or new.
        max_steps: of the training.

    Raises:
        RunError: the folder holds what the trainer, which writes into and removes folders of such names, would harm.
    """
    return broadcast_from_main(lambda: _last_checkpoint(run, max_steps))


def _last_checkpoint(run: Run, max_steps: int) -> str | None:
    if not run.resumed or not run.checkpoints.is_dir():
        return None
    numbered = dict(_numbered(run.checkpoints))
    flaws: list[str] = []
    found = None
    for step in sorted(numbered, reverse=True):
        flaw = _flaw(numbered[step], step, max_steps)
        if flaw is None:
            found = numbered[step]
            break
        flaws.append(f"{numbered[step].name} {flaw}")
    if flaws:
        log.warning(
            "%s: %s; the training goes on from %s",
            printable(str(run.checkpoints)),
            "; ".join(flaws),
            found.name if found else "its start",
        )
    return str(found) if found else None


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yields the step and the folder of each checkpoint."""
    for path in sorted(folder.glob("checkpoint-*")):
        match = NAME.fullmatch(path.name)
        linked = [path] if path.is_symlink() else [one for one in path.rglob("*") if one.is_symlink()]
        if match is None or linked or not path.is_dir():
            wrong = linked[0] if linked else path
            raise RunError(
                f"expected nothing but checkpoints of this run in {printable(str(folder))}, got "
                f"{printable(str(wrong.relative_to(folder)))}{', a link' if linked else ''}; move it away: the trainer "
                "writes over files and removes folders there"
            )
        yield int(match[1]), path


def _flaw(checkpoint: Path, step: int, max_steps: int) -> str | None:
    """Returns why a training can't go on from a checkpoint; None if it can."""
    if (flaw := _change(checkpoint)) is not None:
        return flaw
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        found, best = state["global_step"], state["best_model_checkpoint"]
        if type(found) is not int or found != step or not step <= max_steps:
            return f"is of step {printable(str(found))[:40]} of {max_steps}"
        if best is not None and not Path(best).parent.samefile(checkpoint.parent):
            return f"has its best weights in {printable(str(best))[:200]}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"has no state to go on from ({one_line(error)})"
    if best is None or Path(best).name == checkpoint.name:
        return None
    change = _change(checkpoint.parent / Path(best).name)
    return None if change is None else f"has its best weights in {Path(best).name}, which {change}"


def _change(checkpoint: Path) -> str | None:
    """Returns how the files of a checkpoint differ from those that were sealed; None if they don't."""
    if not (checkpoint / SEAL).exists():
        return "was not written to its end"
    try:
        sums = read_record(Seal, checkpoint / SEAL, "it is left out").sha256
        changed = [name for name, sum_ in sums.items() if sha256_of(checkpoint / name) != sum_]
    except (InputError, OSError) as error:
        return f"is damaged ({one_line(error)})"
    if changed or STATE not in sums:
        return f"is damaged ({printable((changed or [STATE])[0])} has changed since it was written)"
    return None
