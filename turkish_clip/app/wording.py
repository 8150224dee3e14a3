"""What the page says, in Turkish: numbers, dates, places, cautions, how well an image fits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from turkish_clip import language
from turkish_clip.errors import InputError
from turkish_clip.photo import Photo
from turkish_clip.reading import Caution, listed

MONTHS = "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık".split()
SAME_IMAGE = 0.9995  # cosine of two copies of one image
NOT_READ = ("unknown", "empty")  # kinds of cautions of texts of which nothing is read

BROKEN = "Dizin okunamadı: boş ya da bozuk olabilir. Klasörü yeniden dizine alın."


class RefusedError(InputError):
    """What the page does not do; its text is for the page's reader, in Turkish."""


def number(value: float) -> str:
    """Returns a number with three decimals in Turkish notation.

    >>> number(0.25)
    '0,250'
    """
    return f"{value:.3f}".replace(".", ",").replace("-", "−")


def percent(value: float) -> str:
    """Returns a fraction as a percentage in Turkish notation.

    >>> percent(0.946)
    '%94,6'
    """
    return f"%{100 * value:.1f}".replace(".", ",")


def counted(value: int) -> str:
    """Returns a whole number in Turkish notation.

    >>> counted(100000)
    '100.000'
    """
    return f"{value:,}".replace(",", ".")


def time_text(second: float) -> str:
    """Returns a second of a video as players show it.

    >>> time_text(75.4), time_text(3725.0)
    ('1:15', '1:02:05')
    """
    hours, rest = divmod(int(second), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def size_text(count: int) -> str:
    """Returns the size of a file.

    >>> size_text(900), size_text(2_450_000)
    ('900 bayt', '2,5 MB')
    """
    for least, unit in ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")):
        if count >= least:
            return f"{count / least:.1f} {unit}".replace(".", ",").replace(",0 ", " ")
    return f"{count} bayt"


def date_text(when: datetime) -> str:
    """Returns a day and time.

    >>> date_text(datetime(2024, 6, 15, 8, 5))
    '15 Haziran 2024, 08.05'
    """
    return f"{when.day} {MONTHS[when.month - 1]} {when.year}, {when:%H.%M}"


def month_text(when: datetime) -> str:
    """Returns a month.

    >>> month_text(datetime(2024, 6, 15))
    'Haziran 2024'
    """
    return f"{MONTHS[when.month - 1]} {when.year}"


def place_text(photo: Photo) -> str:
    """Returns the place of a photograph; empty where it is not known.

    >>> place_text(Photo(lat=41.0082, lon=-28.9784))
    '41,008° kuzey, 28,978° batı'
    """
    if photo.lat is None or photo.lon is None:
        return ""
    north, east = "kuzey" if photo.lat >= 0 else "güney", "doğu" if photo.lon >= 0 else "batı"
    return f"{number(abs(photo.lat))}° {north}, {number(abs(photo.lon))}° {east}"


def fit_text(fits: bool | None, score: float, place: int, *, of_image: bool) -> str:
    """Returns how well an image fits what was asked for, in words.

    Args:
        fits: as in `turkish_clip.search.index.Hit`.
        score: cosine to the query.
        place: among the images found, from 1 on.
        of_image: whether an image alone was asked for.

    >>> fit_text(None, 1.0, 1, of_image=True), fit_text(None, 0.3, 2, of_image=False)
    ('Aynı resim', 'En yakınlar arasında 2. sırada')
    """
    if fits is not None:
        return "Aradığınıza uyuyor" if fits else "Aradığınıza pek uymuyor, ama eldekilerin en yakınlarından"
    if of_image and score >= SAME_IMAGE:
        return "Aynı resim"
    return f"{'Benzerlikte' if of_image else 'En yakınlar arasında'} {place}. sırada"


def in_turkish(caution: Caution) -> str:
    """Returns a caution for the readers of the page."""
    texts, parts = listed(caution.texts, "ve {} tane daha"), listed(caution.parts, "ve {} tane daha")
    if caution.kind == "unknown":
        return f"Bu sözlerden hiçbiri anlaşılmadı: {texts}. Bulunanlar bir şey söylemez."
    if caution.kind == "partly unknown":
        return f"Bazı sözler anlaşılmadı: {parts}. Sonuçlar yalnız geri kalanına göre."
    if caution.kind == "empty":
        return f"Okunacak söz yok: {texts}. Bulunanlar bir şey söylemez."
    if caution.kind == "cut":
        rest = f" Okunmayan bölüm şöyle başlıyor: {parts}." if parts and len(caution.texts) == 1 else ""
        return f"Metin çok uzun, {caution.limit} belirteçten sonrası okunmuyor: {texts}.{rest}"
    if caution.kind == "miniature":
        return "Deneme modeli: yalnız kendi küçük dünyasının çizimlerini tanır, fotoğraflarda işe yaramaz."
    if caution.kind == "no Turkish":
        return "Bu modelin Türkçe metin kodlayıcısı yok: Türkçe sözlerle bulunanlar pek bir şey söylemez."
    return "Metin kodlayıcının hangi görüntü modeli için eğitildiği bilinmiyor: başkasıyla bulunanlar bir şey söylemez."


def reason_text(reason: str) -> str:
    """Returns why a file is not indexed.

    >>> reason_text("an empty file"), reason_text("an unreadable file (Permission denied)")
    ('boş bir dosya', 'okunamayan bir dosya (izin yok)')
    """
    head, found, detail = reason.removesuffix(")").partition(" (")
    if said := language.in_turkish(reason):
        return said
    said, why = language.in_turkish(head) or "okunamadı", language.in_turkish(detail) if found else None
    return f"{said} ({why})" if why else said


def notes(cautions: Iterable[Caution]) -> list[str]:
    """Returns cautions in Turkish."""
    return [in_turkish(caution) for caution in cautions]
