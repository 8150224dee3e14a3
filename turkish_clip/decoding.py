"""Opens images and brings them to the image model's size in processes of their own, which scale with the cores.

Threads of one process do not: each holds the interpreter's lock between Pillow's calls, while it lays out arrays, and
while the tower is called. So a thread here hands its images to a process that belongs to it, by a pipe, and gets their
pixels in memory that both share and that has no name: there is nothing in /dev/shm to be too small or left behind.

Alternatives considered: torch's DataLoader learns of a process that died by a signal, whose error can end any line of
the main thread, so the run can't go on, and passes batches through /dev/shm, of which a container has 64 MB.
concurrent.futures.ProcessPoolExecutor is lost as a whole with one process, does not say which image it had, and leaves
its processes waiting where the main one is killed. WebDataset and FFCV want the images packed anew. DALI and
nvImageCodec decode on NVIDIA's GPUs alone, to other pixels.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import mmap
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from turkish_clip.errors import one_line
from turkish_clip.images import (
    SOUND,
    ImageError,
    ImageLike,
    OpenedImage,
    UnreadableImageError,
    has_library,
    open_hashed,
    open_image,
)
from turkish_clip.photo import Photo
from turkish_clip.sounds import first_spectrogram, is_sound

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

    from turkish_clip.preprocessing import FastPreprocessing

log = logging.getLogger("turkish_clip")
MOST = 32  # processes by default; by then they decode more images a second than one GPU embeds
IMAGES_AT_ONCE = 16  # that a process is given: few enough that the first batch is soon there
MOST_LOST = 8  # processes that are replaced; after that, something is wrong with the machine
FATAL = "an image that ends the process which decodes it"  # by its size, or by a defect of a decoder
BY_THREADS = "images are decoded by threads, not by processes of their own: %s"
LAST_FILE = 1 << 20  # at least the number of files that a process may have open


class Loadable(Protocol):
    """Anything that opens as an image, at a reduced size if no more than `min_side` pixels are needed."""

    def load(self, min_side: int | None = None) -> OpenedImage: ...


class Openable(Loadable, Protocol):
    """An image that another process can be given."""

    def fetched(self) -> Loadable:
        """Returns the image as something that is sent: with its path, or with the bytes of its file."""


@dataclass(frozen=True)
class ImageInput:
    """An image to open; if `hashed`, its file is read once and hashed, too.

    Where PyAV is installed, a sound opens as the first of its spectrograms.
    """

    source: ImageLike
    hashed: bool = False

    def load(self, min_side: int | None = None) -> OpenedImage:
        """Opens the image as `open_image` or `open_hashed` does."""
        if isinstance(self.source, (str, Path)) and is_sound(self.source) and has_library(SOUND):
            return first_spectrogram(self.source, hashed=self.hashed)
        if self.hashed and isinstance(self.source, (Path, bytes)):
            return open_hashed(self.source, min_side=min_side)
        return OpenedImage(open_image(self.source, min_side=min_side))

    def fetched(self) -> ImageInput:
        """Returns itself; of a PIL image, which may hold an open file, a copy in RGB."""
        return ImageInput(open_image(self.source)) if isinstance(self.source, Image.Image) else self


@dataclass(frozen=True)
class Decoded:
    """What is known of an image that opened, beside its pixels; attributes as in `OpenedImage`."""

    content: bytes
    photo: Photo


@dataclass(frozen=True)
class _Failed:
    """An image that could not be fetched."""

    error: ImageError

    def load(self, min_side: int | None = None) -> OpenedImage:
        raise self.error


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes_for(wanted: int, device: str) -> int:
    """Returns how many processes are to decode images; 0: none, threads do.

    Args:
        wanted: their number; -1 takes none on the CPU, where the tower needs all cores, and elsewhere as many as leave
            this process a core, at most MOST.
        device: the type of device that computes.
    """
    asked = wanted > 0
    if wanted < 0:
        wanted = 0 if device == "cpu" else min(MOST, cores() - 1)
    if wanted <= 0:
        return 0
    if hindrance := _hindrance():
        log.log(logging.WARNING if asked else logging.INFO, BY_THREADS, hindrance)
        return 0
    return wanted


def decode(
    images: Sequence[Loadable], pixels: NDArray[np.uint8], side: int | None, prepare: FastPreprocessing
) -> list[Decoded | ImageError]:
    """Opens images and writes their pixels; returns for each what its file says, or the error if it does not open.

    One image is held at a time: a whole batch of large scans would fill the memory.

    Args:
        images: to open.
        pixels: (n, height, width, 3), into which those that open are written.
        side: in pixels, to which the processor resizes.
        prepare: of the image model.
    """
    found: list[Decoded | ImageError] = []
    for image, place in zip(images, pixels):
        try:
            opened = image.load(min_side=side)
        except ImageError as error:
            found.append(error)
            continue
        place[...] = prepare.pixels(opened.image)
        found.append(Decoded(opened.content, opened.photo))
    return found


class DecodingProcesses:
    """Processes that decode, one for each thread that calls `decode`.

    One that dies is replaced, and its images are decoded again, each by itself; an image that then ends two processes
    is one that does not open. After MOST_LOST of them, the calling threads decode by themselves.

    Args:
        number: of processes, at most.
        side: in pixels, to which the processor resizes.
        prepare: of the image model.
    """

    def __init__(self, number: int, side: int | None, prepare: FastPreprocessing) -> None:
        self._number, self._side, self._prepare = number, side, prepare
        self._lost, self._closed, self._given_up, self._starting = 0, False, False, Lock()
        self._workers: list[_Worker] = []
        self._free: SimpleQueue[_Worker] = SimpleQueue()

    def start(self, more: int) -> None:
        """Starts more processes while there are fewer than their number; where the machine gives none, threads decode.

        Args:
            more: how many.
        """
        with self._starting:
            for _ in range(min(more, self._number - len(self._workers))):
                try:
                    worker = _Worker(self._side, self._prepare)
                    worker.start()
                except OSError as error:
                    self._number = len(self._workers)
                    if not self._workers:
                        self._give_up(one_line(error))
                    return
                self._workers.append(worker)
                self._free.put(worker)

    def decode(self, images: Sequence[Openable], pixels: NDArray[np.uint8]) -> list[Decoded | ImageError]:
        """Does what the function `decode` does, at most IMAGES_AT_ONCE images at a time, in another process.

        Args:
            images: which this thread fetches, if they are neither files nor bytes.
            pixels: as there.

        Raises:
            CancelledError: the processes were closed meanwhile.
        """
        fetched = [_fetched(image) for image in images]
        found = self._tried(fetched, pixels)
        if found is None and len(images) > 1:
            return [self.decode(images[n : n + 1], pixels[n : n + 1])[0] for n in range(len(images))]
        found = self._tried(fetched, pixels) if found is None else found
        return [UnreadableImageError(_name(fetched[0]), FATAL)] if found is None else found

    def close(self) -> None:
        """Ends the processes at once, whatever they do."""
        with self._starting:
            self._closed = True
            for worker in self._workers:
                worker.end()

    def _tried(self, images: Sequence[Loadable], pixels: NDArray[np.uint8]) -> list[Decoded | ImageError] | None:
        """Returns what another process finds; None if it died."""
        if self._given_up:
            return decode(images, pixels, self._side, self._prepare)
        worker = self._free.get()  # also one that has no process any more, which loses the images
        try:
            found = worker.decode(images)
            if found is not None:
                pixels[...] = worker.pixels[: len(images)]
        except (EOFError, OSError):
            self._replace(worker)
            return None
        finally:
            self._free.put(worker)
        # An error of the program is raised here, where its traceback can be seen.
        return decode(images, pixels, self._side, self._prepare) if found is None else found

    def _replace(self, worker: _Worker) -> None:
        with self._starting:
            if self._closed:
                raise CancelledError
            code = worker.end()
            self._lost += 1
            if self._lost > MOST_LOST:
                self._give_up(f"{self._lost} of them died, the last with exit code {code}")
                return
            log.warning("a process that decodes images died (exit code %s): another takes its place", code)
            try:
                worker.start()
            except OSError as error:
                self._give_up(one_line(error))

    def _give_up(self, why: str) -> None:
        if not self._given_up:
            log.warning(BY_THREADS, why)
        self._given_up = True


class _Worker:
    """A process that decodes, and the memory in which it puts the pixels; it ends when this process does.

    Attributes:
        pixels: (IMAGES_AT_ONCE, height, width, 3), shared with it.
    """

    def __init__(self, side: int | None, prepare: FastPreprocessing) -> None:
        self._side, self._prepare = side, prepare
        width, height = prepare.size
        shape = (IMAGES_AT_ONCE, height, width, 3)
        self.pixels = np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        self._process: Any = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Starts the process.

        Raises:
            OSError: the machine gives none.
        """
        forking: Any = multiprocessing.get_context("fork")
        if self._connection is not None:
            self._connection.close()
        self._connection, there = forking.Pipe()
        arguments = (there, self.pixels, self._side, self._prepare)
        process = forking.Process(target=_serve, args=arguments, daemon=True, name="decode")
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the main process alone
        try:
            with warnings.catch_warnings():
                # Python 3.12 and later warn of threads that hold locks: of those, the new process takes none.
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.filterwarnings("ignore", "lancedb fork support", RuntimeWarning)  # nor does it use LanceDB
                process.start()
            self._process = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            there.close()

    def decode(self, images: Sequence[Loadable]) -> list[Decoded | ImageError] | None:
        """Returns what `decode` does, there; None where it raises an error of the program.

        Raises:
            EOFError, OSError: the process is gone.
        """
        if self._connection is None:
            raise EOFError
        self._connection.send(images)
        found: list[Decoded | ImageError] | None = self._connection.recv()
        return found

    def end(self) -> int | None:
        """Ends the process, if it has not ended; returns its exit code, negative: that of a signal."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.join()
        code: int | None = process.exitcode
        process.close()
        return code


def _serve(connection: Connection, pixels: NDArray[np.uint8], side: int | None, prepare: FastPreprocessing) -> None:
    """Decodes what comes through the pipe, until its other end is closed, in a process of its own."""
    end = connection.fileno()
    os.closerange(3, end)  # files, sockets and pipes of the process that this one is a copy of
    os.closerange(end + 1, LAST_FILE)
    for name in {"SIGTERM", "SIGHUP"}.intersection(dir(signal)):  # what the command has to remove is not here
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    gc.freeze()  # a collection would write to all memory that is still shared
    prepare.in_one_thread()
    while True:
        try:
            images = connection.recv()
        except (EOFError, OSError):
            return
        found: list[Decoded | ImageError] | None = None
        with contextlib.suppress(Exception):  # is raised again in the main process
            found = decode(images, pixels, side, prepare)
        try:
            connection.send(found)
        except OSError:
            return


def _fetched(image: Openable) -> Loadable:
    try:
        return image.fetched()
    except ImageError as error:
        return _Failed(error)


def _name(image: Loadable) -> str:
    """Returns what an error calls an image."""
    source = getattr(image, "source", image)
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else str(source)


def _hindrance() -> str:
    """Returns what keeps images from being decoded in other processes; empty: nothing."""
    if sys.platform != "linux" or "fork" not in multiprocessing.get_all_start_methods():
        return "processes are not forked here"  # a new one would import the caller's script
    if multiprocessing.current_process().daemon:
        return "this process may have none of its own"
    return ""
