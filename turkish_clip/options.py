"""The options that several subcommands of turkish-clip share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from turkish_clip.opening import INDEX_FOLDER, sheet_of

Model = Annotated[
    str | None,
    typer.Option(help="a pair, a text encoder or a training run: Hub id or folder", envvar="TURKISH_CLIP_MODEL"),
]
ImageModel = Annotated[
    str | None,
    typer.Option(help="the text encoder's image model; else the one that it names", envvar="TURKISH_CLIP_IMAGE_MODEL"),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; else chosen by itself")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]
Sheet = Annotated[Path | None, typer.Option(help="a contact sheet to write: out.png or out.html", callback=sheet_of)]
At = Annotated[str | None, typer.Option(help=f"the index's place or URI; else FOLDER/{INDEX_FOLDER}")]
Workers = Annotated[int, typer.Option(min=1, help="threads that read and decode pictures")]
Pictures = Annotated[list[Path], typer.Argument(help="pictures, or folders of pictures")]
