"""python -m training.drawing.judge: draws from words in several ways, and a second small CLIP says what it sees.

The image model that the drawings are made for can't judge them: an optimised image may please it and show nothing. The
judge was trained apart, on other images with another seed, and sees each drawing once.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.mini.captions import with_article
from training.mini.scene import Scene, draw_scene
from training.mini.words import COLOURS, OBJECTS, SETTINGS
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import JudgeConfig, read
from training.run.lock import hold
from training.run.record import check_outputs
from turkish_clip.errors import InputError, printable
from turkish_clip.hosts import import_hosts
from turkish_clip.ownership import png_marks
from turkish_clip.strict_json import json_text

if TYPE_CHECKING:
    from PIL import Image

    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.metrics import Vectors

RESULTS, SHEET, SHOWN = "judged.json", "sheet.png", 12
NOT_COMPARED = ("run", "json", "device", "judge")  # change no drawing
EXAMPLES = 4  # real drawings of each thing in each colour and setting, whose mean vector the judge compares with
PAIRS = [(thing, colour) for thing in OBJECTS for colour in COLOURS]
Way = Callable[["Vectors", int], "Image.Image"]


class JudgeError(InputError):
    """A judge that can't judge."""


@dataclass(frozen=True)
class Subject:
    """A thing, its colour and a setting, with the words for them."""

    thing: str
    colour: str
    setting: str

    @property
    def turkish(self) -> str:
        """The words as a person types them.

        >>> Subject("fish", "blue", "night").turkish
        'gece mavi bir balık'
        """
        setting, colour = SETTINGS[self.setting].turkish[0], COLOURS[self.colour].turkish[0]
        return f"{setting} {colour} bir {OBJECTS[self.thing].turkish[0].word}"

    @property
    def english(self) -> str:
        """The same in English.

        >>> Subject("apple", "orange", "snow").english
        'an orange apple in the snow'
        """
        named = with_article(f"{COLOURS[self.colour].english} {OBJECTS[self.thing].english[0]}")
        return f"{named} {SETTINGS[self.setting].english[0]}"

    def drawn(self, rng: random.Random) -> Image.Image:
        """Returns a real drawing of it, as the miniature world draws a large single thing."""
        return draw_scene(Scene((self.thing, self.colour), None, "", 1, "large", self.setting), rng)


def subjects(count: int, seed: int) -> list[Subject]:
    """Returns different things in different colours, each in some setting.

    Args:
        count: how many, at the most 162.
        seed: of the draw.
    """
    rng = random.Random(seed)
    return [Subject(thing, colour, rng.choice(list(SETTINGS))) for thing, colour in rng.sample(PAIRS, count)]


def main(argv: list[str]) -> dict[str, Any]:
    """Draws what is not drawn yet, judges all, writes judged.json and a sheet; returns the results."""
    config = read(JudgeConfig, argv)
    hold(config.folder)
    check_outputs(config.folder, RESULTS, SHEET)
    options = {name: value for name, value in asdict(config).items() if name not in NOT_COMPARED}
    _check_same(config.folder / RESULTS, options)
    quiet_hosts()
    import_hosts()
    from training.run.distributed import device_of
    from turkish_clip.atomic import write_json
    from turkish_clip.dual_encoder import load_dual_encoder

    write_json(config.folder / RESULTS, {"of": options, "results": None})
    device = device_of(config.device)
    encoder = load_dual_encoder(config.model, config.image_model or None, device=device)
    judge = Judge.load(config.judge, encoder.image_weights_sha256, device, config.seed)
    asked = subjects(config.prompts, config.seed)
    vectors = {name: _vectors(name, encoder, asked, config.seed) for name in config.vectors}
    drawings: dict[str, list[Image.Image]] = {}
    for way, draw in _ways(config, encoder, device):
        for name, of_subjects in vectors.items():
            drawings[f"{way}, {name}"] = list(_drawn(config.folder, f"{way}-{name}", of_subjects, draw, config.seed))
    rng = random.Random(config.seed + 1)
    drawings["the miniature world's own"] = [subject.drawn(rng) for subject in asked]
    results: dict[str, Any] = {
        "prompts": len(asked),
        "steps": config.steps,
        "chance": {"thing": 1 / len(OBJECTS), "colour": 1 / len(COLOURS), "both": 1 / len(PAIRS)},
        "right": {name: judge.right(images, asked) for name, images in drawings.items()},
    }
    write_json(config.folder / RESULTS, {"of": options, "results": results})
    write_sheet(config.folder / SHEET, drawings)
    if config.json:
        print_result(results, config.json)
    else:
        print("\n".join(table(results)))
    return results


def table(results: dict[str, Any]) -> list[str]:
    """Returns the results as lines for people: the fractions that are right, by words and by examples."""
    rows = {f"of {results['prompts']} drawings": ["thing", "colour", "both"] * 2}
    rows |= {
        name: [f"{x:.2f}" for by in found.values() for x in by.values()] for name, found in results["right"].items()
    }
    rows["chance"] = [f"{results['chance'][label]:.3f}" for label in ("thing", "colour", "both")] * 2
    width = max(map(len, rows))
    lines = [f"{name:<{width}}" + "".join(f"{cell:>8}" for cell in cells) for name, cells in rows.items()]
    return [" " * width + f"{'by words':>24}{'by examples':>24}", *lines]


def _check_same(path: Path, options: dict[str, Any]) -> None:
    """Checks that drawings that are there were made with the same options.

    Raises:
        JudgeError: they were not.
    """
    if not path.is_file():
        return
    before = json.loads(path.read_text(encoding="utf-8"))["of"]
    for name, value in json.loads(json_text(options)).items():
        if before.get(name) != value:
            raise JudgeError(
                f"expected the options of the drawings in {printable(str(path.parent))}, got {name} {value!r} instead "
                f"of {before.get(name)!r}; name another --run"
            )


def _vectors(name: str, encoder: DualEncoder, asked: list[Subject], seed: int) -> Vectors:
    """Returns the (n, dim) unit vectors that are to be drawn."""
    import numpy as np

    from turkish_clip.encoder import as_texts
    from turkish_clip.metrics import unit

    if name == "turkish":
        return encoder.encode_texts([subject.turkish for subject in asked])
    if name == "english":
        texts = as_texts(encoder.image, [subject.english for subject in asked])
        return unit(encoder.image.encode(texts, show_progress_bar=False))
    rng = random.Random(seed + 2)
    batches = encoder.embed_images([subject.drawn(rng) for subject in asked])
    return np.concatenate([batch.vectors for batch in batches])


def _ways(config: JudgeConfig, encoder: DualEncoder, device: str) -> Iterator[tuple[str, Way]]:
    """Yields the name of each way to draw, and what draws a vector with a seed."""
    from turkish_clip.generate import (
        DrawingOptions,
        Wish,
        canvas_on,
        draw,
        draw_decoded,
        load_autoencoder,
        load_decoder,
    )
    from turkish_clip.generate.decoder import as_image_vectors

    def optimised(vector: Vectors, seed: int, **more: Any) -> Image.Image:
        options = DrawingOptions(steps=config.steps, crops=config.crops, seed=seed)
        return draw(encoder, [Wish("", vector, 1.0)], options, **more).image

    if config.decoder:
        decoder = load_decoder(config.decoder, device=device, image_weights_sha256=encoder.image_weights_sha256)

        def decoded(vector: Vectors, seed: int) -> Image.Image:
            return decoder.images(as_image_vectors(vector[None], decoder, encoder.bank), seed=seed)[0]

        def decoded_and_optimised(vector: Vectors, seed: int) -> Image.Image:
            return draw_decoded(encoder, [Wish("", vector, 1.0)], decoder, seed=seed).image

        yield "decoder", decoded
        yield "decoder, optimised", decoded_and_optimised
    if config.generator:
        model = load_autoencoder(config.generator, device=device)

        def quantised(vector: Vectors, seed: int) -> Image.Image:
            return optimised(vector, seed, canvas=canvas_on(model, seed))

        yield "VQ-autoencoder", quantised
    if config.fourier:
        yield "Fourier canvas", optimised


def _drawn(folder: Path, name: str, vectors: Vectors, draw: Way, seed: int) -> Iterator[Image.Image]:
    """Yields a drawing of each vector; those that an interrupted run has left are read."""
    from PIL import Image
    from tqdm import tqdm

    from turkish_clip.atomic import atomic_write

    for number, vector in enumerate(tqdm(vectors, desc=name, unit="drawing", mininterval=1)):
        path = folder / "drawings" / re.sub(r"\W+", "-", name) / f"{number:03d}.png"
        if not path.is_file():
            image = draw(vector, seed + number)
            with atomic_write(path) as partial:
                image.save(partial, "PNG", pnginfo=png_marks())
        with Image.open(path) as opened:
            yield opened.convert("RGB")


@dataclass(frozen=True)
class Judge:
    """A second small CLIP: by its English words, and by the mean of its vectors of real drawings of each.

    Attributes:
        image_vectors: images → (n, dim) float32 unit vectors.
        words: (things · colours, dim) unit vectors of their English words.
        centres: (things · colours, dim) unit vectors: the mean of real drawings of each.
    """

    image_vectors: Callable[[list[Image.Image]], Vectors]
    words: Vectors
    centres: Vectors

    @classmethod
    def load(cls, folder: str, image_weights_sha256: str, device: str, seed: int) -> Judge:
        """Loads the judge.

        Args:
            folder: of the CLIP.
            image_weights_sha256: of the image model that was drawn for, which can't judge itself.
            device: torch device.
            seed: of the real drawings.

        Raises:
            JudgeError: it is the image model itself, or takes no text.
        """
        import numpy as np

        from turkish_clip.dual_encoder import weights_sha256
        from turkish_clip.encoder import as_texts, load_model
        from turkish_clip.metrics import unit

        model = load_model(folder, device=device)
        if not (model.supports("text") and model.supports("image")):
            raise JudgeError(f"expected a CLIP as the judge, got {folder}, which lacks a side; name another folder")
        if weights_sha256(model) == image_weights_sha256:
            raise JudgeError(
                f"expected a judge that was trained apart, got the image model itself in {folder}; train another with "
                "training.pretrain --seed 1"
            )

        def image_vectors(images: list[Image.Image]) -> Vectors:
            return unit(np.asarray(model.encode(images, show_progress_bar=False)))

        rng = random.Random(seed + 3)
        words, centres = [], []
        for thing, colour in PAIRS:
            same = [Subject(thing, colour, setting) for setting in SETTINGS]
            texts = as_texts(model, [subject.english for subject in same])
            words.append(unit(model.encode(texts, show_progress_bar=False)).mean(axis=0))
            images = [subject.drawn(rng) for subject in same for _ in range(EXAMPLES)]
            centres.append(image_vectors(images).mean(axis=0))
        return cls(image_vectors, unit(np.stack(words)), unit(np.stack(centres)))

    def right(self, images: list[Image.Image], asked: list[Subject]) -> dict[str, dict[str, float]]:
        """Returns how often the judge names what was asked: the fractions for the thing, the colour and both.

        Args:
            images: the drawings.
            asked: what each is to show.

        Returns:
            By words, and by examples, the real drawings.
        """
        vectors = self.image_vectors(images)
        found: dict[str, dict[str, float]] = {}
        for name, of_pairs in (("by words", self.words), ("by examples", self.centres)):
            named = [PAIRS[int(best)] for best in (vectors @ of_pairs.T).argmax(axis=1)]
            things = [thing == subject.thing for (thing, _), subject in zip(named, asked)]
            colours = [colour == subject.colour for (_, colour), subject in zip(named, asked)]
            both = [thing and colour for thing, colour in zip(things, colours)]
            found[name] = {
                label: sum(hits) / len(hits) for label, hits in (("thing", things), ("colour", colours), ("both", both))
            }
        return found


def write_sheet(path: Path, drawings: dict[str, list[Image.Image]]) -> None:
    """Writes the first drawings of each way as they came, a row each, as one PNG.

    Args:
        path: the file.
        drawings: by way, all of the same prompts.
    """
    from PIL import Image

    from turkish_clip.atomic import atomic_write

    side = 128
    columns = min(SHOWN, max(map(len, drawings.values())))
    sheet = Image.new("RGB", (side * columns, side * len(drawings)), "white")
    for row, images in enumerate(drawings.values()):
        for place, image in enumerate(images[:SHOWN]):
            sheet.paste(image.resize((side, side), Image.Resampling.LANCZOS), (place * side, row * side))
    with atomic_write(path) as partial:
        sheet.save(partial, "PNG", pnginfo=png_marks())


if __name__ == "__main__":
    run_command(main)
