"""What names of splits mean: those in a column, of a data set's splits, and of folders and files."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from training.run.source import LEFT_OUT, SPLIT_MEANINGS, Source, SourceError, folded_split

log = logging.getLogger("training")
SPLIT_NAMES = {
    "train": "train", "training": "train", "trainval": "train", "restval": "train", "egitim": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "minival": "validation", "dogrulama": "validation", "gecerleme": "validation",
    "test": "test", "testing": "test", "testdev": "test", "devtest": "test", "teststd": "test", "eval": "test",
    "evaluation": "test", "sinama": "test",
}  # fmt: skip
PLAIN_NAMES = ("train", "training", "validation", "valid", "val", "dev", "test", "testing")  # are read without a word
OTHER_WORDS = {"dev"}  # that mean something else in Turkish (a giant), and so nothing beside other words
NUMBERED = re.compile(r"([a-z]+?)\d+[km]?|(test)[ab]")  # test1k, val2017, testA
WORDS = re.compile(r"[^\W_]+")
COUNTS = re.compile(r"\d+[km]?")
NEUTRAL = frozenset(
    "of part shard chunk file batch data dataset split set images image captions caption annotations tr turkish".split()
)
HUB_SPLITS = "splits"  # of a data set on the Hub, which are always named
MAX_NAMED = 8  # unknown names that a message lists
MAX_NAME = 60  # characters of a name in a message
MAX_COUNTED = 100  # names whose rows are counted


def split_of(name: str) -> str:
    """Returns the split that a name means by itself, empty where it means none.

    >>> split_of("Test"), split_of("test1k"), split_of("val_2017"), split_of("Doğrulama"), split_of("dev-hayvanlar")
    ('test', 'test', 'validation', 'validation', '')
    """
    words = WORDS.findall(folded_split(name))
    joined = "".join(word for word in words if not COUNTS.fullmatch(word) or words[0] == word)
    numbered = NUMBERED.fullmatch(joined)
    return SPLIT_NAMES.get(joined) or SPLIT_NAMES.get(numbered.group(1) or numbered.group(2) if numbered else "", "")


class SplitMeanings:
    """The meanings of one source's split names: those that its configuration gives, and the usual ones.

    It remembers what it was asked, so that `check` can say what is no usual name, and refuse what has no meaning.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        pairs = (pair.rpartition("=") for pair in source.split_names)
        self._given = {folded_split(name): meaning for name, _, meaning in pairs}
        self._read_as: Counter[tuple[str, str]] = Counter()
        self._unknown: Counter[str] = Counter()

    def known(self, name: str) -> str:
        """Returns what a name means, without remembering it; empty where it means nothing."""
        return self._given.get(folded_split(name)) or split_of(name)

    def is_given(self, name: str) -> bool:
        """Returns whether the configuration says what a name means."""
        return folded_split(name) in self._given

    def of_cell(self, name: str) -> str:
        """Returns the meaning of a name in the split column; `check` refuses one without a meaning."""
        meaning = self.of_layout(name)
        if not meaning:
            self._count(self._unknown, name)
        return meaning

    def of_layout(self, name: str) -> str:
        """Returns the meaning of a name in the source's layout; one without a meaning is to be divided."""
        meaning = self.known(name)
        if meaning:
            self._count(self._read_as, (name, meaning))
        return meaning

    @staticmethod
    def _count(counts: Counter[Any], key: Any) -> None:
        if key in counts or len(counts) < MAX_COUNTED:
            counts[key] += 1

    def check(self) -> None:
        """Logs how names that are not plain were read.

        Raises:
            SourceError: names in the split column have no meaning; the message says how to give them one.
        """
        where = self.source.captions
        if self._unknown:
            names = ", ".join(
                f"{name[:MAX_NAME]!r} ({count} rows)" for name, count in self._unknown.most_common(MAX_NAMED)
            )
            raise SourceError(
                f"expected train, validation or test in column {self.source.split_column!r} of {where}, got {names}; "
                f"say what they mean: {_choice(self._unknown)}, or name another column with --split_column (none: no "
                "column)"
            )
        for (name, meaning), count in self._read_as.items():
            if meaning != LEFT_OUT and meaning != name.lower() and name.lower() not in PLAIN_NAMES:
                log.info(
                    "%s: the split %r (%d rows) is read as %s; --split_names changes that", where, name, count, meaning
                )

    def check_layout(self, names: Iterable[str], what: str) -> None:
        """Checks the names of a source's splits, folders or files before they are read.

        A name without a meaning is that of more training data, unless some are named for training already.

        Args:
            names: the names; empty ones are passed over.
            what: what bears them, in the plural, for the message.

        Raises:
            SourceError: names without a meaning stand beside one that means train.
        """
        found = {name: self.known(name) for name in names if name}
        unknown = [name for name, meaning in found.items() if not meaning]
        listed = ", ".join(repr(name[:MAX_NAME]) for name in unknown[:MAX_NAMED]) + (
            " …" if len(unknown) > MAX_NAMED else ""
        )
        if unknown and "train" not in found.values():
            if what == HUB_SPLITS or any(found.values()):
                log.info("%s: the %s %s are no split, and divided like train", self.source.captions, what, listed)
        elif unknown:
            raise SourceError(
                f"expected {what} of {self.source.captions} named after train, validation and test, got {listed} "
                f"beside {', '.join(name for name, meaning in found.items() if meaning)}; say what it means: "
                f"{_choice(unknown)}"
            )


class PathSplits:
    """The splits that folders in the paths of a table's images name, as train/0.png does: they do for all, or for none.

    Of a path from the table's folder the first such folder counts, of one from the root the nearest to the image; then
    the nearest one that the configuration names.
    """

    def __init__(self, meanings: SplitMeanings) -> None:
        self._meanings = meanings
        self._named: Counter[str] = Counter()
        self._unnamed: Counter[str] = Counter()
        self._is_relative = False

    def of(self, path: str) -> str:
        """Returns the meaning of the split in a path; empty where it has none."""
        return self._meanings.known(self._name(path))

    def _name(self, path: str) -> str:
        folders = path.split("/")[:-1]
        nearest = folders[::-1]
        usual = (folder for folder in (nearest if path.startswith("/") else folders) if split_of(folder))
        return next(usual, "") or next((folder for folder in nearest if self._meanings.is_given(folder)), "")

    def add(self, path: str) -> None:
        """Remembers the path of an image that is a row."""
        name = self._name(path)
        self._is_relative = self._is_relative or not path.startswith("/")
        self._meanings._count(*((self._named, name) if name else (self._unnamed, path.rpartition("/")[0])))

    def check(self, others: bool) -> bool:
        """Returns whether the folders that were found are splits, and logs that; where not, none is to count.

        Args:
            others: whether some rows have their split from a column or the source's layout.

        Raises:
            SourceError: some of the images are in such folders, and others in none.
        """
        if not self._named:
            return False
        where = self._meanings.source.captions
        rows = ", ".join(f"{name[:MAX_NAME]} ({count} rows)" for name, count in self._named.most_common(MAX_NAMED))
        is_doubtful = not self._is_relative and len(self._named) == 1  # where the data is, not how it is divided
        if is_doubtful or (self._unnamed and {folded_split(name) for name in self._named} <= OTHER_WORDS):
            log.info(
                "%s: the folder %s in its images' paths is read as no split; a column split changes that", where, rows
            )
            return others
        if self._unnamed and not others:
            without = ", ".join(
                f"{folder[:MAX_NAME] or 'no folder'} ({count} rows)"
                for folder, count in self._unnamed.most_common(MAX_NAMED)
            )
            names = dict.fromkeys(folder.rpartition("/")[2] for folder in self._unnamed if folder)
            means = f"say what others mean: {_choice(names)}, " if names else ""
            raise SourceError(
                f"expected all images of {where} in folders named after splits, or none, got {rows} beside {without}; "
                f"{means}name a column with --split_column, or divide all of them anew with --split_column none"
            )
        log.info(
            "%s: splits are read from the folders of its images: %s; a column split goes first, and --split_column "
            "none divides all of them anew", where, rows,
        )  # fmt: skip
        return True


def _choice(names: Iterable[str]) -> str:
    """Returns the option that gives names a meaning, as it is typed."""
    pairs = [f"{' '.join(name.split())[:MAX_NAME]}={'|'.join(SPLIT_MEANINGS)}" for name in list(names)[:MAX_NAMED]]
    return f'--split_names "{",".join(pairs)}" (one of the words for each; {LEFT_OUT}: left out)'


def splits_of_files(paths: Sequence[str], meanings: SplitMeanings) -> list[str]:
    """Returns for each file the name of its split, in the words of its path; empty where it has none.

    A file's own name decides where it is nothing but a split and numbers (train-00000-of-00001, test1k), then the
    nearest of its folders. A split at the end of other words (coco-val-000) counts, too; elsewhere, it counts only
    where another file has another split in its place (train-clean-0, test-clean-0): dev-hayvanlar-000 is no split.

    Args:
        paths: relative paths without suffixes, with forward slashes.
        meanings: of the source.

    Raises:
        SourceError: some files have no split while others are named for training.
    """
    known = meanings.known
    groups = {path: group_of(path.rpartition("/")[2]) for path in paths}
    swapped = _swapped(set(groups.values()))
    result, doubtful = [], set()
    for path in paths:
        group = groups[path]
        words = WORDS.findall(group)
        folders = (name for name in reversed(path.split("/")[:-1]) if known(name))
        last = words[-1] if words and split_of(words[-1]) and folded_split(words[-1]) not in OTHER_WORDS else ""
        name = group if known(group) else next(folders, "") or last or swapped.get(group, "")
        if not name and any(split_of(word) for word in words):
            doubtful.add(group)
        result.append(name)
    without = {groups[path] for path, name in zip(paths, result) if not name}
    meanings.check_layout({*filter(None, result), *filter(None, without)}, "files")
    for group in sorted(doubtful):
        log.warning(
            "%s: files named %s… have a split's name among others, and are divided like train; if it is one: "
            "--split_names %s=%s",
            meanings.source.captions, group, group, "|".join(SPLIT_MEANINGS),
        )  # fmt: skip
    return result


def group_of(stem: str) -> str:
    """Returns a file's name without numbers and words that all data has, or as it is if nothing else is in it.

    >>> group_of("train-00000-of-00001"), group_of("dev-hayvanlar-000"), group_of("test1k_images_3"), group_of("0001")
    ('train', 'dev-hayvanlar', 'test1k', '')
    """
    words = WORDS.findall(stem)
    return "-".join(word for word in words if not COUNTS.fullmatch(word.lower()) and word.lower() not in NEUTRAL)


def _swapped(groups: Iterable[str]) -> dict[str, str]:
    """Returns group → its split's name, for groups that differ from another in nothing but which split they name.

    >>> sorted(_swapped(["train-clean", "test-clean", "dev-hayvanlar"]).items())
    [('test-clean', 'test'), ('train-clean', 'train')]
    """
    alike: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for group in groups:
        words = WORDS.findall(group)
        for place, word in enumerate(words):
            if split_of(word):
                alike[(*words[:place], "", *words[place + 1 :])].append((group, word))
    pairs = (pair for found in alike.values() if len({split_of(word) for _, word in found}) > 1 for pair in found)
    return dict(pairs)
