"""Checks that a published model loads, gives the golden vectors of its record, and fits its image model.

This file imports nothing of this package and runs alone, with every version of sentence-transformers that the model
supports: python -I verify.py FOLDER_OR_ID [--image-model FOLDER_OR_ID].
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
import unicodedata
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from sentence_transformers import SentenceTransformer

RECORD = "turkish_clip.json"
RUN_RECORD = "run.json"
TEXT_TOLERANCE = 1e-4  # of each component; the float32 kernels of different processors differ by about 1e-6
OPEN_FIRST = "open images first, with PIL.Image.open: of a path, encode drops transparency"
IMAGE_COSINE = 0.99  # at least; resizing differs between versions, and another image model gives about 0
NORM_TOLERANCE = 1e-3
KINDS = ("text", "paired")
UNREACHABLE = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TimeoutException")
MAX_CAUSES = 10  # errors that cause each other
MAX_DIM, MAX_TOKENS = 1 << 16, 1 << 24
TEMPERATURES = (1e-4, 100.0)
UNSAFE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py")
GOLDEN_TEXTS = (
    "karda oynayan iki köpek",
    "İstanbul Boğazı'nda bir vapur",
    "Iğdır'ın ılık ışıkları",
    "kirmizi araba",
    "KIRMIZI ARABA",
    "çiğdem çiçeği ve şeftali ağacı",
    "Ankara’da yağmurlu bir gün.",
    "üç çocuk top oynuyor",
    "kâğıttan bir gemi",
    "ev",
    "%100 pamuk, 3,5 km, saat 12:30",
    " ".join(["Deniz kıyısında, gün batımında yürüyen insanlar ve uçan martılar."] * 20),  # longer than any limit
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The content of turkish_clip.json, which is saved beside a model's weights.

    Attributes:
        kind: "text" for a text encoder, "paired" for a text encoder and its image model in one.
        dim: width of the vectors.
        max_tokens: number of tokens, special ones included, at which a longer text is cut; 0: none is.
        weights_sha256: of the text encoder.
        image_model: id, revision (empty means none) and weights_sha256 of the image model that it was trained for.
        requires: for each library the oldest version with which the published folder was loaded.
        tolerance: largest allowed difference of a component of a golden text vector.
        golden: texts, text_vectors and image_vectors, as `golden` returns them; None before publication.
        measured: dataset, split, counts and retrieval metrics, as in results.json; None before they are measured.
        temperature: of zero-shot probabilities; None if none was fitted.
        matryoshka: the shorter widths that it was trained for, descending; None for a model of one width.
        bank: of the bank.safetensors beside it the number of texts and the sha256 of the vectors; None without one.
    """

    FORMAT: ClassVar[int] = 3  # 1 had golden vectors of "pictures", 2 named no bank

    kind: str
    dim: int
    max_tokens: int
    weights_sha256: str
    image_model: dict[str, str]
    requires: dict[str, str] = dataclasses.field(default_factory=dict)
    tolerance: float = TEXT_TOLERANCE
    golden: dict[str, Any] | None = None
    measured: dict[str, Any] | None = None
    temperature: float | None = None
    matryoshka: list[int] | None = None
    bank: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Checks the values, which may come from a file of anybody.

        Raises:
            ValueError: one is of another type, or not in its range.
        """
        if self.kind not in KINDS:
            raise ValueError(f"the kind {_shown(self.kind)}, not one of {', '.join(KINDS)}")
        _check_number("dim", self.dim, 1, MAX_DIM, whole=True)
        _check_number("max_tokens", self.max_tokens, 0, MAX_TOKENS, whole=True)
        _check_number("tolerance", self.tolerance, 0, 1)
        if self.temperature is not None:
            _check_number("temperature", self.temperature, *TEMPERATURES)
        if self.matryoshka is not None and not isinstance(self.matryoshka, (list, tuple)):
            raise ValueError(f"{_shown(self.matryoshka)} as matryoshka, not a list")
        for width in self.matryoshka or ():
            _check_number("matryoshka", width, 1, self.dim, whole=True)
        for name, value in (("image_model", self.image_model), ("requires", self.requires)):
            if not isinstance(value, dict) or not all(isinstance(text, str) for text in (*value, *value.values())):
                raise ValueError(f"{_shown(value)} as {name}, not texts by name")
        if not isinstance(self.weights_sha256, str):
            raise ValueError(f"{_shown(self.weights_sha256)} as weights_sha256, not a text")
        objects = (("golden", self.golden), ("measured", self.measured), ("bank", self.bank))
        for name, found in objects:
            if found is not None and not isinstance(found, dict):
                raise ValueError(f"{_shown(found)} as {name}, not an object")

    def to_json(self) -> str:
        """Returns the content of the file as text, with null for what is not finite."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        finite = json.loads(json.dumps({"format": self.FORMAT, **values}), parse_constant=lambda _: None)
        return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelRecord:
        """Parses the content of the file.

        Raises:
            ValueError: it is no JSON object, of another format, or a value is of another type or not in its range.
            TypeError: a field is unknown or missing.
            RecursionError: brackets are in thousands of others.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__}, not a JSON object")
        found = values.pop("format", "of an older version")
        if type(found) is not int or found != cls.FORMAT:
            found = found[:40] if isinstance(found, str) else _shown(found)
            raise ValueError(
                f"format {found}, not {cls.FORMAT}: it is of another version of turkish-clip; update turkish-clip, or "
                "train and publish again"
            )
        return cls(**values)


def _check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Raises a ValueError for what is no number from `low` to `high`."""
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not fits or not low <= value <= high:  # which no NaN is
        raise ValueError(f"{_shown(value)} as {name}, not a {'whole ' if whole else ''}number from {low} to {high}")


def _shown(value: Any) -> str:
    """Returns the beginning of a value for a message."""
    try:
        return repr(value)[:40]
    except (ValueError, RecursionError):  # thousands of digits or brackets
        return f"a {type(value).__name__}"


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked, in a few words.
        passed: whether it is as expected.
        found: what was measured; for a failure also what was expected and what to do.
    """

    name: str
    passed: bool
    found: str


def golden_images() -> list[Image.Image]:
    """Computes three smooth images of 256 × 256 pixels: the same everywhere, and hardly changed by resizing."""
    import numpy as np
    from PIL import Image

    ramp = np.linspace(0, 255, 256)
    across, down = np.meshgrid(ramp, ramp)
    waves = 127.5 + 127.5 * np.sin(across / 40) * np.cos(down / 30)
    channels = [(across, down, 255 - across), (waves, waves, 255 - waves), (255 - down, waves, across)]
    return [Image.fromarray(np.stack(image, axis=-1).round().astype(np.uint8)) for image in channels]


def golden(text_encoder: SentenceTransformer, image_encoder: SentenceTransformer) -> dict[str, Any]:
    """Returns the golden texts and the vectors of texts and images, as lists of floats for the record.

    Args:
        text_encoder: a text encoder, or a pair.
        image_encoder: its image model, or the same pair.
    """
    return {
        "texts": list(GOLDEN_TEXTS),
        "text_vectors": encode_each(text_encoder, GOLDEN_TEXTS).tolist(),
        "image_vectors": unit(encode_each(image_encoder, golden_images())).tolist(),
    }


def verify(
    model: str | Path,
    *,
    image_model: str | Path | None = None,
    revision: str | None = None,
    image_revision: str | None = None,
    device: str | None = None,
) -> list[Check]:
    """Checks a published model; its faults are failed checks, not exceptions.

    Args:
        model: Hub id or folder of a text encoder, or of a pair.
        image_model: Hub id or folder to check a text encoder with; None takes the one that its record names.
        revision: branch, tag or commit of the model.
        image_revision: of the image model; None takes the recorded one if the image model is the recorded one.
        device: torch device; None lets sentence-transformers choose.

    Returns:
        The checks in order, up to the first failed one without which the others can't be made.
    """
    checks: list[Check] = []
    try:
        for check in _checks(model, image_model, revision, image_revision, device):
            checks.append(check)
    except Exception as error:  # noqa: BLE001 - models and records of anybody fail in ways of their own
        found = f"expected to check {model}, got {first_line(error)}; don't use it before that is clear"
        checks.append(Check("unchecked", False, found))
    return checks


def _checks(
    model: str | Path,
    image_model: str | Path | None,
    revision: str | None,
    image_revision: str | None,
    device: str | None,
) -> Iterator[Check]:
    """Yields the checks of `verify`."""
    try:
        record = _read_record(str(model), revision)
    except Exception as error:  # noqa: BLE001 - the Hub's client, the file system and JSON each raise their own
        found = _unpublished(Path(model)) or f"expected a published model, got {_unread(str(model), error)}"
        yield Check("record", False, found)
        return
    yield Check("record", True, f"{RECORD}: a {record.kind} model of {record.dim}-wide vectors")
    yield _check_versions(record)
    files = _check_files(str(model), revision)
    yield files
    if not files.passed:
        return
    began = time.perf_counter()
    try:
        text_encoder = load(model, revision, device)
    except Exception as error:  # noqa: BLE001 - likewise transformers and safetensors
        yield Check("loads", False, f"expected a model in {model}, got {_unread(str(model), error)}")
        return
    yield _check_modules(text_encoder, time.perf_counter() - began)
    yield from _check_texts(text_encoder, record)
    if record.kind == "paired":
        yield from _check_images(text_encoder, text_encoder, record, str(model))
        return
    chosen = str(image_model or record.image_model["id"])
    if image_revision is None and chosen == record.image_model["id"]:
        image_revision = record.image_model.get("revision")
    try:
        image_encoder = load(chosen, image_revision, device)
    except Exception as error:  # noqa: BLE001 - likewise
        found = f"expected the image model of {model}, got {_unread(chosen, error)}, and name it with --image-model"
        yield Check("pairs", False, found)
        return
    yield from _check_images(text_encoder, image_encoder, record, chosen)


def _read_record(model: str, revision: str | None) -> ModelRecord:
    """Reads a published model's record; the Hub's client and the file system raise their own errors.

    Raises:
        ValueError: it is of another format, a value does not fit, it names no image model and no versions of libraries,
            or it has no golden vectors, or not one for each text.
        TypeError: a field is unknown or missing.
    """
    import numpy as np

    record = ModelRecord.from_json(find_record(model, revision).read_text(encoding="utf-8"))
    if record.golden is None:
        raise ValueError("a record without golden vectors, as of a training run: publish it first")
    if not record.image_model.get("id"):
        raise ValueError("a record that names no image model: publish it again")
    if not record.requires:
        raise ValueError("a record without the versions of libraries that it requires: publish it again")
    texts, images = record.golden.get("texts"), len(golden_images())
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("golden texts that are no list of texts")
    for name, count in (("text_vectors", len(texts)), ("image_vectors", images)):
        vectors = np.asarray(record.golden.get(name), np.float64)
        if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
            raise ValueError(f"golden vectors that do not match their texts: {name} are not {count} rows of numbers")
    return record


def _unpublished(folder: Path) -> str:
    """Returns what to say of a training run, or of its model, which has no golden vectors yet; empty for others."""
    runs = [place for place in (folder, folder.absolute().parent) if (place / RUN_RECORD).is_file()]
    if (folder / RUN_RECORD).is_file():
        kind = "a training run"
    else:
        try:
            record = ModelRecord.from_json((folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            return ""
        if record.golden is not None:
            return ""
        kind = "the model of a training run, without golden vectors to compare with,"
    run = str(runs[0]) if runs else "RUN"
    built = [str(place / "publish" / name) for place in runs for name in KINDS if (place / "publish" / name).is_dir()]
    advice = f"verify {' or '.join(built)}" if built else f"publish it first: python -m training.publish {run} …"
    return f"expected a published model, got {kind} in {folder}; {advice}"


def find_record(model: str, revision: str | None) -> Path:
    """Returns the path of a model's record, which is downloaded if the model is not a folder.

    Args:
        model: Hub id or folder.
        revision: branch, tag or commit on the Hub.

    Raises:
        ValueError: the model is a file. The Hub's client raises its own errors.
    """
    if Path(model).is_dir():
        return Path(model) / RECORD
    if Path(model).exists():
        raise ValueError("a file, no folder")
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model, RECORD, revision=revision))


def load(model: str | Path, revision: str | None, device: str | None) -> SentenceTransformer:
    """Loads a SentenceTransformer without remote code; the host raises its own errors.

    Args:
        model: Hub id or folder.
        revision: branch, tag or commit on the Hub; None or empty takes the newest.
        device: torch device; None lets sentence-transformers choose.
    """
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model), revision=revision or None, device=device, trust_remote_code=False)


def _check_versions(record: ModelRecord) -> Check:
    """Checks that the installed libraries are no older than those with which the model was loaded."""
    found, old = [], []
    for library, least in record.requires.items():
        try:
            installed = version(library)
        except PackageNotFoundError:
            old.append(f"no {library}, expected at least {least}; pip install {library}")
            continue
        found.append(f"{library} {installed}")
        if numbers(installed) < numbers(least):
            old.append(f"{library} {installed}, expected at least {least}; pip install -U {library}")
    return Check("versions", not old, "; ".join(old) if old else ", ".join(found))


def _check_files(model: str, revision: str | None) -> Check:
    """Checks that a folder or Hub repository has no pickle and no code."""
    if Path(model).is_dir():
        names = _names_below(Path(model))
    else:
        from huggingface_hub import HfApi

        try:
            names = HfApi().list_repo_files(model, revision=revision)
        except Exception as error:  # noqa: BLE001 - offline, mostly; the client raises its own and the network's
            return Check("files", True, f"not listed, since the Hub did not answer ({type(error).__name__})")
    unsafe = sorted(name for name in names if Path(name).suffix.lower() in UNSAFE_SUFFIXES)
    if unsafe:
        return Check("files", False, f"expected safetensors and JSON alone, got {', '.join(unsafe[:5])}; don't load it")
    return Check("files", True, "weights in safetensors, no pickle, no code")


def _names_below(folder: Path) -> list[str]:
    """Returns the names of all files below a folder, links followed."""
    names: list[str] = []
    seen: set[str] = set()
    for directory, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:  # a link to a folder around it
            folders.clear()
            continue
        seen.add(real)
        names += files
    return names


def _check_modules(model: SentenceTransformer, seconds: float) -> Check:
    """Checks that the model consists of sentence-transformers' own modules."""
    names = [type(module).__module__ for module in model]
    foreign = [name for name in names if name.split(".")[0] != "sentence_transformers"]
    if foreign:
        return Check("loads", False, f"expected modules of sentence-transformers alone, got {', '.join(foreign)}")
    return Check("loads", True, f"in {seconds:.1f} s: {' → '.join(type(module).__name__ for module in model)}")


def _check_texts(model: SentenceTransformer, record: ModelRecord) -> list[Check]:
    """Checks the width, norm and golden vectors of texts, and that decomposed letters give the same vectors."""
    import numpy as np

    golden = record.golden or {}
    texts = golden["texts"]
    vectors = encode_each(model, texts)
    width = vectors.shape[1]
    if width != record.dim:
        return [Check("width", False, f"expected {record.dim}, got {width}; this is another model")]
    deviation = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
    difference = float(np.abs(vectors - np.asarray(golden["text_vectors"], np.float32)).max())
    limit = min(record.tolerance, TEXT_TOLERANCE)  # which a record can only tighten
    decomposed = encode_each(model, [unicodedata.normalize("NFD", text) for text in texts])
    composed = encode_each(model, [unicodedata.normalize("NFC", text) for text in texts])
    equal = int((decomposed == composed).all(axis=1).sum())
    return [
        Check("width", True, str(width)),
        Check("unit norm", deviation < NORM_TOLERANCE, f"largest deviation {deviation:.1e}, allowed {NORM_TOLERANCE}"),
        Check(
            "golden texts",
            difference <= limit,
            f"{len(texts)} sentences, largest difference {difference:.1e}, allowed {limit}"
            + ("" if difference <= limit else "; other weights, another tokenizer, or a lower precision"),
        ),
        Check("NFD equals NFC", equal == len(texts), f"{equal} of {len(texts)} sentences, bit for bit"),
    ]


def _check_images(
    text_encoder: SentenceTransformer, image_encoder: SentenceTransformer, record: ModelRecord, name: str
) -> list[Check]:
    """Checks that an image model is the one of the record, and that its vectors compare with those of texts."""
    import numpy as np

    expected = np.asarray((record.golden or {})["image_vectors"], np.float32)
    trained_for = record.image_model["id"]
    try:
        vectors = unit(encode_each(image_encoder, golden_images()))
    except Exception as error:  # noqa: BLE001 - a text model that is given images raises what its tokenizer does
        found = f"expected an image model such as {trained_for}, got {name}, which fails on images: {first_line(error)}"
        return [Check("pairs", False, found)]
    if vectors.shape != expected.shape:
        widths = f"expected vectors of {expected.shape[1]}, got {vectors.shape[1]} from {name}"
        return [Check("pairs", False, f"{widths}; pair it with {trained_for}")]
    cosine = float((vectors * expected).sum(axis=1).min())
    same = cosine >= IMAGE_COSINE
    found = f"{len(expected)} golden images through {name}: smallest cosine {cosine:.4f}, allowed {IMAGE_COSINE}"
    scores = text_encoder.similarity(vectors, encode_each(text_encoder, GOLDEN_TEXTS[:2]))
    shape = tuple(scores.shape)
    return [
        Check("pairs", same, found + ("" if same else f"; another image model: pair it with {trained_for}")),
        Check("similarity", shape == (len(expected), 2), f"(images, texts) = {shape}; {OPEN_FIRST}"),
    ]


def encode_each(model: SentenceTransformer, inputs: Any) -> NDArray[np.float32]:
    """Returns the (n, dim) float32 vectors of n inputs, each a batch alone, so that padding does not change a bit.

    Args:
        model: that encodes them, raw or to unit norm as it does.
        inputs: texts or images.
    """
    import numpy as np

    # A model with an image side takes a plain string that is a path or an address for an image. A static text side
    # knows no {"text": …}, but the router gives it the text of {task: text}.
    routes = getattr(model[0], "sub_modules", {})
    static = "text" in routes and type(routes["text"][0]).__name__ == "StaticEmbedding"
    key = "query" if static else "text"
    routed = [{key: item} if isinstance(item, str) and model.supports("image") else item for item in inputs]
    vectors = model.encode(routed, batch_size=1, show_progress_bar=False, convert_to_numpy=True)
    return np.asarray(vectors, np.float32)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales each row to norm 1."""
    import numpy as np

    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def numbers(text: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version, at most three.

    >>> numbers("5.10.0.dev1") > numbers("5.4")
    True
    """
    digits = []
    for part in text.split(".")[:3]:
        if not part.isdigit():
            break
        digits.append(int(part))
    return tuple(digits)


def _unread(model: str, error: Exception) -> str:
    """Returns what stands in place of a model that can't be read, and what to do, in words for people."""
    kinds: set[str] = set()
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is not None:
            kinds |= {kind.__name__ for kind in type(cause).__mro__}
            cause = cause.__cause__ or cause.__context__
    message = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    if Path(model).is_dir():
        if not (Path(model) / RECORD).exists() and "FileNotFoundError" in kinds:
            return (
                f"{model}, a folder without {RECORD}; name one that training.publish wrote, or a model's id on the Hub"
            )
        what = "no JSON" if "JSONDecodeError" in kinds else message
        return f"{model}, which can't be read ({what}); check the folder, or publish it again"
    if Path(model).exists():
        return f"{model}, a file; name the folder of the model"
    nowhere = f"{model}, which is no folder in {Path.cwd()}"
    if "HFValidationError" in kinds:
        return f"{nowhere}, and no id of the Hub; check the path"
    if not kinds.isdisjoint(UNREACHABLE):
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            return f"{nowhere} and not in the Hub's cache, while HF_HUB_OFFLINE is set; check the path, or unset it"
        return f"{nowhere}, and no answer from the Hub; check the path, or the connection"
    if "RepositoryNotFoundError" in kinds:
        return f"{nowhere}, and the Hub has no such model or does not show it; check the path, or the id and HF_TOKEN"
    if "RevisionNotFoundError" in kinds:
        return f"{model}, which has no such revision on the Hub; check the branch, tag or commit"
    if "EntryNotFoundError" in kinds:
        return f"{model}, a model on the Hub without {RECORD}; name one that turkish-clip published"
    return f"{nowhere}, and can't be read from the Hub ({message}); check the path, or the id"


def first_line(error: Exception) -> str:
    """Returns the type and the first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:200]}"


def quiet() -> None:
    """Turns off the progress bars and warnings of the libraries, which would be printed among the checks."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it logs each try


def as_lines(checks: list[Check], passed: str = "ok", failed: str = "FAIL") -> str:
    """Returns the checks as text, one per line.

    Args:
        checks: in order.
        passed: the word in front of one that passed.
        failed: the word in front of another.
    """
    width = max(len(passed), len(failed))
    lines = (f"{passed if check.passed else failed:<{width}}  {check.name:<16}{check.found}" for check in checks)
    return "\n".join("".join(letter if letter.isprintable() else "?" for letter in line) for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Prints the checks; returns the exit code: 0 if all passed, 1 if not."""
    parser = argparse.ArgumentParser(prog="verify.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="Hub id or folder")
    parser.add_argument("--image-model", help="Hub id or folder; by default the one that the model's record names")
    parser.add_argument("--revision", help="branch, tag or commit of the model")
    parser.add_argument("--image-revision", help="branch, tag or commit of the image model")
    parser.add_argument("--json", action="store_true", help="print the checks as one JSON list")
    options = parser.parse_args(argv)
    quiet()
    checks = verify(
        options.model,
        image_model=options.image_model,
        revision=options.revision,
        image_revision=options.image_revision,
    )
    print(json.dumps([dataclasses.asdict(check) for check in checks]) if options.json else as_lines(checks))
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
