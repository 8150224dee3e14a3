"""Decoders from image vectors to images: a text's vector, moved to where image vectors lie, is one of their inputs.

It is the decoder of unCLIP (Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents", 2022)
without its prior: a text encoder that was distilled from image vectors predicts an image's vector itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from turkish_clip.errors import one_line, printable
from turkish_clip.generate.autoencoder import GeneratorError, import_diffusers
from turkish_clip.generate.optimise import Drawing, DrawingOptions, draw
from turkish_clip.generate.tower import as_image
from turkish_clip.records import read_record

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from turkish_clip.bank import TextBank
    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.generate.prompts import Wish
    from turkish_clip.metrics import Vectors

RECORD, WEIGHTS = "turkish_clip_decoder.json", "decoder.safetensors"
PIPELINE = "model_index.json"  # of a pipeline that diffusers saved
FIRST_SIDE = 4  # pixels of the first feature maps
GROUPS = 8  # of group normalisation
SMALLEST_DEVIATION = 1e-6
DECODED_STEPS, LEARNING_RATE, CROPS = 60, 0.1, 8  # of the optimisation of a small decoder's vector
NOISE = 0.05  # on the pixels of its crops; a small decoder can hardly please an image model by what is no image
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each component of some vectors: two of shape (dim,), float32."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Moments:
        """Returns the moments of (n, dim) vectors."""
        return cls(
            vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
            vectors.std(axis=0, dtype=np.float64).astype(np.float32),
        )


class VectorDecoder(Protocol):
    """What makes images of image vectors."""

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        ...

    @property
    def moments(self) -> Moments | None:
        """Those of the image vectors that it expects; None if they are not known."""
        ...

    def images(self, vectors: Vectors, *, seed: int, progress: Progress | None = None) -> list[Image.Image]:
        """Returns an image for each of (n, dim) vectors, as the image model gives them.

        Args:
            vectors: with the moments that the decoder expects.
            seed: of what it draws at random.
            progress: called with the number of steps done and to do.
        """
        ...


def as_image_vectors(texts: Vectors, decoder: VectorDecoder, bank: TextBank | None) -> Vectors:
    """Returns the (n, dim) vectors that a decoder takes for n texts.

    Each component is shifted and scaled, so that typical texts have the moments of images: text vectors lie beside
    image vectors, and nearer to each other (Liang et al., "Mind the Gap", 2022). Without a bank the texts keep theirs,
    and get the length of an image vector.

    Args:
        texts: (n, dim) unit vectors of the texts.
        decoder: whose image vectors they are to be like.
        bank: typical texts of the text encoder; None if there are none.

    Raises:
        GeneratorError: the decoder is for vectors of another width.
    """
    if texts.shape[1] != decoder.dim:
        raise GeneratorError(
            f"expected a decoder of image vectors {texts.shape[1]} wide, as the text encoder's, got one of "
            f"{decoder.dim}; name a decoder of the same image model"
        )
    images = decoder.moments
    if images is None:
        return texts
    length = float(np.sqrt((images.mean**2 + images.deviation**2).sum()))
    if bank is None:
        return np.asarray(texts * length, np.float32)
    of_texts = Moments.of(bank.unit_vectors)
    scaled = (texts - of_texts.mean) / np.maximum(of_texts.deviation, SMALLEST_DEVIATION)
    return np.asarray(scaled * images.deviation + images.mean, np.float32)


@dataclass(frozen=True, kw_only=True)
class DecoderRecord:
    """The content of turkish_clip_decoder.json.

    Attributes:
        dim: width of the image vectors.
        channels: of the feature maps, from the smallest on; each has twice the side of the one before.
        image_weights_sha256: of the image model whose vectors it was trained on.
    """

    FORMAT: ClassVar[int] = 1

    dim: int
    channels: tuple[int, ...]
    image_weights_sha256: str

    def __post_init__(self) -> None:
        """Checks the values, which may come from a file of anybody; raises a ValueError."""
        if not 1 <= self.dim <= 65_536:
            raise ValueError(f"{self.dim} as 'dim', not 1 to 65536")
        if not 1 <= len(self.channels) <= 8:
            raise ValueError(f"{len(self.channels)} 'channels', not 1 to 8")
        if any(not 0 < count <= 4096 or count % GROUPS for count in self.channels):
            raise ValueError(f"{list(self.channels)} as 'channels', not multiples of {GROUPS}")

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return int(FIRST_SIDE * 2 ** len(self.channels))


class _Doubling(nn.Module):
    """Doubles the side of feature maps: two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first_norm, self.first = nn.GroupNorm(GROUPS, before), nn.Conv2d(before, after, 3, padding=1)
        self.second_norm, self.second = nn.GroupNorm(GROUPS, after), nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        maps = functional.interpolate(maps, scale_factor=2)
        inner = self.first(functional.silu(self.first_norm(maps)))
        inner = self.second(functional.silu(self.second_norm(inner)))
        shown: Tensor = inner + self.shortcut(maps)
        return shown


class SmallDecoder(nn.Module):
    """A convolutional decoder, which gives for each image vector one image: the mean of those that have it.

    Args:
        record: its sizes.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, record: DecoderRecord) -> None:
        super().__init__()
        self.record = record
        first = record.channels[0]
        self.register_buffer("mean", torch.zeros(record.dim))
        self.register_buffer("deviation", torch.ones(record.dim))
        self.spread = nn.Linear(record.dim, first * FIRST_SIDE**2)
        self.doublings = nn.ModuleList(map(_Doubling, record.channels, record.channels[1:]))
        self.norm = nn.GroupNorm(GROUPS, record.channels[-1])
        self.pixels = nn.Conv2d(record.channels[-1], 12, 3, padding=1)  # of each place four pixels of three colours

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.record.dim

    @property
    def moments(self) -> Moments:
        """Those of the image vectors that it was trained on."""
        return Moments(self.mean.cpu().numpy(), self.deviation.cpu().numpy())

    def forward(self, vectors: Tensor) -> Tensor:
        """Returns (n, 3, side, side) images in 0 to 1 of (n, dim) vectors."""
        standard = (vectors - self.mean) / self.deviation.clamp(min=SMALLEST_DEVIATION)
        maps = self.spread(standard).view(len(vectors), -1, FIRST_SIDE, FIRST_SIDE)
        for doubling in self.doublings:
            maps = doubling(maps)
        maps = self.pixels(functional.silu(self.norm(maps)))
        return torch.sigmoid(functional.pixel_shuffle(maps, 2))

    def images(self, vectors: Vectors, *, seed: int, progress: Progress | None = None) -> list[Image.Image]:
        """Returns an image for each of (n, dim) vectors; it draws nothing at random.

        Args:
            vectors: as the image model gives them.
            seed: changes nothing.
            progress: called with the number of images done and to do.
        """
        shown = []
        for number, vector in enumerate(torch.from_numpy(vectors).to(self.mean.device)):
            with torch.inference_mode():
                shown.append(as_image(self(vector[None])))
            if progress is not None:
                progress(number + 1, len(vectors))
        return shown


class VectorCanvas:
    """An image as the vector that a small decoder makes it of: what a text leaves open, such as the place, is settled.

    A text's vector is the mean of all images that it is true of, and its image is theirs.

    Args:
        decoder: its weights are frozen.
        vector: (dim,) to begin with.
    """

    smoothness = 0.0  # all that it decodes looks like an image

    def __init__(self, decoder: SmallDecoder, vector: Vectors) -> None:
        self._decoder = decoder.eval().requires_grad_(False)
        self._vector = nn.Parameter(torch.from_numpy(vector[None].copy()).to(decoder.mean.device))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._decoder.record.side, self._decoder.record.side

    def parameters(self) -> list[nn.Parameter]:
        """Returns the vector, (1, dim)."""
        return [self._vector]

    def image(self) -> Tensor:
        """Returns the image, (1, 3, side, side) float32 in 0 to 1, with its gradients."""
        image: Tensor = self._decoder(self._vector)
        return image


class UnclipDecoder:
    """An unCLIP pipeline of diffusers: Stable unCLIP, or the image variations of Karlo.

    Args:
        pipeline: StableUnCLIPImg2ImgPipeline or UnCLIPImageVariationPipeline.
        steps: of its (first) scheduler; None takes the pipeline's own.
    """

    def __init__(self, pipeline: Any, steps: int | None = None) -> None:
        self._pipeline = pipeline
        self._steps = steps
        pipeline.set_progress_bar_config(disable=True)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._pipeline.image_encoder.config.projection_dim)

    @property
    def moments(self) -> Moments:
        """Those of the pipeline's own normaliser, else those of its image encoder's vectors of plain test images."""
        normaliser = getattr(self._pipeline, "image_normalizer", None)
        if normaliser is not None:
            mean, deviation = (part.detach().float().cpu().numpy()[0] for part in (normaliser.mean, normaliser.std))
            return Moments(mean, deviation)
        from turkish_clip.verify import golden_images

        pixels = self._pipeline.feature_extractor(images=golden_images(), return_tensors="pt").pixel_values
        encoder = self._pipeline.image_encoder
        with torch.inference_mode():
            vectors = encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds.float().cpu().numpy()
        return Moments.of(vectors)

    def images(self, vectors: Vectors, *, seed: int, progress: Progress | None = None) -> list[Image.Image]:
        """Returns an image for each of (n, dim) vectors.

        Args:
            vectors: as the pipeline's image encoder gives them.
            seed: of the noise that becomes each image.
            progress: called with the number of images done and to do.
        """
        encoder = self._pipeline.image_encoder
        shown = []
        for number, vector in enumerate(vectors):
            given = torch.from_numpy(vector)[None].to(encoder.device, encoder.dtype)
            generator = torch.Generator().manual_seed(seed)
            shown.append(self._one(given, generator))
            if progress is not None:
                progress(number + 1, len(vectors))
        return shown

    def _one(self, vector: Tensor, generator: torch.Generator) -> Image.Image:
        if hasattr(self._pipeline, "image_normalizer"):
            steps = {} if self._steps is None else {"num_inference_steps": self._steps}
            made = self._pipeline(prompt="", image_embeds=vector, generator=generator, **steps)
        else:
            steps = {} if self._steps is None else {"decoder_num_inference_steps": self._steps}
            made = self._pipeline(image_embeddings=vector, generator=generator, **steps)
        image: Image.Image = made.images[0].convert("RGB")
        return image


def save_decoder(decoder: SmallDecoder, folder: Path, *, half: bool = False) -> None:
    """Writes a small decoder as safetensors beside its record.

    Args:
        decoder: to save.
        folder: that exists; an earlier decoder in it is replaced.
        half: whether the weights are stored as float16.
    """
    from safetensors.torch import save_file

    from turkish_clip.atomic import atomic_write
    from turkish_clip.records import write_record

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in decoder.state_dict().items()}
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    with atomic_write(folder / WEIGHTS) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    write_record(folder / RECORD, decoder.record)


def load_decoder(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | None = None,
    steps: int | None = None,
    image_weights_sha256: str = "",
) -> VectorDecoder:
    """Loads a decoder: a small one, or an unCLIP pipeline of diffusers; weights in safetensors alone.

    Args:
        source: folder or Hub id.
        revision: branch, tag or commit on the Hub.
        device: torch device; None takes the CPU.
        steps: of a pipeline's scheduler; None takes its own. A small decoder has none.
        image_weights_sha256: of the image model that gave the vectors; a small decoder of another one is refused.

    Raises:
        GeneratorError: it can't be loaded, is of another kind or image model, or diffusers is not installed.
    """
    folder = Path(source)
    if not folder.is_dir() or (folder / PIPELINE).is_file():
        return _pipeline(str(source), revision, device, steps)
    if not (folder / RECORD).is_file():
        raise GeneratorError(
            f"expected a decoder in {printable(str(source))}, got neither {RECORD} nor {PIPELINE}; name a folder that "
            "training.drawing.decoder or diffusers wrote, or a Hub id"
        )
    record = read_record(DecoderRecord, folder / RECORD, "train it again", GeneratorError)
    if image_weights_sha256 and record.image_weights_sha256 != image_weights_sha256:
        raise GeneratorError(
            f"expected a decoder for the vectors of this image model, got {printable(str(source))}, which is for "
            "other weights; name the image model that it was trained for with --image-model"
        )
    decoder = SmallDecoder(record)
    _load_weights(decoder, folder / WEIGHTS)
    return decoder.to(device or "cpu").eval().requires_grad_(False)


def _load_weights(decoder: SmallDecoder, path: Path) -> None:
    from safetensors.torch import load_file

    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors.values())
        decoder.load_state_dict(tensors)
    except Exception as error:  # torch, safetensors and the file system each raise their own
        raise GeneratorError(
            f"expected the weights that {RECORD} describes in {printable(str(path))}, got {one_line(error)}; train it "
            "again"
        ) from error
    if not finite:
        raise GeneratorError(f"expected numbers in {printable(str(path))}, got NaN or infinity; train it again")


def _pipeline(source: str, revision: str | None, device: str | None, steps: int | None) -> UnclipDecoder:
    if source.startswith(("/", "./", "../", "~")) and not Path(source).exists():
        raise GeneratorError(f"expected a decoder in {printable(source)}, got no such folder; correct the path")
    diffusers = import_diffusers()
    known: Sequence[str] = ("StableUnCLIPImg2ImgPipeline", "UnCLIPImageVariationPipeline")
    try:
        config = diffusers.DiffusionPipeline.load_config(source, revision=revision)
        name = str(config.get("_class_name"))
        if name in known:
            pipeline = getattr(diffusers, name).from_pretrained(source, revision=revision, use_safetensors=True)
            return UnclipDecoder(pipeline.to(device or "cpu"), steps)
    except Exception as error:  # diffusers, the Hub's client and safetensors each raise their own
        raise GeneratorError(
            f"expected an unCLIP decoder in {printable(source)}, got {one_line(error)}; name a folder or a Hub id"
        ) from error
    raise GeneratorError(
        f"expected an unCLIP decoder ({' or '.join(known)}) in {printable(source)}, got a {printable(name)}; name one "
        "that takes image vectors"
    )


def draw_decoded(
    encoder: DualEncoder,
    wishes: Sequence[Wish],
    decoder: VectorDecoder,
    *,
    steps: int = DECODED_STEPS,
    seed: int = 0,
    every: int = 0,
    progress: Progress | None = None,
    frame: Callable[[Image.Image], object] | None = None,
) -> Drawing:
    """Draws an image by a decoder, from the weighted mean of the wishes' vectors.

    Of a small decoder, the vector is then moved until the image model sees the wishes, as `draw` does it.

    Args:
        encoder: of the wishes; its image side judges the image.
        wishes: from `wishes_of`.
        decoder: from `load_decoder`.
        steps: of the optimisation after a small decoder; 0 leaves its first image.
        seed: of what the decoder or the optimisation draws at random.
        every: a frame is kept each so many steps; 0 keeps none.
        progress: called with the number of steps, or images, done and to do.
        frame: called with each image of the way that `every` keeps.

    Raises:
        GeneratorError: the widths don't fit, or the decoder gives what is no image.
        BankError: the model's bank is damaged.
    """
    from turkish_clip.metrics import unit

    begun = time.monotonic()
    mixed = unit(np.sum([wish.weight * wish.vector for wish in wishes], axis=0)[None])
    vectors = as_image_vectors(mixed, decoder, encoder.bank)
    if steps and isinstance(decoder, SmallDecoder):
        options = DrawingOptions(steps, LEARNING_RATE, CROPS, noise=NOISE, colour_jitter=0, every=every, seed=seed)
        canvas = VectorCanvas(decoder, vectors[0])
        return draw(encoder, wishes, options, canvas=canvas, progress=progress, frame=frame)
    (image,) = decoder.images(vectors, seed=seed, progress=progress)
    (embedded,) = encoder.embed_images([image])
    cosines = (embedded.vectors @ np.stack([wish.vector for wish in wishes]).T)[0].tolist()
    scores = dict(zip([wish.text for wish in wishes], cosines))
    return Drawing(image, scores, steps=0, seconds=time.monotonic() - begun)
