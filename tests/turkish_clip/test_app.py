"""The web page in headless Chromium: it searches, classifies, compares, and goes on after bad input."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from samples import paint

from turkish_clip.app import Page, _of_uploads_alone, in_turkish
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.reading import Caution
from turkish_clip.search.index import ImageIndex

if TYPE_CHECKING:
    from playwright.sync_api import Page as BrowserPage

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: set CHROMIUM to its path")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_other_hosts_and_named_endpoints_are_refused(address: str) -> None:
    def status(path: str, **headers: str) -> int:
        request = urllib.request.Request(f"{address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)

    assert status("/", Host="evil.example") == 421
    assert status("/gradio_api/info", Host="evil.example") == 421
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        assert status("/", Origin=origin) == status("/gradio_api/upload", Origin=origin) == 403
    assert status("/", Origin=address) == 200
    assert status("/", Host=address.removeprefix("http://").replace("127.0.0.1", "localhost")) == 200
    for path in (
        "/gradio_api/call/false",
        "/gradio_api/monitoring",
        "/monitoring",
        "/gradio_api/run/false",
        "/gradio_api/api/false_1",
        "/call/false",
        "/api/x/",
    ):
        assert status(path) == 404


@pytest.fixture(scope="module")
def address(indexed: Path, pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served by the command in a process of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("app") / "log"
    argv = [sys.executable, "-m", "turkish_clip.cli", "app", str(indexed), "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # nothing is there
    environment |= dict.fromkeys(("all_proxy", "ALL_PROXY"), "socks5://127.0.0.1:9")  # and no module for it
    environment["TURKISH_CLIP_MODEL"] = str(pair_folder)
    with log.open("w") as stream:
        server = subprocess.Popen(argv, env=environment, stdout=stream, stderr=stream)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=1)
                break
            except OSError:
                assert server.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.25)
        yield url
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait(20)


def comma(score: float) -> str:
    return f"{score:.3f}".replace(".", ",")


def expect_message(page: BrowserPage, message: str) -> None:
    """Waits for a message and closes it, so that the next one is not mistaken for it."""
    from playwright.sync_api import expect

    toast = page.get_by_text(message).first
    expect(toast).to_be_visible(timeout=20_000)
    page.locator(".toast-close").first.click()
    expect(toast).not_to_be_visible(timeout=20_000)


@needs_browser
def test_the_page(address: str, indexed: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    bad = tmp_path / "bad.png"
    bad.write_text("<svg onload='alert(1)'/>", encoding="utf-8")
    Image.new("1", (25_000, 20_000)).save(tmp_path / "huge.png")  # 500 megapixels in 61 kB
    first = sorted(indexed.glob("*.png"))[0]
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 900}, locale="tr-TR")
        page.goto(address)
        expect(page.get_by_role("tab", name="Hakkında")).to_be_visible(timeout=30_000)

        page.get_by_label("Ne arıyorsunuz?").fill("kırmızı ev")
        page.locator("#search").click()
        expect(page.locator("#found img").first).to_be_visible(timeout=30_000)
        best = ImageIndex.open(indexed / ".turkish-clip", encoder).search("kırmızı ev", k=1)[0]
        assert page.locator("#found").inner_text().splitlines()[0] == f"{comma(best.score)} · {Path(best.path).name}"

        image = page.locator("input[type=file]").first
        image.set_input_files(first)
        page.wait_for_timeout(1500)
        page.locator("#search").click()
        expect_message(page, "ikisi birlikte aranamaz")
        page.get_by_label("Ne arıyorsunuz?").fill("")
        page.locator("#search").click()
        expect(page.locator("#found").get_by_text(f"1,000 · {first.name}").first).to_be_visible(timeout=30_000)

        page.get_by_role("tab", name="Sınıflandır").click()
        page.locator("#classify").click()
        expect_message(page, "Bir resim yükleyin.")
        for upload in (bad, tmp_path / "huge.png", first):
            page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(upload)
            page.wait_for_timeout(1500)
            if upload != first:
                page.locator("#classify").click()
                expect_message(page, "resim olarak açılamadı")
                page.locator("[role=tabpanel]:visible").get_by_label("Remove Image").first.click()
        page.get_by_label("Etiketler").fill(", ".join(f"e{number}" for number in range(10_000)))
        page.locator("#classify").click()
        expect(page.locator("#probabilities").get_by_text("Hata")).to_be_visible(
            timeout=20_000
        )  # refused by Gradio itself
        page.get_by_label("Etiketler").fill("|".join(f"e{number}" for number in range(300)) + ", ev")
        page.locator("#classify").click()
        expect_message(page, "En çok 200 etiket verin; 301 tane var.")
        page.get_by_label("Etiketler").fill("ev, kedi")
        page.locator("#classify").click()
        expect(page.locator("#probabilities").get_by_text("%").first).to_be_visible(timeout=20_000)

        page.get_by_role("tab", name="Karşılaştır").click()
        page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(
            sorted(indexed.glob("*.png"))[:2]
        )
        page.wait_for_timeout(1500)
        page.get_by_label("Metinler").fill("kırmızı ev\n<b>kuş</b>")
        page.locator("#compare").click()
        expect(page.locator("#scores").get_by_text("<b>kuş</b>")).to_be_visible(timeout=20_000)
        assert page.locator("#scores img").count() == 2
        assert page.locator("#scores").get_by_text("★").count() == 2

        page.get_by_role("tab", name="Hakkında").click()
        expect(page.get_by_text("Görüntü modeli")).to_be_visible(timeout=10_000)
        page.screenshot(path=tmp_path / "page.png")
        browser.close()


def test_results_without_a_browser(indexed: Path, encoder: DualEncoder) -> None:
    page = Page(encoder, ImageIndex.open(indexed / ".turkish-clip", encoder))
    images = [str(path) for path in sorted(indexed.glob("*.png"))[:2]]
    found, note = page.search("", images[0])
    assert note == ""
    assert found[0][1] == f"1,000 · {Path(images[0]).name}"
    assert all(max(image.size) <= 192 for image, _ in found)
    probabilities, note = page.classify(images[0], "ev, kuş")
    assert (sum(probabilities.values()), note) == (pytest.approx(1), "")
    table = page.compare(images, "kırmızı ev\n<b>kuş</b>")
    assert (table.count("data:image/jpeg;base64,"), table.count("★")) == (2, 2)
    assert "&lt;b&gt;kuş" in table


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("кошка", "⚠ Metin kodlayıcı hiçbir sözünü tanımıyor: &#x27;кошка&#x27;."),
        ("kırmızı <b>zürafa</b>", "⚠ Metin kodlayıcı bazı sözleri tanımıyor: "),
        ("iki ev ve " * 40, "⚠ Metin çok uzun, 32 parçadan sonrası okunmuyor: "),
        ("...", "⚠ Okunacak söz yok: &#x27;...&#x27;."),
    ],
)
def test_what_is_not_read_is_said_in_turkish(text: str, note: str, indexed: Path, encoder: DualEncoder) -> None:
    page = Page(encoder, ImageIndex.open(indexed / ".turkish-clip", encoder))
    image = str(min(indexed.glob("*.png")))
    for found in (page.search(text, None)[1], page.classify(image, f"{text}, ev")[1], page.compare([image], text)):
        assert note in found
        assert "<b>" not in found


def test_a_text_that_is_too_long_is_refused(indexed: Path, encoder: DualEncoder) -> None:
    import gradio as gr

    page = Page(encoder, ImageIndex.open(indexed / ".turkish-clip", encoder))
    for ask in (lambda: page.search("ev " * 200, None), lambda: page.compare(["x.png"], "ev\n" + "kuş " * 200)):
        with pytest.raises(gr.Error, match="en çok 500 harf olabilir"):
            ask()
    with pytest.raises(gr.Error, match="Metinde bozuk bir harf var"):
        page.search("\ud800x", None)


@pytest.mark.parametrize("nothing", [None, 7, ["kuş"], {"a": 1}])
def test_what_is_no_text_is_refused_as_nothing_is(nothing: object, indexed: Path, encoder: DualEncoder) -> None:
    import gradio as gr

    page = Page(encoder, ImageIndex.open(indexed / ".turkish-clip", encoder))
    image = str(min(indexed.glob("*.png")))
    for ask, message in (
        (lambda: page.search(nothing, None), "Aranacak sözleri yazın"),  # type: ignore[arg-type]
        (lambda: page.classify(image, nothing), "En az iki farklı etiket"),  # type: ignore[arg-type]
        (lambda: page.classify(None, "ev, kuş"), "Bir resim yükleyin"),
        (lambda: page.compare([image], nothing), "en az bir metin yazın"),  # type: ignore[arg-type]
        (lambda: page.compare(None, "ev"), "En az bir resim"),
    ):
        with pytest.raises(gr.Error, match=message):
            ask()
    assert page.search(nothing, image)[0]  # type: ignore[arg-type]


def test_all_buttons_share_one_queue(indexed: Path, pair_folder: Path) -> None:
    program = (
        "from turkish_clip import ImageIndex, load_dual_encoder\n"
        "from turkish_clip.app import build_page\n"
        f"encoder = load_dual_encoder({str(pair_folder)!r}, device='cpu')\n"
        f"for index in (ImageIndex.open({str(indexed / '.turkish-clip')!r}, encoder), None):\n"
        "    listeners = build_page(encoder, index).fns.values()\n"
        "    print(len(listeners), {(one.concurrency_id, one.concurrency_limit) for one in listeners})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "5 {('encoder', 2)}\n3 {('encoder', 2)}\n"


@pytest.mark.parametrize(
    "caution",
    [
        Caution("miniature", ("m",)),
        Caution("no Turkish", ("m",)),
        Caution("unrecorded", ("m",)),
        Caution("cut", ("ev", "kuş"), ("x",), 64),
    ],
)
def test_every_caution_is_said_in_turkish(caution: Caution) -> None:
    text = in_turkish(caution)
    assert text.endswith(".")
    assert set(text) & set("çğıöşü")


def test_no_file_of_the_machine_is_served(address: str, indexed: Path) -> None:
    for path in ("/file=/etc/passwd", "/gradio_api/file=/etc/passwd", f"/gradio_api/file={indexed}/../world.json"):
        with pytest.raises(urllib.error.HTTPError, match="403|404"):
            urllib.request.urlopen(address + path, timeout=10)


def test_no_url_is_fetched() -> None:
    import gradio as gr

    class Component:
        async def async_move_resource_to_block_cache(self, path: str) -> str:
            return f"moved {path}"

    component = _of_uploads_alone(Component())
    assert asyncio.run(component.async_move_resource_to_block_cache("/uploads/a.png")) == "moved /uploads/a.png"
    with pytest.raises(gr.Error, match="adresler açılmaz"):
        asyncio.run(component.async_move_resource_to_block_cache("http://example.com/big.png"))


@needs_browser
def test_the_page_refuses_a_url(address: str) -> None:
    """Sends what Gradio's own client would: a URL in place of an upload."""
    data = {"path": "http://example.com/big.png", "meta": {"_type": "gradio.FileData"}}
    joined = {"data": ["", data], "fn_index": 0, "session_hash": "anyone"}
    body = json.dumps(joined).encode()
    request = urllib.request.Request(
        f"{address}/gradio_api/queue/join", body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert "event_id" in json.load(answer)
    with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash=anyone", timeout=20) as stream:
        events = [json.loads(line[6:]) for line in stream.read().decode().splitlines() if line.startswith("data: ")]
    assert "adresler açılmaz" in str(events)


def test_it_listens_on_loopback_only(address: str) -> None:
    port = int(address.rpartition(":")[2])
    listening = Path("/proc/net/tcp")
    if not listening.exists():
        pytest.skip("needs Linux's list of sockets")
    sockets = [line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in sockets
    assert f"00000000:{port:04X}" not in sockets


def test_a_taken_port_is_one_line(indexed: Path, pair_folder: Path) -> None:
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


def test_the_page_names_the_kinds_that_are_not_in_the_index(tmp_path: Path, encoder: DualEncoder) -> None:
    paint(tmp_path / "photos" / "a.png", 1)
    index = ImageIndex.open(tmp_path / "index", encoder)
    index.add(tmp_path / "photos")
    assert "Okunmayan" not in Page(encoder, index).about()
    for name in ("1.PSD", "2.psd", "3.svg"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    index.add(tmp_path / "photos")
    assert "<td>Okunmayan dosyalar</td><td>PSD 2, SVG 1 " in Page(encoder, index).about()
