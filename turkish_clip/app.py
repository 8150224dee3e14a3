"""The web page, in Turkish: search, classify and compare in the browser; served on 127.0.0.1 by default.

Built on Gradio (extra `app`), not on Streamlit, which runs a whole script again for each click. Of the indexed images
only thumbnails are served. They and the uploads lie in a temporary folder of the process, which removes it at its end.
"""

from __future__ import annotations

import atexit
import html
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turkish_clip.errors import InputError, is_encodable, not_imported
from turkish_clip.images import ImageError, open_image
from turkish_clip.reading import Caution, listed
from turkish_clip.serving import AppError, without_proxy
from turkish_clip.thumbnails import data_uri, thumbnail, thumbnail_or_grey
from turkish_clip.zero_shot import ZeroShotClassifier, parse_labels

if TYPE_CHECKING:
    from PIL import Image

    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.search.index import ImageIndex

log = logging.getLogger("turkish_clip")
MAX_PIXELS = 50_000_000  # of an uploaded image
MAX_LABELS, MAX_TEXTS, MAX_IMAGES, MAX_LETTERS = 200, 30, 20, 500  # synonyms count as labels
MAX_LABEL_LETTERS = 8000
KEPT_SECONDS = 3600  # how long uploads and thumbnails stay in the temporary folder
SHOWN = 24  # images found by a search
FOUND_SIDE, HEAD_SIDE = 192, 96  # pixels of the square of an image in the gallery and in the heat map
ENCODER = {"concurrency_id": "encoder", "concurrency_limit": 2}  # one queue for all buttons, of two at a time
DROP = "Resmi buraya bırakın ya da tıklayıp seçin"


def build_page(encoder: DualEncoder, index: ImageIndex | None) -> Any:
    """Builds the page as Gradio blocks.

    Args:
        encoder: from `load_dual_encoder`.
        index: the index that the search tab searches; None leaves that tab out.

    Raises:
        AppError: Gradio is not installed, or can not be imported.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if "GRADIO_TEMP_DIR" not in os.environ:  # Gradio's default folder is served by every page of this user
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="turkish-clip-")
        atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    try:
        with without_proxy():  # it makes a client when it is imported, which a proxy may keep from that
            import gradio as gr
    except ImportError as error:
        raise AppError(not_imported(error, "Gradio", "app", "gradio")) from error
    page = Page(encoder, index)

    def upload(label: str, height: int) -> Any:
        """Returns an image component that gives the path of the upload: Gradio's own decodes it, of any size."""
        component = gr.Image(label=label, height=height, type="filepath", sources=["upload"], placeholder=DROP)
        component.preprocess = lambda payload: None if payload is None else payload.path
        return _of_uploads_alone(component)

    with gr.Blocks(
        title="turkish-clip", analytics_enabled=False, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS)
    ) as blocks:
        gr.Markdown("# Türkçe sözlerle resimler")
        if encoder.model_cautions:
            gr.HTML(notes(encoder.model_cautions), elem_id="cautions")
        if index is not None:
            with gr.Tab("Ara"):
                words = gr.Textbox(
                    label="Ne arıyorsunuz?", placeholder="karda oynayan iki köpek", max_length=MAX_LETTERS
                )
                like = upload("ya da buna benzer resimler", 160)
                button = gr.Button("Ara", variant="primary", elem_id="search")
                gr.Markdown("Bulunanlar, en iyisi başta")  # a label of the gallery would cover the best image
                about_words = gr.HTML(elem_id="found-notes")
                found = gr.Gallery(show_label=False, columns=6, elem_id="found", format="png")
                button.click(page.search, [words, like], [found, about_words], api_name=False, **ENCODER)
                words.submit(page.search, [words, like], [found, about_words], api_name=False, **ENCODER)
        with gr.Tab("Sınıflandır"):
            image = upload("Resim", 260)
            labels = gr.Textbox(
                label="Etiketler (virgülle ya da ayrı satırlara; eş anlamlılar arasına |)",
                value="kedi, köpek, araba|otomobil",
                max_length=MAX_LABEL_LETTERS,
            )
            button = gr.Button("Sınıflandır", variant="primary", elem_id="classify")
            probabilities = gr.Label(label="Olasılıklar", num_top_classes=10, elem_id="probabilities")
            about_labels = gr.HTML(elem_id="probabilities-notes")
            button.click(page.classify, [image, labels], [probabilities, about_labels], api_name=False, **ENCODER)
        with gr.Tab("Karşılaştır"):
            files = _of_uploads_alone(gr.File(label="Resimler", file_count="multiple", file_types=["image"]))
            texts = gr.Textbox(label="Metinler (her satıra bir tane)", lines=4, max_length=MAX_TEXTS * MAX_LETTERS)
            button = gr.Button("Karşılaştır", variant="primary", elem_id="compare")
            table = gr.HTML(elem_id="scores")
            button.click(page.compare, [files, texts], table, api_name=False, **ENCODER)
        with gr.Tab("Hakkında"):
            about = gr.HTML(page.about())
        blocks.load(page.about, None, about, api_name=False, **ENCODER)
    return blocks


def _of_uploads_alone(component: Any) -> Any:
    """Makes a component refuse a URL given as a file: Gradio would fetch what is there, of any size."""
    move = component.async_move_resource_to_block_cache

    async def moved(path: str | Path | None) -> Any:
        if path is not None and "://" in str(path):
            raise _refused("Bir resim yükleyin; adresler açılmaz.")
        return await move(path)

    component.async_move_resource_to_block_cache = moved
    return component


class Page:
    """What the page's buttons run; errors are Turkish messages for its reader.

    Args:
        encoder: from `load_dual_encoder`.
        index: the index to search, or None.
    """

    def __init__(self, encoder: DualEncoder, index: ImageIndex | None) -> None:
        self.encoder, self.index = encoder, index

    def search(self, words: str | None, like: str | None) -> tuple[list[tuple[Image.Image, str]], str]:
        """Returns the best images for words or for an image, as thumbnails with scores and names, and notes in HTML.

        Args:
            words: the query; empty where an image is given.
            like: path of an uploaded image, or None.

        Raises:
            gradio.Error: no query, two, or too long a one, the upload does not open, or the index can't be searched.
        """
        words = _short(_text(words))
        if self.index is None or not (words or like):
            raise _refused("Aranacak sözleri yazın ya da bir resim yükleyin.")
        if words and like:
            raise _refused("Ya söz yazın ya da resim yükleyin; ikisi birlikte aranamaz.")
        query: Any = words or _opened(like)
        try:
            hits = self.index.search(query, SHOWN)
        except InputError as error:
            log.warning("search: %s", error)
            raise _refused("Arama yapılamadı: dizin boş ya da bozuk. Resimleri yeniden dizine alın.") from error
        found = ((self.index.inside(hit), hit) for hit in hits)
        shown = [
            (thumbnail_or_grey(path, FOUND_SIDE, hit.second), f"{number(hit.score)} · {path.name}")
            for path, hit in found
            if path is not None
        ]
        return shown, notes(self.encoder.cautions([words] if words else []))

    def classify(self, image: str | None, labels: str | None) -> tuple[dict[str, float], str]:
        """Returns the probability of each label for an image, and notes in HTML.

        Args:
            image: path of an upload, or None.
            labels: separated by commas or lines, synonyms by |.

        Raises:
            gradio.Error: too many labels, fewer than two, one given twice, or the upload does not open.
        """
        labels = _text(labels)
        if len(labels) > MAX_LABEL_LETTERS:
            raise _refused(f"Etiketler için en çok {MAX_LABEL_LETTERS} harf yazın; {len(labels)} harf var.")
        try:
            chosen = parse_labels(",".join(labels.replace(";", ",").splitlines()))
        except InputError as error:
            raise _refused("Aynı etiket iki kez yazılmış. Eş anlamlıları | ile birleştirin.") from error
        words = sum(map(len, chosen.values()))
        if words > MAX_LABELS:
            raise _refused(f"En çok {MAX_LABELS} etiket verin; {words} tane var.")
        opened = _opened(image)
        try:
            classifier = ZeroShotClassifier(self.encoder, chosen)
            found = classifier.classify([opened])[0]
        except InputError as error:
            raise _refused("En az iki farklı etiket yazın; her sözü bir etikete verin.") from error
        return found.probabilities, notes(classifier.cautions)

    def compare(self, files: list[str] | None, texts: str | None) -> str:
        """Returns notes and a table of cosines in HTML: a row per image, a column per text, its best image marked.

        Args:
            files: paths of uploads, or None.
            texts: one a line.

        Raises:
            gradio.Error: too few or too many images or texts, too long a text, or an upload does not open.
        """
        lines = [_short(line) for line in _text(texts).splitlines() if line.strip()]
        if not files or not lines:
            raise _refused("En az bir resim yükleyin ve en az bir metin yazın.")
        if len(files) > MAX_IMAGES or len(lines) > MAX_TEXTS:
            raise _refused(f"En çok {MAX_IMAGES} resim ve {MAX_TEXTS} metin verin.")
        heads, vectors = [], []
        for file in files:  # one at a time: twenty large ones would fill the memory
            image = _opened(file)
            vectors.append(next(self.encoder.embed_images([image], workers=1)).vectors)
            heads.append(thumbnail(image, HEAD_SIDE))
        cosines = np.concatenate(vectors) @ self.encoder.encode_texts(lines).T
        return notes(self.encoder.cautions(lines)) + _heat_map(heads, lines, cosines)

    def about(self) -> str:
        """Returns an HTML table of the models, what was measured of them, and the index."""
        from turkish_clip.encoder import max_tokens_of

        encoder = self.encoder
        limit = max_tokens_of(encoder.text)
        rows = {
            "Metin kodlayıcı": encoder.spec.text,
            "Görüntü modeli": encoder.image_name,
            "Uzayın boyutu": str(encoder.dim),
            "Okunan en uzun metin": f"{limit} parça" if limit else "sınırsız",
            "Sıcaklık": f"{encoder.temperature:g}".replace(".", ",")
            + ("" if encoder.temperature_is_fitted else " (ölçülmedi, varsayılan)"),
        }
        measured = encoder.spec.record and encoder.spec.record.measured
        if measured:
            rows["Ölçüldüğü veri"] = f"{measured['dataset']}: {measured['images']} resim, {measured['captions']} metin"
            rows["Metinden resme, ilk sırada"] = percent(measured["text_to_image"]["recall_at_1"])
            rows["Resimden metne, ilk sırada"] = percent(measured["image_to_text"]["recall_at_1"])
        if self.index is not None:
            rows["Dizindeki resimler"] = str(len(self.index))
            if not_read := self.index.left_out().not_read:
                listed = ", ".join(f"{kind} {count}" for kind, count in not_read.items())
                rows["Okunmayan dosyalar"] = f"{listed} (bu türler okunmaz; resim olanları JPEG'e çevirin)"
            rows["Klasörler"] = ", ".join(Path(folder).name for folder in self.index.folders())
        cells = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
        return (
            f"<table>{cells}</table><p>Puanlar kosinüs benzerliğidir, olasılık değildir; sözle aramada her söze yakın "
            "düşen resimler geriye alınabilir. Bir süzgeç ya da sınıflandırıcı yanılabilir; sonuçları gözden "
            "geçirmeden kullanmayın.</p>"
        )


def notes(cautions: Iterable[Caution]) -> str:
    """Returns cautions as HTML in Turkish; empty for none."""
    return "".join(f"<p>⚠ {html.escape(in_turkish(caution))}</p>" for caution in cautions)


def in_turkish(caution: Caution) -> str:
    """Returns a caution for the readers of the page."""
    texts, parts = listed(caution.texts, "ve {} tane daha"), listed(caution.parts, "ve {} tane daha")
    if caution.kind == "unknown":
        return f"Metin kodlayıcı hiçbir sözünü tanımıyor: {texts}. Puanlar bir şey söylemez."
    if caution.kind == "partly unknown":
        return f"Metin kodlayıcı bazı sözleri tanımıyor: {parts}. Puanlar geri kalanını anlatır."
    if caution.kind == "empty":
        return f"Okunacak söz yok: {texts}. Puanlar bir şey söylemez."
    if caution.kind == "cut":
        rest = f" Okunmayan bölüm şöyle başlıyor: {parts}." if parts and len(caution.texts) == 1 else ""
        return f"Metin çok uzun, {caution.limit} parçadan sonrası okunmuyor: {texts}.{rest}"
    if caution.kind == "miniature":
        return "Görüntü modeli denemenindir: yalnız onun çizimlerini tanır, fotoğrafların puanları anlamsızdır."
    if caution.kind == "no Turkish":
        return "Bu modelin Türkçe metin kodlayıcısı yok: Türkçe sözlerin puanları pek bir şey söylemez."
    return "Metin kodlayıcının hangi görüntü modeli için eğitildiği bilinmiyor: başkasıyla puanlar bir şey söylemez."


def _text(value: Any) -> str:
    """Returns what was typed; nothing for what is no text, which a request that the page did not make can hold."""
    return value if isinstance(value, str) else ""


def _short(text: str) -> str:
    """Returns a text without spaces around it, or raises the page's error for one that is too long or is not UTF-8."""
    text = text.strip()
    if len(text) > MAX_LETTERS:
        raise _refused(f"Bir metin en çok {MAX_LETTERS} harf olabilir; {len(text)} harf var.")
    if not is_encodable(text):
        raise _refused("Metinde bozuk bir harf var. Metni yeniden yazın.")
    return text


def _heat_map(images: list[Image.Image], texts: list[str], scores: Any) -> str:
    """Returns (images, texts) cosines as an HTML table, darker for higher; the images are the heads of the rows."""
    low, high = float(scores.min()), float(scores.max())
    best = scores.argmax(axis=0)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in texts)
    rows = []
    for row_number, (image, row) in enumerate(zip(images, scores)):
        cells = []
        for column, score in enumerate(row.tolist()):
            shade = (score - low) / max(high - low, 1e-9)
            mark = " ★" if best[column] == row_number else ""
            cells.append(
                f'<td style="background:rgba(30,110,200,{shade:.2f});color:{"#fff" if shade > 0.55 else "#222"};'
                f'text-align:center">{number(score)}{mark}</td>'
            )
        rows.append(f'<tr><td><img src="{data_uri(image)}" alt="resim {row_number + 1}"></td>{"".join(cells)}</tr>')
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def number(value: float) -> str:
    """Returns a number with three decimals in Turkish notation.

    >>> number(0.25)
    '0,250'
    """
    return f"{value:.3f}".replace(".", ",")


def percent(value: float) -> str:
    """Returns a fraction as a percentage in Turkish notation.

    >>> percent(0.946)
    '%94,6'
    """
    return f"%{100 * value:.1f}".replace(".", ",")


def _opened(path: str | None) -> Image.Image:
    if not path:
        raise _refused("Bir resim yükleyin.")
    try:
        return open_image(Path(path), max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise _refused("Bu dosya resim olarak açılamadı ya da çok büyük. PNG, JPEG ya da WebP deneyin.") from error


def _refused(message: str) -> Exception:
    """Returns an error that the page shows as a message, after which it goes on."""
    import gradio as gr

    return gr.Error(message, title="Olmadı", print_exception=False)  # type: ignore[no-any-return]
