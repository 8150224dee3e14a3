"""Uploads a folder to the Hugging Face Hub in one commit, with retries after temporary faults."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from turkish_clip.errors import InputError, is_disk_full
from turkish_clip.verify import RECORD

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
    409: "somebody else has just changed it; look at the repository, then run the same command again",
}


class PushError(InputError):
    """An upload that failed."""


@dataclass(frozen=True)
class Upload:
    """The destination and the options of an upload.

    Attributes:
        repository: owner/name.
        revision: the branch, created if missing; empty means main.
        message: of the commit.
    """

    repository: str
    private: bool = False
    revision: str = ""
    create_pr: bool = False
    message: str = "Upload the model"


def check_token(where: str) -> None:
    """Checks that a token for a repository is configured, before the long work whose result is uploaded.

    Raises:
        PushError: none is.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise PushError(f"expected a token for {where}, got none; {ADVICE[401]}")


def push(folder: Path, upload: Upload, api: HfApi | None = None) -> str:
    """Uploads a folder in one commit, and creates the repository and the branch if they are missing.

    The branch then holds the folder and nothing else: other files of an earlier version are deleted in the same commit,
    and stay in the history. A pull request deletes nothing.

    Args:
        folder: uploaded as it is.
        upload: the destination.
        api: the client; None takes one for the configured endpoint and token.

    Returns:
        The URL of the commit or of the pull request.

    Raises:
        PushError: the token is missing or refused, the repository holds other files or is public but has to be private,
            another commit came in between, the Hub refuses the card, or it does not answer in five attempts.
    """
    from huggingface_hub import HfApi

    client, where = api or HfApi(), upload.repository
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
            delete_patterns=None if upload.create_pr else ["*"],
        ),
        where,
        attempts=1 if upload.create_pr else ATTEMPTS,  # a second one could open a second pull request
    )
    return str(commit.pr_url or commit.commit_url)


def _make_repository(client: HfApi, upload: Upload) -> None:
    """Creates the repository if it is missing; checks that it is private if asked, and empty or an earlier version."""
    where = upload.repository
    if not _insist(lambda: client.repo_exists(where), where):
        # None, not False: an organisation's repositories may be private by default
        _insist(lambda: client.create_repo(where, private=upload.private or None, exist_ok=True), where)
    if upload.private and not _insist(lambda: client.repo_info(where), where).private:
        raise PushError(
            f"expected {where} to be private, got a public repository of that name; make it private in its settings, "
            "or push to another name"
        )
    files = set(_insist(lambda: client.list_repo_files(where), where)) - {".gitattributes", "README.md", "README.tr.md"}
    if files and RECORD not in files and not upload.create_pr:
        raise PushError(
            f"expected {where} to be empty or an earlier version of this model, got a repository with other files "
            f"({', '.join(sorted(files)[:3])}); push to another name, or open a pull request with --create_pr"
        )


def _insist(call: Callable[[], Result], where: str, attempts: int = ATTEMPTS) -> Result:
    """Calls the Hub, and retries with growing waits while it is busy or the connection is cut.

    A retry does not send files again that the Hub already has: the client asks for them first.
    """
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    attempt = 1
    while True:
        try:
            return call()
        except LocalTokenNotFoundError as error:
            raise PushError(f"expected a token for {where}, got none; {ADVICE[401]}") from error
        except OfflineModeIsEnabled as error:
            raise PushError(f"expected to reach the Hub for {where}, got offline mode; unset HF_HUB_OFFLINE") from error
        except ValueError as error:  # the client's type for a card whose metadata the Hub refuses
            raise PushError(
                f"expected a card that the Hub accepts for {where}, got {_reason(error)}; correct it"
            ) from error
        except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:
            cause = error.__cause__ or error if isinstance(error, RuntimeError) else error  # wrapped if of a large file
            if is_disk_full(error):  # of this machine: the client keeps parts of large files
                raise
            status = _status(cause)
            if status is not None and status not in BUSY:
                raise _refused(cause, status, where) from error
            if attempt == attempts:
                raise PushError(
                    f"expected an answer for {where}, got {_reason(cause)} in attempt {attempt} of {attempts}; nothing "
                    "is lost: look at the repository, then run the same command again"
                ) from error
            wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            attempt += 1
            log.warning("%s; again in %g s (attempt %d of %d)", _reason(cause), wait, attempt, attempts)
            time.sleep(wait)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _refused(error: BaseException, status: int, where: str) -> PushError:
    advice = ADVICE.get(status, "look at the Hub's answer")
    return PushError(f"expected the Hub to accept {where}, got {_reason(error)}; {advice}")


def _reason(error: BaseException) -> str:
    status = _status(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = getattr(error, "server_message", None) or (" ".join(lines) if isinstance(error, ValueError) else lines[0])
    return f"{status} ({text[:160]})" if status is not None else f"{type(error).__name__}: {text[:160]}"
