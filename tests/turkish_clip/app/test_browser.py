"""The page in headless Chromium, on a phone and on a desk: every section, every state, nothing outside is asked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from samples import paint

from turkish_clip.app.wording import number
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.search.index import ImageIndex

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: set CHROMIUM to its path")
PHONE, DESK = (390, 844), (1280, 800)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
ENGLISH = re.compile(
    r"\b(error|loading|processing|fullscreen|share|submit|clear|download|upload|search|remove|none|null|undefined|nan|object)\b",
    re.I,
)
HARMLESS = ("minor", "moderate")


@dataclass
class Seen:
    """A page of the browser, what it asked for, and what went wrong in it.

    Attributes:
        width: of the window.
        hosts: of all requests.
        errors: of scripts, and of what the policy forbade.
    """

    page: Page
    width: int
    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def check(self, name: str) -> None:
        """Checks what is shown: it fits the width, is Turkish, and can be read and used by everyone."""
        page = self.page
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= self.width, name
        assert not ENGLISH.search(page.inner_text("body") + page.title()), name
        labels = page.eval_on_selector_all(
            "[aria-label], [title], [placeholder]",
            "all => all.map(e => [e.ariaLabel, e.title, e.placeholder].join(' ')).join(' ')",
        )
        assert not ENGLISH.search(labels), name
        page.evaluate(axe_source() + ";0")
        found = page.evaluate("axe.run()")["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"])
            for one in found
            if one["impact"] not in HARMLESS
        ]
        assert not serious, name


def axe_source() -> str:
    """axe-core, of a package that brings it."""
    package = find_spec("axe_playwright_python")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(params=[(PHONE, "light"), (DESK, "dark")], ids=lambda one: f"{one[0][0]} {one[1]}")
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    from playwright.sync_api import sync_playwright

    (width, height), scheme = request.param
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(
            viewport={"width": width, "height": height}, locale="en-US", color_scheme=scheme, has_touch=width < 500
        )
        page = context.new_page()
        shown = Seen(page, width)
        page.on("request", lambda one: shown.hosts.add(urlsplit(one.url).hostname or urlsplit(one.url).scheme))
        page.on("pageerror", lambda error: shown.errors.append(str(error)))
        page.on("console", lambda one: "Content Security" in one.text and shown.errors.append(one.text))
        yield shown
        browser.close()
        assert shown.hosts <= {"127.0.0.1", "blob", "data"}
        assert not shown.errors


def answered(page: Page, name: str, status: int = 200, **value: Any) -> None:
    """Lets the page's server answer with something."""

    def answer(route: Route) -> None:
        route.fulfill(status=status, json=value)

    page.route(f"**/ask/{name}", answer)


def test_every_section(seen: Seen, address: str, indexed: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    page, images = seen.page, sorted(indexed.glob("*.png"))
    page.goto(address)
    tiles = page.locator("main .tile")
    expect(tiles).to_have_count(10)
    assert page.title() == "Fotoğraflar"
    columns = page.evaluate("getComputedStyle(document.querySelector('.grid')).gridTemplateColumns.split(' ').length")
    assert columns == 2 if seen.width == 390 else columns >= 4
    assert page.evaluate("getComputedStyle(document.querySelector('.tile img')).objectFit") == "contain"
    seen.check("newest")

    page.get_by_label("Ne arıyorsunuz?").fill("kırmızı ev")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="“kırmızı ev”")).to_be_visible()
    best = ImageIndex.open(indexed / ".turkish-clip", encoder).search("kırmızı ev", k=2)
    expect(tiles.first).to_have_accessible_name(re.compile(f"^{Path(best[0].path).name}\\. En yakınlar"))
    seen.check("words")

    tiles.first.click()
    viewer = page.get_by_role("dialog", name=Path(best[0].path).name)
    expect(viewer.get_by_text(f"(benzerlik {number(best[0].score)})")).to_be_visible()
    expect(viewer.get_by_text(best[0].path, exact=True)).to_be_visible()
    expect(viewer.get_by_text("Son değişiklik")).to_be_visible()
    expect(viewer.get_by_role("img", name=Path(best[0].path).name)).to_be_visible()
    viewer.get_by_role("button", name="Nerede?").click()
    frame = viewer.get_by_role("img", name="“kırmızı ev” burada")
    expect(frame).to_be_visible()
    outer, inner = page.locator(".stage").bounding_box(), frame.bounding_box()
    assert outer is not None
    assert inner is not None
    assert outer["x"] <= inner["x"] + 3
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 3
    seen.check("one image")
    with page.expect_download() as saved:
        viewer.get_by_role("link", name="İndir").click()
    assert Path(saved.value.path()).read_bytes() == Path(best[0].path).read_bytes()
    assert saved.value.suggested_filename == Path(best[0].path).name
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name=Path(best[1].path).name)).to_be_visible()
    page.keyboard.press("Escape")
    expect(tiles.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Benzerleri").click()
    expect(page.get_by_role("heading", name="Bu resmin benzerleri")).to_be_visible()
    expect(tiles.first).to_have_accessible_name(f"{Path(best[1].path).name}. Aynı resim")
    page.go_back()
    expect(page.get_by_label("Ne arıyorsunuz?")).to_have_value("kırmızı ev")

    if seen.width == 390:
        page.get_by_role("button", name="Hariç tutulacakları yaz").click()
    page.get_by_label("Hariç", exact=True).fill("kuş, mavi")
    page.locator("#image-file").set_input_files(images[0])
    expect(page.get_by_role("heading", name="“kırmızı ev” ve bu resme benzer, kuş, mavi hariç")).to_be_visible()
    expect(tiles).to_have_count(10)
    seen.check("words, an image, and what is kept away")
    page.get_by_role("button", name="Resmi aramadan çıkar").click()
    expect(page.get_by_role("heading", name="“kırmızı ev”")).to_be_visible()

    page.get_by_role("link", name="Filtre").click()
    seen.check("filter, empty")
    page.get_by_label("Neler işaretlensin?").fill("kırmızı\nmavi")
    page.get_by_label("Neyle karıştırılmasın?").fill("ev")
    page.get_by_label("En az olasılık, yüzde").fill("1")
    page.get_by_role("button", name="İşaretle").click()
    expect(page.get_by_role("heading", name="10 fotoğraf işaretlendi")).to_be_visible()
    expect(tiles).to_have_count(10)
    seen.check("filter")

    page.get_by_role("link", name="Tekrarlar").click()
    page.get_by_role("button", name="Tekrarları ara").click()
    expect(page.get_by_role("heading", name="Tekrar yok")).to_be_visible()
    seen.check("no duplicates")

    page.get_by_role("link", name="Klasörler").click()
    expect(page.get_by_role("button", name="Dizini güncelle")).to_be_visible()
    seen.check("folders")

    go_on(seen, "Sınıflandır")
    page.get_by_role("button", name="Sınıflandır").click()
    expect(page.get_by_role("alert")).to_contain_text("Bir resim seçin.")
    bad = tmp_path / "bad.png"
    bad.write_text("<svg onload='alert(1)'/>", encoding="utf-8")
    page.locator("main input[type=file]").set_input_files(bad)
    expect(page.get_by_text("resim olarak açılamadı")).to_be_visible()
    seen.check("an image that does not open")
    page.locator("main input[type=file]").set_input_files(images[0])
    expect(page.get_by_role("img", name=images[0].name)).to_be_visible()
    page.get_by_label("Etiketler").fill("ev, <b>kuş</b>")
    page.get_by_role("button", name="Sınıflandır").click()
    expect(page.get_by_text("<b>kuş</b>").last).to_be_visible()
    seen.check("classified")

    go_on(seen, "Karşılaştır")
    page.locator("main input[type=file]").set_input_files(images[:2])
    expect(page.locator(".picked img")).to_have_count(2)
    page.get_by_label("Metinler").fill("kırmızı ev\n<b>kuş</b>")
    page.get_by_role("button", name="Karşılaştır").click()
    expect(page.get_by_role("columnheader", name="<b>kuş</b>")).to_be_visible()
    expect(page.locator("#scores").get_by_text("★")).to_have_count(2)
    seen.check("compared")

    go_on(seen, "Çiz")
    page.get_by_label("Ne çizilsin?").fill("kırmızı bir <b>ev</b>")
    page.get_by_label("Ne görünmesin?").fill("gece")
    page.get_by_role("button", name="Çiz", exact=True).click()
    expect(page.get_by_role("img", name="Çizim: kırmızı bir <b>ev</b>")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("link", name="İndir")).to_be_visible()
    seen.check("drawn")

    go_on(seen, "Hakkında")
    expect(page.get_by_text("Görüntü modeli")).to_be_visible()
    seen.check("about")


def go_on(seen: Seen, name: str) -> None:
    """Goes to a section, which the phone has in a menu."""
    if seen.width == 390:
        seen.page.get_by_role("button", name="Diğer").click()
        seen.check("menu")
        seen.page.locator("#menu").get_by_role("link", name=name).click()
    else:
        seen.page.get_by_role("link", name=name).click()


def test_every_state_of_a_search(seen: Seen, address: str) -> None:
    from playwright.sync_api import expect

    page, photo = seen.page, {"name": "a.png", "folder": "x", "path": "/x/a.png", "rows": []}
    page.goto(address)
    name = page.locator("main .tile").first.get_attribute("data-id")
    shown = [{**photo, "id": name, "fits": fits, "fit": "söz", "score": "0,300"} for fits in (True, False)]
    answer = {"photos": shown, "gone": 0, "fits": True, "understood": True, "notes": [], "more": True, "next": 24}

    def search(words: str) -> None:
        page.get_by_label("Ne arıyorsunuz?").fill(words)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name=f"“{words}”")).to_be_visible()

    answered(page, "search", **answer)
    search("bir")
    expect(page.get_by_text("pek uymuyor")).to_have_count(1)
    page.get_by_role("button", name="Daha fazla göster").click()
    expect(page.locator("main .tile")).to_have_count(4)
    expect(page.locator("main .tile").nth(2)).to_be_focused()
    seen.check("more")

    answered(page, "search", **{**answer, "photos": shown[1:], "fits": False, "more": False})
    search("iki")
    expect(
        page.get_by_text("Aradığınıza uyan bir fotoğraf bulunamadı. Aşağıdakiler yalnızca en yakınları.")
    ).to_be_visible()
    expect(page.get_by_text("pek uymuyor")).to_have_count(0)  # it is said once
    seen.check("nothing fits")

    page.unroute("**/ask/search")
    search("кошка")
    expect(page.get_by_text("Bu sözlerden hiçbiri anlaşılmadı")).to_be_visible()
    seen.check("unknown words")

    answered(page, "search", **{**answer, "photos": [], "gone": 2, "more": False})
    search("üç")
    expect(page.get_by_role("heading", name="Dosyalar yerinde değil")).to_be_visible()
    seen.check("gone")

    answered(page, "search", 503, message="Şu anda çok fazla istek var.")
    search("dört")
    expect(page.get_by_role("alert")).to_contain_text("Şu anda çok fazla istek var.")
    seen.check("busy")
    page.unroute("**/ask/search")
    page.get_by_role("button", name="Yeniden dene").click()
    expect(page.locator("main .tile")).to_have_count(10)

    page.route("**/ask/search", lambda route: route.abort())
    search("beş")
    expect(page.get_by_role("alert")).to_contain_text("Sayfaya yanıt gelmiyor.")
    seen.check("no answer")

    page.goto(f"{address}/#ara?haric=gece")
    page.unroute("**/ask/search")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Yalnız hariç tutulacaklar yazılı.")
    expect(page.get_by_role("button", name="Yeniden dene")).to_have_count(0)  # it would say the same
    seen.check("only what is kept away")

    waiting: list[Route] = []
    page.route("**/ask/search", lambda route: waiting.append(route))
    search("altı")
    expect(page.locator(".loading .tile").first).to_be_visible()
    expect(page.locator("#live")).to_have_text("Fotoğraflar geliyor…")
    for route in waiting:
        route.continue_()
    expect(page.locator(".loading")).to_have_count(0)


def test_a_folder_is_indexed_on_the_page(
    seen: Seen, serve_folder: Callable[[Path], AbstractContextManager[str]], tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    folder = tmp_path / "fotoğraflar"
    paint(folder / "yaz 2024" / "deniz.png", 1)
    long = folder / f"{'çok uzun bir ad ' * 8}.png"
    image = Image.open(paint(folder / "yaz 2024" / "kum.png", 2)).resize((400, 400))
    image.save(long)
    image.resize((200, 200)).save(folder / "kopya.png")
    page = seen.page
    with serve_folder(folder) as url:
        page.goto(url)
        expect(page.get_by_role("heading", name="Henüz fotoğraf yok")).to_be_visible()
        seen.check("empty")
        page.get_by_role("button", name="Klasörü dizine al").click()
        expect(page.get_by_text("Bitti: 4 yeni.")).to_be_visible(timeout=30_000)
        page.get_by_role("button", name="yaz 2024").click()
        expect(page.get_by_role("button", name="“yaz 2024” klasörünü dizine al")).to_be_visible()
        seen.check("indexed")

        running = {
            "kind": "index",
            "state": "running",
            "done": 3,
            "total": 12,
            "result": {},
            "message": "",
            "stopping": False,
        }
        answered(page, "job", **running)
        page.goto(f"{url}/#hakkinda")
        page.goto(f"{url}/#klasorler")
        expect(page.get_by_role("progressbar", name="Dizine alınıyor")).to_have_attribute("value", "3")
        expect(page.get_by_text("3 / 12")).to_be_visible()
        expect(page.locator("#add-folder")).to_be_disabled()
        seen.check("indexing")
        answered(page, "job", **{**running, "state": "failed", "message": "Klasör dizine alınamadı."})
        expect(page.get_by_role("alert")).to_contain_text("Klasör dizine alınamadı.")
        seen.check("failed")
        page.unroute("**/ask/job")

        page.goto(f"{url}/#tekrarlar")
        page.get_by_role("button", name="Tekrarları ara").click()
        expect(page.get_by_role("heading", name=re.compile("^1 grupta 3 dosya"))).to_be_visible(timeout=30_000)
        expect(page.get_by_text("saklanacak")).to_have_count(1)
        expect(page.get_by_text(long.name.strip())).to_be_visible()  # a name is never cut
        seen.check("duplicates")


def test_without_a_folder_there_is_no_search(seen: Seen, address: str) -> None:
    from playwright.sync_api import expect

    page = seen.page
    answered(page, "state", images=None, folder="", can_index=False, notes=["Deneme modeli."], contrast="")
    page.goto(address)
    expect(page.get_by_role("heading", name="Sınıflandır")).to_be_visible()
    expect(page.get_by_label("Ne arıyorsunuz?")).to_be_hidden()
    expect(page.locator("#nav a")).to_have_text(["Sınıflandır", "Karşılaştır", "Çiz", "Hakkında"])
    seen.check("no index")
