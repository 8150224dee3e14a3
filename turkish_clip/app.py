"""The web page: search, classify and compare in the browser, with Turkish words. On this machine alone unless asked.

Built on Gradio (extra `app`); Streamlit was looked at: it runs a whole script again for each click. Pictures are
shown as thumbnails made here: no file is served from the disk.
"""

from __future__ import annotations

import base64
import html
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, open_image
from turkish_clip.output import parse_labels
from turkish_clip.sheet import thumbnail
from turkish_clip.zero_shot import ZeroShotClassifier

if TYPE_CHECKING:
    from PIL import Image

    from turkish_clip.search import ImageIndex
    from turkish_clip.towers import Towers

LOOPBACK = "127.0.0.1"
MAX_UPLOAD = "20mb"
MAX_PIXELS = 50_000_000  # of an uploaded picture
MAX_LABELS, MAX_TEXTS, MAX_PICTURES, MAX_LETTERS = 200, 30, 20, 500
SHOWN = 24
DROP = "Resmi buraya bırakın ya da tıklayıp seçin"


class AppError(InputError):
    """A page that can't be built."""


def build_page(towers: Towers, index: ImageIndex | None) -> Any:
    """The page as Gradio blocks.

    Args:
        towers: from `load_towers`.
        index: what the search tab looks into; None leaves that tab out.

    Raises:
        AppError: Gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio as gr
    except ImportError as error:
        raise AppError('expected Gradio, got none installed; pip install "turkish-clip[app]"') from error
    page = Page(towers, index)
    upload: dict[str, Any] = {"type": "filepath", "sources": ["upload"]}
    with gr.Blocks(title="turkish-clip", analytics_enabled=False) as blocks:
        gr.Markdown("# Türkçe sözlerle resimler")
        if index is not None:
            with gr.Tab("Ara"):
                words = gr.Textbox(
                    label="Ne arıyorsunuz?", placeholder="karda oynayan iki köpek", max_length=MAX_LETTERS
                )
                like = gr.Image(label="ya da buna benzer resimler", placeholder=DROP, **upload, height=160)
                button = gr.Button("Ara", variant="primary", elem_id="search")
                found = gr.Gallery(label="Bulunanlar, en iyisi başta", columns=6, elem_id="found", format="png")
                button.click(page.search, [words, like], found, api_name=False)
                words.submit(page.search, [words, like], found, api_name=False)
        with gr.Tab("Sınıflandır"):
            picture = gr.Image(label="Resim", placeholder=DROP, **upload, height=260)
            labels = gr.Textbox(
                label="Etiketler (virgülle; eş anlamlılar arasına |)",
                value="kedi, köpek, araba|otomobil",
                max_length=8000,
            )
            button = gr.Button("Sınıflandır", variant="primary", elem_id="classify")
            shares = gr.Label(label="Olasılıklar", num_top_classes=10, elem_id="shares")
            button.click(page.classify, [picture, labels], shares, api_name=False)
        with gr.Tab("Karşılaştır"):
            files = gr.File(label="Resimler", file_count="multiple", file_types=["image"], height=140)
            texts = gr.Textbox(label="Metinler (her satıra bir tane)", lines=4, max_length=MAX_TEXTS * MAX_LETTERS)
            button = gr.Button("Karşılaştır", variant="primary", elem_id="compare")
            table = gr.HTML(elem_id="scores")
            button.click(page.compare, [files, texts], table, api_name=False)
        with gr.Tab("Hakkında"):
            gr.HTML(page.about())
    return blocks


def serve(blocks: Any, *, host: str = LOOPBACK, port: int = 7860, quiet: bool = False) -> None:
    """Serves the page until interrupted.

    Args:
        blocks: from `build_page`.
        host: 127.0.0.1 is this machine alone; 0.0.0.0 is everyone who reaches it.
        port: of the address; the next free one of a hundred is taken.
        quiet: print nothing.
    """
    blocks.queue(max_size=32, default_concurrency_limit=2).launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=quiet,
        show_error=True,
        max_file_size=MAX_UPLOAD,
        allowed_paths=[],
        footer_links=[],
    )


class Page:
    """What the buttons do; messages are for the page's reader, in Turkish."""

    def __init__(self, towers: Towers, index: ImageIndex | None) -> None:
        self.towers, self.index = towers, index

    def search(self, words: str, like: str | None) -> list[tuple[Image.Image, str]]:
        """Thumbnails of the pictures that fit words or a picture, with their scores."""
        if self.index is None or not (words.strip() or like):
            raise _refused("Bir söz yazın ya da bir resim yükleyin.")
        query: Any = words.strip()[:MAX_LETTERS] or _opened(like)
        try:
            hits = self.index.search(query, SHOWN)
        except InputError as error:
            raise _refused(f"Arama yapılamadı: {error}") from error
        roots = [Path(folder).resolve() for folder in self.index.folders()]
        inside = [hit for hit in hits if any(Path(hit.path).resolve().is_relative_to(root) for root in roots)]
        return [(thumbnail(Path(hit.path)), f"{hit.score:.3f} · {Path(hit.path).name}") for hit in inside]

    def classify(self, picture: str | None, labels: str) -> dict[str, float]:
        """Probabilities by label."""
        chosen = parse_labels(labels)
        if len(chosen) > MAX_LABELS:
            raise _refused(f"En çok {MAX_LABELS} etiket verin; {len(chosen)} tane var.")
        opened = _opened(picture)
        try:
            found = ZeroShotClassifier(self.towers, chosen).classify([opened])[0]
        except InputError as error:
            raise _refused("En az iki farklı etiket yazın, aralarına virgül koyun.") from error
        return found.probabilities

    def compare(self, files: list[str] | None, texts: str) -> str:
        """A table of cosines: a row per picture, a column per text; the best of each column is marked."""
        lines = [line.strip()[:MAX_LETTERS] for line in texts.splitlines() if line.strip()]
        if not files or not lines:
            raise _refused("En az bir resim yükleyin ve en az bir metin yazın.")
        if len(files) > MAX_PICTURES or len(lines) > MAX_TEXTS:
            raise _refused(f"En çok {MAX_PICTURES} resim ve {MAX_TEXTS} metin verin.")
        pictures = [_opened(file) for file in files]
        vectors = next(self.towers.embed_pictures(pictures, batch_size=MAX_PICTURES)).vectors
        return heat_map(pictures, lines, vectors @ self.towers.encode_texts(lines).T)

    def about(self) -> str:
        """Which models, and what is in the index."""
        towers = self.towers
        rows = {
            "Metin kodlayıcı": towers.names.text,
            "Görüntü modeli": towers.image_name,
            "Uzayın boyutu": str(towers.dim),
            "Okunan en uzun metin": f"{towers.text.max_seq_length} parça",
            "Sıcaklık": f"{towers.temperature:g}"
            + ("" if towers.temperature_is_fitted else " (ölçülmedi, varsayılan)"),
        }
        if self.index is not None:
            rows["Dizindeki resimler"] = str(len(self.index))
            rows["Klasörler"] = ", ".join(self.index.folders())
        cells = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
        return (
            f"<table>{cells}</table><p>Puanlar kosinüs benzerliğidir: sıralar, olasılık değildir. Bir süzgeç ya da "
            "sınıflandırıcı yanılabilir; sonuçlara bakmadan iş yapmayın.</p>"
        )


def heat_map(pictures: list[Image.Image], texts: list[str], scores: Any) -> str:
    """The scores as an HTML table, darker for higher, with the pictures as its rows' heads."""
    low, high = float(scores.min()), float(scores.max())
    best = scores.argmax(axis=0)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in texts)
    rows = []
    for number, (picture, row) in enumerate(zip(pictures, scores)):
        cells = []
        for column, score in enumerate(row.tolist()):
            share = (score - low) / max(high - low, 1e-9)
            mark = " ★" if best[column] == number else ""
            cells.append(
                f'<td style="background:rgba(30,110,200,{share:.2f});color:{"#fff" if share > 0.55 else "#222"};'
                f'text-align:center">{score:.3f}{mark}</td>'
            )
        rows.append(f'<tr><td><img src="{_data_uri(picture)}" alt="resim {number + 1}"></td>{"".join(cells)}</tr>')
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _data_uri(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((96, 96))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
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

    return gr.Error(message, print_exception=False)  # type: ignore[no-any-return]
