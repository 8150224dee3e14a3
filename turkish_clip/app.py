"""The web page: search, classify and compare in the browser, with Turkish words. On this machine alone unless asked.

Built on Gradio (extra `app`); Streamlit was looked at: it runs a whole script again for each click. Of the indexed
images only thumbnails made here are served; these and uploads lie in a folder of the process's own, and go with it.
"""

from __future__ import annotations

import atexit
import base64
import html
import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, open_image
from turkish_clip.sheet import thumbnail
from turkish_clip.zero_shot import ZeroShotClassifier, parse_labels

if TYPE_CHECKING:
    from PIL import Image

    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.search.index import ImageIndex

log = logging.getLogger("turkish_clip")
LOOPBACK = "127.0.0.1"
MAX_UPLOAD = "20mb"
MAX_PIXELS = 50_000_000  # of an uploaded image
MAX_LABELS, MAX_TEXTS, MAX_IMAGES, MAX_LETTERS = 200, 30, 20, 500  # synonyms count as labels
MAX_LABEL_LETTERS = 8000
KEPT_SECONDS = 3600  # uploads and thumbnails
SHOWN = 24
HEAD = 96  # pixels of an image in the heat map
DROP = "Resmi buraya bırakın ya da tıklayıp seçin"


class AppError(InputError):
    """A page that can't be built."""


def build_page(encoder: DualEncoder, index: ImageIndex | None) -> Any:
    """The page as Gradio blocks.

    Args:
        encoder: from `load_dual_encoder`.
        index: what the search tab looks into; None leaves that tab out.

    Raises:
        AppError: Gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if "GRADIO_TEMP_DIR" not in os.environ:  # else one that all pages of this user share, and each serves
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="turkish-clip-")
        atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    try:
        import gradio as gr
    except ImportError as error:
        raise AppError('expected Gradio, got none installed; pip install "turkish-clip[app]"') from error
    page = Page(encoder, index)

    def upload(label: str, height: int) -> Any:
        """A place for an image that comes to us as it was uploaded: Gradio would decode it before we have looked."""
        place = gr.Image(label=label, height=height, type="filepath", sources=["upload"], placeholder=DROP)
        place.preprocess = lambda payload: None if payload is None else payload.path
        return _of_uploads_alone(place)

    with gr.Blocks(
        title="turkish-clip", analytics_enabled=False, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS)
    ) as blocks:
        gr.Markdown("# Türkçe sözlerle resimler")
        if index is not None:
            with gr.Tab("Ara"):
                words = gr.Textbox(
                    label="Ne arıyorsunuz?", placeholder="karda oynayan iki köpek", max_length=MAX_LETTERS
                )
                like = upload("ya da buna benzer resimler", 160)
                button = gr.Button("Ara", variant="primary", elem_id="search")
                gr.Markdown("Bulunanlar, en iyisi başta")  # a label inside the gallery would lie over the best one
                found = gr.Gallery(show_label=False, columns=6, elem_id="found", format="png")
                button.click(page.search, [words, like], found, api_name=False)
                words.submit(page.search, [words, like], found, api_name=False)
        with gr.Tab("Sınıflandır"):
            image = upload("Resim", 260)
            labels = gr.Textbox(
                label="Etiketler (virgülle ya da ayrı satırlara; eş anlamlılar arasına |)",
                value="kedi, köpek, araba|otomobil",
                max_length=MAX_LABEL_LETTERS,
            )
            button = gr.Button("Sınıflandır", variant="primary", elem_id="classify")
            probabilities = gr.Label(label="Olasılıklar", num_top_classes=10, elem_id="shares")
            button.click(page.classify, [image, labels], probabilities, api_name=False)
        with gr.Tab("Karşılaştır"):
            files = _of_uploads_alone(gr.File(label="Resimler", file_count="multiple", file_types=["image"]))
            texts = gr.Textbox(label="Metinler (her satıra bir tane)", lines=4, max_length=MAX_TEXTS * MAX_LETTERS)
            button = gr.Button("Karşılaştır", variant="primary", elem_id="compare")
            table = gr.HTML(elem_id="scores")
            button.click(page.compare, [files, texts], table, api_name=False)
        with gr.Tab("Hakkında"):
            about = gr.HTML(page.about())
        blocks.load(page.about, None, about, api_name=False)
    return blocks


def _of_uploads_alone(place: Any) -> Any:
    """A component that takes no address in the place of a file: Gradio would fetch what is there, of any size."""
    move = place.async_move_resource_to_block_cache

    async def moved(path: str | Path | None) -> Any:
        if path is not None and "://" in str(path):
            raise _refused("Bir resim yükleyin; adresler açılmaz.")
        return await move(path)

    place.async_move_resource_to_block_cache = moved
    return place


def serve(blocks: Any, *, host: str = LOOPBACK, port: int = 7860, quiet: bool = False) -> None:
    """Serves the page until interrupted.

    Args:
        blocks: from `build_page`.
        host: 127.0.0.1 is this machine alone; 0.0.0.0 is everyone who reaches it.
        port: of the address.
        quiet: print nothing.

    Raises:
        AppError: the port is taken.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that thumbnails and uploads go then, too
    try:
        _launch(blocks, host, port, quiet)
    except OSError as error:
        raise AppError(
            f"expected a free port, got {port}, which is taken or not allowed; choose another --port"
        ) from error


def _launch(blocks: Any, host: str, port: int, quiet: bool) -> None:
    if not quiet:
        print(f"the page: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    blocks.queue(max_size=32, default_concurrency_limit=2).launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,  # else it advises to share the page with the world
        show_error=False,  # ours are shown all the same; others may hold paths
        max_file_size=MAX_UPLOAD,
        allowed_paths=[],
        footer_links=[],
    )


class Page:
    """What the buttons do; messages are for the page's reader, in Turkish."""

    def __init__(self, encoder: DualEncoder, index: ImageIndex | None) -> None:
        self.encoder, self.index = encoder, index

    def search(self, words: str, like: str | None) -> list[tuple[Image.Image, str]]:
        """Thumbnails of the images that fit words or an image, with their scores."""
        words = words.strip()[:MAX_LETTERS]
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
        found = ((self.index.inside(hit), hit.score) for hit in hits)
        return [(thumbnail(path), f"{number(score)} · {path.name}") for path, score in found if path is not None]

    def classify(self, image: str | None, labels: str) -> dict[str, float]:
        """Probabilities by label."""
        if len(labels) > MAX_LABEL_LETTERS:
            raise _refused(f"Etiketler için en çok {MAX_LABEL_LETTERS} harf yazın; {len(labels)} harf var.")
        try:
            chosen = parse_labels(",".join(labels.splitlines()))
        except InputError as error:
            raise _refused("Aynı etiket iki kez yazılmış. Eş anlamlıları | ile birleştirin.") from error
        words = sum(map(len, chosen.values()))
        if words > MAX_LABELS:
            raise _refused(f"En çok {MAX_LABELS} etiket verin; {words} tane var.")
        opened = _opened(image)
        try:
            found = ZeroShotClassifier(self.encoder, chosen).classify([opened])[0]
        except InputError as error:
            raise _refused("En az iki farklı etiket yazın; her sözü bir etikete verin.") from error
        return found.probabilities

    def compare(self, files: list[str] | None, texts: str) -> str:
        """A table of cosines: a row per image, a column per text; the best of each column is marked."""
        lines = [line.strip()[:MAX_LETTERS] for line in texts.splitlines() if line.strip()]
        if not files or not lines:
            raise _refused("En az bir resim yükleyin ve en az bir metin yazın.")
        if len(files) > MAX_IMAGES or len(lines) > MAX_TEXTS:
            raise _refused(f"En çok {MAX_IMAGES} resim ve {MAX_TEXTS} metin verin.")
        small, vectors = [], []
        for file in files:  # one at a time: twenty large ones would fill the memory
            image = _opened(file)
            vectors.append(next(self.encoder.embed_images([image], workers=1)).vectors)
            image.thumbnail((HEAD, HEAD))
            small.append(image)
        return _heat_map(small, lines, np.concatenate(vectors) @ self.encoder.encode_texts(lines).T)

    def about(self) -> str:
        """Which models, and what is in the index."""
        encoder = self.encoder
        rows = {
            "Metin kodlayıcı": encoder.spec.text,
            "Görüntü modeli": encoder.image_name,
            "Uzayın boyutu": str(encoder.dim),
            "Okunan en uzun metin": f"{encoder.text.max_seq_length} parça",
            "Sıcaklık": f"{encoder.temperature:g}".replace(".", ",")
            + ("" if encoder.temperature_is_fitted else " (ölçülmedi, varsayılan)"),
        }
        measured = encoder.spec.metadata.get("measured")
        if measured:
            rows["Ölçüldüğü veri"] = f"{measured['dataset']}: {measured['images']} resim, {measured['captions']} metin"
            rows["Metinden resme, ilk sırada"] = percent(measured["text_to_image"]["recall_at_1"])
            rows["Resimden metne, ilk sırada"] = percent(measured["image_to_text"]["recall_at_1"])
        if self.index is not None:
            rows["Dizindeki resimler"] = str(len(self.index))
            rows["Klasörler"] = ", ".join(Path(folder).name for folder in self.index.folders())
        cells = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
        return (
            f"<table>{cells}</table><p>Puanlar kosinüs benzerliğidir: sıralar, olasılık değildir. Bir süzgeç ya da "
            "sınıflandırıcı yanılabilir; sonuçları gözden geçirmeden kullanmayın.</p>"
        )


def _heat_map(images: list[Image.Image], texts: list[str], scores: Any) -> str:
    """The scores as an HTML table, darker for higher, with the images as its rows' heads."""
    low, high = float(scores.min()), float(scores.max())
    best = scores.argmax(axis=0)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in texts)
    rows = []
    for place, (image, row) in enumerate(zip(images, scores)):
        cells = []
        for column, score in enumerate(row.tolist()):
            percent = (score - low) / max(high - low, 1e-9)
            mark = " ★" if best[column] == place else ""
            cells.append(
                f'<td style="background:rgba(30,110,200,{percent:.2f});color:{"#fff" if percent > 0.55 else "#222"};'
                f'text-align:center">{number(score)}{mark}</td>'
            )
        rows.append(f'<tr><td><img src="{_data_uri(image)}" alt="resim {place + 1}"></td>{"".join(cells)}</tr>')
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def number(value: float) -> str:
    """A number as Turkish writes it.

    >>> number(0.25)
    '0,250'
    """
    return f"{value:.3f}".replace(".", ",")


def percent(value: float) -> str:
    """A share of 1 as Turkish writes it.

    >>> percent(0.946)
    '%94,6'
    """
    return f"%{100 * value:.1f}".replace(".", ",")


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _opened(path: str | None) -> Image.Image:
    if not path:
        raise _refused("Bir resim yükleyin.")
    try:
        return open_image(Path(path), max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise _refused("Bu dosya resim olarak açılamadı ya da çok büyük. PNG, JPEG ya da WebP deneyin.") from error


def _refused(message: str) -> Exception:
    """An error that the page shows, and lives on."""
    import gradio as gr

    return gr.Error(message, title="Olmadı", print_exception=False)  # type: ignore[no-any-return]
