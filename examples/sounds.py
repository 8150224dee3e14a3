"""Sounds told apart by Turkish words: a small CLIP learns their spectrograms, and a Turkish text encoder its space.

python examples/sounds.py [--sounds NUMBER] [--run FOLDER]

The sounds are made here: a tone that rises or falls, whole or in beeps, of random pitch, length, loudness and noise. A
falling one is a rising one played backwards, so that the pitches of both are the same: only their order tells.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np

from training import distill, embed_images, pretrain
from training.run.command import run_command

RATE = 16_000
# Of each kind the Turkish and the English words for it: (falls, beeps) → both.
KINDS = {
    (False, False): ("yükselen kesintisiz bir ses", "a rising steady sound"),
    (True, False): ("alçalan kesintisiz bir ses", "a falling steady sound"),
    (False, True): ("yükselen kesik kesik bir ses", "a rising beeping sound"),
    (True, True): ("alçalan kesik kesik bir ses", "a falling beeping sound"),
}


def tone(rng: np.random.Generator, falls: bool, beeps: bool) -> np.ndarray:
    """Returns the samples of a sound, from -1 to 1.

    Args:
        rng: draws pitch, length, loudness and noise.
        falls: whether it is a rising one backwards.
        beeps: whether it is in beeps.
    """
    seconds = rng.uniform(1.5, 4.5)
    low, ratio = rng.uniform(200, 1500), rng.uniform(1.5, 3)
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = low * ratio ** (time / seconds)
    sound = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    if beeps:
        sound *= np.sin(2 * np.pi * rng.uniform(1.5, 3) * time) > 0
    sound += rng.uniform(0.01, 0.1) * rng.standard_normal(len(sound))
    return (sound[::-1] if falls else sound) * rng.uniform(0.05, 0.8)


def write_sounds(folder: Path, number: int, seed: int) -> None:
    """Writes sounds and the metadata that names them, a quarter of each kind; of the last fifth those of the test.

    Args:
        folder: for both.
        number: of sounds.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for place in range(number):
        kind = list(KINDS)[place % len(KINDS)]
        with wave.open(str(folder / f"{place:04d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((tone(rng, *kind).clip(-1, 1) * 32767).astype("<i2").tobytes())
        turkish, english = KINDS[kind]
        split = "test" if place >= 0.8 * number else "train"
        lines.append({"file_name": f"{place:04d}.wav", "caption": turkish, "caption_en": english, "split": split})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def main(argv: list[str]) -> dict[str, Any]:
    """Makes the sounds, trains both towers, and measures how many held-out sounds the words find."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sounds", type=int, default=800, help="how many are made; a fifth is held out [800]")
    parser.add_argument("--epochs", default="16", help="passes over them [16]")
    parser.add_argument("--run", default="runs/sounds", help="where everything goes [runs/sounds]")
    options = parser.parse_args(argv)
    run = Path(options.run)
    write_sounds(run / "sounds", options.sounds, seed=0)

    shared = ["--captions", str(run / "sounds"), "--device", "cpu"]
    tower, student = str(run / "tower"), str(run / "turkish")
    small = "--image_size 48 --vision_layers 3 --vision_hidden 64 --text_layers 1 --text_hidden 32 --dim 64"
    small += f" --vocabulary 530 --batch_size 32 --augment 0 --epochs {options.epochs} --resume"
    of_student = ["--image_model", f"{tower}/model", "--run", student, *shared]
    with contextlib.redirect_stdout(io.StringIO()):
        pretrain.main([*shared, "--run", tower, "--caption_columns", "caption_en", *small.split()])
        embed_images.main(of_student)
        distill.main([*of_student, *"--backbone scratch --batch_size 32 --epochs 6 --resume".split()])
    return measured(run, student)


def measured(run: Path, student: str) -> dict[str, Any]:
    """Prints and returns the share of held-out sounds that are told right: by words, and by their pitches alone.

    Args:
        run: with the sounds.
        student: the run of the Turkish text encoder.
    """
    from turkish_clip import ZeroShotClassifier, load_dual_encoder

    lines = [json.loads(line) for line in (run / "sounds" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    words = [turkish for turkish, _ in KINDS.values()]
    paths = [run / "sounds" / line["file_name"] for line in lines]
    right = np.array([words.index(line["caption"]) for line in lines])
    test = np.array([line["split"] == "test" for line in lines])

    classifier = ZeroShotClassifier(load_dual_encoder(student, device="cpu"), words, templates=["{}"])
    heard = classifier.classify([path for path, held_out in zip(paths, test) if held_out])
    by_words = np.array([words.index(one.label) for one in heard])
    by_pitch = told_by_pitch(paths, right, test)
    result = {"held_out": int(test.sum())}
    print(f"\n{result['held_out']} sounds that were held out, told right:    kind   rising or falling")
    chances = {"chance": (1 / len(words), 1 / 2)}
    for name, told in {"by Turkish words": by_words, "by their pitches alone": by_pitch}.items():
        falls = told % 2 == right[test] % 2  # as KINDS are ordered
        chances[name] = (float((told == right[test]).mean()), float(falls.mean()))
    for name, (kind, direction) in chances.items():
        print(f"{name:47}  {kind:.2f}   {direction:.2f}")
        result |= {f"{name}: kind": kind, f"{name}: direction": direction}
    return result


def told_by_pitch(paths: list[Path], right: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Returns the kinds that the mean of a spectrogram over time gives for the sounds of the test, by least squares.

    Args:
        paths: of all sounds.
        right: the number of each one's kind.
        test: which are held out; the others are fitted.
    """
    from turkish_clip.sounds import spectrograms

    pitches = np.stack([np.asarray(next(spectrograms(path)).image)[::2, :, 0].mean(axis=1) for path in paths]) / 255
    pitches = np.hstack([pitches, np.ones((len(pitches), 1))])
    fitted = pitches[~test]
    weights = np.linalg.solve(
        fitted.T @ fitted + 0.01 * np.eye(fitted.shape[1]), fitted.T @ np.eye(len(KINDS))[right[~test]]
    )
    return (pitches[test] @ weights).argmax(axis=1)


if __name__ == "__main__":
    run_command(main)
