"""The page in headless Chromium, on a phone and on a desk: every section, every state, nothing outside is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from browsing import ARGUMENTS, CHROMIUM, NO_CHROMIUM, broken_words
from PIL import Image
from samples import paint

from turkish_clip.app.wording import number
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.search.index import ImageIndex

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
PHONE, TABLET, LANDSCAPE, DESK = (390, 844), (768, 1024), (844, 390), (1280, 800)
QUICK = (PHONE, DESK)  # the others are tried before a change is sent
WIDTHS = (320, 360, 390, 480, 600, 699, 700, 768, 780, 844, 860, 867, 900, 999, 1000, 1280, 1600)
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


def on(*windows: tuple[int, int]) -> pytest.MarkDecorator:
    """Windows of these sizes for a test."""
    return pytest.mark.parametrize(
        "seen",
        [
            pytest.param((size, "light"), id=f"{size[0]}x{size[1]}", marks=[pytest.mark.slow] * (size not in QUICK))
            for size in windows
        ],
        indirect=True,
    )


def in_sight(page: Page, selector: str) -> bool:
    """Returns whether all of an element is in the window, and nothing lies over its middle."""
    return bool(
        page.eval_on_selector(
            selector,
            """one => {
                const {left, top, right, bottom} = one.getBoundingClientRect();
                const above = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
                return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight && one.contains(above);
            }""",
        )
    )


def until(page: Page, expression: str) -> None:
    """Waits for something to hold in the page, whose policy lets no text be a script."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(expression)


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
    """Goes to a section, which the phone has in a menu, and waits for it: else the one before may still be there."""
    if seen.width == 390:
        seen.page.get_by_role("button", name="Diğer").click()
        seen.check("menu")
        seen.page.locator("#menu").get_by_role("link", name=name).click()
    else:
        seen.page.get_by_role("link", name=name).click()
    seen.page.get_by_role("heading", level=1, name=name, exact=True).wait_for()


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
        expect(page.get_by_role("button", name="“yaz 2024” dizinde; güncelle")).to_be_visible()
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


SECTIONS = (
    *("fotograflar", "ara?soz=ev", "filtre", "tekrarlar", "klasorler"),
    *("siniflandir", "karsilastir", "ciz", "hakkinda"),
)
NOTE = "Deneme modeli: fotoğraflarda işe yaramaz."


@on(DESK)
def test_the_page_fits_windows_of_every_width(seen: Seen, address: str) -> None:
    page = seen.page
    for section in SECTIONS:
        page.goto(f"{address}/#{section}")
        page.wait_for_selector("h1")
        page.wait_for_load_state("networkidle")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (section, width)
            assert in_sight(page, "#go"), (section, width)
            cut = page.eval_on_selector_all(
                "#nav a span", "all => all.filter(e => e.offsetParent && e.scrollWidth > e.parentElement.clientWidth)"
            )
            assert not cut, (section, width)


@on(DESK)
def test_bar_notices_forms_and_images_share_their_edges(seen: Seen, address: str) -> None:
    page = seen.page
    state = {"images": 10, "folder": "x", "can_index": True, "notes": [NOTE], "contrast": ""}
    answered(page, "state", **state)
    for width in (1280, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        edges = set()
        for section, selector in (("fotograflar", ".grid"), ("filtre", "form.form"), ("siniflandir", "form.form")):
            page.goto(f"{address}/#{section}")
            page.wait_for_selector(f"main {selector}")
            for one in ("#bar", "main .note", f"main {selector}"):
                box = page.locator(one).first.bounding_box()
                assert box is not None
                edges.add((round(box["x"]), round(box["x"] + box["width"])))
        assert len(edges) == 1


@on(PHONE, LANDSCAPE)
def test_every_section_begins_at_its_top(seen: Seen, address: str) -> None:
    page = seen.page
    page.goto(address)
    page.wait_for_selector("main .tile")
    for section in SECTIONS:
        page.evaluate("document.querySelector('main').style.minHeight = '3000px'; window.scrollTo(0, 1e5)")
        assert page.evaluate("scrollY") > 500
        page.evaluate("hash => (location.hash = hash)", section)
        if section == SECTIONS[0]:
            page.evaluate("document.querySelector('#nav a').click()")  # the section that is shown already
        page.wait_for_timeout(100)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("scrollY") == 0, section
    page.evaluate("window.scrollTo(0, 1e5)")
    page.go_back()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("scrollY") == 0


@on(PHONE, TABLET, LANDSCAPE)
def test_errors_of_forms_are_in_sight(seen: Seen, address: str) -> None:
    page = seen.page
    page.goto(address)
    for section, button in (("filtre", "İşaretle"), ("siniflandir", "Sınıflandır"), ("karsilastir", "Karşılaştır")):
        page.goto(f"{address}/#{section}")
        page.get_by_role("button", name=button, exact=True).click()
        page.wait_for_selector("[role=alert]")
        assert in_sight(page, "[role=alert]"), section
    answered(page, "find-duplicates", 400, message="Bir iş sürüyor.")
    answered(page, "add-folder", 400, message="Bir iş sürüyor.")
    for section, button in (("tekrarlar", "#find-duplicates"), ("klasorler", "#add-folder")):
        page.goto(f"{address}/#{section}")
        page.locator(button).click()
        page.wait_for_selector("[role=alert]")
        assert in_sight(page, "[role=alert]"), section


@on(PHONE)
def test_every_section_that_uses_the_model_says_what_it_is(seen: Seen, address: str) -> None:
    from playwright.sync_api import expect

    page = seen.page
    answered(page, "state", images=10, folder="x", can_index=True, notes=[NOTE], contrast="")
    page.goto(address)
    for section in SECTIONS:
        page.goto(f"{address}/#{section}")
        if section not in ("tekrarlar", "klasorler"):
            expect(page.get_by_text(NOTE)).to_be_visible()


@on(PHONE, TABLET, LANDSCAPE)
def test_one_image_is_shown_large_with_its_facts_beside_or_below(seen: Seen, address: str) -> None:
    page = seen.page
    page.goto(f"{address}/#ara?soz={'kırmızı ev ' * 40}")
    page.locator("main .tile").first.click()
    page.wait_for_load_state("networkidle")
    stage, facts = page.locator(".stage").bounding_box(), page.locator(".facts").bounding_box()
    assert stage is not None
    assert facts is not None
    if seen.width == 844:
        assert (stage["height"], facts["height"]) == (390, 390)
        assert stage["width"] >= 0.6 * 844
        assert facts["x"] == stage["width"]
    else:
        assert stage["width"] == seen.width
        assert facts["y"] == stage["height"] >= 300
    assert page.evaluate("getComputedStyle(document.querySelector('.facts')).overflowY") == "auto"
    page.keyboard.press("Escape")
    heading = page.locator("h1").bounding_box()
    assert heading is not None
    assert heading["height"] <= 3 * 1.3 * 24  # a long query is cut after three lines


@on(PHONE, TABLET)
def test_scores_keep_words_whole_and_scroll_in_their_box(seen: Seen, address: str, indexed: Path) -> None:
    from playwright.sync_api import expect

    page, texts = seen.page, ["karşılaştırılamayacaklardan bir ev", "gece", "kırmızı bir ev"]
    page.goto(f"{address}/#karsilastir")
    page.locator("main input[type=file]").set_input_files(sorted(indexed.glob("*.png"))[:2])
    expect(page.locator(".picked img")).to_have_count(2)
    page.get_by_label("Metinler").fill("\n".join(texts * 4))
    page.get_by_role("button", name="Karşılaştır").click()
    expect(page.locator("#scores")).to_be_visible()
    assert not broken_words(page, "#scores th")
    expect(page.get_by_text("Tabloyu yana kaydırın")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= seen.width
    page.get_by_label("Metinler").fill("ev")
    page.get_by_role("button", name="Karşılaştır").click()
    expect(page.locator("#scores th[scope=col]")).to_have_count(1)
    expect(page.get_by_text("Tabloyu yana kaydırın")).to_be_hidden()


@on(PHONE)
def test_videos_and_files_that_browsers_do_not_show(
    seen: Seen, serve_folder: Callable[[Path], AbstractContextManager[str]], tmp_path: Path
) -> None:
    from films import film
    from photographs import patches
    from playwright.sync_api import expect

    folder = tmp_path / "fotoğraflar"
    long = "anneannemin yazlığında geçirdiğimiz o çok uzun ve sıcak yaz tatilinden kalan bütün fotoğraflar " * 2
    film(folder / long.strip() / "film.webm", [patches(number) for number in range(3)], codec="libvpx")
    (folder / "bozuk.png").write_bytes(b"x")
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a.tif")
    page = seen.page
    with serve_folder(folder) as url:
        page.goto(f"{url}/#klasorler")
        page.get_by_role("button", name="Klasörü dizine al").click()
        expect(page.get_by_text("Bitti: 1 yeni.")).to_be_visible(timeout=30_000)
        expect(page.get_by_role("listitem").filter(has_text="bozuk.png")).to_contain_text("resim olmayan bir dosya")
        expect(page.get_by_role("button", name=long.strip())).to_contain_text("dizinde")
        page.get_by_role("button", name=long.strip()).click()
        expect(page.locator("#add-folder .verb")).to_have_text("dizinde; güncelle")
        assert in_sight(page, "#add-folder .verb")
        seen.check("a long name")

        page.goto(url)
        tile = page.get_by_role("button", name="film.webm. Video, 0:")
        expect(tile.locator(".badge.time")).to_have_text(re.compile("^0:0[0-6]$"))
        seen.check("a video's mark")
        tile.click()
        expect(page.get_by_role("link", name="Videoyu indir")).to_be_visible()
        page.get_by_role("button", name="Oynat").click()
        expect(page.locator(".stage video")).to_be_visible()
        until(page, "document.querySelector('.stage video').videoWidth === 96")
        seen.check("a video is played")
        page.keyboard.press("Escape")

        page.goto(f"{url}/#siniflandir")
        page.locator("main input[type=file]").set_input_files(tmp_path / "a.tif")
        until(page, "document.querySelector('.picked img')?.naturalWidth === 300")
        page.locator("#image-file").set_input_files(tmp_path / "a.tif")
        until(page, "document.querySelector('#chip img')?.naturalWidth === 300")
        page.reload()  # the browser's own copy is gone
        until(page, "document.querySelector('#chip img')?.naturalWidth === 300")
        seen.check("an upload that the browser does not show")
