"""A small Hugging Face Hub on loopback: what its clients ask for when models and data sets go up and come down.

It speaks HTTP and keeps everything in memory. Faults are ordered with `fail`; what was asked is in `requests`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "hf_test", "hf_reader"  # tokens: one may write, one may only read
LFS_BYTES = 50_000  # a file from this size on goes up as LFS, as does any .safetensors
CUT = "cut"  # a fault: the connection is closed in the middle of the request
LOST = "lost"  # a fault: the request is carried out, and its answer never sent
MOVED = "2026-01-01T00:00:00.000Z"

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Repository:
    """Files by commit, and names of commits."""

    name: str
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pull_requests: int = 0

    def commit(self, ref: str, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(f"{self.name} {ref} {len(self.commits)}".encode())
        for path in sorted(files):
            digest.update(path.encode() + files[path])
        sha = digest.hexdigest()
        self.commits[sha] = files
        self.refs[ref] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    method: str
    path: str
    status: int | str
    times: int


class StandInHub:
    """The server; use it as a context manager."""

    def __init__(self, page: int = 1000) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.sent: list[tuple[str, int]] = []  # path and bytes of each answer's body
        self.page = page
        self.lock = threading.RLock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> StandInHub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def put(self, kind: str, name: str, folder: Path | dict[str, bytes], *, private: bool = False) -> Repository:
        """Makes a repository of "models" or "datasets" out of a folder, or of contents by path."""
        if isinstance(folder, Path):
            contents = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        else:
            contents = folder
        repository = Repository(name, private)
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n", **contents})
        self.repositories[kind, name] = repository
        return repository

    def fail(self, method: str, path: str, status: int | str, times: int = 1) -> None:
        """The next `times` requests whose method and path (a regular expression) fit are answered with `status`."""
        self.faults.append(Fault(method, path, status, times))

    def environment(self, home: Path, token: str = WRITER) -> dict[str, str]:
        """The environment of a client process, with a cache of its own."""
        own = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "DISABLE_SAFETENSORS_CONVERSION": "1",
            "NO_PROXY": "127.0.0.1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return {**kept, **own}


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def serve(self) -> None:
        address = urlsplit(self.path)
        path, query = unquote(address.path), parse_qs(address.query)
        self.hub.requests.append(f"{self.command} {path}")
        fault = self.due_fault(path)
        if fault == CUT:
            self.rfile.read(min(1000, int(self.headers.get("Content-Length") or 0)))
            self.close_connection = True
            self.connection.close()
            return
        body = self.body()
        with self.hub.lock:
            ordered = isinstance(fault, int)
            answer = refuse(int(fault), "ordered by the test") if ordered else self.answer(path, query, body)  # type: ignore[arg-type]
        if fault == LOST:
            self.close_connection = True
            self.connection.close()
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.hub.sent.append((path, len(content)))
            self.wfile.write(content)

    def due_fault(self, path: str) -> int | str | None:
        with self.hub.lock:
            for fault in self.hub.faults:
                if fault.times and fault.method == self.command and re.search(fault.path, path):
                    fault.times -= 1
                    return fault.status
        return None

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def answer(self, path: str, query: dict[str, list[str]], body: bytes) -> Answer:
        if self.token not in ("", WRITER, READER):
            return refuse(401, "Invalid credentials in Authorization header")
        if path == "/api/whoami-v2":
            return as_json({"type": "user", "name": "tester"}) if self.token else refuse(401, "no token")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            said = re.search(r'^license: *"?([^"\n]*)', json.loads(body)["content"], re.MULTILINE)
            known = said is None or re.fullmatch(r"[a-z0-9.-]+", said[1].strip())
            errors = [] if known else [{"message": '"license" must be one of the known ones'}]
            return as_json({"errors": errors, "warnings": []}, 400 if errors else 200)
        if found := re.fullmatch(r"/lfs/(\w+)", path):
            return self.receive(found[1], body) if self.command == "PUT" else self.verify(json.loads(body))
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch(json.loads(body)) if self.token == WRITER else refuse(403, "this token may only read")
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", path):
            return self.resolve("datasets" if found[1] else "models", found[2], found[3], found[4])
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(\w[\w-]*)(?:/(.+))?)?", path):
            return self.repository(found[1], found[2], found[3] or "", found[4] or "main", query, body)
        return refuse(404, f"no such page: {path}")

    def create(self, asked: dict[str, Any]) -> Answer:
        name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        kind = f"{asked.get('type') or 'model'}s"
        about = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        if self.token != WRITER:
            return refuse(403, "this token may only read") if self.token else refuse(401, "no token")
        if (kind, name) in self.hub.repositories:
            return as_json({**about, "error": "You already created this repo"}, 409)
        repository = Repository(name, asked.get("visibility") == "private" or bool(asked.get("private")))
        repository.commit("main", {".gitattributes": b""})
        self.hub.repositories[kind, name] = repository
        return as_json(about)

    def batch(self, asked: dict[str, Any]) -> Answer:
        objects = []
        for wanted in asked["objects"]:
            href = f"{self.hub.url}/lfs/{wanted['oid']}"
            actions = {} if wanted["oid"] in self.hub.blobs else {"upload": {"href": href}, "verify": {"href": href}}
            objects.append({**wanted, **({"actions": actions} if actions else {})})
        return as_json({"transfer": "basic", "objects": objects})

    def receive(self, oid: str, content: bytes) -> Answer:
        if hashlib.sha256(content).hexdigest() != oid:
            return refuse(400, "other bytes than announced")
        self.hub.blobs[oid] = content
        return as_json({})

    def verify(self, asked: dict[str, Any]) -> Answer:
        known = len(self.hub.blobs.get(asked["oid"], b"")) == asked["size"]
        return as_json({}) if known else refuse(404, "never received")

    def repository(
        self, kind: str, name: str, verb: str, rest: str, query: dict[str, list[str]], body: bytes
    ) -> Answer:
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and not self.token):
            return refuse(404 if self.token else 401, f"Repository {name} not found", "RepoNotFound")
        if verb in ("commit", "preupload", "branch") and self.token != WRITER:
            return refuse(403, "this token may only read") if self.token else refuse(401, "no token")
        if verb == "branch":
            if rest in found.refs:
                return refuse(409, f"Reference {rest} exists already")
            found.refs[rest] = found.refs["main"]
            return as_json({})
        if verb == "commit":
            return self.commit(found, name, rest, "create_pr" in query, body)
        revision, _, below = rest.partition("/") if not rest.startswith("refs/") else (rest, "", "")
        sha = found.find(revision)
        if sha is None:
            return refuse(404, f"Revision {revision} not found", "RevisionNotFound")
        files = found.commits[sha]
        if verb == "preupload":
            modes = [preupload(asked, files) for asked in json.loads(body)["files"]]
            return as_json({"files": modes})
        if verb == "tree":
            return self.tree(files, below, query)
        if verb == "paths-info":
            asked = parse_qs(body.decode()).get("paths") if not body.startswith(b"{") else json.loads(body)["paths"]
            return as_json([entry(path, files[path]) for path in asked or [] if path in files])
        if verb in ("", "revision"):
            about = {"id": name, "sha": sha, "lastModified": MOVED, "private": found.private, "tags": []}
            return as_json({**about, "siblings": [{"rfilename": path} for path in files], "downloads": 0, "likes": 0})
        if verb == "refs":
            branches = [
                {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": sha} for ref, sha in found.refs.items()
            ]
            return as_json({"branches": branches, "tags": [], "converts": []})
        return refuse(404, f"no such page: {verb}")

    def commit(self, found: Repository, name: str, revision: str, create_pr: bool, body: bytes) -> Answer:
        base = found.find(revision)
        if base is None:
            return refuse(404, f"Revision {revision} not found", "RevisionNotFound")
        files = dict(found.commits[base])
        for line in body.decode().splitlines():
            record = json.loads(line)
            value = record["value"]
            if record["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif record["key"] == "deletedFile":
                files.pop(value["path"], None)
            elif record["key"] == "deletedFolder":
                files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
        pull_request = None
        if create_pr:
            found.pull_requests += 1
            revision = f"refs/pr/{found.pull_requests}"
            pull_request = f"{self.hub.url}/{name}/discussions/{found.pull_requests}"
        sha = found.commit(revision, files)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        return as_json({"success": True, "commitOid": sha, "commitUrl": url, "pullRequestUrl": pull_request})

    def tree(self, files: dict[str, bytes], below: str, query: dict[str, list[str]]) -> Answer:
        inside = {path: content for path, content in files.items() if not below or path.startswith(f"{below}/")}
        if below and not inside:
            return refuse(404, f"{below} does not exist", "EntryNotFound")
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        for path, content in inside.items():
            parts = path.removeprefix(f"{below}/" if below else "").split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(([below] if below else []) + parts[:depth])
                if recursive or depth == 1:
                    entries[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
            if recursive or len(parts) == 1:
                entries[path] = entry(path, content)
        start = int(query.get("cursor", ["0"])[0])
        status, headers, content = as_json(list(entries.values())[start : start + self.hub.page])
        if start + self.hub.page < len(entries):
            address, _, asked = self.path.partition("?")
            asked = re.sub(r"&?cursor=\d+", "", asked)
            headers["Link"] = f'<{self.hub.url}{address}?{asked}&cursor={start + self.hub.page}>; rel="next"'
        return status, headers, content

    def resolve(self, kind: str, name: str, revision: str, path: str) -> Answer:
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and not self.token):
            return refuse(404 if self.token else 401, f"Repository {name} not found", "RepoNotFound")
        sha = found.find(revision)
        if sha is None:
            return refuse(404, f"Revision {revision} not found", "RevisionNotFound")
        content = found.commits[sha].get(path)
        if content is None:
            status, headers, text = refuse(404, f"{path} does not exist", "EntryNotFound")
            return status, {**headers, "X-Repo-Commit": sha}, text
        headers = {"X-Repo-Commit": sha, "ETag": f'"{oid_of(path, content)}"', "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return 206, headers, content[start : end + 1]
        return 200, {**headers, "Content-Length": str(len(content))}, content


def is_lfs(path: str, size: int) -> bool:
    return path.endswith((".safetensors", ".parquet")) or size >= LFS_BYTES


def oid_of(path: str, content: bytes) -> str:
    if is_lfs(path, len(content)):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, Any]:
    about: dict[str, Any] = {"type": "file", "oid": oid_of(path, content), "size": len(content), "path": path}
    if is_lfs(path, len(content)):
        about["lfs"] = {"oid": about["oid"], "size": len(content), "pointerSize": 134}
    return about


def preupload(asked: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    path = asked["path"]
    mode = "lfs" if is_lfs(path, asked["size"]) else "regular"
    there = {"oid": oid_of(path, files[path])} if path in files else {}
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, **there}


def as_json(value: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def refuse(status: int, message: str, code: str = "") -> Answer:
    headers = {"Content-Type": "application/json", "X-Error-Message": message}
    if code:
        headers["X-Error-Code"] = code
    return status, headers, json.dumps({"error": message}).encode()
