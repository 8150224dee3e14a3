"""What the page does, without the web: each method returns what is to be shown, ready for JSON."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turkish_clip.app.drawing import Drawer, DrawnBy, as_png
from turkish_clip.app.jobs import Job, Jobs, Progress
from turkish_clip.app.photos import Kept, Photos, played_type, shown_type
from turkish_clip.app.wording import (
    BROKEN,
    RefusedError,
    counted,
    date_text,
    fit_text,
    month_text,
    notes,
    number,
    percent,
    place_text,
    reason_text,
    size_text,
    time_text,
)
from turkish_clip.clips import image_at
from turkish_clip.errors import InputError, is_encodable
from turkish_clip.filtering import CONTRAST, ImageFilter, best_of_each
from turkish_clip.folders import is_hidden
from turkish_clip.images import ImageError, open_image
from turkish_clip.regions import shows, windows_of
from turkish_clip.search.composition import Query, QueryError, weighted
from turkish_clip.search.index import Hit, ImageIndex
from turkish_clip.search.storage import ImageIndexError, folder_of, holds_index
from turkish_clip.sounds import is_sound
from turkish_clip.text import alphabetical
from turkish_clip.zero_shot import ZeroShotClassifier, parse_labels

if TYPE_CHECKING:
    from PIL import Image

    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.photo import Photo
    from turkish_clip.search.duplicates import DuplicateFile, Duplicates
    from turkish_clip.search.files import SkippedFile

log = logging.getLogger("turkish_clip")
MAX_PIXELS = 50_000_000  # of an uploaded image
MAX_LABELS, MAX_TEXTS, MAX_IMAGES, MAX_LETTERS = 200, 30, 20, 500  # synonyms count as labels
MAX_LABEL_LETTERS = 8000
SHOWN = 24  # images of one page
SHOWN_GROUPS = 12  # of duplicates
MAX_OFFSET = 100_000
KEPT_FILTERS = 4
NO_INDEX = "Bu sayfa klasörsüz açıldı; aranacak fotoğraf yok."
SKIPPED_SHOWN = 20


class Page:
    """What the page does; errors are `RefusedError`, with a Turkish message for its reader.

    Args:
        encoder: from `load_dual_encoder`.
        index: the index to search, or None.
        root: the folder from which on folders can be indexed; None indexes none.
        can_index: whether the page's readers may index them.
        drawn_by: what images are drawn by from words.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        index: ImageIndex | None,
        root: Path | None = None,
        *,
        can_index: bool = True,
        drawn_by: DrawnBy | None = None,
    ) -> None:
        self.encoder, self.index = encoder, index
        self.root = None if root is None or index is None else Path(os.path.normpath(root.absolute()))
        self.can_index = can_index and self.root is not None
        self.photos, self.jobs = Photos(), Jobs()
        self._drawer = Drawer(encoder, drawn_by or DrawnBy())
        self._filtered: Kept[list[tuple[str, float, float | None]]] = Kept(KEPT_FILTERS)
        self._duplicates: Duplicates | None = None

    def state(self) -> dict[str, Any]:
        """Returns what there is: the number of images, the folder, and what is to be said of the model."""
        return {
            "images": None if self.index is None else len(self.index),
            "folder": "" if self.root is None else self.root.name or str(self.root),
            "can_index": self.can_index,
            "notes": notes(self.encoder.model_cautions),
            "contrast": ", ".join(CONTRAST),
            "imported": self.index is not None and bool(self.index.imported()),
        }

    def reopen(self) -> bool:
        """Opens the index again, which may have been deleted and made anew meanwhile; returns whether there is one."""
        folder = None if self.index is None else folder_of(self.index.uri)
        if self.index is None or folder is None or not holds_index(folder):
            return False
        try:
            self.index = ImageIndex.open(self.index.uri, self.encoder)
        except ImageIndexError:
            return False
        self._duplicates, self._filtered = None, Kept(KEPT_FILTERS)
        return True

    def newest(self, offset: Any = 0) -> dict[str, Any]:
        """Returns images of the index, the newest first."""
        index, start = self._index(), _offset(offset)
        images = index.newest(SHOWN + 1, offset=start) if len(index) else []
        shown, gone = [], 0
        for image, path in zip(images[:SHOWN], index.inside_each(images[:SHOWN])):
            if path is None:
                gone += 1
                continue
            shown.append(
                {**self._tile(path, image.photo, image.also_at, image.second), "month": month_text(image.when)}
            )
        return {"photos": shown, "gone": gone, "more": len(images) > SHOWN, "next": start + SHOWN}

    def search(self, words: Any = "", without: Any = "", image: Any = "", offset: Any = 0) -> dict[str, Any]:
        """Returns the best images for words, for an image, or for both, a page of them.

        Args:
            words: what the images are to show; may be empty beside an image.
            without: what they are not to show, separated by commas.
            image: name of an upload, or of an image that was shown.
            offset: number of the best images to leave out.

        Raises:
            RefusedError: nothing to look for, too long a text, an image that does not open, or the index can't be read.
        """
        index, start = self._index(), _offset(offset)
        text = _short(_text(words))
        unwanted = _phrases(without)
        like = None if not _text(image) else self._image(image)
        if not text and like is None:
            raise RefusedError(
                "Yalnız hariç tutulacaklar yazılı. Ne aradığınızı da yazın."
                if unwanted
                else "Aranacak sözleri yazın ya da bir resim seçin."
            )
        if not len(index):
            raise RefusedError("Dizinde henüz fotoğraf yok. Önce bir klasörü dizine alın.")
        try:
            query = Query(*([weighted(text)] if text else []), without=[*map(weighted, unwanted)], image=like)
            answer = index.ask(query, SHOWN + 1, offset=start)
        except QueryError as error:
            log.warning("search: %s", error)
            raise RefusedError("Bu sözler birlikte aranamaz: birbirini götürüyor ya da ağırlığı yanlış.") from error
        except ImageError as error:
            raise _unopened() from error
        except InputError as error:
            log.warning("search: %s", error)
            raise RefusedError(BROKEN) from error
        of_image = not answer.query.texts
        shown, gone = [], 0
        for place, (hit, path) in enumerate(
            zip(answer.hits[:SHOWN], index.inside_each(answer.hits[:SHOWN])), start + 1
        ):
            if path is None:
                gone += 1
                continue
            fit = fit_text(hit.fits, hit.score, place, of_image=of_image)
            about = {"fits": hit.fits, "fit": fit, "score": number(hit.score)}
            shown.append({**self._tile(path, hit.photo, hit.also_at, hit.second), **about})
        return {
            "photos": shown,
            "gone": gone,
            "fits": answer.fits,
            "understood": answer.understood,
            "notes": notes(answer.cautions),
            "more": len(answer.hits) > SHOWN and start + SHOWN < MAX_OFFSET,
            "next": start + SHOWN,
        }

    def details(self, name: Any = "") -> dict[str, Any] | None:
        """Returns what is told of one image that was shown; None if there is no such image."""
        path = self.photos.path(_text(name))
        if path is None:
            return None
        try:
            file = path.stat()
        except OSError:
            return None
        changed = date_text(datetime.fromtimestamp(file.st_mtime))
        rows = [["Dosya boyutu", size_text(file.st_size)], ["Son değişiklik", changed]]
        return {"rows": rows, "copy": shown_type(path) is None}

    def where(self, name: Any = "", words: Any = "") -> dict[str, Any]:
        """Returns where in an image that was shown something is: the best region, in fractions of width and height.

        Args:
            name: of the image.
            words: what is looked for.

        Raises:
            RefusedError: no words, or the image does not open.
        """
        text = _short(weighted(_text(words))[0])
        if not text:
            raise RefusedError("Neyin aranacağını yazın.")
        windows = windows_of(self.encoder, self._opened(name))
        vector = self.encoder.encode_texts([text], warn=False)[0]
        (left, top, right, bottom), (width, height) = windows.best(vector)[0].box, windows.size
        box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        return {"box": box, "shows": shows(windows, vector, self.encoder.bank)}

    def classify(self, image: Any = "", labels: Any = "") -> dict[str, Any]:
        """Returns the labels of an image, the likeliest first, with probabilities.

        Args:
            image: name of an upload, or of an image that was shown.
            labels: separated by commas or lines, synonyms by |.

        Raises:
            RefusedError: too many labels, fewer than two, one given twice, or the image does not open.
        """
        labels = _text(labels)
        if len(labels) > MAX_LABEL_LETTERS:
            raise RefusedError(
                f"Etiketler için en çok {counted(MAX_LABEL_LETTERS)} harf yazın; {len(labels)} harf var."
            )
        try:
            chosen = parse_labels(",".join(labels.replace(";", ",").splitlines()))
        except InputError as error:
            raise RefusedError("Aynı etiket iki kez yazılmış. Eş anlamlıları | ile birleştirin.") from error
        words = sum(map(len, chosen.values()))
        if words > MAX_LABELS:
            raise RefusedError(f"En çok {MAX_LABELS} etiket verin; {words} tane var.")
        opened = self._opened(image)
        try:
            classifier = ZeroShotClassifier(self.encoder, chosen)
            found = classifier.classify([opened])[0]
        except InputError as error:
            raise RefusedError("En az iki farklı etiket yazın; her sözü bir etikete verin.") from error
        ordered = sorted(found.probabilities.items(), key=lambda pair: -pair[1])[:10]
        return {
            "labels": [{"label": label, "probability": value, "text": percent(value)} for label, value in ordered],
            "notes": notes(classifier.cautions),
        }

    def compare(self, images: Any = (), texts: Any = "") -> dict[str, Any]:
        """Returns the cosines of images and texts, and for each text which image is best.

        Args:
            images: names of uploads.
            texts: one a line.

        Raises:
            RefusedError: too few or too many images or texts, too long a text, or an upload does not open.
        """
        lines = [_short(line) for line in _text(texts).splitlines() if line.strip()]
        if not isinstance(images, Sequence) or isinstance(images, str) or not images or not lines:
            raise RefusedError("En az bir resim seçin ve en az bir metin yazın.")
        if len(images) > MAX_IMAGES or len(lines) > MAX_TEXTS:
            raise RefusedError(f"En çok {MAX_IMAGES} resim ve {MAX_TEXTS} metin verin.")
        vectors = []
        for image in images:  # one at a time: twenty large ones would fill the memory
            vectors.append(next(self.encoder.embed_images([self._opened(image)], workers=1)).vectors)
        cosines = np.concatenate(vectors) @ self.encoder.encode_texts(lines).T
        low, high = float(cosines.min()), float(cosines.max())
        shades = (cosines - low) / max(high - low, 1e-9)
        return {
            "texts": lines,
            "best": cosines.argmax(axis=0).tolist(),
            "scores": [[number(score) for score in row] for row in cosines.tolist()],
            "shades": np.round(shades, 2).tolist(),
            "notes": notes(self.encoder.cautions(lines)),
        }

    def filter(self, prompts: Any = "", contrast: Any = "", least: Any = 0.5, offset: Any = 0) -> dict[str, Any]:
        """Returns images of the index that show something, the best first, a page of them.

        Args:
            prompts: what to look for, one a line or separated by commas.
            contrast: what else an image may show, likewise; the usual one where it is empty.
            least: probability from which on an image is flagged, 0 to 1.
            offset: number of the images before this page.

        Raises:
            RefusedError: nothing to look for, the same as both, too long a text, or the index can't be read.
        """
        index, start = self._index(), _offset(offset)
        wanted, others = _phrases(prompts), _phrases(contrast)
        if not wanted:
            raise RefusedError("Neyin işaretleneceğini yazın.")
        if not isinstance(least, (int, float)) or not 0 <= least <= 1:
            raise RefusedError("Olasılık 0 ile 1 arasında olmalı.")
        try:
            asked = ImageFilter(self.encoder, wanted, contrast=others or CONTRAST, min_probability=float(least))
            key = repr((wanted, others, least, len(index)))
            flagged = self._filtered.get(key)
            if flagged is None:
                paths, seconds, vectors = index.vectors_with_seconds()
                best = best_of_each(paths, asked.flag_vectors(vectors) if paths else [])
                found = sorted((-flag.score, paths[at], flag.probability, at) for at, flag in best if flag.flagged)
                flagged = [(path, probability, seconds[at]) for _, path, probability, at in found]
                self._filtered.put(key, flagged, 1)
        except ImageIndexError as error:
            log.warning("filter: %s", error)
            raise RefusedError(BROKEN) from error
        except InputError as error:
            raise RefusedError("Aranan ile karşıtı aynı olamaz; birini değiştirin.") from error
        part = flagged[start : start + SHOWN]
        hits = [Hit(path, 0.0) for path, _, _ in part]
        shown = [
            {
                **self._tile(path, None, second=second),
                "fit": f"Olasılığı {percent(probability)}",
                "badge": f"%{round(100 * probability)}",
            }
            for (_, probability, second), path in zip(part, index.inside_each(hits))
            if path is not None
        ]
        return {
            "photos": shown,
            "gone": len(part) - len(shown),
            "flagged": len(flagged),
            "notes": notes(asked.cautions),
            "more": start + SHOWN < len(flagged),
            "next": start + SHOWN,
        }

    def find_duplicates(self, exact: Any = False) -> Job:
        """Starts to look for images that the index has more than once.

        Raises:
            RefusedError: another job runs.
        """
        index = self._index()

        def work(progress: Progress) -> dict[str, Any]:
            found = index.duplicates(exact=exact is True, workers=1, progress=progress)
            self._duplicates = found
            return {
                "groups": len(found.groups),
                "files": sum(map(len, found.groups)),
                "images": found.images,
                "spare": size_text(found.spare_bytes),
                "unread": len(found.unread),
                "gone": found.gone,
            }

        return self.jobs.start("duplicates", work, lambda error: BROKEN)

    def duplicates(self, offset: Any = 0) -> dict[str, Any]:
        """Returns groups of files with one image that were found, a page of them."""
        start = _offset(offset)
        groups = self._duplicates.groups if self._duplicates is not None else []
        shown = [
            [self._duplicate(file, place == 0) for place, file in enumerate(group)]
            for group in groups[start : start + SHOWN_GROUPS]
        ]
        return {"groups": shown, "more": start + SHOWN_GROUPS < len(groups), "next": start + SHOWN_GROUPS}

    def _duplicate(self, file: DuplicateFile, keep: bool) -> dict[str, Any]:
        same = {"bytes": "birebir aynı dosya", "image": "benzer; başka bir resim de olabilir"}.get(file.same, "")
        when = date_text(file.taken or file.modified)
        inside = self._index().inside_each([Hit(file.path, 0.0)])[0]
        tile = (
            self._tile(inside, None, second=file.second)
            if inside is not None
            else {"id": "", **self._names(Path(file.path))}
        )
        fit = "Saklanacak olan: gruptakilerin en büyüğü" if keep else same
        near = file.same == "image"
        return {
            **tile,
            "keep": keep,
            "near": near,
            "same": same,
            "size": size_text(file.bytes),
            "when": when,
            "fit": fit,
        }

    def folders(self, below: Any = "") -> dict[str, Any]:
        """Returns the folders below one, by their path from the root.

        Raises:
            RefusedError: it is not below the root, or not there.
        """
        folder = self.folder_below(below)
        try:
            with os.scandir(folder) as entries:
                below_it = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise RefusedError("Bu klasör açılamadı.") from error
        names = [name for name in below_it if is_encodable(name) and not is_hidden(name)]
        indexed = self._index().folders()
        parts = folder.relative_to(self._root()).parts
        skipped = [] if parts else self._index().skipped()
        return {
            "below": "/".join(parts),
            "inside": _is_inside(folder, indexed),
            "folders": [
                {"name": name, "inside": _is_inside(folder / name, indexed)} for name in sorted(names, key=alphabetical)
            ],
            "indexed": [self._shown_folder(path) for path in indexed],
            "images": len(self._index()),
            "skipped": self._skipped(skipped),
            "skipped_count": len(skipped),
        }

    def _skipped(self, files: Sequence[SkippedFile]) -> list[list[str]]:
        """Returns path and reason of files that are not indexed, as they are shown."""
        return [[self._shown_folder(file.path), reason_text(file.reason)] for file in files[:SKIPPED_SHOWN]]

    def folder_below(self, below: Any) -> Path:
        """Returns the folder that a path from the root names.

        Raises:
            RefusedError: it is not below the root (links followed), is hidden, or is not there.
        """
        root, text = self._root(), _text(below)
        parts = [part for part in text.split("/") if part]
        wrong = any(part in (".", "..") or "\\" in part or "\0" in part or is_hidden(part) for part in parts)
        folder = root.joinpath(*([] if wrong else parts))
        try:
            there = not wrong and is_encodable(text) and folder.is_dir()
            if there and folder.resolve().is_relative_to(root.resolve()):
                return folder
        except OSError:  # such as of a name that is too long
            pass
        raise RefusedError("Böyle bir klasör burada yok.")

    def add_folder(self, below: Any = "") -> Job:
        """Starts to index a folder, given by its path from the root.

        Raises:
            RefusedError: it is not below the root, or another job runs.
        """
        folder = self.folder_below(below)
        index = ImageIndex.open(self._index().uri, self.encoder)  # tables of its own: the page goes on searching

        def work(progress: Progress) -> dict[str, Any]:
            added = index.add(folder, workers=1, decode_processes=0, progress=progress)
            self._duplicates, self._filtered = None, Kept(KEPT_FILTERS)
            names = ("added", "unchanged", "duplicates", "moved", "vanished", "excluded", "images")
            return {
                **{name: getattr(added, name) for name in names},
                "skipped": self._skipped(added.skipped),
                "skipped_count": len(added.skipped),
            }

        return self.jobs.start("index", work, _why_not_indexed)

    def draw(self, words: Any = "", without: Any = "", seed: Any = 0) -> Job:
        """Starts to draw an image from words; what it looks like so far is in the job's result.

        Args:
            words: what it is to show.
            without: what it is not to show, separated by commas.
            seed: another one gives another image.

        Raises:
            RefusedError: no words, too long a text, or another job runs.
        """
        text, unwanted = _short(_text(words)), _phrases(without)
        if not text:
            raise RefusedError("Ne çizileceğini yazın.")
        number_of_seed = seed if isinstance(seed, int) and 0 <= seed < 2**31 else 0

        def work(progress: Progress) -> dict[str, Any]:
            def frame(image: Image.Image) -> None:
                name = self.photos.keep_drawing(as_png(image))
                self.jobs.note("draw", {"image": name, "words": text})

            image, score = self._drawer.draw(text, unwanted, number_of_seed, progress=progress, frame=frame)
            name = self.photos.keep_drawing(as_png(image))
            return {"image": name, "words": text, "score": number(score), "notes": notes(self.encoder.cautions([text]))}

        return self.jobs.start("draw", work, lambda error: "Çizilemedi. Ayrıntısı komutun çıktısında.")

    def about(self) -> list[list[str]]:
        """Returns what is known of the models, what was measured of them, and of the index, row by row."""
        from turkish_clip.encoder import max_tokens_of

        encoder = self.encoder
        limit = max_tokens_of(encoder.text)
        rows = [
            ["Metin kodlayıcı", encoder.spec.text],
            ["Görüntü modeli", encoder.image_name],
            ["Uzayın boyutu", str(encoder.dim)],
            ["Okunan en uzun metin", f"{limit} belirteç" if limit else "sınırsız"],
            [
                "Sıcaklık",
                f"{encoder.temperature:g}".replace(".", ",")
                + ("" if encoder.temperature_is_fitted else " (ölçülmedi, varsayılan)"),
            ],
        ]
        measured = encoder.spec.record and encoder.spec.record.measured
        if measured:
            counts = f"{counted(measured['images'])} resim, {counted(measured['captions'])} metin"
            rows.append(["Ölçüldüğü veri", f"{measured['dataset']}: {counts}"])
            rows.append(["Metinden resme, ilk sırada", percent(measured["text_to_image"]["recall_at_1"])])
            rows.append(["Resimden metne, ilk sırada", percent(measured["image_to_text"]["recall_at_1"])])
        if self.index is not None:
            rows.append(["Dizindeki resimler", counted(len(self.index))])
            if not_read := self.index.left_out().not_read:
                kinds = ", ".join(f"{kind} {count}" for kind, count in not_read.items())
                rows.append(["Okunmayan dosyalar", f"{kinds} (bu türler okunmaz; resim olanları JPEG'e çevirin)"])
            rows.append(["Klasörler", ", ".join(Path(folder).name for folder in self.index.folders())])
        return rows

    def _index(self) -> ImageIndex:
        if self.index is None:
            raise RefusedError(NO_INDEX)
        return self.index

    def _root(self) -> Path:
        if self.root is None or not self.can_index:
            raise RefusedError("Bu sayfadan klasör eklenemez. Klasörler komut satırında dizine alınır.")
        return self.root

    def _tile(
        self, path: Path, photo: Photo | None, also_at: Sequence[str] = (), second: float | None = None
    ) -> dict[str, Any]:
        """Returns what the page shows of an image, or of a frame of a video or a spectrogram of a sound."""
        rows, video = [], {}
        if second is not None:
            rows.append(["Seste" if is_sound(path) else "Videoda", time_text(second)])
            video = {"time": time_text(second), "second": second, "plays": played_type(path)}
        if photo is not None and photo.taken is not None:
            rows.append(["Çekildi", date_text(photo.taken)])
        if photo is not None and photo.camera:
            rows.append(["Makine", photo.camera])
        if photo is not None and (place := place_text(photo)):
            rows.append(["Yer", place])
        others = [self._shown_folder(other) for other in also_at if other != str(path)]
        if others:
            rows.append(["Aynı dosya şurada da var", ", ".join(others)])
        return {"id": self.photos.name(path, second), **self._names(path), "rows": rows, **video}

    def _names(self, path: Path) -> dict[str, str]:
        return {"name": _printable(path.name), "folder": self._shown_folder(path.parent), "path": _printable(str(path))}

    def _shown_folder(self, path: str | Path) -> str:
        """Returns a path from the folder above the root on, as people know it; the whole path of one elsewhere."""
        one = Path(path)
        if self.root is not None and one.is_relative_to(self.root):
            return _printable(str(one.relative_to(self.root.parent)))
        return _printable(str(one))

    def _image(self, name: Any) -> Any:
        """Returns an image by the name of an upload or of an image that was shown: its bytes or its path."""
        name = _text(name)
        found = self.photos.upload(name) if name.startswith("u") else self.photos.path(name)
        if found is None:
            raise RefusedError("Bu resim artık yerinde değil. Yeniden seçin.")
        second = self.photos.second(name)
        if second is None or not isinstance(found, Path):
            return found
        try:
            return image_at(found, second)
        except ImageError as error:
            raise _unopened() from error

    def _opened(self, name: Any) -> Any:
        if not _text(name):
            raise RefusedError("Bir resim seçin.")
        return opened(self._image(name))


def opened(source: bytes | Path) -> Any:
    """Returns an image of a reader as a PIL image.

    Raises:
        RefusedError: it does not open, or has too many pixels.
    """
    try:
        return open_image(source, max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise _unopened() from error


def _unopened() -> RefusedError:
    return RefusedError("Bu dosya resim olarak açılamadı ya da çok büyük. PNG, JPEG ya da WebP deneyin.")


def _why_not_indexed(error: InputError) -> str:
    text = str(error)
    if "another process" in text:
        return "Dizine şu anda başka bir işlem yazıyor. Bitince yeniden deneyin."
    if "without images" in text or "no images" in text:
        return "Klasörde hiç resim yok; bir disk takılı değil mi?"
    return "Klasör dizine alınamadı. Ayrıntısı komutun çıktısında."


def _is_inside(folder: Path, indexed: Sequence[str]) -> bool:
    """Returns whether a folder is an indexed one, or below one."""
    return any(folder.is_relative_to(one) for one in indexed)


def _text(value: Any) -> str:
    """Returns what was typed; nothing for what is no text, which a request that the page did not make can hold."""
    return value if isinstance(value, str) else ""


def _offset(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= MAX_OFFSET else 0


def _phrases(value: Any) -> list[str]:
    """Returns phrases that stand on lines or between commas."""
    lines = _text(value).replace(",", "\n").splitlines()
    phrases = [_short(line) for line in lines if line.strip()]
    if len(phrases) > MAX_TEXTS:
        raise RefusedError(f"En çok {MAX_TEXTS} söz yazın; {len(phrases)} tane var.")
    return phrases


def _short(text: str) -> str:
    """Returns a text without spaces around it, or raises the page's error for one that is too long or is not UTF-8."""
    text = text.strip()
    if len(text) > MAX_LETTERS:
        raise RefusedError(f"Bir metin en çok {MAX_LETTERS} harf olabilir; {len(text)} harf var.")
    if not is_encodable(text):
        raise RefusedError("Metinde bozuk bir harf var. Metni yeniden yazın.")
    return text


def _printable(text: str) -> str:
    """Returns the name of a file in letters that JSON can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
