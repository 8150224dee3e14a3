"""What the page does, without the web."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from films import film
from photographs import patches
from PIL import Image
from samples import paint

from turkish_clip.app.drawing import DrawnBy
from turkish_clip.app.page import SHOWN, Page
from turkish_clip.app.photos import viewable
from turkish_clip.app.wording import RefusedError, fit_text, in_turkish, number, reason_text
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.errors import InputError
from turkish_clip.reading import Caution
from turkish_clip.search.index import ImageIndex


@pytest.fixture
def page(indexed: Path, encoder: DualEncoder) -> Page:
    return Page(encoder, ImageIndex.open(indexed / ".turkish-clip", encoder), indexed)


@pytest.fixture
def own(tmp_path: Path, encoder: DualEncoder) -> Iterator[Page]:
    """The page of an empty folder that a test fills."""
    folder = tmp_path / "fotoğraflar"
    folder.mkdir()
    page = Page(encoder, ImageIndex.open(folder / ".turkish-clip", encoder), folder)
    yield page
    for kind in ("index", "duplicates"):
        finished(page, kind)


def finished(page: Page, kind: str) -> dict[str, Any]:
    """The result of a job, when it has ended."""
    for _ in range(600):
        job = page.jobs.last(kind)
        if job is None or job.state != "running":
            return {} if job is None else job.as_json()
        time.sleep(0.05)
    raise AssertionError("the job does not end")


def test_words_find_what_the_index_finds_page_by_page(page: Page, indexed: Path) -> None:
    assert page.index is not None
    best = page.index.search("kırmızı ev", k=10)
    found = page.search("kırmızı ev")
    assert [photo["path"] for photo in found["photos"]] == [hit.path for hit in best]
    assert [photo["score"] for photo in found["photos"]] == [number(hit.score) for hit in best]
    assert (found["more"], found["gone"], found["understood"], found["fits"]) == (False, 0, True, None)
    assert found["photos"][2]["fit"] == "En yakınlar arasında 3. sırada"
    rest = page.search("kırmızı ev", offset=7)["photos"]
    assert [photo["path"] for photo in rest] == [hit.path for hit in best[7:]]
    assert found["photos"][0]["folder"] == indexed.name


def test_an_image_and_words_and_what_is_kept_away_are_one_query(page: Page, indexed: Path) -> None:
    from turkish_clip.search.composition import Query

    assert page.index is not None
    first = sorted(indexed.glob("*.png"))[0]
    upload = page.photos.keep_upload(first.read_bytes())
    alone = page.search(image=upload)["photos"]
    assert (alone[0]["path"], alone[0]["fit"], alone[0]["score"]) == (str(first), "Aynı resim", "1,000")
    assert page.search(image=alone[0]["id"])["photos"][0]["path"] == str(first)  # its likes
    together = page.search("ev^2", "kuş, mavi", upload)["photos"]
    query = Query(("ev", 2.0), without=["kuş", "mavi"], image=first)
    assert [photo["path"] for photo in together] == [hit.path for hit in page.index.search(query, k=10)]


def test_whether_anything_fits_is_told(own: Page, indexed: Path, encoder: DualEncoder) -> None:
    assert own.root is not None
    assert own.index is not None
    for path in indexed.glob("*.png"):
        shutil.copy(path, own.root)
    texts = [f"{one} {two} {three} var" for one in ("bir", "iki") for two in "kırmızı mavi sarı da".split()
             for three in "ev ağaç çiçek köpek kuş İstanbul ankara şeker . ' evin üstünde altında".split()]  # fmt: skip
    own.index.add(own.root, queries=texts)
    answer = own.index.ask("kırmızı ev", 10)
    found = own.search("kırmızı ev")
    assert found["fits"] is answer.fits is not None
    assert [photo["fits"] for photo in found["photos"]] == [hit.fits for hit in answer.hits]
    expected = {True: "Aradığınıza uyuyor", False: "Aradığınıza pek uymuyor, ama eldekilerin en yakınlarından"}
    assert [photo["fit"] for photo in found["photos"]] == [expected[bool(hit.fits)] for hit in answer.hits]
    unknown = own.search("кошка")
    assert (unknown["understood"], unknown["fits"]) == (False, False)
    assert unknown["notes"] == ["Bu sözlerden hiçbiri anlaşılmadı: 'кошка'. Bulunanlar bir şey söylemez."]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "Aranacak sözleri yazın"),
        ({"without": "gece"}, "Yalnız hariç tutulacaklar yazılı"),
        ({"words": "ev " * 200}, "en çok 500 harf olabilir; 599 harf var"),
        ({"words": "\ud800x"}, "Metinde bozuk bir harf var"),
        ({"words": "ev", "without": "ev"}, "birlikte aranamaz"),
        ({"words": "ev^0"}, "birlikte aranamaz"),
        ({"image": "../../etc/passwd"}, "Bu resim artık yerinde değil"),
        ({"image": "u" * 32}, "Bu resim artık yerinde değil"),
        ({"words": 7, "image": ["x"]}, "Aranacak sözleri yazın"),
    ],
)
def test_what_cannot_be_searched_is_said(asked: dict[str, Any], message: str, page: Page) -> None:
    with pytest.raises(RefusedError, match=message):
        page.search(**asked)


@pytest.mark.parametrize("offset", [-1, "7", None, 10**9, 1.5])
def test_an_offset_that_is_none_is_the_beginning(offset: Any, page: Page) -> None:
    assert page.search("ev", offset=offset)["photos"] == page.search("ev")["photos"]


def test_the_newest_come_first_by_month(own: Page) -> None:
    assert own.root is not None
    assert own.index is not None
    assert own.newest() == {"photos": [], "gone": 0, "more": False, "next": SHOWN}
    for place, name in enumerate(("eski", "yeni", "orta")):
        when = datetime(2024, (1, 6, 3)[place], 15).timestamp()
        os.utime(paint(own.root / f"{name}.png", place), (when, when))
    taken = Image.Exif()
    taken.get_ifd(0x8769)[0x9003] = "2025:02:03 04:05:06"
    taken[0x0110] = "Canon EOS 80D"
    Image.new("RGB", (40, 40), "red").save(own.root / "çekilen.jpg", exif=taken)
    os.utime(own.root / "çekilen.jpg", (0, 0))
    own.index.add(own.root)
    shown = own.newest()["photos"]
    months = [("çekilen.jpg", "Şubat 2025"), ("yeni.png", "Haziran 2024"), ("orta.png", "Mart 2024")]
    assert [(photo["name"], photo["month"]) for photo in shown[:3]] == months
    assert shown[0]["rows"] == [["Çekildi", "3 Şubat 2025, 04.05"], ["Makine", "Canon EOS 80D"]]
    assert [photo["name"] for photo in own.newest(2)["photos"]] == ["orta.png", "eski.png"]
    details = own.details(shown[1]["id"])
    assert details is not None
    assert details["rows"][1] == ["Son değişiklik", "15 Haziran 2024, 00.00"]
    (own.root / "yeni.png").unlink()
    assert own.details(shown[1]["id"]) is None
    assert (own.newest()["gone"], len(own.newest()["photos"])) == (1, 3)


def test_where_in_an_image_the_words_are(page: Page, encoder: DualEncoder) -> None:
    from turkish_clip.regions import find_regions

    photo = page.search("kırmızı ev")["photos"][0]
    best = find_regions(encoder, Path(photo["path"]), "ev")[0].box
    with Image.open(photo["path"]) as image:
        width, height = image.size
    box = page.where(photo["id"], "ev^2")["box"]
    assert box == [best[0] / width, best[1] / height, (best[2] - best[0]) / width, (best[3] - best[1]) / height]
    with pytest.raises(RefusedError, match="Neyin aranacağını yazın"):
        page.where(photo["id"], " ")
    with pytest.raises(RefusedError, match="artık yerinde değil"):
        page.where("0" * 32, "ev")


def test_labels_and_cosines(page: Page, indexed: Path) -> None:
    images = [page.photos.keep_upload(path.read_bytes()) for path in sorted(indexed.glob("*.png"))[:2]]
    labels = page.classify(images[0], "ev, kuş|köpek")["labels"]
    assert {one["label"] for one in labels} == {"ev", "kuş"}
    assert sum(one["probability"] for one in labels) == pytest.approx(1)
    assert labels[0]["probability"] >= labels[1]["probability"]
    table = page.compare(images, "kırmızı ev\n<b>kuş</b>")
    assert table["texts"] == ["kırmızı ev", "<b>kuş</b>"]
    assert (len(table["scores"]), len(table["best"])) == (2, 2)
    assert max(max(row) for row in table["shades"]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("кошка", "Bu sözlerden hiçbiri anlaşılmadı: 'кошка'."),
        ("kırmızı <b>zürafa</b>", "Bazı sözler anlaşılmadı: "),
        ("iki ev ve " * 40, "Metin çok uzun, 32 belirteçten sonrası okunmuyor: "),
        ("...", "Okunacak söz yok: '...'."),
    ],
)
def test_what_is_not_read_is_said_in_turkish(text: str, said: str, page: Page, indexed: Path) -> None:
    image = page.photos.keep_upload(min(indexed.glob("*.png")).read_bytes())
    answers = [page.search(text), page.classify(image, f"{text}, ev"), page.compare([image], text), page.filter(text)]
    for found in answers:
        assert any(note.startswith(said) for note in found["notes"])


def test_refusals_of_the_other_sections(page: Page, indexed: Path) -> None:
    image = page.photos.keep_upload(min(indexed.glob("*.png")).read_bytes())
    for ask, message in (
        (lambda: page.classify("", "ev, kuş"), "Bir resim seçin"),
        (lambda: page.classify(image, "ev"), "En az iki farklı etiket"),
        (lambda: page.classify(image, "ev, ev"), "Aynı etiket iki kez"),
        (lambda: page.classify(image, "|".join(map(str, range(300))) + ", ev"), "En çok 200 etiket verin; 301 tane"),
        (lambda: page.classify(image, "e" * 9000), r"en çok 8\.000 harf"),
        (lambda: page.compare([], "ev"), "En az bir resim"),
        (lambda: page.compare([image], ""), "en az bir metin"),
        (lambda: page.compare("x", "ev"), "En az bir resim"),
        (lambda: page.compare([image] * 21, "ev"), "En çok 20 resim"),
        (lambda: page.filter(""), "Neyin işaretleneceğini yazın"),
        (lambda: page.filter("ev", "Ev"), "Aranan ile karşıtı aynı olamaz"),
        (lambda: page.filter("ev", least=2), "0 ile 1 arasında"),
        (lambda: page.filter(", ".join(["ev"] * 31)), "En çok 30 söz"),
    ):
        with pytest.raises(RefusedError, match=message):
            ask()


def test_the_filter_flags_what_the_library_flags(page: Page, encoder: DualEncoder) -> None:
    from turkish_clip.filtering import ImageFilter

    assert page.index is not None
    paths, vectors = page.index.vectors()
    flags = ImageFilter(encoder, ["kırmızı", "mavi"], contrast=["ev"], min_probability=0.2).flag_vectors(vectors)
    right = sorted((-flag.score, path) for path, flag in zip(paths, flags) if flag.flagged)
    found = page.filter("kırmızı\nmavi", "ev", 0.2)
    assert [photo["path"] for photo in found["photos"]] == [path for _, path in right]
    assert found["flagged"] == len(right) > 0
    assert page.filter("kırmızı, mavi", "ev", 0.2, offset=1)["photos"] == found["photos"][1:]


def test_duplicates_are_found_in_a_job(own: Page, indexed: Path) -> None:
    assert own.root is not None
    assert own.index is not None
    for number_, path in enumerate(sorted(indexed.glob("*.png"))[:3]):
        shutil.copy(path, own.root / f"{number_}.png")
    shutil.copy(own.root / "0.png", own.root / "kopya.png")
    own.index.add(own.root)
    own.find_duplicates(True)
    job = finished(own, "duplicates")
    assert job["state"] == "done"
    assert {name: job["result"][name] for name in ("groups", "files", "images")} == {
        "groups": 1,
        "files": 2,
        "images": 3,
    }
    groups = own.duplicates()["groups"]
    assert [[file["name"] for file in group] for group in groups] == [["0.png", "kopya.png"]]
    assert [[(file["keep"], file["same"]) for file in group] for group in groups] == [
        [(True, ""), (False, "birebir aynı dosya")]
    ]
    assert own.duplicates(12) == {"groups": [], "more": False, "next": 24}


def test_near_copies_are_said_to_be_alike_not_the_same(own: Page) -> None:
    assert own.root is not None
    assert own.index is not None
    image = Image.open(paint(own.root / "a.png", 2)).resize((400, 400))
    image.save(own.root / "büyük.png")
    image.resize((200, 200)).save(own.root / "küçük.png")
    (own.root / "a.png").unlink()
    own.index.add(own.root)
    own.find_duplicates()
    finished(own, "duplicates")
    [group] = own.duplicates()["groups"]
    assert [(file["keep"], file["near"]) for file in group] == [(True, False), (False, True)]
    assert group[1]["same"] == "benzer; başka bir resim de olabilir"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("a truncated or damaged image", "eksik ya da bozuk bir resim"),
        ("an unreadable file (Permission denied)", "okunamayan bir dosya (izin yok)"),
        ("an unreadable file (Input/output error)", "okunamayan bir dosya"),
        ("a folder that can't be entered (Permission denied)", "girilemeyen bir klasör (izin yok)"),
        ("a file of a kind that is not read (HEIC)", "okunmayan türden bir dosya (HEIC)"),
        ("what nobody has translated", "okunamadı"),
    ],
)
def test_why_a_file_is_not_indexed_is_said_in_turkish(reason: str, said: str) -> None:
    assert reason_text(reason) == said


def test_a_folder_is_indexed_from_the_page_with_progress(own: Page) -> None:
    assert own.root is not None
    for place in range(3):
        paint(own.root / "yaz" / f"{place}.png", place)
    (own.root / "yaz" / "bozuk.png").write_bytes(b"x")
    (own.root / "yaz" / "deniz").mkdir()
    (own.root / "yazı").mkdir()
    apart = [{"name": "yaz", "inside": False}, {"name": "yazı", "inside": False}]
    assert own.folders()["folders"] == apart
    own.add_folder("yaz")
    job = finished(own, "index")
    assert (job["state"], job["done"], job["total"]) == ("done", 4, 4)
    assert (job["result"]["added"], job["result"]["skipped_count"]) == (3, 1)
    assert job["result"]["skipped"] == [["fotoğraflar/yaz/bozuk.png", "resim olmayan bir dosya"]]
    assert own.state()["images"] == 3
    assert own.folders()["indexed"] == ["fotoğraflar/yaz"]
    assert own.folders()["folders"] == [{"name": "yaz", "inside": True}, apart[1]]  # not what begins with its name
    assert (own.folders()["inside"], own.folders()["skipped_count"]) == (False, 1)
    assert own.folders()["skipped"] == [["fotoğraflar/yaz/bozuk.png", "resim olmayan bir dosya"]]
    assert own.folders("yaz")["folders"] == [{"name": "deniz", "inside": True}]
    assert (own.folders("yaz")["inside"], own.folders("yaz/deniz")["inside"]) == (True, True)
    assert own.search("ev")["photos"][0]["folder"] == "fotoğraflar/yaz"
    own.add_folder("")
    assert finished(own, "index")["result"]["images"] == 3


def test_searches_go_on_while_a_folder_is_indexed(own: Page) -> None:
    assert own.root is not None
    for place in range(200):
        paint(own.root / f"{place}.png", place)
    own.add_folder("")
    seen = set()
    while (job := own.jobs.last("index")) is not None and job.state == "running":
        seen.add(len(own.newest()["photos"]))
        if own.state()["images"]:
            answer = own.search("ev")  # an image is written a moment before its file's row, and has no file till then
            assert answer["photos"] or answer["gone"]
    assert finished(own, "index")["state"] == "done"
    assert len(own.newest()["photos"]) == SHOWN
    assert own.newest(SHOWN)["more"]


def test_one_job_at_a_time_and_it_stops(own: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: ImageIndex, *, progress: Any, **_: Any) -> None:
        for step in range(1000):
            progress(step, 1000)
            time.sleep(0.02)

    monkeypatch.setattr(ImageIndex, "duplicates", slow)
    job = own.find_duplicates()
    with pytest.raises(RefusedError, match="Bir iş sürüyor"):
        own.add_folder("")
    job.stopping = True
    assert finished(own, "duplicates")["state"] == "stopped"


def test_an_image_is_drawn_in_a_job(own: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turkish_clip.app.drawing.STEPS", 40)
    own.draw("kırmızı bir ev", "mavi, ", 3)
    job = finished(own, "draw")
    assert (job["state"], job["done"], job["total"]) == ("done", 40, 40)
    assert job["result"]["words"] == "kırmızı bir ev"
    data = own.photos.drawing(job["result"]["image"])
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("PNG", (32, 32))
    with pytest.raises(RefusedError, match="Ne çizileceğini yazın"):
        own.draw("  ")


def test_a_drawing_that_is_stopped_keeps_what_it_has(own: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turkish_clip.app.drawing.STEPS", 100_000)
    job = own.draw("kırmızı bir ev")
    while job.done < 5:
        time.sleep(0.02)
    job.stopping = True
    stopped = finished(own, "draw")
    assert stopped["state"] == "stopped"
    assert own.photos.drawing(stopped["result"]["image"]) is not None


def test_a_drawing_by_what_is_not_there_is_said(encoder: DualEncoder, tmp_path: Path) -> None:
    page = Page(encoder, None, drawn_by=DrawnBy(decoder=str(tmp_path)))
    page.draw("ev")
    job = finished(page, "draw")
    assert (job["state"], job["message"]) == ("failed", "Çizilemedi. Ayrıntısı komutun çıktısında.")
    with pytest.raises(InputError, match="expected --decoder without --generator"):
        DrawnBy("one", "other")


def test_a_folder_without_images_is_said(own: Page) -> None:
    own.add_folder("")
    job = finished(own, "index")
    assert job["state"] == "done"
    assert job["result"]["images"] == 0


@pytest.mark.parametrize(
    "below", ["..", "../x", "a/../..", "/etc", "yok", "bağ", ".gizli", "a\\b", "a\0b", "yaz/..", "."]
)
def test_no_path_leaves_the_folder(below: str, own: Page, tmp_path: Path) -> None:
    assert own.root is not None
    outside = tmp_path / "x"
    outside.mkdir()
    (own.root / ".gizli").mkdir()
    for name in ("yaz", "çam", "deniz"):  # by the Turkish alphabet
        (own.root / name).mkdir()
    (own.root / "bağ").symlink_to(outside)
    assert [one["name"] for one in own.folders("")["folders"]] == ["çam", "deniz", "yaz"]
    for ask in (own.folders, own.folder_below, own.add_folder):
        with pytest.raises(RefusedError, match="Böyle bir klasör burada yok"):
            ask(below)


def test_a_damaged_index_is_said(own: Page) -> None:
    assert own.root is not None
    assert own.index is not None
    paint(own.root / "a.png", 1)
    own.index.add(own.root)
    for path in (own.root / ".turkish-clip" / "images.lance" / "data").iterdir():
        path.write_bytes(b"x")
    for ask in (lambda: own.search("ev"), lambda: own.filter("ev")):
        with pytest.raises(RefusedError, match="Dizin okunamadı"):
            ask()


def test_a_file_behind_a_link_out_of_the_folder_is_not_shown(own: Page, tmp_path: Path) -> None:
    assert own.root is not None
    assert own.index is not None
    paint(own.root / "a.png", 1)
    paint(tmp_path / "b.png", 2)
    own.index.add(own.root)
    name = own.newest()["photos"][0]["id"]
    assert own.photos.path(name) == own.root / "a.png"
    (own.root / "a.png").unlink()
    (own.root / "a.png").symlink_to(tmp_path / "b.png")
    assert own.photos.path(name) is None
    assert own.search("ev")["gone"] == 1


def test_without_an_index(encoder: DualEncoder) -> None:
    page = Page(encoder, None)
    assert (page.state()["images"], page.state()["can_index"]) == (None, False)
    for ask in (page.newest, page.folders, page.find_duplicates, lambda: page.search("ev"), lambda: page.filter("ev")):
        with pytest.raises(RefusedError, match="Bu sayfadan klasör eklenemez|klasörsüz açıldı"):
            ask()
    assert ["Uzayın boyutu", "16"] in page.about()


def test_the_page_names_the_kinds_that_are_not_in_the_index(own: Page) -> None:
    assert own.root is not None
    assert own.index is not None
    paint(own.root / "a.png", 1)
    own.index.add(own.root)
    assert "Okunmayan dosyalar" not in dict(own.about())  # type: ignore[arg-type]
    for name in ("1.PSD", "2.psd", "3.svg"):
        (own.root / name).write_bytes(b"x")
    own.index.add(own.root)
    assert dict(own.about())["Okunmayan dosyalar"].startswith("PSD 2, SVG 1 ")  # type: ignore[arg-type]


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
    assert "parça" not in text


def test_how_well_an_image_fits_in_words() -> None:
    assert fit_text(True, 0.3, 1, of_image=False) == "Aradığınıza uyuyor"
    assert fit_text(None, 0.99, 2, of_image=True) == "Benzerlikte 2. sırada"


def test_a_page_for_others_indexes_nothing(encoder: DualEncoder, indexed: Path) -> None:
    page = Page(encoder, ImageIndex.open(indexed / ".turkish-clip", encoder), indexed, can_index=False)
    assert page.state()["can_index"] is False
    assert page.newest()["photos"]
    for refused in (page.folders, page.add_folder):
        with pytest.raises(RefusedError, match="Bu sayfadan klasör eklenemez"):
            refused()


def test_a_video_is_one_photo_with_its_best_frame(own: Page) -> None:
    assert own.index is not None
    film(own.root / "film.mp4", [patches(number) for number in range(4)])  # type: ignore[operator]
    paint(own.root / "a.png", 1)  # type: ignore[operator]
    own.index.add(own.root)  # type: ignore[arg-type]
    [shown] = [photo for photo in own.search("ev")["photos"] if photo["name"] == "film.mp4"]
    best = next(hit for hit in own.index.search("ev") if hit.path.endswith("film.mp4"))
    assert shown["rows"][0] == ["Videoda", f"0:{best.second:02.0f}"]
    assert (shown["time"], shown["second"], shown["plays"]) == (shown["rows"][0][1], best.second, "video/mp4")
    assert not {"time", "plays"} & set(next(photo for photo in own.search("ev")["photos"] if photo["name"] == "a.png"))
    path = own.photos.path(shown["id"])
    assert path is not None
    assert own.photos.second(shown["id"]) == best.second
    frame = Image.open(io.BytesIO(own.photos.thumbnail(shown["id"], path)))
    assert frame.getpixel((5, 5)) != (221, 221, 221)  # not the grey of what does not open
    assert Image.open(io.BytesIO(viewable(path, best.second))).size == (96, 64)
    similar = own.search(image=shown["id"])["photos"]
    assert (similar[0]["name"], similar[0]["rows"][0]) == ("film.mp4", shown["rows"][0])
    assert sorted(photo["name"] for photo in own.newest()["photos"]) == ["a.png", "film.mp4"]
    flagged = own.filter("ev", least=0)
    assert (flagged["flagged"], sorted(photo["name"] for photo in flagged["photos"])) == (2, ["a.png", "film.mp4"])
