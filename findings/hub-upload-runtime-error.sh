#!/usr/bin/env bash
# A large file that is refused while upload_folder sends it raises RuntimeError, not an HTTP error.
#
# An expert would guess: HfHubHTTPError, as for any other refusal; the documentation of upload_folder names an HTTP
#   error and ValueError alone. A retry around HTTP errors and OSError would then cover an upload.
# What happens: all that goes wrong while one file is sent over LFS is wrapped: RuntimeError("Error while uploading
#   ..."), the HTTP error only in its __cause__. A small file refused with the same status, in the commit itself,
#   raises HfHubHTTPError. So code that was tried with small files meets another type with its first large one.
# Seen with: huggingface_hub 2.4.0, over LFS (HF_HUB_DISABLE_XET=1, or a server without Xet), against a server on this
#   machine's loopback. 403 is what storage answers when a signed address has run out.
# What to do: catch RuntimeError too, and judge by error.__cause__ whether another try makes sense.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0
cd "$folder"
export HF_HOME="$folder/home" HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_UPDATE_CHECK=1 \
  HF_HUB_DISABLE_PROGRESS_BARS=1 NO_PROXY=127.0.0.1

"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError


class SmallHub(BaseHTTPRequestHandler):
    """Takes a folder's names; refuses the large file itself, and the commit that holds the small one."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])).splitlines()[0])
        if "/preupload/" in self.path:
            modes = {"large.bin": "lfs", "small.txt": "regular"}
            paths = [file["path"] for file in asked["files"]]
            files = [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in paths]
            self.answer(200, {"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            actions = {"upload": {"href": f"http://{self.headers['Host']}/storage"}}
            objects = [{**file, "actions": actions} for file in asked["objects"]]
            self.answer(200, {"transfer": "basic", "objects": objects})
        else:
            self.answer(403, {"error": "no"})

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(403, {"error": "no"})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


print("huggingface_hub", huggingface_hub.__version__)
server = ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
threading.Thread(target=server.serve_forever, daemon=True).start()
api = HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_test")

raised = {}
for name, size in (("small.txt", 10), ("large.bin", 10_000)):
    place = Path(name).stem
    Path(place).mkdir()
    Path(place, name).write_bytes(bytes(range(10)) * (size // 10))
    try:
        api.upload_folder(repo_id="someone/something", folder_path=place)
    except Exception as error:
        cause = error.__cause__
        raised[name] = (type(error), type(cause), getattr(getattr(cause, "response", None), "status_code", None))
        line = str(error).splitlines()[0]
        print(f"{name}: {type(error).__name__}({line!r}), cause {type(cause).__name__}")
    else:
        sys.exit(f"changed: {name} was refused with 403, and upload_folder says nothing")
server.shutdown()

if not issubclass(raised["small.txt"][0], HfHubHTTPError):
    sys.exit(f"changed: a refused small file raises {raised['small.txt'][0].__name__}")
if raised["large.bin"][0] is not RuntimeError:
    sys.exit(f"changed: a refused large file raises {raised['large.bin'][0].__name__}")
if not issubclass(raised["large.bin"][1], HfHubHTTPError) or raised["large.bin"][2] != 403:
    sys.exit(f"changed: the cause of the RuntimeError is {raised['large.bin'][1].__name__}")
print("as described")
PYTHON
