"""A static text side: one vector for each token, so that a text is embedded by a look-up and a mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.run.config import DistillConfig
from training.run.provenance import sha256_of_texts
from training.run.record import locate_model
from turkish_clip.atomic import atomic_folder
from turkish_clip.errors import InputError
from turkish_clip.metrics import Vectors
from turkish_clip.records import read_record, write_record

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

FOLDER, RECORD = "static", "static.json"
SMOOTHING = 1e-2  # a of Arora et al. 2017, who found 1e-3 to 1e-4 best; here that was worse (training/LOG.md)
TOKENS_AT_ONCE, TEXTS_AT_ONCE = 256, 4096
LONGEST = 16  # tokens of a text that is one token with what stands around it


@dataclass(frozen=True, kw_only=True)
class StaticRecord:
    """The content of static.json: what the token vectors were made of.

    Attributes:
        weights_sha256: of the encoder's layers below its Dense layer.
        captions_sha256: of the captions in which the tokens were counted.
    """

    FORMAT: ClassVar[int] = 1

    weights_sha256: str
    captions_sha256: str


def write_static_backbone(config: DistillConfig, texts: Iterable[str], source: str) -> Path:
    """Makes the token vectors of a static text side, unless the run has those of the same encoder and captions.

    Args:
        config: of the run, whose folder they are saved in.
        texts: the training captions, gone through twice.
        source: Hub id or folder of the encoder: a backbone, or a text encoder or run of this project.

    Returns:
        The folder: a SentenceTransformer of one StaticEmbedding, and static.json.

    Raises:
        ModelError: the encoder can't be loaded, or has no backbone.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from turkish_clip.dual_encoder import weights_sha256
    from turkish_clip.encoder import bare_tokenizer, save_text_encoder

    encoder = _load_encoder(config, source)
    made_of = StaticRecord(weights_sha256=weights_sha256(encoder), captions_sha256=sha256_of_texts(texts))
    folder = config.folder / FOLDER
    if read_static_record(folder) == made_of:
        return folder
    tokenizer = bare_tokenizer(encoder.tokenizer.backend_tokenizer)
    frequencies = token_frequencies(tokenizer, texts)
    vectors = weighted(token_vectors(encoder), frequencies, encoder.tokenizer.all_special_ids)
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)], device="cpu")
    with atomic_folder(folder, RECORD) as partial:
        save_text_encoder(static, partial)
        write_record(partial / RECORD, made_of)
    return folder


def build_static_encoder(config: DistillConfig, dim: int, *, normalise: bool) -> SentenceTransformer:
    """Builds a text encoder over the token vectors of a run, with a Dense layer that the seed decides.

    Args:
        config: of the run in which `write_static_backbone` has saved them.
        dim: width of the text encoder's vectors.
        normalise: whether these have norm 1.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize
    from transformers import set_seed

    from training.run.distributed import device_of
    from turkish_clip.encoder import load_model

    static = load_model(config.folder / FOLDER, device=device_of(config.device))
    hidden = int(static.get_embedding_dimension() or 0)
    set_seed(config.seed)
    modules = [static[0], Dense(hidden, dim, activation_function=torch.nn.Identity())]
    if normalise:
        modules.append(Normalize())
    return SentenceTransformer(modules=modules, device=device_of(config.device), similarity_fn_name="cosine")


def token_frequencies(tokenizer: Tokenizer, texts: Iterable[str]) -> NDArray[np.float64]:
    """Returns for each token of the vocabulary which fraction it is of the tokens of texts: (tokens,).

    Args:
        tokenizer: puts no special tokens around a text.
        texts: read once, some at a time.
    """
    counts = np.zeros(_vocabulary_size(tokenizer))
    remaining = iter(texts)
    while batch := list(islice(remaining, TEXTS_AT_ONCE)):
        ids = [number for encoding in tokenizer.encode_batch(batch) for number in encoding.ids]
        counts += np.bincount(np.array(ids, np.int64), minlength=len(counts))
    return np.asarray(counts / max(1.0, counts.sum()), np.float64)


def token_vectors(encoder: SentenceTransformer) -> Vectors:
    """Returns what an encoder without Dense layer gives of each token alone, special ones around it: (tokens, hidden).

    Args:
        encoder: a Transformer and a Pooling; rows of numbers that its vocabulary lacks are zero.
    """
    import torch
    from tqdm import tqdm

    tokenizer = encoder.tokenizer.backend_tokenizer
    around = tokenizer.encode("a")
    own = [place for place, special in enumerate(around.special_tokens_mask) if not special]
    before, after = around.ids[: own[0]], around.ids[own[-1] + 1 :]
    vectors = np.zeros((_vocabulary_size(tokenizer), int(encoder.get_embedding_dimension() or 0)), np.float32)
    numbers = sorted(tokenizer.get_vocab().values())
    with torch.inference_mode(), tqdm(total=len(numbers), desc="token vectors", unit="token", mininterval=1) as bar:
        for start in range(0, len(numbers), TOKENS_AT_ONCE):
            part = numbers[start : start + TOKENS_AT_ONCE]
            ids = torch.tensor([[*before, number, *after] for number in part], device=encoder.device)
            features: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if "token_type_ids" in encoder.tokenizer.model_input_names:
                features["token_type_ids"] = torch.zeros_like(ids)
            vectors[part] = encoder.eval()(features)["sentence_embedding"].float().numpy(force=True)
            bar.update(len(part))
    return vectors


def weighted(vectors: Vectors, frequencies: NDArray[np.float64], special: Iterable[int]) -> Vectors:
    """Returns token vectors of which frequent ones do not rule the mean over the tokens of a text: (tokens, hidden).

    Each is weighted by the smooth inverse of its frequency p, a / (a + p), and all are scaled so that the mean square
    of a component is 1, for which the learning rate is meant. Source: Arora, Liang and Ma, A Simple but Tough-to-Beat
    Baseline for Sentence Embeddings, 2017. What they subtract, common to all sentences, the Dense layer's bias does.

    Args:
        vectors: (tokens, hidden), of each token by itself.
        frequencies: (tokens,), of the tokens in the texts.
        special: numbers of tokens that say nothing; their rows become zero.
    """
    result = vectors * (SMOOTHING / (SMOOTHING + frequencies))[:, None]
    result[list(special)] = 0
    scale = np.sqrt(np.square(result).mean())
    return (result / (scale or 1.0)).astype(np.float32)


def _vocabulary_size(tokenizer: Tokenizer) -> int:
    """Returns the number of rows for all tokens of a vocabulary, whose numbers may have holes."""
    return max(tokenizer.get_vocab().values()) + 1


def read_static_record(folder: Path) -> StaticRecord | None:
    """Returns the record of token vectors; None without one, or of another format."""
    try:
        return read_record(StaticRecord, folder / RECORD, "")
    except InputError:
        return None


def _load_encoder(config: DistillConfig, source: str) -> SentenceTransformer:
    """Loads a backbone under mean pooling, or what a text encoder of this project has below its Dense layer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    from training.run.distributed import device_of
    from turkish_clip.dual_encoder import text_side_of
    from turkish_clip.encoder import ModelError, build_text_encoder, load_model
    from turkish_clip.resolve import resolve_models

    device, revision = device_of(config.device), config.backbone_revision or None
    spec = resolve_models(locate_model(source, config.folder), None, revision=revision)
    if spec.record is None:
        model = build_text_encoder(spec.text, dim=1, max_tokens=LONGEST, revision=revision, device=device)
    else:
        model = load_model(spec.text, revision=revision, device=device)
    modules = list(text_side_of(model))[:2]
    if not isinstance(modules[0], Transformer):
        raise ModelError(
            f"expected a backbone, or a text encoder with one, for 'static_from', got {source}, which begins with "
            f"{type(modules[0]).__name__}; name another, or go on from it with --init"
        )
    return SentenceTransformer(modules=modules, device=device)
