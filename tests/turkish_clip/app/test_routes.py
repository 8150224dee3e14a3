"""The page's addresses: what they answer, what they refuse, and that the page asks no other host."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from samples import paint

from turkish_clip.app import build_page
from turkish_clip.app.photos import MAX_UPLOAD
from turkish_clip.app.routes import MAX_JSON, STATIC
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.search.index import ImageIndex

JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


def got(url: str, data: bytes | None = None, **headers: str) -> tuple[int, Message, bytes]:
    """Status, headers and body of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def ask(address: str, name: str, **given: Any) -> dict[str, Any]:
    status, _, body = got(f"{address}/ask/{name}", json.dumps(given).encode(), **JSON)
    return {"status": status, **json.loads(body)}


def test_foreign_hosts_and_sites_are_refused(address: str) -> None:
    assert got(address, Host="evil.example")[0] == 421
    assert got(f"{address}/ask/state", b"{}", Host="evil.example", **JSON)[0] == 421
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        assert got(address, Origin=origin)[0] == got(f"{address}/upload", b"x", Origin=origin, **BYTES)[0] == 403
    assert got(address, Origin=address)[0] == 200
    assert got(address, Host=address.removeprefix("http://").replace("127.0.0.1", "localhost"))[0] == 200


def test_the_page_names_no_other_host(address: str) -> None:
    names = {path.name for path in STATIC.iterdir()}
    assert names == {"page.html", "page.css", "page.js", "dom.js", "grid.js", "sections.js", "icon.svg"}
    for name in names:
        text = (STATIC / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[\w.]+\.\w+|@import|integrity=", text), name
    for path in ("/", "/page.js", "/ask/nothing", "/icon.svg"):
        policy = got(address + path)[1]["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert not re.search(r"\*|unsafe|https?:", policy)


def test_images_are_shown_and_saved_by_their_names_alone(address: str, indexed: Path) -> None:
    photo = ask(address, "search", words="kırmızı ev")["photos"][0]
    path = indexed / photo["name"]
    status, headers, body = got(f"{address}/thumbnail/{photo['id']}")
    assert (status, headers["Content-Type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    status, headers, body = got(f"{address}/view/{photo['id']}")
    assert (status, headers["Content-Type"], body) == (200, "image/png", path.read_bytes())
    status, headers, body = got(f"{address}/original/{photo['id']}")
    assert (status, body) == (200, path.read_bytes())
    assert headers["Content-Disposition"] == f"attachment; filename*=utf-8''{path.name}"
    for kind in ("thumbnail", "view", "original"):
        for name in ("0" * 32, "..%2f..%2fetc%2fpasswd", str(path).replace("/", "%2F"), photo["name"]):
            assert got(f"{address}/{kind}/{name}")[0] == 404
    for other in ("/etc/passwd", "/static/page.html", "/../page.py", "/file=/etc/passwd", "/gradio_api/info", "/docs"):
        assert got(address + other)[0] == 404


def test_what_browsers_do_not_show_is_shown_as_a_copy(tmp_path: Path, encoder: DualEncoder) -> None:
    from PIL import Image
    from starlette.testclient import TestClient

    Image.new("RGB", (60, 30), "red").save(tmp_path / "çok güzel.tif")
    index = ImageIndex.open(tmp_path / ".turkish-clip", encoder)
    index.add(tmp_path)
    with TestClient(build_page(encoder, index, tmp_path)) as client:
        name = client.post("/ask/newest", json={}).json()["photos"][0]["id"]
        assert client.post("/ask/details", json={"name": name}).json()["copy"] is True
        answer = client.get(f"/view/{name}")
        assert (answer.headers["content-type"], answer.content[:2]) == ("image/jpeg", b"\xff\xd8")
        answer = client.get(f"/original/{name}")
        assert answer.content == (tmp_path / "çok güzel.tif").read_bytes()
        assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''%C3%A7ok%20g%C3%BCzel.tif"
        (tmp_path / "çok güzel.tif").write_bytes(b"x")
        assert client.get(f"/view/{name}").json() == {"message": "Bu resim açılamadı."}
        (tmp_path / "çok güzel.tif").unlink()
        assert client.get(f"/original/{name}").json() == {"message": "Bu resim artık yerinde değil."}


def test_a_video_is_answered_in_the_parts_that_are_asked_for(tmp_path: Path, encoder: DualEncoder) -> None:
    from films import film
    from photographs import patches
    from starlette.testclient import TestClient

    path = film(tmp_path / "film.mp4", [patches(0)])
    index = ImageIndex.open(tmp_path / ".turkish-clip", encoder)
    index.add(tmp_path)
    with TestClient(build_page(encoder, index, tmp_path)) as client:
        name = client.post("/ask/newest", json={}).json()["photos"][0]["id"]
        answer = client.get(f"/video/{name}", headers={"Range": "bytes=10-29"})
        assert (answer.status_code, answer.content) == (206, path.read_bytes()[10:30])
        assert (answer.headers["content-type"], answer.headers["accept-ranges"]) == ("video/mp4", "bytes")
        assert client.get(f"/view/{name}").headers["content-type"] == "image/jpeg"
        path.unlink()
        assert client.get(f"/video/{name}").status_code == 404


def test_an_upload_is_shown_as_a_small_jpeg(address: str, indexed: Path, tmp_path: Path) -> None:
    import io

    from PIL import Image

    Image.new("RGB", (1200, 600), "red").save(tmp_path / "a.tif")
    name = json.loads(got(f"{address}/upload", (tmp_path / "a.tif").read_bytes(), **BYTES)[2])["id"]
    status, headers, body = got(f"{address}/preview/{name}")
    assert (status, headers["Content-Type"], Image.open(io.BytesIO(body)).size) == (200, "image/jpeg", (480, 240))
    photo = ask(address, "newest")["photos"][0]["id"]
    for other in ("u" + "0" * 31, photo, "..%2fpasswd"):  # a photo of the folder is no upload, and is no video
        assert got(f"{address}/preview/{other}")[0] == 404
    assert got(f"{address}/video/{photo}")[0] == 404


def test_an_upload_is_checked_and_found_again(address: str, indexed: Path) -> None:
    first = min(indexed.glob("*.png"))
    status, _, body = got(f"{address}/upload", first.read_bytes(), **BYTES)
    assert status == 200
    name = json.loads(body)["id"]
    assert ask(address, "search", image=name)["photos"][0]["path"] == str(first)
    for data, message in ((b"<svg onload='alert(1)'/>", "resim olarak açılamadı"), (b"", "resim olarak açılamadı")):
        status, _, body = got(f"{address}/upload", data, **BYTES)
        assert status == 400
        assert message in json.loads(body)["message"]
    status, _, body = got(f"{address}/upload", b"x" * (MAX_UPLOAD + 1), **BYTES)
    assert (status, json.loads(body)["message"]) == (413, "Dosya çok büyük: en çok 20 MB olabilir.")
    assert got(f"{address}/upload", first.read_bytes(), **{"Content-Type": "image/png"})[0] == 415
    assert got(f"{address}/thumbnail/{name}")[0] == 404


def test_an_image_of_too_many_pixels_is_refused(address: str, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("1", (25_000, 20_000)).save(tmp_path / "huge.png")  # 500 megapixels in 61 kB
    status, _, body = got(f"{address}/upload", (tmp_path / "huge.png").read_bytes(), **BYTES)
    assert status == 400
    assert "çok büyük" in json.loads(body)["message"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415),  # as a form of another site could send it
        (b"[]", JSON, 400),
        (b"[" * 50_000, JSON, 400),
        (b"{", JSON, 400),
        (b"\xff", JSON, 400),
        (b'{"self": 1}', JSON, 400),
        (b'{"words": "ev", "k": 9}', JSON, 400),
        (b'{"words": "%s"}' % (b"x" * MAX_JSON), JSON, 413),
    ],
)
def test_requests_that_the_page_does_not_make(body: bytes, headers: dict[str, str], status: int, address: str) -> None:
    found, _, answer = got(f"{address}/ask/search", body, **headers)
    assert found == status
    assert json.loads(answer)["message"] == "İstek anlaşılmadı."
    assert got(f"{address}/ask/search")[0] == 404  # GET
    assert got(f"{address}/ask/__init__", b"{}", **JSON)[0] == 404


def test_keys_of_any_kind_get_an_answer_in_words(address: str) -> None:
    keys = {
        "search": ["words", "without", "image", "offset"],
        "details": ["name"],
        "where": ["name", "words"],
        "classify": ["image", "labels"],
        "compare": ["images", "texts"],
        "filter": ["prompts", "contrast", "least", "offset"],
        "folders": ["below"],
        "job": ["kind"],
    }
    odd = [None, True, -1, 10**30, "", [], {}, ["a"], [[]], {"a": 1}, "\ud800", "\0", "a" * 600, "../../etc/passwd"]
    for name, of in keys.items():
        for key in of:
            for value in odd:
                status, _, _ = got(f"{address}/ask/{name}", json.dumps({key: value}).encode(), **JSON)
                assert status in (200, 400), (name, key, value)


def test_words_to_keep_away_are_not_without_number(address: str) -> None:
    found = ask(address, "search", words="ev", without=",".join(map(str, range(31))))
    assert (found["status"], found["message"]) == (400, "En çok 30 söz yazın; 31 tane var.")
    assert ask(address, "search", words="ev", without=",".join(map(str, range(30))))["status"] in (200, 400)


def test_an_index_that_was_deleted_and_made_again_is_read(tmp_path: Path, encoder: DualEncoder) -> None:
    from starlette.testclient import TestClient

    for number in range(3):
        paint(tmp_path / f"{number}.png", number)
    place = tmp_path / ".turkish-clip"
    index = ImageIndex.open(place, encoder)
    index.add(tmp_path)
    page = TestClient(build_page(encoder, index, tmp_path))
    assert len(page.post("/ask/newest", json={}).json()["photos"]) == 3
    shutil.rmtree(place)
    for name in ("newest", "state", "search"):
        answer = page.post(f"/ask/{name}", json={"words": "ev"} if name == "search" else {})
        assert "Dizin okunamadı" in answer.json()["message"]
    (tmp_path / "0.png").unlink()
    ImageIndex.open(place, encoder).add(tmp_path)
    assert len(page.post("/ask/search", json={"words": "ev"}).json()["photos"]) == 2
    assert len(page.post("/ask/newest", json={}).json()["photos"]) == 2


def test_fifty_requests_at_once_are_answered(address: str) -> None:
    answers: list[dict[str, Any]] = []

    def one(number: int) -> None:
        answers.append(ask(address, "search", words=f"kırmızı ev {number}"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [(answer["status"], len(answer["photos"])) for answer in answers] == [(200, 10)] * 50


def test_too_many_requests_are_told_to_come_again(
    indexed: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    monkeypatch.setattr("turkish_clip.app.routes.MOST_WAITING", 0)
    page = build_page(encoder, ImageIndex.open(indexed / ".turkish-clip", encoder))
    with TestClient(page) as client:
        answer = client.post("/ask/search", json={"words": "ev"})
    assert (answer.status_code, answer.json()["message"][:33]) == (503, "Şu anda çok fazla istek var. Bira")


def test_what_fails_unexpectedly_says_so_without_a_path(
    indexed: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("/secret/place")

    index = ImageIndex.open(indexed / ".turkish-clip", encoder)
    monkeypatch.setattr(ImageIndex, "ask", fail)
    with TestClient(build_page(encoder, index)) as client:
        answer = client.post("/ask/search", json={"words": "ev"})
    assert answer.status_code == 500
    assert answer.json() == {"message": "Beklenmeyen bir aksaklık oldu. Ayrıntısı komutun çıktısında."}


def test_it_listens_on_loopback_only(address: str) -> None:
    port = int(address.rpartition(":")[2])
    listening = Path("/proc/net/tcp")
    if not listening.exists():
        pytest.skip("needs Linux's list of sockets")
    sockets = [line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in sockets
    assert f"00000000:{port:04X}" not in sockets


def test_a_taken_port_is_one_line(indexed: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        argv = [sys.executable, "-m", "turkish_clip.cli", "app", str(indexed), "--port", str(port)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert f"error: expected a free port, got {port}, which is taken by another program; name another" in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_drawing_is_given_out_and_no_upload_is(address: str, indexed: Path) -> None:
    first = min(indexed.glob("*.png"))
    upload = json.loads(got(f"{address}/upload", first.read_bytes(), **BYTES)[2])["id"]
    assert got(f"{address}/ask/draw", b'{"words": "ev", "seed": "x"}', **JSON)[0] == 200
    while (job := ask(address, "job", kind="draw"))["state"] == "running":
        time.sleep(0.2)
    status, headers, body = got(f"{address}/drawn/{job['result']['image']}")
    assert (status, headers["content-type"], body[:4]) == (200, "image/png", b"\x89PNG")
    for name in (upload, "0" * 32, "..%2fpage.html"):
        assert got(f"{address}/drawn/{name}")[0] == 404
    assert got(f"{address}/ask/draw", b'{"words": ""}', **JSON)[0] == 400
