"""The options of a command for its sources of captioned images, checked as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.run.recipe import ConfigError, option
from turkish_clip.errors import InputError
from turkish_clip.text import ascii_fold, nfc


def is_mini(captions: str) -> bool:
    """Returns whether a source is the miniature world, of any number of images and seed: mini, mini:300, mini:300:1."""
    return captions.partition(":")[0] == "mini"


class SourceError(InputError):
    """A source of captions that can't be read."""


MAX_WEIGHT = 100
LEFT_OUT = "none"  # as the meaning of a split's name
SPLIT_MEANINGS = ("train", "validation", "test", LEFT_OUT)


def folded_split(name: str) -> str:
    """Returns a name without case, spaces at its ends and Turkish letters: eğitim, EĞİTİM and egitim are one."""
    return ascii_fold(nfc(name).strip()).lower()


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of captioned images: where it is, what its columns mean, and on which terms it may be used."""

    captions: str = option(
        "",
        "source of captioned images: folder with metadata.jsonl/.csv or with a .txt for each image, "
        "CSV/TSV/JSON/JSONL/Parquet table, folder of Parquet files, WebDataset .tar shards (folder, or "
        "a-{000..009}.tar), Hub data set id, or mini",
        aliases=("images",),
    )
    captions_config: str = option("", "configuration of a Hub data set that has several")
    captions_revision: str = option("", "revision of a Hub data set; empty: the newest")
    captions_streaming: bool = option(
        False, "read a Hub data set over the network each time, captions first, then images; false: download it"
    )
    text_only: bool = option(
        False, "a source of Turkish captions with their English originals, without images; all of it is trained on"
    )
    captions_license: str = option("", "licence of the images and captions, as the model card names it")
    image_column: str = option("", "column of the image; empty: file_name, image, image_path or path")
    caption_columns: tuple[str, ...] = option(
        (),
        "columns of captions, text or list (name.field: inside a record); empty: captions, caption or text",
        aliases=("captions_columns",),
    )
    english_columns: tuple[str, ...] = option((), "columns of English captions; empty: captions_en, if present")
    label_column: str = option(
        "", "column of object classes, in Turkish, text or list, to fit the temperature on; empty: labels, if present"
    )
    negatives_column: str = option(
        "",
        "column of minimal, false changes of captions, to probe with: a list of texts or of records; empty: negatives, "
        "if present; none: no column",
    )
    slices_column: str = option(
        "",
        "column of the slices (styles, origins …) that an image belongs to and that are measured by themselves, text "
        "or list; empty: slices, if present; none: no column",
    )
    clip_images: int = option(
        3,
        "images of each video (frames) or sound (spectrograms of 5 seconds), which share its captions: at most so "
        "many, spread evenly over it; 0: all, a frame every 2 seconds, a spectrogram every 5",
        low=0,
        high=10_000,
    )
    image_folder: str = option("", "folder that the paths in a table start from; empty: that of the table")
    id_column: str = option(
        "", "column of the image's id; empty: image_id, else its path or row number; none: its path or row number"
    )
    split_column: str = option(
        "split",
        "column of the split (train, validation or test), if present; none: no column, nor folders in image paths",
    )
    split_names: tuple[str, ...] = option(
        (),
        "what other names of splits mean, in the column, folders, files or the Hub: NAME=train, validation, test or "
        "none (left out)",
    )
    weight: float = option(
        1.0, f"times per epoch that each training caption is seen; 0.5: every other epoch (above 0 to {MAX_WEIGHT})"
    )


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Source):
    """The sources of captioned images, their splits, and the run folder."""

    sources: tuple[Source, ...] = option((), "several sources in place of captions: a list, in a recipe alone")
    validation_fraction: float = option(
        0.05, "fraction of the training split that becomes the validation split, if there is none", low=0, high=0.5
    )
    test_fraction: float = option(
        0.1, "fraction of the training split that becomes the test split, if there is none", low=0, high=0.9
    )
    split_seed: int = option(0, "seed of the hash that draws the splits", low=0)
    max_skipped_fraction: float = option(0.02, "largest fraction of rows or images that may be skipped", low=0, high=1)
    run: str = option("", "run folder; empty: runs/ and the name of the recipe")

    def __post_init__(self) -> None:
        if not self.captions and not self.sources:
            raise ConfigError(
                "expected 'captions' to name a folder, table or Hub data set, got nothing; add --captions SOURCE"
            )
        if self.captions and self.sources:
            raise ConfigError(
                f"expected 'captions' or 'sources', got both ({self.captions!r} and {len(self.sources)} sources); "
                "put all of them into 'sources', or name another recipe"
            )
        if all(source.text_only for source in self.all_sources):
            raise ConfigError(
                f"expected a source with images, got {self.source_names}, text_only; list it in 'sources', beside one "
                "that has images"
            )
        names = [source.captions for source in self.sources]
        if len(set(names)) < len(names):
            raise ConfigError(f"expected each of 'sources' once, got {', '.join(names)}; join the repeated ones")
        worlds = [name for name in names if is_mini(name)]
        if len(worlds) > 1:  # they would be drawn into one folder, one over the other
            raise ConfigError(
                f"expected one miniature world in 'sources', got {', '.join(worlds)}; name the data folders of other "
                "runs in the place of all but one"
            )
        if not all(names):
            raise ConfigError("expected 'captions' in each of 'sources', got one without; name its folder, table or id")
        for source in self.all_sources:
            if not 0 < source.weight <= MAX_WEIGHT:
                raise ConfigError(
                    f"expected 'weight' of {source.captions} above 0 and at most {MAX_WEIGHT}, got {source.weight:g}; "
                    "change it, or take the source out"
                )
            for pair in source.split_names:
                if not pair.partition("=")[0] or pair.rpartition("=")[2] not in SPLIT_MEANINGS:
                    raise ConfigError(
                        f"expected 'split_names' of {source.captions} as NAME=MEANING with one of "
                        f"{', '.join(SPLIT_MEANINGS)}, got {pair!r}; correct it"
                    )
            meanings: dict[str, str] = {}
            for pair in source.split_names:
                name = pair.rpartition("=")[0]
                if (first := meanings.setdefault(folded_split(name), pair)) != pair:
                    raise ConfigError(
                        f"expected one meaning of each split in 'split_names' of {source.captions}, got {first!r} and "
                        f"{pair!r}; keep one of them"
                    )
        if not self.run:
            raise ConfigError("expected 'run' to name the run folder, got nothing; add --run runs/NAME")

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """The sources to read: those listed, or the one that `captions` names."""
        return self.sources or (self,)

    @property
    def source_names(self) -> str:
        """The sources as the user named them, for reports and messages."""
        return " + ".join(source.captions for source in self.all_sources)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run)
