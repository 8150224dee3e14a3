"""A model in a process of its own, so that its memory and its times are those of one model alone."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from turkish_clip.errors import InputError, one_line

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from turkish_clip.images import ImageLike
    from turkish_clip.metrics import Vectors

PYTORCH, ONNX, INT8 = "PyTorch", "ONNX", "ONNX int8"
STATUS = Path("/proc/self/status")  # of Linux
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
CLOSING_SECONDS = 20


class ModelProcessError(InputError):
    """A model that can't be loaded or used in its process; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ModelSubject:
    """What a process loads.

    Attributes:
        model: Hub id, folder or run of a text encoder, pair or image model; of ONNX the folder of the export.
        image_model: Hub id or folder of the image model; empty: the one that the model names.
        onnx: whether it is an export.
        text_alone: whether the image side is left out.
        threads: that compute; 0: all cores.
        device: torch device; empty: sentence-transformers chooses.
    """

    model: str
    image_model: str
    onnx: bool
    text_alone: bool
    threads: int
    device: str


@dataclass(frozen=True)
class Opened:
    """What was loaded.

    Attributes:
        image_model: Hub id or folder of the image side; empty without one, or if it is the same model.
        image_weights_sha256: hash of its weights, or of those that an export of texts belongs to; empty: not known.
        has_images: whether there is an image side.
        why_none: why there is none; empty where there is one.
    """

    image_model: str = ""
    image_weights_sha256: str = ""
    has_images: bool = False
    why_none: str = ""


class ModelProcess:
    """A process that has loaded a model.

    Args:
        subject: what to load.

    Attributes:
        opened: what was loaded.

    Raises:
        ModelProcessError: it can't be loaded.
    """

    def __init__(self, subject: ModelSubject) -> None:
        context = get_context("spawn")  # a fork would begin with the memory of this process
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(subject, other), daemon=True)
        with _threads(subject.threads):
            self._process.start()
        other.close()
        try:
            self.opened: Opened = self._answer()
        except BaseException:
            self.close()
            raise

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Returns the (n, dim) float32 unit vectors of texts."""
        vectors: Vectors = self._ask("texts", list(texts))
        return vectors

    def images(self, files: Sequence[Path | bytes]) -> Vectors:
        """Returns the (n, dim) float32 unit vectors of images, by paths or the bytes of their files."""
        vectors: Vectors = self._ask("images", list(files))
        return vectors

    def seconds_of_text(self, text: str) -> float:
        """Returns how long one text takes."""
        return float(self._ask("time_text", text))

    def seconds_of_images(self, files: Sequence[Path | bytes]) -> float:
        """Returns how long images take, all in one batch, with their decoding."""
        return float(self._ask("time_images", list(files)))

    def memory(self) -> int:
        """Returns by how many bytes the process has grown at most since before it loaded any library for models."""
        return int(self._ask("memory", None))

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(CLOSING_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: str, of: Any) -> Any:
        try:
            self._connection.send((what, of))
        except OSError as error:
            raise self._ended() from error
        return self._answer()

    def _answer(self) -> Any:
        """Returns what the process answers.

        Raises:
            ModelProcessError: an error there, or its end.
        """
        try:
            failed, found = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if failed:
            raise ModelProcessError(found)
        return found

    def _ended(self) -> ModelProcessError:
        self._process.join(CLOSING_SECONDS)
        code = self._process.exitcode
        return ModelProcessError(
            f"expected an answer from the process of the model, got its end (exit code {code}), as where memory is "
            "short; compare fewer models at a time"
        )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Sets how many threads the libraries of a process that is started meanwhile take; 0: as they like."""
    before = {name: os.environ.get(name) for name in THREADS}
    if number:
        os.environ.update(dict.fromkeys(THREADS, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Sides(Protocol):
    """The two sides of a loaded model."""

    opened: Opened

    def texts(self, texts: list[str]) -> Vectors: ...
    def images(self, files: list[ImageLike]) -> Vectors: ...


def serve(subject: ModelSubject, connection: Connection) -> None:
    """Loads a model and answers questions until the other end closes; what is raised becomes an answer.

    Args:
        subject: what to load.
        connection: to the process that asks.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which then ends this one
    sys.stdout = sys.stderr  # the command's result goes there
    before = _resident()
    try:
        sides = _open(subject)
    except Exception as error:  # noqa: BLE001 - models of others fail in any way, and each is a row of the table
        connection.send((True, _reason(error)))
        return
    connection.send((False, sides.opened))
    while True:
        try:
            what, of = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send((False, _found(sides, what, of, before)))
        except OSError:
            return
        except Exception as error:  # noqa: BLE001 - as above
            connection.send((True, _reason(error)))


def _found(sides: Sides, what: str, of: Any, before: int) -> Any:
    """Returns the answer to one question."""
    if what == "memory":
        return max(0, _peak() - before)
    if what in ("texts", "images"):
        return getattr(sides, what)(of)
    began = time.perf_counter()
    if what == "time_text":
        sides.texts([of])
    else:
        sides.images(of)
    return time.perf_counter() - began


def _reason(error: Exception) -> str:
    return one_line(error, None) if isinstance(error, InputError) else f"{type(error).__name__}: {one_line(error)}"


def _resident() -> int:
    """Returns the bytes of memory that this process holds now, or has held at most where the system does not say."""
    try:
        return _status("VmRSS") or _peak()
    except ModelProcessError:
        return 0


def _peak() -> int:
    """Returns the most bytes of memory that this process has held."""
    if (found := _status("VmHWM")) is not None:  # ru_maxrss of Linux begins with that of the process before exec
        return found
    if find_spec("resource") is None:  # of Python on Windows
        raise ModelProcessError("this system does not say how much memory a process has held")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _open(subject: ModelSubject) -> Sides:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if subject.onnx:
        return _OnnxSides(subject)
    import torch

    if subject.threads:
        torch.set_num_threads(subject.threads)
    from training.run.command import quiet_hosts

    quiet_hosts()
    if subject.text_alone:
        return _TorchText(subject)
    try:
        return _TorchSides(subject)
    except InputError as error:  # without its image model, its texts can be encoded
        text = _TorchText(subject)
        text.opened = replace(text.opened, why_none=one_line(error, None))
        return text


class _OnnxSides:
    """An export, of texts or of both sides."""

    def __init__(self, subject: ModelSubject) -> None:
        from turkish_clip.onnx.image_runtime import IMAGE_RECORD, OnnxImageEncoder
        from turkish_clip.onnx.runtime import OnnxTextEncoder

        folder, threads = Path(subject.model), subject.threads or None
        self._text = OnnxTextEncoder(folder, threads=threads)
        named = self._text.image_model
        has_images = not subject.text_alone and (folder / IMAGE_RECORD).is_file()
        self._image = OnnxImageEncoder(folder, threads=threads) if has_images else None
        self.opened = Opened(
            image_model=named.id if named else "",
            image_weights_sha256=named.weights_sha256 if named else "",
            has_images=has_images,
            why_none="" if has_images else "an export of texts alone",
        )

    def texts(self, texts: list[str]) -> Vectors:
        return self._text.encode(texts, warn=False)

    def images(self, files: list[ImageLike]) -> Vectors:
        if self._image is None:
            raise ModelProcessError(self.opened.why_none)
        return self._image.encode(files, batch_size=len(files))


class _TorchText:
    """The text side alone of a text encoder; of a pair and of an image model both sides, which are one."""

    def __init__(self, subject: ModelSubject) -> None:
        from turkish_clip.encoder import load_model, query_prompt
        from turkish_clip.resolve import resolve_models

        spec = resolve_models(subject.model, subject.image_model or None)
        self._model = load_model(spec.text, revision=spec.revision or None, device=subject.device or None)
        if not self._model.supports("text"):
            raise ModelProcessError(f"expected a model with a text side, got {subject.model}, which takes images alone")
        self._prompt = query_prompt(self._model)
        named = spec.record.image_model if spec.record is not None else {}
        self.opened = Opened(named.get("id", ""), named.get("weights_sha256", "") or "")

    def texts(self, texts: list[str]) -> Vectors:
        from turkish_clip.encoder import as_texts
        from turkish_clip.metrics import unit

        found = self._model.encode(as_texts(self._model, texts), prompt=self._prompt, show_progress_bar=False)
        return unit(found)

    def images(self, files: list[ImageLike]) -> Vectors:
        raise ModelProcessError("only the text side is loaded")


class _TorchSides:
    """A dual encoder."""

    def __init__(self, subject: ModelSubject) -> None:
        from turkish_clip.dual_encoder import load_dual_encoder

        self._both = load_dual_encoder(subject.model, subject.image_model or None, device=subject.device or None)
        one = self._both.image is self._both.text
        self.opened = Opened("" if one else self._both.image_name, self._both.image_weights_sha256, has_images=True)

    def texts(self, texts: list[str]) -> Vectors:
        return self._both.encode_texts(texts, warn=False)

    def images(self, files: list[ImageLike]) -> Vectors:
        import numpy as np

        batches = list(self._both.embed_images(files, batch_size=len(files), workers=1, decode_processes=0))
        for batch in batches:
            for error in batch.errors.values():
                raise error
        return np.concatenate([batch.vectors for batch in batches])
