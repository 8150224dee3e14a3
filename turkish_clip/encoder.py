"""Assembles models: the Turkish text encoder, and one model that routes text to it and images to CLIP.

The models are plain compositions of sentence-transformers modules, which `SentenceTransformer(folder_or_id)` loads
without this package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase, Normalizer, Sequence
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from turkish_clip.resolve import ModelError as ModelError
from turkish_clip.resolve import check_reachable
from turkish_clip.text import turkish_normalizer

MAX_TOKENS = 128
# Names that current versions write and older ones do not know → names that both resolve.
OLDER_NAMES = {
    "sentence_transformers.base.modules.normalize.Normalize": "sentence_transformers.models.Normalize",  # moved in 6
    "TokenizersBackend": "PreTrainedTokenizerFast",  # renamed in transformers 5
}
NAMING_FILES = ("modules.json", "router_config.json", "tokenizer_config.json")
# Image models whose text side was trained on lower case, padded to its full length, without a mask. The host pads to
# the longest text of a batch. Source: the conversion scripts of both models in transformers.
PADDED_IN_TRAINING = ("siglip", "siglip2")
TASK = "query"  # what a pair takes texts as if its text encoder is static, which knows no {"text": …}
PROBE = Image.new("RGB", (32, 32), "white")  # embedded to see a model's width, which its configuration may not give


def build_text_encoder(
    backbone: str | Path,
    *,
    dim: int,
    max_tokens: int = MAX_TOKENS,
    revision: str | None = None,
    device: str | None = None,
    normalise: bool = True,
    prompt: str = "",
    pooling: str = "mean",
) -> SentenceTransformer:
    """Puts a BERT-like backbone under pooling, a dense layer and normalisation.

    Args:
        backbone: Hub id or folder of a transformers text encoder with its tokenizer.
        dim: width of the vectors, that of the image model's space.
        max_tokens: longer text is truncated to this many tokens, [CLS], [SEP] and the prompt included.
        revision: branch, tag or commit of a Hub id.
        device: torch device of the model; None lets sentence-transformers choose.
        normalise: whether the vectors have norm 1; if not, the last module is left out.
        prompt: what `encode` puts before each text, as some backbones expect ("query: "); it is saved with the model.
        pooling: "mean" over the tokens, or "cls": the first one, [CLS], alone.

    Returns:
        Transformer → Pooling → Dense(hidden → dim, no activation) → Normalize, whose `encode` gives (n, dim)
        float32 unit vectors. The dense layer is initialised from torch's random generator. The tokenizer composes NFD
        text, straightens apostrophes, takes out invisible characters, and lowercases by Turkish rules if it lowercases
        at all; these rules are stored in tokenizer.json.

    Raises:
        ModelError: the backbone can't be loaded, is no text encoder, has a slow tokenizer, has fewer positions than
            `max_tokens`, or begins no text with a [CLS] that is to be taken.
    """
    transformer = _load_backbone(str(backbone), revision, max_tokens)
    positions = getattr(transformer.config, "max_position_embeddings", max_tokens)
    if max_tokens > positions:
        raise ModelError(
            f"expected max_tokens of at most {positions}, the positions of {backbone}, got {max_tokens}; lower it"
        )
    transformer.processor = _turkish_tokenizer(transformer.tokenizer, str(backbone), revision, max_tokens)
    if pooling == "cls" and not transformer.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"][0]:
        raise ModelError(f"expected a backbone that begins texts with [CLS], got {backbone}; take mean pooling")
    hidden = transformer.get_embedding_dimension()
    modules = [
        transformer,
        Pooling(hidden, pooling_mode=pooling),
        Dense(hidden, dim, activation_function=torch.nn.Identity()),
    ]
    if normalise:
        modules.append(Normalize())
    return SentenceTransformer(modules=modules, device=device, similarity_fn_name="cosine", **_prompts(prompt))


def prompt_of(model: SentenceTransformer) -> str:
    """Returns what a model's `encode` puts before each text; empty for nothing."""
    return model.prompts.get(model.default_prompt_name) or "" if model.default_prompt_name else ""


def _prompts(prompt: str) -> dict[str, Any]:
    """Returns the arguments of a SentenceTransformer with one prompt for `encode`, encode_query and encode_document."""
    return {"prompts": {"query": prompt, "document": prompt}, "default_prompt_name": "query"} if prompt else {}


def max_tokens_of(model: SentenceTransformer) -> int:
    """Returns the number of tokens, special ones included, at which a model cuts a text; 0: it reads all of it."""
    limit = model.max_seq_length
    return int(limit) if limit and math.isfinite(limit) else 0


def bare_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a copy of a tokenizer that neither cuts nor pads, nor puts special tokens around a text."""
    parts = json.loads(tokenizer.to_str())
    parts["post_processor"] = None
    bare = Tokenizer.from_str(json.dumps(parts))
    bare.no_truncation()
    bare.no_padding()
    return bare


def pair(
    text_encoder: SentenceTransformer | str | Path,
    image_encoder: SentenceTransformer | str | Path,
    *,
    device: str | None = None,
) -> SentenceTransformer:
    """Joins a text encoder and an image model in one SentenceTransformer.

    Args:
        text_encoder: the text encoder, or its Hub id or folder.
        image_encoder: the image model, or its Hub id or folder, for example "clip-ViT-B-32".
        device: torch device of the result; None lets sentence-transformers choose.

    Returns:
        A model whose `encode` takes texts or images (not both in one call) and returns (n, dim) float32, bit-identical
        to those of the text encoder or the image model. Each route keeps its own token limit. Image vectors are raw or
        unit, as the image model gives them, so compare by cosine, as `similarity` does. The prompt is that of the text
        encoder. The modules do not include the
        text encoder's metadata, such as a fitted temperature: if you save the pair yourself, copy the encoder's
        turkish_clip.json beside it.

    Raises:
        ModelError: a model can't be loaded, the first has no text side, the second no image side, or the widths differ.
    """
    text = _load_model(text_encoder, device)
    image = _load_model(image_encoder, device)
    if not text.supports("text"):
        raise ModelError(f"expected a text encoder first, got {_sides(text)}; give pair(text_encoder, image_encoder)")
    if not image.supports("image"):
        raise ModelError(
            f"expected an image model second, got {_sides(image)}, which has no image side; give pair(text_encoder, "
            "image_encoder), for example with the image model clip-ViT-B-32"
        )
    check_one_width(text, image)
    routes: dict[tuple[str | None, str | None], str] = {(None, "text"): "text", (None, "image"): "image"}
    if isinstance(text[0], StaticEmbedding):
        routes[TASK, None] = "text"
    sides = getattr(image[0], "sub_modules", {})  # of a pair, as an image model with a ResNet is, its images alone
    modules = list(sides["image"]) if "image" in sides else list(image.children())
    router = Router({"text": list(text.children()), "image": modules}, route_mappings=routes)
    return SentenceTransformer(
        modules=[router], device=device, similarity_fn_name="cosine", **_prompts(prompt_of(text))
    )


def check_one_width(
    text: SentenceTransformer,
    image: SentenceTransformer,
    text_name: str = "the text encoder",
    image_name: str = "the image model",
) -> None:
    """Checks that texts and images get vectors of one width.

    Args:
        text: a model with a text side.
        image: a model with an image side.
        text_name: what an error calls the first.
        image_name: what an error calls the second.

    Raises:
        ModelError: the widths differ.
    """
    widths = text.encode("a").shape[-1], image.encode(PROBE).shape[-1]
    if widths[0] != widths[1]:
        raise ModelError(
            f"expected vectors of one width, got {widths[0]} from {text_name} and {widths[1]} from {image_name}; "
            "pair it with the image model that it was trained for"
        )


def save_text_encoder(model: SentenceTransformer, folder: str | Path) -> None:
    """Saves a text encoder or a pair in a form that sentence-transformers 5.4 and transformers 4.57 load as well.

    Weights are saved as safetensors. The automatic model card is left out: it would describe the model wrongly.

    Args:
        model: a text encoder, or a pair.
        folder: the model's folder, made if it does not exist.
    """
    model.save(str(folder), create_model_card=False, safe_serialization=True)
    for path in Path(folder).rglob("*.json"):
        if path.name in NAMING_FILES:
            text = path.read_text(encoding="utf-8")
            for name, older in OLDER_NAMES.items():
                text = text.replace(f'"{name}"', f'"{older}"')
            path.write_text(text, encoding="utf-8")


def image_processor(model: SentenceTransformer) -> Any:
    """Returns the transformers processor of a model's (or a pair's) images, or None if it has none."""
    routes = getattr(model[0], "sub_modules", {})
    processor = getattr(routes["image"][0] if "image" in routes else model, "processor", None)
    return getattr(processor, "image_processor", processor)


def image_side(model: SentenceTransformer) -> int | None:
    """Returns the side in pixels to which a model's (or a pair's) processor resizes images; None if it gives none."""
    images = image_processor(model)
    for name in ("crop_size", "size"):
        size = getattr(images, name, None)
        if isinstance(size, int):
            return size
        for key in ("height", "shortest_edge"):
            side = size.get(key) if isinstance(size, Mapping) else getattr(size, key, None)
            if isinstance(side, int):
                return side
    return None


def load_model(name: str | Path, *, revision: str | None = None, device: str | None = None) -> SentenceTransformer:
    """Loads a SentenceTransformer without remote code, its text side set up as it was trained.

    Args:
        name: Hub id or folder.
        revision: branch, tag or commit of a Hub id.
        device: torch device of the model; None lets sentence-transformers choose.

    Raises:
        UnreachableError: it is neither on this machine, nor does the Hub answer.
        ModelError: the model can't be loaded, or this machine has no such device.
    """
    _check_device(device)
    check_reachable(str(name), revision)  # loading tries for two minutes
    try:
        model = SentenceTransformer(str(name), revision=revision or None, device=device, trust_remote_code=False)
    except Exception as error:  # the Hub client, transformers and safetensors raise unrelated types
        raise _unloadable("model", str(name), error) from error
    for module in model.children():
        if isinstance(module, Transformer) and module.config.model_type in PADDED_IN_TRAINING:
            _pad_as_in_training(module)
    return model


def as_texts(model: Any, texts: Iterable[str]) -> list[Any]:
    """Returns texts in the form that a model's `encode` takes for texts, whatever they say.

    A SentenceTransformer with an image side takes a string that is a path, an address or a data: URI for an image, and
    fetches it.

    Args:
        model: that encodes them; other ones than a SentenceTransformer take texts alone.
        texts: the texts.
    """
    if not isinstance(model, SentenceTransformer) or not model.supports("image"):
        return list(texts)
    routes = getattr(model[0], "sub_modules", {})
    key = TASK if "text" in routes and isinstance(routes["text"][0], StaticEmbedding) else "text"
    return [{key: text} for text in texts]


def query_prompt(model: SentenceTransformer) -> str | None:
    """Returns what a model puts before a text that images are searched with: its default prompt, or that of queries."""
    return model.prompts.get(model.default_prompt_name or "query") or None


def available_devices() -> dict[str, bool]:
    """Returns for each torch device type that is supported (cpu, cuda, mps) whether this machine has one."""
    return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def _check_device(device: str | None) -> None:
    """Checks that this machine has a torch device such as cpu, cuda, cuda:1 or mps.

    Raises:
        ModelError: it has none.
    """
    devices = available_devices()
    try:
        usable = device is None or devices.get(torch.device(device).type, True)  # other types fail when loading
    except RuntimeError:
        usable = False
    if not usable:
        available = ", ".join(name for name, present in devices.items() if present)
        raise ModelError(f"expected a device that this machine has ({available}), got {device!r}; choose with --device")


def _load_model(model: SentenceTransformer | str | Path, device: str | None) -> SentenceTransformer:
    return model if isinstance(model, SentenceTransformer) else load_model(model, device=device)


def _load_backbone(backbone: str, revision: str | None, max_tokens: int) -> Transformer:
    hub = {"revision": revision} if revision else {}
    check_reachable(backbone, revision)
    try:
        transformer = Transformer(
            backbone,
            max_seq_length=max_tokens,
            model_kwargs=dict(hub),
            processor_kwargs=dict(hub),
            config_kwargs=dict(hub),
        )
    except Exception as error:  # as in load_model
        raise _unloadable("backbone", backbone, error) from error
    if transformer.modalities != ["text"] or transformer.module_output_name != "token_embeddings":
        sides = ", ".join(map(str, transformer.modalities))
        raise ModelError(f"expected a text encoder such as a BERT as the backbone, got {backbone}, which takes {sides}")
    return transformer


def _pad_as_in_training(transformer: Transformer) -> None:
    """Makes the text side of a SigLIP lower the case of texts and pad them to its full length, without a mask."""
    length = transformer.config.text_config.max_position_embeddings
    usual = {"padding": "max_length", "max_length": length, "return_attention_mask": False}
    transformer.processing_kwargs["text"] = {**usual, **transformer.processing_kwargs.get("text", {})}
    backend = getattr(transformer.tokenizer, "backend_tokenizer", None)
    inner = getattr(backend, "normalizer", None)
    if backend is not None and (inner is None or "A" in inner.normalize_str("A")):
        backend.normalizer = Sequence([Lowercase(), *([inner] if inner else [])])


def _turkish_tokenizer(
    tokenizer: PreTrainedTokenizerBase, backbone: str, revision: str | None, max_tokens: int
) -> PreTrainedTokenizerFast:
    """Returns the backbone's tokenizer with `turkish_normalizer` in front of its own normalizer.

    The result is of the general class, which takes tokenizer.json as it is: a class such as BertTokenizer builds its
    own normalizer on loading, and would drop ours. It would also drop that of the backbone's tokenizer.json, which
    holds unless tokenizer_config.json says itself whether to lowercase.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise ModelError(f"expected a backbone with a fast tokenizer, got {backbone}; convert it to tokenizer.json")
    stored = _stored_normalizer(backbone, revision)
    inner.normalizer = turkish_normalizer(inner.normalizer if stored is None else stored)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=max_tokens,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def _stored_normalizer(backbone: str, revision: str | None) -> Normalizer | None:
    """Returns the normalizer of a backbone's tokenizer.json; None without one, or where tokenizer_config.json rules."""
    from transformers.utils import cached_file

    def read(name: str) -> str | None:
        hub = {"revision": revision} if revision else {}
        path = cached_file(backbone, name, _raise_exceptions_for_missing_entries=False, **hub)
        return None if path is None else Path(path).read_text(encoding="utf-8")

    stored, config = read("tokenizer.json"), json.loads(read("tokenizer_config.json") or "{}")
    if stored is None or "do_lower_case" in config or "strip_accents" in config:
        return None
    normalizer: Normalizer | None = Tokenizer.from_str(stored).normalizer
    return normalizer


def _sides(model: SentenceTransformer) -> str:
    return f"a model of {' and '.join(map(str, model.modalities))}"


def _unloadable(kind: str, name: str, error: Exception) -> ModelError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    advice = "check the id or folder, and the connection (without one, give a folder)"
    if not Path(name).exists():
        lost = isinstance(error, ConnectionError) or "connect" in reason or "offline" in reason.lower()
        why = "the Hub does not answer" if lost else f"{type(error).__name__}: {reason}"
        reason = f"no such folder from {Path.cwd()}, nor a model of that id ({why})"
        advice = "give the whole path of its folder; or check the id, and the connection"
        return ModelError(f"expected a {kind} at {name!r}, got {reason}; {advice}")
    if isinstance(error, ImportError):
        reason, advice = reason.partition(". ")[0], "install what it asks for, for the same torch"
    return ModelError(f"expected a {kind} at {name!r}, got {type(error).__name__}: {reason}; {advice}")
