"""Trains a Turkish text encoder on a folder of captioned images: embed, distil, evaluate, with settings for few images.

python examples/train_on_your_folder.py FOLDER [--image_model FOLDER_OR_ID] [--backbone FOLDER_OR_ID]

FOLDER holds images and a metadata.jsonl with a line for each: {"file_name": "0001.jpg", "captions": ["karda bir ev"]}.
By default nothing is downloaded: the text encoder is a small new BERT, and the image model the demo's small CLIP, which
knows drawings alone. For photographs: --image_model clip-ViT-B-32, and --backbone dbmdz/bert-base-turkish-cased.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training import distill, embed_images, evaluate
from training.run.command import run_command

SMALL_CLIP = Path(__file__).resolve().parents[1] / "training" / "mini" / "clip"
# For few images: more of them held back for the measurements, and small batches, so that an epoch has more steps.
SPLITS = ["--validation_fraction", "0.1", "--test_fraction", "0.2"]
SMALL_BATCHES = ["--batch_size", "32", "--max_tokens", "64"]


def main(argv: list[str]) -> None:
    """Runs the three commands on the folder, and says how to use the model."""
    options = read_options(argv)
    shared = ["--captions", options.folder, "--image_model", options.image_model, "--run", options.run]
    shared += ["--device", options.device, *SPLITS]
    quietly(embed_images.main, shared)
    quietly(distill.main, [*shared, *SMALL_BATCHES, "--backbone", options.backbone, "--epochs", options.epochs])
    evaluate.main(shared)

    print(f"\nThe model is in {options.run}/model. Search with it:")
    print(f"python examples/search_your_folder.py {options.folder} 'karda bir ev' --model {options.run}")


def quietly(command: Callable[[list[str]], Any], arguments: list[str]) -> None:
    """Runs a command without the result that it prints; its progress, on stderr, is shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        command(arguments)


def read_options(argv: list[str]) -> argparse.Namespace:
    """Returns the options of the command line; all are texts, as the commands take them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="images with metadata.jsonl or metadata.csv")
    parser.add_argument("--image_model", default=str(SMALL_CLIP), help="Hub id or folder [the demo's small CLIP]")
    parser.add_argument("--backbone", default="scratch", help="Hub id or folder of a Turkish BERT [a small new one]")
    parser.add_argument("--epochs", default="12", help="passes over the captions [12]")
    parser.add_argument("--run", default="runs/my-folder", help="where everything goes [runs/my-folder]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps [auto]")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
