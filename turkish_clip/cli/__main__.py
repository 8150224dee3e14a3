"""python -m turkish_clip.cli: the same as turkish-clip."""

from turkish_clip.cli import main

main()
