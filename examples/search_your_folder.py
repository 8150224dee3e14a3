"""Searches a folder of images by Turkish words, from Python: index, search, print, contact sheet.

python examples/search_your_folder.py FOLDER [QUERY ...] [--model FOLDER_OR_ID] [--sheet found.html]

The model is the demo's run (make demo) unless another is named, here or in TURKISH_CLIP_MODEL. Nothing is downloaded if
the model is a folder. The index stays in FOLDER/.turkish-clip, where `turkish-clip search` finds it, too.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from turkish_clip import ImageIndex, InputError, load_dual_encoder
from turkish_clip.sheet import Tile, write_sheet
from turkish_clip.verify import quiet

MODEL = os.environ.get("TURKISH_CLIP_MODEL") or Path(__file__).resolve().parents[1] / "runs" / "demo"


def main(argv: list[str] | None = None) -> None:
    """Indexes the folder, and prints the best images for each query."""
    options = read_options(argv)
    quiet()  # of the libraries' progress bars
    encoder = load_dual_encoder(options.model, options.image_model)
    index = ImageIndex.open(options.folder / ".turkish-clip", encoder)
    added = index.add(options.folder)
    print(f"{added.images} images in {index.uri}: {added.added} new, {added.unchanged} as they were")
    for file in added.skipped:
        print(f"not indexed: {file.path}: {file.reason}")
    for line in added.left_out.lines():
        print(line)
    tiles = []
    for query in options.queries:
        print(f"\n{query}")
        for hit in index.search(query, options.k):
            print(f"{hit.score:7.3f}  {hit.path}")
            tiles.append(Tile(Path(hit.path), f"{hit.score:.3f}  {query}", hit.second))
    if tiles and options.sheet is not None:
        print(f"\ncontact sheet: {write_sheet(options.sheet, tiles, ' · '.join(options.queries))}")


def read_options(argv: list[str] | None) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images with its subfolders")
    parser.add_argument("queries", nargs="*", metavar="QUERY", help="what to look for, in Turkish")
    parser.add_argument("--model", default=MODEL, help=f"Hub id, folder or training run [{MODEL}]")
    parser.add_argument("--image_model", help="Hub id or folder [the one that the model names]")
    parser.add_argument("-k", type=int, default=5, help="images per query [5]")
    parser.add_argument("--sheet", help="file for a contact sheet, .html or .png [none is written]")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
