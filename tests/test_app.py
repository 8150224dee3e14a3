"""The web page in headless Chromium: it finds, classifies, compares, refuses, and lives on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from turkish_clip.search import ImageIndex
from turkish_clip.towers import Towers

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: set CHROMIUM to its path")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def address(indexed: Path, pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served by the command in a process of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("app") / "log"
    argv = [sys.executable, "-m", "turkish_clip.cli", "app", str(indexed), "--port", str(port)]
    environment = {**os.environ, "TURKISH_CLIP_MODEL": str(pair_folder), "NO_PROXY": "127.0.0.1"}
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


@needs_browser
def test_the_page(address: str, indexed: Path, towers: Towers, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    bad = tmp_path / "bad.png"
    bad.write_text("<svg onload='alert(1)'/>", encoding="utf-8")
    Image.new("1", (25_000, 20_000)).save(tmp_path / "huge.png")  # 500 megapixels in 61 kB
    first = sorted(indexed.glob("*.png"))[0]
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(address)
        expect(page.get_by_role("tab", name="Hakkında")).to_be_visible(timeout=30_000)

        page.get_by_label("Ne arıyorsunuz?").fill("kırmızı ev")
        page.locator("#search").click()
        expect(page.locator("#found img").first).to_be_visible(timeout=30_000)
        best = ImageIndex.open(indexed / ".turkish-clip", towers).search("kırmızı ev", k=1)[0]
        assert page.locator("#found").inner_text().splitlines()[1] == f"{best.score:.3f} · {Path(best.path).name}"

        page.get_by_label("Ne arıyorsunuz?").fill("")
        page.locator("input[type=file]").first.set_input_files(first)
        page.wait_for_timeout(1500)
        page.locator("#search").click()
        expect(page.locator("#found img").first).to_be_visible(timeout=30_000)
        page.wait_for_timeout(1500)
        assert page.locator("#found").inner_text().splitlines()[1] == f"1.000 · {first.name}"

        page.get_by_role("tab", name="Sınıflandır").click()
        page.locator("#classify").click()
        expect(page.get_by_text("Bir resim yükleyin.").first).to_be_visible(timeout=20_000)
        chosen = page.locator("input[type=file]:visible, [role=tabpanel]:visible input[type=file]").first
        chosen.set_input_files(first)
        page.wait_for_timeout(1500)
        page.get_by_label("Etiketler").fill(", ".join(f"etiket{number}" for number in range(10_000)))
        page.locator("#classify").click()
        expect(page.get_by_text("En çok 200 etiket verin").first).to_be_visible(timeout=20_000)
        page.get_by_label("Etiketler").fill("ev, kedi")
        page.locator("#classify").click()
        expect(page.locator("#shares").get_by_text("%").first).to_be_visible(timeout=20_000)
        for upload in (bad, tmp_path / "huge.png"):
            page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).locator("visible=true").first.click()
            chosen.set_input_files(upload)
            page.wait_for_timeout(1500)
            page.locator("#classify").click()
            expect(page.get_by_text("resim olarak açılamadı").first).to_be_visible(timeout=20_000)
            page.wait_for_timeout(500)
        page.get_by_role("tab", name="Hakkında").click()
        expect(page.get_by_text("Görüntü modeli")).to_be_visible(timeout=10_000)
        page.screenshot(path=tmp_path / "page.png")
        browser.close()


def test_no_file_of_the_machine_is_served(address: str, indexed: Path) -> None:
    for path in ("/file=/etc/passwd", "/gradio_api/file=/etc/passwd", f"/gradio_api/file={indexed}/../world.json"):
        with pytest.raises(urllib.error.HTTPError, match="403|404"):
            urllib.request.urlopen(address + path, timeout=10)


def test_it_listens_on_loopback_alone(address: str) -> None:
    port = int(address.rpartition(":")[2])
    listening = Path("/proc/net/tcp")
    if not listening.exists():
        pytest.skip("needs Linux's list of sockets")
    sockets = [line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in sockets
    assert f"00000000:{port:04X}" not in sockets
