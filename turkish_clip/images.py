"""Opens files, bytes and PIL images as RGB, safely, with one error for everything that does not open."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import math
import stat
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageOps

from turkish_clip.deep_images import colours_of, grey_of, stored, unread_tiff
from turkish_clip.errors import InputError
from turkish_clip.photo import Photo
from turkish_clip.raw import TooLargeError, raw_image

MAX_PIXELS = 178_956_970  # above this, Pillow takes an image for a decompression bomb
MAX_BYTES = 4 * MAX_PIXELS  # the size of the largest image without compression, in four 8-bit channels
READ_BYTES = 1 << 20  # hashed at a time
REDUCING_GAP = 1.5  # a JPEG is decoded at no less than this times `min_side`; effect: tests/turkish_clip/test_embed.py
# Raster formats only: vector formats (EPS, PDF, WMF) start an interpreter.
FORMATS = frozenset("PNG JPEG GIF WEBP AVIF BMP DIB TIFF PPM ICO ICNS TGA JPEG2000 PCX".split())
IMAGE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .gif .webp .avif .bmp .dib .tif .tiff .ppm .pgm .ico .icns .tga .jp2 .pcx".split()
)
# Formats of which Pillow may lack the library, by suffix: their name in Pillow, and for people.
OPTIONAL_FORMATS = {".avif": ("AVIF", "AVIF"), ".jp2": ("JPEG2000", "JPEG 2000")}
UNREAD_KINDS = {
    "HEIC": ".heic .heif .hif .heics .heifs",
    "AVCI": ".avci",
    "RAW": ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf "
    ".raw .rw2 .rwl .sr2 .srf .srw .x3f",
    "video": ".3g2 .3gp .asf .avi .braw .dv .flv .insv .lrv .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf "
    ".ogv .vob .webm .wmv",
    "sound": ".aac .ac3 .aif .aifc .aiff .amr .ape .au .caf .flac .m4a .m4b .mka .mp2 .mp3 .oga .ogg .opus .snd .spx "
    ".w64 .wav .wave .wma .wv",
    "SVG": ".svg .svgz",
    "PSD": ".psd .psb",
    "JPEG XL": ".jxl",
    "PDF": ".pdf",
    "EPS": ".eps .ps .ai",
    "XCF": ".xcf",
    "EXR": ".exr",
    "HDR": ".hdr",
    "DICOM": ".dcm",
    "WMF": ".wmf .emf",
}
KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in UNREAD_KINDS.items() for suffix in suffixes.split()}
# Kinds that are read where a library is installed: the library, and the extra of this package that brings it.
LIBRARIES = {
    "HEIC": ("pillow_heif", "photos"),
    "RAW": ("rawpy", "photos"),
    "video": ("av", "video"),
    "sound": ("av", "sound"),
}
# The kinds of which one file is several images: frames (`turkish_clip.videos`), spectrograms (`turkish_clip.sounds`).
VIDEO, SOUND = CLIPS = ("video", "sound")
# The first bytes of files of kinds that are not read, which may have the suffix of one that is: a phone's "photo.jpg".
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
VIDEO_BRANDS = (b"qt  ", b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"M4V ", b"3gp4", b"3gp5")
HEAD_BYTES = 16
UNREADABLE, NO_FILE = "an unreadable file", "no file"  # reasons, of files whose content is unknown
NO_MEMORY = "more than the memory holds now"
DAMAGED, DAMAGED_VIDEO = "a truncated or damaged image", "a truncated or damaged video"
DAMAGED_SOUND = "a truncated or damaged sound"
WHITE, BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
HIDDEN_ON_WHITE = 232  # grey level (0 to 255): a drawing with nothing darker can't be seen on white
SEEN_ON_WHITE = 0.02  # share of what is visible, each pixel by its alpha, up to which a drawing counts as hidden

ImageLike = str | Path | bytes | Image.Image


def readable_suffixes(*, videos: bool = False, sounds: bool = False) -> frozenset[str]:
    """Returns those of IMAGE_SUFFIXES whose format this build of Pillow reads, and those that LIBRARIES add.

    Args:
        videos: whether those of videos count, where the library that reads them is installed.
        sounds: likewise those of sounds.
    """
    lacking = {suffix for suffix, (name, _) in OPTIONAL_FORMATS.items() if name not in _readable_formats()}
    unwanted = {kind for kind, wanted in ((VIDEO, videos), (SOUND, sounds)) if not wanted}
    kinds = [kind for kind in LIBRARIES if has_library(kind) and kind not in unwanted]
    added = [suffix for kind in kinds for suffix in UNREAD_KINDS[kind].split()]
    return (IMAGE_SUFFIXES - lacking).union(added)


@functools.cache
def has_library(kind: str) -> bool:
    """Returns whether the library that reads a kind of file is installed; it is imported with the first such file."""
    return kind in LIBRARIES and find_spec(LIBRARIES[kind][0]) is not None


def unread_kind(name: str, *, with_libraries: bool = True) -> str:
    """Returns the kind of a file that is not read as an image, by its suffix; empty for all other files.

    Args:
        name: of the file.
        with_libraries: False names the kinds that LIBRARIES read, too.

    >>> unread_kind("a.psd"), unread_kind("a.png"), unread_kind("a.txt"), unread_kind("a.HEIC", with_libraries=False)
    ('PSD', '', '', 'HEIC')
    """
    suffix = Path(name).suffix.lower()
    if suffix in OPTIONAL_FORMATS and suffix not in readable_suffixes():
        return OPTIONAL_FORMATS[suffix][1]
    kind = KIND_OF_SUFFIX.get(suffix, "")
    return "" if with_libraries and kind not in CLIPS and has_library(kind) else kind


class ImageError(InputError):
    """An image that does not open.

    Attributes:
        name: the file's path, "<n bytes>", or the PIL image's file name.
        reason: what was there instead, in a few words, the same for the same cause.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"expected an image at {name}, got {reason}; give a PNG, JPEG, WebP, GIF, BMP or TIFF file")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # as it passes from one process to another


class UnreadableImageError(ImageError):
    """An image whose file is missing or unreadable: its content is unknown, and a later attempt may succeed."""


@dataclass(frozen=True)
class OpenedImage:
    """An image as upright 8-bit RGB, and what is known of its file.

    Attributes:
        image: of mode "RGB".
        content: SHA-256 of the file: 32 bytes, or empty if it was not asked for.
        photo: when, where and with what it was taken, likewise.
    """

    image: Image.Image
    content: bytes = b""
    photo: Photo = field(default_factory=Photo)


def open_hashed(source: Path | bytes, *, min_side: int | None = None) -> OpenedImage:
    """Opens an image as `open_image` does, hashes its file, and reads its EXIF data; the file is read once.

    Args:
        source: a path, or the bytes of a file.
        min_side: as in `open_image`.

    Raises:
        ImageError: as in `open_image`, and for a file of more than MAX_BYTES.
        UnreadableImageError: the file is missing or unreadable.
    """
    data, name = (source, "") if isinstance(source, bytes) else (_read(source), str(source))
    opened = _opened(data, min_side, MAX_PIXELS, name, with_photo=True)
    return replace(opened, content=hashlib.sha256(data).digest())


def hash_of_file(path: str | Path) -> bytes:
    """Returns the SHA-256 of a file, 32 bytes, of which little is in memory.

    Raises:
        OSError: it can't be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.digest()


def photo_of(path: Path) -> Photo:
    """Returns when, where and with what a photograph was taken, without decoding it.

    Raises:
        ImageError: as in `open_image`, but for what only decoding shows.
    """
    with _header(path, str(path), MAX_PIXELS) as image:
        return Photo.of(image)


def open_image(
    source: ImageLike, *, min_side: int | None = None, max_pixels: int = MAX_PIXELS, name: str = ""
) -> Image.Image:
    """Opens an image as upright 8-bit RGB.

    The EXIF orientation is applied, transparency is laid on white (on black, what could not be seen on white), CMYK
    images are converted, greys and colours of more than 8 bits are scaled by their range, and the first frame of an
    animation is taken.

    Args:
        source: a path, the bytes of a file, or a PIL image (which is not changed).
        min_side: the side in pixels that the caller needs: larger JPEGs are decoded at a reduced size, several times
            faster, with both sides at least REDUCING_GAP times this; None decodes at full size.
        max_pixels: images of more pixels than this are refused before they are decoded.
        name: what an error calls the image; empty means its path, or what it is.

    Returns:
        A new PIL image of mode "RGB".

    Raises:
        ImageError: the file is empty, truncated, not an image, or too large.
        UnreadableImageError: the file is missing or unreadable.
    """
    if isinstance(source, Image.Image):
        name = name or getattr(source, "filename", "") or f"<{source.mode} image>"
        _check_pixels(source, name, max_pixels)
        return _to_rgb(source, name)
    return _opened(source, min_side, max_pixels, name).image


def _opened(
    source: str | Path | bytes, min_side: int | None, max_pixels: int, name: str, *, with_photo: bool = False
) -> OpenedImage:
    """Does what `open_image` does with a file, and what `open_hashed` does but for the hash."""
    with _header(source, name, max_pixels) as image:
        name = name or (f"<{len(source)} bytes>" if isinstance(source, bytes) else str(source))
        if min_side is not None and image.format in ("JPEG", "MPO"):
            side = math.ceil(min_side * REDUCING_GAP)
            image.draft(None, (side, side))
        if image.format == "PNG":  # which may have its EXIF data behind its pixels; a TIFF is closed by then
            return OpenedImage(_to_rgb(image, name), photo=Photo.of(image) if with_photo else Photo())
        photo = Photo.of(image) if with_photo else Photo()
        return OpenedImage(_to_rgb(image, name), photo=photo)


def _header(source: str | Path | bytes, name: str, max_pixels: int) -> Image.Image:
    """Opens a file without decoding it."""
    if isinstance(source, bytes):
        name, size = name or f"<{len(source)} bytes>", len(source)
    else:
        name, size = name or str(source), _file_size(Path(source))
    if size == 0:
        raise ImageError(name, "an empty file")
    try:
        if has_library("RAW") and KIND_OF_SUFFIX.get(Path(name).suffix.lower()) == "RAW":
            image = raw_image(source, max_pixels)
        else:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_readable_formats())
    except TooLargeError as error:
        raise ImageError(name, f"more than {max_pixels} pixels") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(name, f"more than {max_pixels} pixels") from error
    except PermissionError as error:
        raise _unread(name, error) from error
    except MemoryError as error:
        raise UnreadableImageError(name, NO_MEMORY) from error
    except Exception as error:  # Pillow's format plugins raise a dozen unrelated types on hostile bytes
        raise ImageError(name, _reason_of(source, name)) from error
    try:
        _check_pixels(image, name, max_pixels)
    except ImageError:
        image.close()
        raise
    return image


def _reason_of(source: Path | str | bytes, name: str) -> str:
    """Returns why a file does not open: it is of a kind that is not read, by its first bytes or its name, or none."""
    head, tiff = b"", ""
    with (
        contextlib.suppress(OSError),
        io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file,
    ):
        head = file.read(HEAD_BYTES)
        file.seek(0)
        tiff = unread_tiff(file)
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    kind = "HEIC" if brand in HEIC_BRANDS else VIDEO if brand in VIDEO_BRANDS else ""
    if not kind and brand.startswith(b"avi") and "AVIF" not in _readable_formats():
        kind = "AVIF"
    kind = kind or ("PSD" if head.startswith(b"8BPS") else unread_kind(name, with_libraries=False)) or tiff
    if kind not in CLIPS and has_library(kind):
        return DAMAGED
    if not kind:
        return "a file that is not an image"
    return f"a file of a kind that is not read ({kind})"


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    """Returns those of FORMATS that this build of Pillow reads, AVIF and JPEG 2000 being optional in it, and HEIF.

    pillow-heif is registered with Pillow here, once, and only where a HEIC file may be opened.
    """
    Image.init()
    formats = FORMATS & set(Image.OPEN)
    if has_library("HEIC"):
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
        formats |= {"HEIF"}
    return tuple(sorted(formats))


def _file_size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        raise _unread(str(path), error) from error
    except ValueError as error:  # a NUL in it
        raise ImageError(str(path), "no name of a file") from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(str(path), "a folder")
    return found.st_size


def _read(path: Path) -> bytes:
    size = _file_size(path)
    if size > MAX_BYTES:
        raise ImageError(str(path), f"a file of more than {MAX_BYTES} bytes")
    if size == 0:  # also pipes and devices, which could be read without end
        return b""
    try:
        return path.read_bytes()
    except MemoryError as error:
        raise UnreadableImageError(str(path), NO_MEMORY) from error
    except OSError as error:
        raise _unread(str(path), error) from error
    except ValueError as error:  # a NUL in it
        raise ImageError(str(path), "no name of a file") from error


def _unread(name: str, error: OSError) -> UnreadableImageError:
    if isinstance(error, FileNotFoundError):
        return UnreadableImageError(name, NO_FILE)
    return UnreadableImageError(name, f"{UNREADABLE} ({error.strerror})")


def _check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(name, f"more than {max_pixels} pixels")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        return _converted(image, name)
    except MemoryError as error:
        raise UnreadableImageError(name, NO_MEMORY) from error


def _converted(image: Image.Image, name: str) -> Image.Image:
    try:
        file = stored(image)
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # as above: decoders raise many unrelated types
        raise ImageError(name, DAMAGED) from error
    try:
        upright = colours_of(_upright(image), file, _upright)
    except OSError as error:  # the file has changed since
        raise ImageError(name, DAMAGED) from error
    if image.format == "PNG":
        _scale_transparent_value(upright, file.rawmode)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = grey_of(upright, file)
    if upright.mode in ("La", "RGBa"):
        upright = upright.convert(upright.mode.upper())
    if upright.has_transparency_data:
        return _on_ground(upright.convert("RGBA"))
    return upright if upright.mode == "RGB" and upright is not image else upright.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  damaged EXIF says nothing about the pixels, which were decoded
        return image


def _scale_transparent_value(image: Image.Image, rawmode: str) -> None:
    """Scales the transparent value (tRNS) of a PNG as Pillow scales its pixels to 8 bits; it leaves the value as it is.

    Args:
        image: after decoding; its info is changed.
        rawmode: how the file stores the pixels, such as "L;2" or "RGB;16B".
    """
    value = image.info.get("transparency")
    if isinstance(value, tuple) and rawmode.endswith(";16B"):
        image.info["transparency"] = tuple(channel >> 8 for channel in value)
    elif isinstance(value, int) and rawmode in ("L;2", "L;4"):
        image.info["transparency"] = value * {"L;2": 85, "L;4": 17}[rawmode]


def _on_ground(image: Image.Image) -> Image.Image:
    """Lays an RGBA image on white, or on black if hardly anything of what is visible in it shows on white.

    A white drawing may have a faint shadow or a few darker points at its edge, which do not show what it is.
    """
    on_white = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    alpha = image.getchannel("A")
    seen = on_white.convert("L").point([255 * (level < HIDDEN_ON_WHITE) for level in range(256)])
    visible = sum(level * count for level, count in enumerate(alpha.histogram()))
    shown = sum(level * count for level, count in enumerate(alpha.histogram(seen)))
    if shown > SEEN_ON_WHITE * visible or not visible:
        return on_white.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, BLACK), image).convert("RGB")
