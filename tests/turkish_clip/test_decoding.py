"""Processes that decode give what threads give; one that dies costs no image, and none outlives the command."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import copies, shares_by_name
from samples import paint
from sentence_transformers import SentenceTransformer

from turkish_clip import DualEncoder, ImageFilter, ImageIndex, ZeroShotClassifier, decoding
from turkish_clip.decoding import FATAL, IMAGES_AT_ONCE, MOST_LOST, ImageInput, cores, processes_for
from turkish_clip.embed import EmbeddedBatch, ImageDecoder, embed_batches
from turkish_clip.encoder import load_model
from turkish_clip.images import ImageError, OpenedImage, UnreadableImageError
from turkish_clip.preprocessing import FastPreprocessing

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@dataclass(frozen=True)
class Noise:
    """An image of noise with what it does where it is opened, in which process it likes."""

    number: int
    does: str = ""
    main: int = os.getpid()

    def load(self, min_side: int | None = None) -> OpenedImage:
        if self.does == "bad":
            raise ImageError(str(self.number), "a reason")
        if self.does == "gone":
            raise UnreadableImageError(str(self.number), "no file")
        if self.does == "defect":
            raise ZeroDivisionError("a defect")
        if self.does == "slow":
            time.sleep(0.2)
        if self.does == "dies" and os.getpid() != self.main:
            os.kill(os.getpid(), signal.SIGKILL)
        levels = np.random.default_rng(self.number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        return OpenedImage(Image.fromarray(levels), bytes([self.number % 256]))

    def fetched(self) -> Noise:
        if self.does == "unfetched":
            raise ImageError(str(self.number), "nowhere")
        return self


@pytest.fixture(scope="module")
def model(tiny_clip: Path) -> SentenceTransformer:
    return load_model(tiny_clip, device="cpu")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not copies(os.getpid())
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("compute", "decode"))]


def embedded(model: SentenceTransformer, batches: list[list[Noise]], processes: int, **more: Any) -> list[Any]:
    found = list(embed_batches(model, batches, dim=16, decode_processes=processes, **more))
    return [comparable(batch) for batch in found]


def comparable(batch: EmbeddedBatch) -> Any:
    errors = {place: (type(error), error.name, error.reason) for place, error in batch.errors.items()}
    return batch.opened, batch.vectors.tobytes(), errors, batch.contents


BATCHES = [
    [Noise(40 * batch + place, {3: "bad", 17: "gone"}.get(place, "")) for place in range(37)] for batch in range(4)
] + [[Noise(7, "bad"), Noise(8, "unfetched")], [Noise(9)]]


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
@pytest.mark.parametrize("compute_threads", [0, 2])
def test_vectors_errors_and_hashes_are_those_of_threads_to_the_bit(
    model: SentenceTransformer, dtype: str, compute_threads: int
) -> None:
    batches = [[Noise(image.number, "" if image.does == "unfetched" else image.does) for image in b] for b in BATCHES]
    options = {"dtype": dtype, "compute_threads": compute_threads}
    assert embedded(model, batches, 2, **options) == embedded(model, batches, 0, **options)


def test_an_image_that_can_not_be_fetched_is_one_that_does_not_open(model: SentenceTransformer) -> None:
    assert embedded(model, BATCHES, 1)[4][2] == {0: (ImageError, "7", "a reason"), 1: (ImageError, "8", "nowhere")}


def test_files_are_read_and_hashed_in_the_other_process(model: SentenceTransformer, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    sources = [tmp_path / "a.png", data, Image.new("RGB", (60, 40), "red"), tmp_path / "none.png", b"x"]
    batches = [[ImageInput(source, hashed=True) for source in sources]] * 2
    found = embedded(model, batches, 2)
    assert found == embedded(model, batches, 0)
    assert found[0][0] == [0, 1, 2]
    assert found[0][3][0] == found[0][3][1] != found[0][3][2] == b""


def test_errors_pass_from_one_process_to_another() -> None:
    for error in (ImageError("a", "b"), UnreadableImageError("c", "d")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.name, again.reason, str(again)) == (
            type(error),
            error.name,
            error.reason,
            str(error),
        )


def test_an_error_of_the_program_is_raised_here(model: SentenceTransformer) -> None:
    with pytest.raises(ZeroDivisionError, match="a defect"):
        embedded(model, [[Noise(0)], [Noise(1, "defect")], [Noise(2)]], 2)


def test_a_process_that_is_killed_is_replaced_and_no_image_is_lost(
    model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    batches = [[Noise(20 * batch + place, "slow" if place == 1 else "") for place in range(20)] for batch in range(6)]
    expected, found, killed = embedded(model, batches, 0), [], 0
    for batch in embed_batches(model, batches, dim=16, decode_processes=2):
        found.append(comparable(batch))
        if len(found) in (1, 3):
            os.kill(copies(os.getpid())[0], signal.SIGKILL)
            killed += 1
    assert found == expected
    said = caplog.text.count("a process that decodes images died (exit code -9): another takes its place")
    assert 1 <= said <= killed  # the last may have had nothing more to do


def test_an_image_that_ends_its_process_is_skipped_by_name(
    model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    batches = [[Noise(place) for place in range(10)] for _ in range(3)]
    batches[1][4] = Noise(4, "dies")
    expected, found = embedded(model, batches, 0), embedded(model, batches, 2)
    assert found[::2] == expected[::2]
    assert found[1][2] == {4: (UnreadableImageError, str(batches[1][4]), FATAL)}
    assert found[1][0] == [place for place in range(10) if place != 4]
    assert caplog.text.count("another takes its place") == 3  # in its batch, and twice alone


def test_when_one_after_the_other_dies_threads_decode(
    model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    batches = [[Noise(5 * batch + place, "dies") for place in range(5)] for batch in range(4)]
    found = embedded(model, batches, 1)
    assert caplog.text.count("another takes its place") == MOST_LOST
    assert "images are decoded by threads, not by processes of their own: 9 of them died, the last with" in caplog.text
    assert found[2:] == embedded(model, batches, 0)[2:]


@pytest.mark.parametrize(("first", "said"), [(0, "threads, not by processes of their own"), (1, "")])
def test_a_machine_that_gives_no_process_or_too_few(
    first: int, said: str, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, forked = os.fork, 0

    def fork() -> int:
        nonlocal forked
        forked += 1
        if forked > first:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    assert embedded(model, BATCHES[:4], 2) == embedded(model, BATCHES[:4], 0)
    assert (said in caplog.text) if said else not caplog.text


def test_a_system_that_does_not_fork_has_threads(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoding.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert embedded(model, BATCHES[:2], 2) == embedded(model, BATCHES[:2], 0)
    assert "by threads, not by processes of their own: processes are not forked here" in caplog.text


def test_a_processor_that_prepares_whole_batches_has_threads(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = embedded(model, BATCHES[:2], 0)
    monkeypatch.setattr(FastPreprocessing, "of", lambda model: None)
    assert [batch[0] for batch in embedded(model, BATCHES[:2], 2)] == [batch[0] for batch in expected]
    assert "the image model's own processor prepares whole batches" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "device", "free_cores", "expected"),
    [
        (-1, "cpu", 16, 0), (-1, "cuda", 16, 15), (-1, "cuda", 2, 1), (-1, "cuda", 1, 0),
        (-1, "cuda", 200, 32), (5, "cpu", 1, 5), (0, "cuda", 16, 0),
    ],
)  # fmt: skip
def test_their_number(
    wanted: int, device: str, free_cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "cores", lambda: free_cores)
    assert processes_for(wanted, device) == expected


def test_the_cores_are_those_that_this_process_may_use() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from turkish_clip.decoding import cores, processes_for\n"
        "print(cores(), processes_for(-1, 'cuda'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["1", "0"]
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_no_more_processes_than_there_is_work_for(model: SentenceTransformer) -> None:
    with ImageDecoder(model, processes=8) as decoder:
        assert not copies(os.getpid())
        for batch in range(2):
            decoder.begin([Noise(n) for n in range(IMAGES_AT_ONCE + 1)])()
            assert len(copies(os.getpid())) == 2 * (batch + 1)


def test_an_abandoned_iterator_leaves_no_process(model: SentenceTransformer) -> None:
    results = embed_batches(model, [[Noise(n, "slow")] for n in range(50)], dim=16, decode_processes=2)
    next(results)
    assert copies(os.getpid())
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 5


def test_a_process_holds_no_file_of_the_one_that_it_is_a_copy_of(model: SentenceTransformer, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w"), ImageDecoder(model, processes=1) as decoder:
        decoder.begin([Noise(0)])()
        (child,) = copies(os.getpid())
        names = {str(path.readlink()) for path in Path(f"/proc/{child}/fd").iterdir()}
        assert str(tmp_path / "open") not in names
        assert len([name for name in names if name.startswith("socket")]) == 1
        assert not shares_by_name(child)  # so that it does not matter how small /dev/shm is


def test_an_index_has_the_same_vectors(encoder: DualEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number in range(40):
        paint(folder / f"{number}.png", number)
    (folder / "bad.png").write_bytes(b"x")
    found = []
    for processes in (0, 2):
        index = ImageIndex.open(str(tmp_path / str(processes)), encoder)
        summary = index.add(folder, decode_processes=processes)
        assert (summary.added, [file.reason for file in summary.skipped]) == (40, ["a file that is not an image"])
        found.append(index.vectors())
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])


def test_what_uses_images_takes_processes(encoder: DualEncoder, tmp_path: Path) -> None:
    images = [paint(tmp_path / f"{number}.png", number) for number in range(40)]
    classifier, image_filter = ZeroShotClassifier(encoder, ["ev", "kuş"]), ImageFilter(encoder, ["ev"])
    for use in (classifier.classify, lambda *of, **how: list(image_filter.flag(*of, **how))):
        assert use(images, decode_processes=2) == use(images, decode_processes=0)
