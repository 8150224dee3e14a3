"""Uploads to the stand-in Hub: one commit, retries after temporary faults, a one-line error after others."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi
from stand_in_hub import CUT, LOST, READER, WRITER, StandInHub

from training.release.hub import PushError, Upload, push
from training.run.command import run_command

# The client's own use of its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
NAME = "org/turkish-clip-text"
MODEL = ("models", NAME)


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # ours between attempts, and the client's own
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[StandInHub]:
    with StandInHub() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 400)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# a model\n", encoding="utf-8")
    (tmp_path / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    return tmp_path


def client(server: StandInHub, token: str = WRITER) -> HfApi:
    return HfApi(endpoint=server.url, token=token)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def uploaded(server: StandInHub, ref: str = "main") -> dict[str, bytes]:
    repository = server.repositories[MODEL]
    files = dict(repository.commits[repository.refs[ref]])
    files.pop(".gitattributes")
    return files


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; give the same command again"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: expected free disk space, got a full disk"),
        (
            RuntimeError("Data processing error: IO error: No space left on device (os error 28)"),
            2,
            "error: expected free",
        ),
    ],
)
def test_an_upload_that_is_interrupted_or_finds_a_full_disk_commits_nothing(
    server: StandInHub, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    error: BaseException, code: int, said: str,
) -> None:  # fmt: skip
    api, before = client(server), contents(folder)

    def fail(**_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(api, "upload_folder", fail)
        with pytest.raises(SystemExit) as left:
            run_command(lambda _: push(folder, Upload(NAME), api), [])
    assert left.value.code == code
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(said)
    assert uploaded(server) == {}
    assert contents(folder) == before
    push(folder, Upload(NAME), api)  # the same command again
    assert uploaded(server) == before


def test_a_folder_goes_up_in_one_commit_and_stays_as_it_is(server: StandInHub, folder: Path) -> None:
    before = contents(folder)
    address = push(folder, Upload(NAME), client(server))
    assert address.startswith(f"{server.url}/{NAME}/commit/")
    assert uploaded(server) == before == contents(folder)
    assert sum("/commit/" in request for request in server.requests) == 1
    assert not server.repositories[MODEL].private


def test_private_and_a_branch(server: StandInHub, folder: Path) -> None:
    push(folder, Upload(NAME, private=True, revision="v1"), client(server))
    assert server.repositories[MODEL].private
    assert uploaded(server, "v1") == contents(folder)
    assert uploaded(server) == {}
    push(folder, Upload(NAME, private=True, revision="v1"), client(server))


def test_a_pull_request_leaves_main_alone(server: StandInHub, folder: Path) -> None:
    server.put("models", NAME, {"README.md": b"older"})
    address = push(folder, Upload(NAME, create_pr=True), client(server))
    assert address == f"{server.url}/{NAME}/discussions/1"
    assert uploaded(server) == {"README.md": b"older"}
    assert uploaded(server, "refs/pr/1") == contents(folder)


@pytest.mark.parametrize("fault", [503, 429, CUT, LOST])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/commit/"), ("PUT", "/lfs/"), ("POST", "/preupload/"), ("POST", "/api/repos/create")]
)
def test_temporary_faults_are_retried(
    server: StandInHub, folder: Path, fault: int | str, method: str, path: str
) -> None:
    server.fail(method, path, fault, times=2)
    push(folder, Upload(NAME), client(server))
    assert uploaded(server) == contents(folder)


@pytest.mark.parametrize(
    ("fault", "path", "message"),
    [
        (401, "/api/models/", r"expected the Hub to accept .*, got 401 .*; run `hf auth login`"),
        (403, "/commit/", r"got 403 .*; use a token that may write there, or open a pull request"),
        (404, "/commit/", r"got 404 .*; check the name"),
        (409, "/commit/", r"got 409 .*; somebody else has just changed it"),
        (
            503,
            "/commit/",
            r"got 503 .* in attempt 5 of 5; nothing is lost: look at the repository, then run the same command again",
        ),
        (CUT, "/commit/", r"got \w+: .* in attempt 5 of 5; nothing is lost"),
    ],
)
def test_permanent_faults_are_one_line(
    server: StandInHub, folder: Path, fault: int | str, path: str, message: str
) -> None:
    server.fail("GET" if fault == 401 else "POST", path, fault, times=99)
    before = contents(folder)
    with pytest.raises(PushError, match=message) as caught:
        push(folder, Upload(NAME), client(server))
    assert "\n" not in str(caught.value)
    assert contents(folder) == before
    assert NAME not in server.repositories or uploaded(server) == {}


def test_a_token_that_may_only_read(server: StandInHub, folder: Path) -> None:
    with pytest.raises(PushError, match="got 403 .*use a token that may write there"):
        push(folder, Upload(NAME), client(server, READER))
    with pytest.raises(PushError, match="got 401 .*hf auth login"):
        push(folder, Upload(NAME), client(server, "hf_wrong"))
    assert not server.repositories


def test_a_public_repository_is_refused_where_a_private_one_was_asked(server: StandInHub, folder: Path) -> None:
    server.put("models", NAME, {})
    with pytest.raises(PushError, match=f"expected {NAME} to be private, got a public repository"):
        push(folder, Upload(NAME, private=True), client(server))
    assert uploaded(server) == {}


def test_listings_come_in_pages(folder: Path) -> None:
    with StandInHub(page=2) as server:
        push(folder, Upload(NAME), client(server))
        names = {entry.path for entry in client(server).list_repo_tree(NAME, recursive=True)}
    assert names == {".gitattributes", "1_Pooling", *contents(folder)}


def test_a_second_version_leaves_nothing_of_the_first(server: StandInHub, folder: Path) -> None:
    (folder / "turkish_clip.json").write_text("{}", encoding="utf-8")
    (folder / "router_config.json").write_text("{}", encoding="utf-8")
    push(folder, Upload(NAME), client(server))
    (folder / "router_config.json").unlink()
    (folder / "README.md").write_text("# newer", encoding="utf-8")
    push(folder, Upload(NAME), client(server))
    assert uploaded(server) == contents(folder)


def test_somebody_elses_repository_is_left_alone(server: StandInHub, folder: Path) -> None:
    server.put("models", NAME, {"model.safetensors": b"theirs", "README.md": b"theirs"})
    with pytest.raises(PushError, match=r"expected .* to be empty or an earlier version .*\(model.safetensors\)"):
        push(folder, Upload(NAME), client(server))
    assert uploaded(server)["model.safetensors"] == b"theirs"


def test_offline_mode_is_reported_at_once(server: StandInHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match="got offline mode; unset HF_HUB_OFFLINE"):
        push(folder, Upload(NAME), client(server))


def test_a_pull_request_is_opened_once(server: StandInHub, folder: Path) -> None:
    server.put("models", NAME, {"README.md": b"older"})
    server.fail("POST", "/commit/", LOST)
    with pytest.raises(PushError, match="in attempt 1 of 1; nothing is lost: look at the repository"):
        push(folder, Upload(NAME, create_pr=True), client(server))
    assert server.repositories[MODEL].pull_requests == 1


def test_a_card_that_the_hub_refuses(server: StandInHub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: My Own\n---\n# a model\n", encoding="utf-8")
    with pytest.raises(PushError, match="expected a card that the Hub accepts .*license"):
        push(folder, Upload(NAME), client(server))
    assert uploaded(server) == {}
