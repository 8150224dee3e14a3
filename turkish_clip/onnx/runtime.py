"""Runs a text encoder that `turkish-clip export` wrote; needs onnxruntime, tokenizers and numpy, but not torch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from turkish_clip.errors import InputError, is_encodable, not_imported, one_line, printable
from turkish_clip.reading import Caution, TextReader
from turkish_clip.records import ImageModel, read_record
from turkish_clip.verify import MAX_DIM, MAX_TOKENS, TEMPERATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("turkish_clip")
GRAPH, TOKENIZER, RECORD = "model.onnx", "tokenizer.json", "turkish_clip_onnx.json"
FORMAT = 3  # 1 had no prompt, 2 did not tie graph and tokenizer to the record
WEIGHTS = "turkish_clip.weights_sha256"  # in the metadata of the graph, as in the record
INPUTS, PIXELS, OUTPUT = ("input_ids", "attention_mask"), "pixel_values", "sentence_embedding"
PRECISIONS = ("float32", "int8")
CPU = "CPUExecutionProvider"
NOT_PACKED = "session.disable_prepacking"  # weights are not copied in the order in which the processor reads fastest
ERRORS_ALONE = 3  # log level of onnxruntime: at 2 it warns of processors and graphics cards that it did not find


class OnnxError(InputError):
    """An exported model that can't be written, read or run."""


@dataclass(frozen=True, kw_only=True)
class OnnxRecord:
    """The content of turkish_clip_onnx.json.

    Attributes:
        model: what was exported: a Hub id, or the name of a folder.
        revision: of the model on the Hub; empty means the newest.
        precision: "float32" or "int8".
        weights_sha256: of the text encoder; the graph has it, too.
        tokenizer_sha256: of tokenizer.json.
        dim: width of the vectors.
        max_tokens: number of tokens, special ones included, at which a longer text is cut; 0: none is.
        normalised: whether the vectors have norm 1.
        prompt: what is put before each text.
        image_model: that it belongs to; None if none was recorded.
        temperature: of zero-shot probabilities; None if none was fitted.
    """

    FORMAT: ClassVar[int] = FORMAT

    model: str
    revision: str
    precision: str
    weights_sha256: str
    tokenizer_sha256: str
    dim: int
    max_tokens: int
    normalised: bool
    prompt: str
    image_model: ImageModel | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        """Checks the values, which may come from a file of anybody; raises a ValueError."""
        check_precision(self.precision)
        for name, value, low, high in (
            ("dim", self.dim, 1, MAX_DIM),
            ("max_tokens", self.max_tokens, 0, MAX_TOKENS),
            ("temperature", 1.0 if self.temperature is None else self.temperature, *TEMPERATURES),
        ):
            if not low <= value <= high:
                raise ValueError(f"{value} as {name!r}, not {low} to {high}")


def check_precision(precision: str) -> None:
    """Checks what a record says of a graph's numbers; raises a ValueError."""
    if precision not in PRECISIONS:
        raise ValueError(f"the precision {precision[:40]!r}, not one of {', '.join(PRECISIONS)}")


class OnnxTextEncoder:
    """A text encoder that `turkish-clip export` wrote.

    Args:
        folder: the export: model.onnx, tokenizer.json and turkish_clip_onnx.json.
        threads: number of threads that compute, at least 1; None takes all cores of the machine.
        providers: execution providers of onnxruntime in order of preference; None takes the processor.
        for_few_texts: open it in a fraction of the time, to encode more slowly: with one thread if `threads` is None,
            and with the weights as they lie in the file.

    Attributes:
        dim: width of the vectors.
        max_tokens: number of tokens, special ones included, at which a longer text is cut; 0: none is.
        precision: "float32" or "int8".
        prompt: what `encode` puts before each text; empty for nothing.
        image_model: the image model that it belongs to; None if none was recorded.
        weights_sha256: hash of the weights of the text encoder that was exported.
        temperature: of zero-shot probabilities; None if none was fitted.

    Raises:
        OnnxError: onnxruntime or tokenizers is not installed, the folder does not exist, is not an export, is damaged
            or holds the graph or tokenizer of another export, `threads` is below 1, or this build of onnxruntime has
            not such a provider.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        for_few_texts: bool = False,
    ) -> None:
        record = _read_record(Path(folder))
        self.folder = Path(folder)
        self.dim = record.dim
        self.max_tokens = record.max_tokens
        self.precision = record.precision
        self.prompt = record.prompt
        self.image_model = record.image_model
        self.weights_sha256 = record.weights_sha256
        self.temperature = record.temperature
        self._tokenizer = _open_tokenizer(self.folder / TOKENIZER)
        if file_sha256(self.folder / TOKENIZER) != record.tokenizer_sha256:
            raise of_another(TOKENIZER, self.folder, RECORD)
        self._reader = TextReader(
            self._tokenizer, record.max_tokens or None, record.prompt, cuts_right=_cuts_right(self._tokenizer)
        )
        self._session = open_graph(self.folder / GRAPH, INPUTS, threads, providers, for_few_texts=for_few_texts)
        check_graph(self._session, self.folder, GRAPH, RECORD, record.weights_sha256, record.dim)

    def cautions(self, texts: Iterable[str]) -> list[Caution]:
        """Returns what is not read of texts: unknown words, and what is beyond the limit; at most one of each kind."""
        return self._reader.cautions(texts)

    def encode(self, texts: Iterable[str], *, batch_size: int = 32, warn: bool = True) -> NDArray[np.float32]:
        """Returns the (n, dim) float32 unit vectors of texts, in order; (0, dim) for none.

        In int8 the other texts of a batch change a vector, by up to about 3e-3 in a component, since all activations of
        a batch have one scale; with batch_size=1 the same text always gives the same vector.

        Args:
            texts: any number of str.
            batch_size: texts that go through the graph together, those of similar length so that little is padded.
            warn: log the `cautions` of the texts as warnings.

        Raises:
            OnnxError: one str instead of a list, something in it that is no str, or a batch size below 1.
        """
        if isinstance(texts, str):
            raise OnnxError("expected a list of texts, got one text; write encode([text])")
        if batch_size < 1:
            raise OnnxError(f"expected a batch size of at least 1, got {batch_size}; 32 is the default")
        try:
            texts = list(texts)  # of any kind of sequence, and of what can be read but once
        except TypeError as error:
            raise OnnxError(f"expected a list of texts, got a {type(texts).__name__}; write encode([text])") from error
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise OnnxError(f"expected texts, got a {type(text).__name__} at position {place}; leave it out")
            if not is_encodable(text):
                raise OnnxError(f"expected texts in UTF-8, got {printable(text)!r} at position {place}; correct it")
        for caution in self.cautions(texts) if warn else ():
            log.warning("%s", caution)
        vectors = np.empty((len(texts), self.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))  # the largest batch first
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            vectors[places] = self._run([texts[place] for place in places])
        return vectors

    def _run(self, texts: list[str]) -> NDArray[np.float32]:
        """Returns the (n, dim) float32 unit vectors of one batch."""
        encodings = self._tokenizer.encode_batch([self.prompt + text for text in texts])
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        vectors: NDArray[np.float32] = self._session.run([OUTPUT], dict(zip(INPUTS, (ids, mask))))[0]
        check_width(vectors.shape[1], self.folder, GRAPH, RECORD, self.dim)
        return vectors


def file_sha256(path: Path) -> str:
    """Returns the hex SHA-256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_export(folder: Path) -> bool:
    """Returns whether a folder holds what `turkish-clip export` writes."""
    return (folder / RECORD).is_file()


def _read_record(folder: Path) -> OnnxRecord:
    """Reads turkish_clip_onnx.json.

    Raises:
        OnnxError: there is no such folder, or it is not an export, damaged, or of another format.
    """
    if not folder.is_dir():
        raise OnnxError(
            f"expected a folder, got {folder}, which is not one; write it: turkish-clip export MODEL --format onnx"
        )
    if not is_export(folder):
        raise OnnxError(
            f"expected {RECORD} in {folder}, got none: it is no export of a text encoder; write one: turkish-clip "
            "export MODEL --format onnx"
        )
    return read_record(OnnxRecord, folder / RECORD, "export again", OnnxError)


def _open_tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise OnnxError(not_imported(error, "tokenizers", "onnx", "tokenizers")) from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise damaged("a tokenizer", path, error) from error


def _cuts_right(tokenizer: Any) -> bool:
    return bool((tokenizer.truncation or {}).get("direction", "right") == "right")


def open_graph(
    path: Path,
    inputs: tuple[str, ...],
    threads: int | None,
    providers: Sequence[str] | None,
    *,
    for_few_texts: bool = False,
) -> Any:
    """Returns the session of a graph that gives vectors.

    Args:
        path: the file.
        inputs: names of its inputs.
        threads: as in `OnnxTextEncoder`.
        providers: as in `OnnxTextEncoder`.
        for_few_texts: as in `OnnxTextEncoder`.

    Raises:
        OnnxError: onnxruntime is not installed or has not such a provider, `threads` is below 1, or the file is damaged
            or another graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise OnnxError(not_imported(error, "onnxruntime", "onnx", "onnxruntime")) from error
    chosen, known = list(providers or [CPU]), onnxruntime.get_available_providers()
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise OnnxError(
            f"expected execution providers of this onnxruntime, got {', '.join(unknown)}; it has {', '.join(known)}"
        )
    if threads is not None and threads < 1:
        raise OnnxError(f"expected at least 1 thread, got {threads}; leave it out for all cores")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ALONE
    options.intra_op_num_threads = threads or int(for_few_texts)
    if for_few_texts:
        options.add_session_config_entry(NOT_PACKED, "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=chosen)
    except Exception as error:  # the only common base of onnxruntime's errors
        raise damaged("a graph", path, error) from error
    names = {value.name for value in session.get_inputs()}, {value.name for value in session.get_outputs()}
    if names != (set(inputs), {OUTPUT}):
        raise OnnxError(
            f"expected a graph from {', '.join(inputs)} to {OUTPUT} in {path}, got one from "
            f"{', '.join(sorted(names[0]))} to {', '.join(sorted(names[1]))}; export again"
        )
    return session


def check_graph(session: Any, folder: Path, graph: str, record: str, weights_sha256: str, dim: int) -> None:
    """Checks that a graph is that of a record.

    Args:
        session: of the graph.
        folder: the export.
        graph: name of its file.
        record: name of the record's file.
        weights_sha256: as the record has it.
        dim: as the record has it.

    Raises:
        OnnxError: it is that of another export, or of another width.
    """
    if session.get_modelmeta().custom_metadata_map.get(WEIGHTS) != weights_sha256:
        raise of_another(graph, folder, record)
    check_width(session.get_outputs()[0].shape[-1], folder, graph, record, dim)


def check_width(found: Any, folder: Path, graph: str, record: str, dim: int) -> None:
    """Checks that the width of a graph's vectors, where it is a number, is that of a record.

    Args:
        found: the width, or the name of one that is not fixed.
        folder: the export.
        graph: name of its file.
        record: name of the record's file.
        dim: as the record has it.

    Raises:
        OnnxError: it is another one.
    """
    if isinstance(found, int) and found != dim:
        raise OnnxError(
            f"expected vectors of {dim} numbers, as {folder / record} says, got {found} from {graph}; export again"
        )


def of_another(name: str, folder: Path, record: str) -> OnnxError:
    """Returns the error for a file that is not of the export that a record describes.

    Args:
        name: the file.
        folder: the export.
        record: name of the record's file.
    """
    return OnnxError(
        f"expected {name} of the same export as {record} in {folder}, got that of another one; export again"
    )


def damaged(expected: str, path: Path, error: Exception) -> OnnxError:
    """Returns the error for a file of an export that can't be read.

    Args:
        expected: what it should hold.
        path: the file.
        error: from reading it.
    """
    return OnnxError(f"expected {expected} in {path}, got {type(error).__name__}: {one_line(error)}; export again")
