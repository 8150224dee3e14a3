"""One table of a GPU: training and embedding by the commands, beside bare loops, the device alone, and another build.

    python tests/benchmarks/gpu.py                     # in the environment of `make install`, from the checkout
    python tests/benchmarks/gpu.py --build ../other    # and another checkout's commands, measured in the same run
    python tests/benchmarks/gpu.py --device cpu --images 40 --large 6 --captions 400 --layers 1    # a try without a GPU

It makes data and models: JPEGs like photographs, captions, a BERT-base and a CLIP ViT-B/32 with random weights. Each
command runs in a process of its own, as a person would start it; its rate is that of its steps, and what passes before
them is listed apart. What does not fit into --minutes is not run, and the table says so. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DIM = 512
PARTS = ("embed", "distill", "limits", "large", "compile")
SMALL, LARGE = (640, 480), (4000, 3000)  # pixels, of a data set and of a phone
DRAWN = 48  # different images of each size; the others are copies that differ in their bytes
GRAIN, QUALITY = 6, 88  # of the JPEGs: about 90 KB and 3 MB
TRAINED = 0.84  # fraction of the images that are trained on; the others are the validation split
SHARDS = 6  # of embeddings in a run: its rate is measured between the first and the last
DISTILL = (("bf16", 256), ("float32", 128), ("bf16", 1024))  # dtype and batch
TOWER_BATCHES = (64, 256)
EPOCHS, EVALUATIONS = 3, 3
STEPS, WARM_UP = 60, 5  # of a bare loop
ENCODED = 512  # images of the plain `encode`
OPENED = 128  # images that a thread or process opens
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "datasets", "pillow", "numpy")
COLOURS = "kırmızı mavi sarı yeşil mor turuncu beyaz siyah gri pembe".split()
THINGS = "ev ağaç çiçek köpek kedi kuş tekne araba bisiklet masa şapka yıldız elma balık kitap kapı".split()
PLACES = "denizde karda çimende yolda gökyüzünde bahçede mutfakta gece gündüz".split()
RELATIONS = "üstünde altında yanında önünde arkasında".split()


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Attributes:
        what: is measured, as "distill, bf16, batch 256".
        way: the checkout that did it, or what it is compared with.
        rate: captions or images a second; None where it was not measured.
        unit: of the rate.
        start: seconds of the command before its first step; None for what is no command.
        whole: seconds of the whole command.
        note: why there is no rate, or what else is to be said.
    """

    what: str
    way: str
    rate: float | None
    unit: str
    start: float | None = None
    whole: float | None = None
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """The line of the table."""
        seconds = ["" if value is None else f"{value:.1f} s" for value in (self.start, self.whole)]
        rate = "not measured" if self.rate is None else f"{self.rate:,.0f} {self.unit}"
        return (self.what, self.way, rate, *seconds, self.note)


HEADER = ("what", "way", "rate", "before the first step", "whole command", "")


@dataclass
class Bench:
    """The options, and the lines so far."""

    options: argparse.Namespace
    folder: Path
    builds: dict[str, Path]
    began: float = field(default_factory=time.monotonic)
    lines: list[Measured] = field(default_factory=list)

    def add(self, line: Measured) -> None:
        self.lines.append(line)
        print(" | ".join(line.cells()), file=sys.stderr, flush=True)

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return 60 * self.options.minutes - (time.monotonic() - self.began)

    def limit(self) -> float:
        """Seconds that a command may take; a killed one is named so."""
        return max(1.0, self.left)

    @property
    def has_bf16(self) -> bool:
        return device_has_bf16(self.options.device)

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Dtype and batch of each training: without bf16 in the hardware, in float32 alone."""
        return [one for one in DISTILL if one[0] == "float32" or self.has_bf16]


def device_has_bf16(device: str) -> bool:
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


# Data and models


def write_jpeg(task: tuple[str, int, tuple[int, int]]) -> None:
    """Writes an image of soft shapes under grain; those of different numbers differ."""
    import numpy as np
    from PIL import Image

    path, number, (width, height) = task
    rng = np.random.default_rng(number)
    shapes = rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = rng.normal(0, GRAIN, (height, width, 1)).astype(np.int16)
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=QUALITY)


def caption(rng: random.Random) -> str:
    """A Turkish caption of 4 to 15 words."""
    words = [rng.choice(PLACES), rng.choice(COLOURS), rng.choice(THINGS), str(rng.randrange(10**6))]
    for _ in range(rng.randrange(4)):
        words += [rng.choice(COLOURS), rng.choice(THINGS), rng.choice(RELATIONS)]
    return " ".join(words)


def write_source(folder: Path, images: int, captions: int, size: tuple[int, int]) -> None:
    """Writes JPEGs with a metadata.jsonl.

    Args:
        folder: where.
        images: how many.
        captions: of the training images together; each of the others has as many as one of these.
        size: of an image in pixels.
    """
    folder.mkdir(parents=True)
    names = [f"{number:05d}.jpg" for number in range(images)]
    tasks = [(str(folder / name), number, size) for number, name in enumerate(names[:DRAWN])]
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        list(pool.map(write_jpeg, tasks))
    for number, name in enumerate(names[DRAWN:]):  # other bytes, the same pixels: what follows the image is not read
        drawn = (folder / names[number % DRAWN]).read_bytes()
        (folder / name).write_bytes(drawn + str(number).encode())
    rng, trained = random.Random(0), max(1, round(TRAINED * images))
    counts = [captions // trained + (number < captions % trained) for number in range(trained)]
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for number in range(images):
            count = counts[number] if number < trained else max(1, counts[0])
            row = {
                "file_name": names[number],
                "captions": [caption(rng) for _ in range(count)],
                "split": "train" if number < trained else "validation",
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def training_captions(folder: Path) -> list[str]:
    """Returns the captions of the training images, in an order like that of an epoch."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [text for row in rows if row["split"] == "train" for text in row["captions"]]
    random.Random(1).shuffle(found)
    return found


def write_models(folder: Path, layers: int) -> None:
    """Writes a BERT-base and a CLIP ViT-B/32 with random weights and small vocabularies.

    Args:
        folder: where, as `bert` and `vit`.
        layers: of each tower; 12 is full size.
    """
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import (
        BertConfig,
        BertModel,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        PreTrainedTokenizerFast,
    )

    from training.small_models.vocabularies import learn_bpe

    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=32000, num_hidden_layers=layers)).save_pretrained(folder / "bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.NFC()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rng = random.Random(2)
    trainer = trainers.WordPieceTrainer(vocab_size=2000, special_tokens=special, show_progress=False)
    pieces.train_from_iterator([caption(rng) for _ in range(5000)], trainer)
    ends = [(name, pieces.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    pieces.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=128, **names)
    tokenizer.save_pretrained(folder / "bert")

    config = CLIPConfig(text_config={"num_hidden_layers": layers}, vision_config={"num_hidden_layers": layers})
    CLIPModel(config).save_pretrained(folder / "vit")
    processor = CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=learn_bpe(["a photo"], 514, 77))
    processor.save_pretrained(folder / "vit")


# The commands of a build


@dataclass(frozen=True)
class Finished:
    """A command that has ended: when it began, its seconds, and why it failed."""

    began: float
    seconds: float
    failure: str = ""


def command(bench: Bench, build: Path, module: str, argv: Sequence[object]) -> Finished:
    """Runs a command of a checkout in a process of its own, until the time is over."""
    environment = {**os.environ, "PYTHONPATH": str(build), "HF_HUB_OFFLINE": "1"}
    full = [sys.executable, "-m", module, *map(str, argv), "--json"]
    limit, began, clock = bench.limit(), time.time(), time.monotonic()
    try:
        done = subprocess.run(
            full, capture_output=True, text=True, timeout=limit, env=environment, cwd=build, check=False
        )
    except subprocess.TimeoutExpired:
        return Finished(began, limit, f"did not finish in {limit:.0f} s")
    lines = done.stderr.replace("\r", "\n").strip().splitlines()
    failure = "" if done.returncode == 0 else f"code {done.returncode}: {lines[-1][:200] if lines else 'said nothing'}"
    return Finished(began, time.monotonic() - clock, failure)


def source_options(bench: Bench, data: str) -> list[object]:
    """The options that every command takes."""
    return [
        *("--captions", bench.folder / data, "--image_model", bench.folder / "vit"),
        *("--device", bench.options.device),
    ]


def embed(bench: Bench, name: str, data: str, images: int) -> None:
    """Measures embed_images: images a second from the first shard of embeddings to the last."""
    build, run = bench.builds[name], bench.folder / f"{name}-{data}"
    what = f"embed_images, {'x'.join(map(str, LARGE if data == 'large' else SMALL))}"
    size = max(1, images // SHARDS)
    argv = [*source_options(bench, data), "--run", run, "--shard_size", size, *bench.options.embed.split()]
    done = command(bench, build, "training.embed_images", argv)
    shards = sorted(path.stat().st_mtime for path in run.rglob("shard-*.parquet"))
    if done.failure or len(shards) < 2:
        bench.add(Measured(what, name, None, "images/s", whole=done.seconds, note=done.failure or "one shard alone"))
        return
    rate = (images - size) / max(shards[-1] - shards[0], 1e-9)
    start = max(0.0, shards[0] - done.began - size / rate)
    bench.add(Measured(what, name, rate, "images/s", start, done.seconds))


def distill(bench: Bench, name: str, dtype: str, batch: int, *more: str) -> None:
    """Measures distill: captions a second of the trainer's loop, with its evaluations and checkpoints."""
    build, embedded = bench.builds[name], bench.folder / f"{name}-small"
    what = ", ".join(["distill", dtype, f"batch {batch}", *(word.removeprefix("--") for word in more)])
    run = bench.folder / f"{name}-{'-'.join(what.replace(',', '').split())}"
    run.mkdir()
    for folder in embedded.iterdir():  # its embeddings, whatever this build calls their folder
        if folder.is_dir():
            (run / folder.name).symlink_to(folder, target_is_directory=True)
    argv = [
        *source_options(bench, "small"),
        *("--run", run, "--backbone", bench.folder / "bert", "--batch_size", batch),
        *("--epochs", EPOCHS, "--evaluations", EVALUATIONS),
        *(("--bf16",) if dtype == "bf16" else ()),
        *more,
        *(bench.options.distill.split() if name == "this" else ()),
    ]
    done = command(bench, build, "training.distill", argv)
    log = run / "log.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    trained = next((entry["train_runtime"] for entry in reversed(entries) if "train_runtime" in entry), None)
    if done.failure or trained is None:
        note = done.failure or "the trainer logged no runtime"
        bench.add(Measured(what, name, None, "captions/s", whole=done.seconds, note=note))
    else:
        start = max(0.0, log.stat().st_mtime - trained - done.began)  # the log is last written as the training ends
        rate = EPOCHS * bench.options.captions / trained
        bench.add(Measured(what, name, rate, "captions/s", start, done.seconds))
    shutil.rmtree(run, ignore_errors=True)


# The limits: bare loops without the commands


def seconds_of(action: Callable[[], object], device: str) -> float:
    """Returns how long an action takes until the device is done."""
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    wait()
    began = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - began


class BareLoop:
    """A student, its optimizer and random regression targets on the device: what trains, and nothing else.

    Args:
        folder: of the backbone.
        captions: trained on, over and over.
        device: "cuda" or "cpu".
        dtype: "bf16" computes under autocast.
        batch: captions of a step.
    """

    def __init__(self, folder: Path, captions: Sequence[str], device: str, dtype: str, batch: int) -> None:
        import torch

        from turkish_clip import build_text_encoder

        self.captions, self.device, self.bf16, self.batch = captions, device, dtype == "bf16", batch
        self.student = build_text_encoder(folder, dim=DIM, device=device).train()
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=5e-5, fused=True)
        self.targets = torch.nn.functional.normalize(torch.randn(len(captions), DIM, device=device), dim=1)

    def features(self, step: int) -> dict[str, Any]:
        """Tokenises a batch and brings it to the device."""
        first = step * self.batch
        texts = [self.captions[place % len(self.captions)] for place in range(first, first + self.batch)]
        found = self.student.preprocess(texts).items()
        return {name: value.to(self.device) for name, value in found if hasattr(value, "to")}

    def train(self, features: dict[str, Any], step: int) -> None:
        import torch

        rows = torch.arange(step * self.batch, (step + 1) * self.batch, device=self.device) % len(self.targets)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            vectors = self.student(dict(features))["sentence_embedding"]
        torch.nn.functional.mse_loss(vectors.float(), self.targets[rows]).backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def whole(self, steps: int) -> None:
        for step in range(steps):
            self.train(self.features(step), step)

    def alone(self, steps: int) -> None:
        """Trains on one batch that is on the device already."""
        features = self.features(0)
        for step in range(steps):
            self.train(features, step)


def limits_of_training(bench: Bench) -> Iterator[Measured]:
    """A bare loop that tokenises, computes and steps in turn, and the device alone on a batch that is there."""
    device, captions = bench.options.device, training_captions(bench.folder / "small")
    steps, warm_up = (STEPS, WARM_UP) if device == "cuda" else (1, 1)
    for dtype, batch in bench.runs:
        loop = BareLoop(bench.folder / "bert", captions, device, dtype, batch)
        loop.whole(warm_up)
        what = f"distill, {dtype}, batch {batch}"
        for way, action in (("a bare PyTorch loop", loop.whole), ("the device alone", loop.alone)):
            rate = steps * batch / seconds_of(partial(action, steps), device)
            yield Measured(what, way, rate, "captions/s")


def compute(tower: Any, pixels: Any, times: int, *, bf16: bool) -> None:
    """Computes a batch of pixels several times."""
    import torch

    with torch.inference_mode(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
        for _ in range(times):
            tower.get_image_features(pixel_values=pixels)


def limits_of_embedding(bench: Bench) -> Iterator[Measured]:
    """The bare tower on pixels that are there, and sentence-transformers' own `encode` of opened images."""
    import torch
    from PIL import Image
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPModel

    device, what = bench.options.device, f"embed_images, {SMALL[0]}x{SMALL[1]}"
    tower, times = CLIPModel.from_pretrained(bench.folder / "vit").to(device).eval(), 20 if device == "cuda" else 1
    for dtype in ("float32", "bf16") if bench.has_bf16 else ("float32",):
        for batch in TOWER_BATCHES:
            pixels = torch.randn(batch, 3, 224, 224, device=device)
            run = partial(compute, tower, pixels, bf16=dtype == "bf16")
            run(min(2, times))
            rate = times * batch / seconds_of(partial(run, times), device)
            yield Measured(what, f"the bare tower, {dtype}, batch {batch}", rate, "images/s")
    files = sorted((bench.folder / "small").glob("*.jpg"))[:ENCODED]
    model = SentenceTransformer(str(bench.folder / "vit"), device=device)

    def encode(paths: Sequence[Path]) -> None:
        model.encode([Image.open(path) for path in paths], batch_size=32, show_progress_bar=False)

    encode(files[:4])
    rate = len(files) / seconds_of(partial(encode, files), device)
    yield Measured(what, "encode of opened images, float32", rate, "images/s")


def open_one(path: str) -> int:
    """Opens an image as embedding does; returns its width."""
    from turkish_clip import open_image

    return int(open_image(path, min_side=224).size[0])


def opened_by(pool: Executor, paths: Sequence[str]) -> None:
    """Opens images in the threads or processes of a pool."""
    for _ in pool.map(open_one, paths, chunksize=8):
        pass


def limits_of_opening(bench: Bench) -> Iterator[Measured]:
    """Opening images in threads and in processes, nothing else."""
    files = [str(path) for path in sorted((bench.folder / "small").glob("*.jpg"))]
    what, many = f"opening images, {SMALL[0]}x{SMALL[1]}", cores()
    open_one(files[0])
    for threads in sorted({1, many}):
        part = files[: OPENED * threads]
        with ThreadPoolExecutor(threads) as pool:
            rate = len(part) / seconds_of(partial(opened_by, pool, part), "cpu")
        yield Measured(what, f"{threads} threads" if threads > 1 else "1 thread", rate, "images/s")
    part = files[: OPENED * many]
    with ProcessPoolExecutor(many, mp_context=get_context("spawn")) as processes:
        opened_by(processes, part[:1] * 8 * many)  # each has imported what it needs
        rate = len(part) / seconds_of(partial(opened_by, processes, part), "cpu")
    yield Measured(what, f"{many} processes" if many > 1 else "1 process", rate, "images/s")


def limits(bench: Bench) -> None:
    """Measures the limits in this process."""
    for part in (limits_of_training, limits_of_embedding, limits_of_opening):
        for line in part(bench):
            bench.add(line)
            if bench.left <= 0:
                return


# The run


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(device: str) -> dict[str, Any]:
    """Returns what the figures are of: device, cores, versions."""
    import torch

    name = torch.cuda.get_device_name(0) if device == "cuda" else "none: everything ran on the processor"
    found = {"device": name, "cores": cores(), "python": platform.python_version()}
    found |= {library: version(library) for library in LIBRARIES}
    return found | ({"cuda": torch.version.cuda} if device == "cuda" else {})


def state_of(build: Path) -> str:
    """Returns the commit of a checkout, or that it is none."""
    done = subprocess.run(
        ["git", "-C", str(build), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "no git checkout"


def measure(bench: Bench) -> None:
    """Runs the parts in their order, the builds in turn; what no time is left for is named."""
    options = bench.options
    steps: list[tuple[str, Callable[[], None]]] = []

    def each(part: str, what: str, action: Callable[[str], None]) -> None:
        if part in options.parts:
            steps.extend((f"{what}, {name}", lambda name=name: action(name)) for name in bench.builds)

    if "distill" in options.parts or "compile" in options.parts or "embed" in options.parts:
        embedded = "embed" if "embed" in options.parts else "distill" if "distill" in options.parts else "compile"
        each(embedded, "embed_images", lambda name: embed(bench, name, "small", options.images))
    if "limits" in options.parts:
        steps.append(("the limits", lambda: limits(bench)))
    for dtype, batch in bench.runs:
        what = f"distill, {dtype}, batch {batch}"
        each("distill", what, lambda name, dtype=dtype, batch=batch: distill(bench, name, dtype, batch))
    each("large", "embed_images of large images", lambda name: embed(bench, name, "large", options.large))
    dtype, batch = bench.runs[0]
    each("compile", "distill --compile", lambda name: distill(bench, name, dtype, batch, "--compile"))
    for what, action in steps:
        if bench.left > 0:
            action()
        else:
            bench.add(Measured(what, "", None, "", note=f"not run: {options.minutes:g} minutes were over"))


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """A folder for data, models and runs; a temporary one is removed."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=False)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="gpu-bench-") as folder:
        yield Path(folder)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where towers and training compute")
    parser.add_argument("--build", type=Path, action="append", default=[], help="another checkout to measure, too")
    parser.add_argument("--images", type=int, default=6000, help=f"JPEGs of {SMALL[0]}x{SMALL[1]}")
    parser.add_argument("--large", type=int, default=768, help=f"JPEGs of {LARGE[0]}x{LARGE[1]}")
    parser.add_argument("--captions", type=int, default=25_285, help="training captions")
    parser.add_argument("--layers", type=int, default=12, help="of BERT and of both towers of CLIP")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="after which nothing more is begun, and what runs is ended"
    )
    parser.add_argument("--embed", default="", help="more options of embed_images, of all builds: '--workers 8'")
    parser.add_argument("--distill", default="", help="more options of distill, of this build: '--dense_start random'")
    parser.add_argument("--folder", type=Path, help="new folder for data and runs, which is kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    options = parser.parse_args(argv)
    options.parts = tuple(filter(None, options.parts.split(",")))
    if unknown := set(options.parts).difference(PARTS):
        parser.error(f"expected parts out of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}; correct it")
    for build in options.build:
        if not (build / "training" / "distill.py").is_file():
            parser.error(f"expected a checkout with training/distill.py, got {build}; name its folder")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("expected a CUDA device, got none; --device cpu tries the script on the processor")
    return options


def table(lines: Sequence[Measured]) -> str:
    """The lines as a Markdown table, its columns aligned."""
    rows = [HEADER, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    options = parsed(argv)
    sys.path[:0] = [str(ROOT)]
    os.environ |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    builds = {"this": ROOT} | {f"other {number}": path.resolve() for number, path in enumerate(options.build, 1)}
    with work_folder(options.folder) as folder:
        bench = Bench(options, folder, builds)
        write_source(folder / "small", options.images, options.captions, SMALL)
        if "large" in options.parts:
            write_source(folder / "large", options.large, options.large, LARGE)
        write_models(folder, options.layers)
        made = time.monotonic() - bench.began
        measure(bench)
    about = machine(options.device)
    about |= {f"build {name}": state_of(path) for name, path in builds.items()}
    about |= {name: getattr(options, name) for name in ("images", "large", "captions", "layers", "embed", "distill")}
    about |= {"seconds of data and models": round(made, 1), "seconds": round(time.monotonic() - bench.began, 1)}
    if options.json:
        print(json.dumps({"about": about, "measured": [asdict(line) for line in bench.lines]}, ensure_ascii=False))
    else:
        print("\n".join([", ".join(f"{name} {value}" for name, value in about.items() if value != ""), ""]))
        print(table(sorted(bench.lines, key=lambda line: line.what)))


if __name__ == "__main__":
    main()
