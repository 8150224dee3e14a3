"""The Hugging Face Hub: which commit a name stands for, and uploads in one commit, tried again where that helps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from turkish_clip.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger("training")
Result = TypeVar("Result")
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0  # doubled after each attempt
BUSY = (408, 429, 500, 502, 503, 504)
ADVICE = {
    401: "run `hf auth login`, or set HF_TOKEN to a token with write access",
    403: "use a token that may write there, or open a pull request with --create_pr",
    404: "check the name, and whether the token may see the repository",
    409: "somebody else has just changed it; look at the repository, then run the same again",
}


class PushError(InputError):
    """An upload that failed."""


@dataclass(frozen=True)
class Upload:
    """Where a folder goes, and how.

    Attributes:
        repository: owner/name.
        revision: the branch, made if need be; empty: main.
    """

    repository: str
    private: bool = False
    revision: str = ""
    create_pr: bool = False
    message: str = "Upload the model"


def full_id(model: str) -> str:
    """A Hub id with its owner: that of sentence-transformers' own models may be left out.

    >>> full_id("clip-ViT-B-32")
    'sentence-transformers/clip-ViT-B-32'
    """
    return model if "/" in model else f"sentence-transformers/{model}"


def commit_of(name: str, revision: str = "", kind: str = "model") -> str:
    """The commit that was loaded under a Hub id, as the client's cache has it, online or offline.

    Args:
        name: Hub id, or a folder.
        revision: branch, tag or commit that was asked for; empty: main.
        kind: "model" or "dataset".

    Returns:
        Forty hexadecimal digits; empty for a folder, or where the cache does not know it.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(name).exists():
        return ""
    for file in ("README.md",) if kind == "dataset" else ("modules.json", "config.json"):
        try:
            found = try_to_load_from_cache(full_id(name), file, revision=revision or None, repo_type=kind)
        except HFValidationError:  # a name that no repository can have, such as that of a table
            return ""
        if isinstance(found, str):
            return Path(found).parent.name
    return ""


def push(folder: Path, upload: Upload, api: HfApi | None = None) -> str:
    """Uploads a folder in one commit; the repository and the branch are made where they are not there.

    Args:
        folder: goes up as it is, and is left as it is.
        upload: where to.
        api: the client; None: one for the configured endpoint and token.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        PushError: no token or a refused one, no such repository, a conflict, a public repository that was asked to be
            private, or a Hub that does not answer after five attempts.
    """
    from huggingface_hub import HfApi

    client = api or HfApi()
    where = upload.repository
    _make_repository(client, upload)
    if upload.revision and not upload.create_pr:
        _insist(lambda: client.create_branch(where, branch=upload.revision, exist_ok=True), where)
    commit = _insist(
        lambda: client.upload_folder(
            repo_id=where,
            folder_path=folder,
            revision=upload.revision or None,
            create_pr=upload.create_pr,
            commit_message=upload.message,
        ),
        where,
    )
    return str(commit.pr_url or commit.commit_url)


def _make_repository(client: HfApi, upload: Upload) -> None:
    where = upload.repository
    if not _insist(lambda: client.repo_exists(where), where):
        _insist(lambda: client.create_repo(where, private=upload.private, exist_ok=True), where)
    elif upload.private and not _insist(lambda: client.repo_info(where), where).private:
        raise PushError(
            f"expected {where} to be private, got a public repository of that name; make it private in its settings, "
            "or push to another name"
        )


def _insist(call: Callable[[], Result], where: str) -> Result:
    """Makes a call to the Hub, up to five times where it is busy or the connection is cut.

    What went up before is not sent again: the client asks the Hub what it has.
    """
    from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError  # type: ignore[attr-defined]

    attempt = 1
    while True:
        try:
            return call()
        except LocalTokenNotFoundError as error:
            raise PushError(f"expected a token for {where}, got none; {ADVICE[401]}") from error
        except (HTTPError, OSError, RuntimeError) as error:
            cause = error.__cause__ if isinstance(error, RuntimeError) else error  # a large file's is wrapped
            if not isinstance(cause, (HTTPError, OSError)):
                raise
            status = _status(cause)
            if status is not None and status not in BUSY:
                raise _refused(cause, status, where) from error
            if attempt == ATTEMPTS:
                raise PushError(
                    f"expected an answer for {where}, got {_reason(cause)} {ATTEMPTS} times; "
                    "nothing is lost: run the same again later"
                ) from error
            wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            attempt += 1
            log.warning("%s; again in %g s (attempt %d of %d)", _reason(cause), wait, attempt, ATTEMPTS)
            time.sleep(wait)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _refused(error: BaseException, status: int, where: str) -> PushError:
    advice = ADVICE.get(status, "look at the Hub's answer")
    return PushError(f"expected the Hub to take {where}, got {_reason(error)}; {advice}")


def _reason(error: BaseException) -> str:
    status = _status(error)
    text = getattr(error, "server_message", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{status} ({text[:160]})" if status is not None else f"{type(error).__name__}: {text[:160]}"
