"""Whether a model can be had at all: said at once, where the Hub's client would try again for two minutes."""

from __future__ import annotations

import os
from pathlib import Path

from turkish_clip.errors import InputError, one_line

HOST = "sentence-transformers"  # whose models have names without an owner, such as clip-ViT-B-32
ANY_MODEL = ("modules.json", "config.json")  # one of which each has


class UnreachableError(InputError):
    """A model that is no folder, and not to be had from the Hub either."""


def check_reachable(name: str, revision: str | None = None) -> None:
    """Sees that a name is a folder, a model in the Hub's cache, or that the Hub answers; what it answers is not asked.

    Raises:
        UnreachableError: none of them; a name that can be no Hub id is told as a folder that is not there.
    """
    if Path(name).exists():
        return
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    names = [name] if "/" in name else [f"{HOST}/{name}", name]
    caches = {None, os.environ.get("SENTENCE_TRANSFORMERS_HOME")}  # the Hub's own, and the host's
    try:
        cached = [
            try_to_load_from_cache(repository, file, cache_dir=cache, revision=revision or None)
            for repository in names
            for cache in caches
            for file in ANY_MODEL
        ]
    except HFValidationError as error:
        raise UnreachableError(f"expected a model, got {name}, which is no folder here; check the path") from error
    if constants.HF_HUB_OFFLINE or any(isinstance(path, str) for path in cached):
        return
    try:
        HfApi().file_exists(names[0], ANY_MODEL[0], revision=revision or None)
    except HfHubHTTPError:
        return  # loading says which: no such model, or not for everyone
    except Exception as error:
        raise UnreachableError(
            f"expected a model, got {name}, which is no folder here, and no answer from the Hub "
            f"({constants.ENDPOINT}): {one_line(error)}; check the path, or the connection"
        ) from error
