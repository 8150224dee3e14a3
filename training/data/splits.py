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
    "minival": "validation", "dogrulama": "validation", "gecerleme": "validation", "gecerlilik": "validation",
    "test": "test", "testing": "test", "testdev": "test", "devtest": "test", "teststd": "test", "eval": "test",
    "evaluation": "test", "sinama": "test", "ogrenme": "train", "sinav": "test",
}  # fmt: skip
PLAIN_NAMES = ("train", "training", "validation", "valid", "val", "dev", "test", "testing")  # are read without a word
# What means something else in Turkish (a giant, an exam, learning), and so nothing beside other words.
OTHER_WORDS = frozenset(["dev", "sinav", "ogrenme"])
# test1k, val2017, trainset, testA
NUMBERED = re.compile(r"(test)[ab]|([a-z]+?)(?:set|data|images?|imgs?|captions?)?(?:\d+[km]?)?")
WORDS = re.compile(r"[^\W_]+")
COUNTS = re.compile(r"\d+[km]?")
VERSIONS = re.compile(r"(?:v|part)?\d+[km]?")
NEUTRAL = frozenset(
    "of part shard chunk file batch data dataset split set images image captions caption annotations tr turkish".split()
)
# Beside these a split's word says what the data is for: "test images", "eğitim kümesi", "01_train", "test-v2".
FILLERS = NEUTRAL | frozenset(
    "files img imgs pic pics picture pictures photo photos sample samples label labels text texts parquet csv tsv json "
    "jsonl en english full final kume kumesi set seti veri verisi verileri goruntu goruntuler goruntuleri gorsel "
    "gorseller gorselleri resim resimler resimleri fotograf fotograflar fotograflari altyazi altyazilar altyazilari "
    "aciklama aciklamalar aciklamalari dosya dosyalar dosyalari ornek ornekler ornekleri parca parcasi bolumu".split()
)
FILES = "files"
FOLDERS = "folders"  # which may be those of classes
HUB_SPLITS = "splits"  # of a data set on the Hub, which are always named
MAX_NAMED = 8  # unknown names that a message lists
MAX_NAME = 60  # characters of a name in a message
MAX_COUNTED = 100  # names whose rows are counted


def split_of(name: str) -> str:
    """Returns the split that a name means by itself, empty where it means none.

    >>> split_of("Test"), split_of("test1k"), split_of("val_2017"), split_of("Doğrulama"), split_of("dev-hayvanlar")
    ('test', 'test', 'validation', 'validation', '')
    >>> split_of("train_images"), split_of("Test Set"), split_of("eğitim kümesi"), split_of("test tüpü")
    ('train', 'test', 'train', '')
    """
    words = WORDS.findall(folded_split(name))
    joined = "".join(word for word in words if word not in FILLERS and not VERSIONS.fullmatch(word))
    if joined in OTHER_WORDS and any(word in FILLERS for word in words):
        return ""
    numbered = NUMBERED.fullmatch(joined)
    return SPLIT_NAMES.get(joined) or SPLIT_NAMES.get(numbered.group(1) or numbered.group(2) if numbered else "", "")


def _ends(name: str) -> tuple[str, str]:
    """Returns the word of a split that a name of several ends with, and the one that it begins with; empty without.

    >>> _ends("cc12m-val-000"), _ends("test_seen_v2"), _ends("kırmızı-dev"), _ends("bir-test-daha")
    (('val', ''), ('', 'test'), ('', ''), ('', ''))
    """
    words = WORDS.findall(folded_split(name))
    words = [word for word in words if word not in FILLERS and not VERSIONS.fullmatch(word)] or [""]
    last, first = (word if split_of(word) and word not in OTHER_WORDS else "" for word in (words[-1], words[0]))
    return last, first


def split_words(name: str) -> list[str]:
    """Returns the words of a name that mean a split by themselves."""
    return [word for word in WORDS.findall(folded_split(name)) if split_of(word)]


class SplitMeanings:
    """The meanings of one source's split names: those that its configuration gives, and the usual ones.

    It remembers what it was asked, so that `check` can say what is no usual name, and refuse what has no meaning.
    """

    def __init__(self, source: Source, own: str = "") -> None:
        """Makes the meanings of a source.

        Args:
            source: the source.
            own: the split that its own name means, as one of several sources; empty for none.
        """
        self.source = source
        self.own = own
        pairs = (pair.rpartition("=") for pair in source.split_names)
        self._given = {folded_split(name): meaning for name, _, meaning in pairs}
        self._in_layout: dict[str, str] = {}
        self._read_as: Counter[tuple[str, str]] = Counter()
        self._unknown: Counter[str] = Counter()

    def known(self, name: str) -> str:
        """Returns what a name means, without remembering it; empty where it means nothing."""
        folded = folded_split(name)
        in_layout = self._in_layout.get(folded)
        return self._given.get(folded) or (split_of(name) if in_layout is None else in_layout)

    def compare(self, names: Sequence[str], what: str) -> None:
        """Gives a meaning to names of a layout that have one only beside each other.

        Names that differ in nothing but which split they name are of those (cc-train, cc-val), and where every name is
        a split's, or begins or ends with the word of one, all of them are (x_train, test_seen). Folders named by
        nothing but words that mean something else in Turkish, beside others, are of no split.

        Args:
            names: those of the folders, files, lists or sources.
            what: what bears them.
        """
        unknown = [name for name in names if not self.known(name)]
        swapped, ends = _swapped(names), {name: _ends(name) for name in unknown}
        every = all(name in swapped or any(ends[name]) for name in unknown)
        for name in unknown:
            word = swapped.get(name, "") or (ends[name][0] or ends[name][1] if every else "")
            if word:
                self._in_layout[folded_split(name)] = split_of(word)
        named = [name for name in names if self.known(name)]
        if what == FOLDERS and len(named) < len(names) and all(folded_split(name) in OTHER_WORDS for name in named):
            self._in_layout |= {folded_split(name): "" for name in named if not self.is_given(name)}

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

        A name without a meaning is that of more training data, unless some are named for training already. After it,
        `known` has the meanings that names have only beside each other.

        Args:
            names: the names; empty ones are passed over.
            what: what bears them, in the plural, for the message.

        Raises:
            SourceError: names without a meaning stand beside one that means train.
        """
        distinct = list(filter(None, dict.fromkeys(names)))
        self.compare(distinct, what)
        found = {name: self.known(name) for name in distinct}
        unknown = [name for name, meaning in found.items() if not meaning]
        listed = ", ".join(repr(name[:MAX_NAME]) for name in unknown[:MAX_NAMED]) + (
            " …" if len(unknown) > MAX_NAMED else ""
        )
        if unknown and "train" not in found.values():
            if what == HUB_SPLITS or any(found.values()):
                log.info("%s: the %s %s are no split, and divided like train", self.source.captions, what, listed)
            for name in sorted(name for name in unknown if split_words(name)):
                log.warning(
                    "%s: %s named %s have a split's name among others, and are divided like train; if it is one: "
                    "--split_names %s",
                    self.source.captions, what, name[:MAX_NAME] + "…" * (what == FILES), _pairs([name]),
                )  # fmt: skip
        elif unknown:
            raise SourceError(
                f"expected {what} of {self.source.captions} named after train, validation and test, got {listed} "
                f"beside {', '.join(name for name, meaning in found.items() if meaning)}; say what it means: "
                f"{_choice(unknown)}"
            )


class PathSplits:
    """The splits that folders in the paths of a table's images name, as train/0.png does: they do for all, or for none.

    Of a path from the table's folder the first such folder counts, of one from the root the nearest to the image; then
    the nearest one that the configuration names; then the first whose name ends or begins with a split's word, unless
    there are images in other folders, beside which it may be that of a class ("test tüpü").
    """

    def __init__(self, meanings: SplitMeanings) -> None:
        self._meanings = meanings
        self._named: Counter[str] = Counter()
        self._unnamed: Counter[str] = Counter()
        self._is_relative = False
        self._last = ("", "")  # the folder of the last path, and what its name is: rows of one folder follow each other

    def of(self, path: str) -> str:
        """Returns the meaning of the split in a path; empty where it has none."""
        name = self._name(path)
        return self._meanings.known(name) or split_of(next(filter(None, _ends(name)), ""))

    def _name(self, path: str) -> str:
        parent = path.rpartition("/")[0]
        if parent != self._last[0]:
            self._last = parent, self._name_in(parent)
        return self._last[1]

    def _name_in(self, parent: str) -> str:
        folders = parent.split("/")
        nearest = folders[::-1]
        ordered = nearest if parent.startswith("/") else folders
        given = (folder for folder in nearest if self._meanings.is_given(folder))
        at_an_end = (folder for folder in ordered if any(_ends(folder)))
        return next(filter(split_of, ordered), "") or next(given, "") or next(at_an_end, "")

    def add(self, path: str) -> None:
        """Remembers the path of an image that is a row."""
        name = self._name(path)
        self._is_relative = self._is_relative or not path.startswith("/")
        self._meanings._count(*((self._named, name) if name else (self._unnamed, path.rpartition("/")[0])))

    def _may_be_classes(self) -> bool:
        """Returns whether the names, beside others, are as likely those of classes, none of train."""
        unsure = [name for name in self._named if not self._meanings.known(name) or folded_split(name) in OTHER_WORDS]
        of_train = any(any(split_of(word) == "train" for word in _ends(name)) for name in unsure)
        return len(unsure) == len(self._named) and not (of_train and len(unsure) > 1)

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
        if is_doubtful or (self._unnamed and self._may_be_classes()):
            log.log(
                logging.INFO if is_doubtful else logging.WARNING,
                "%s: the folder %s in its images' paths is read as no split; a column split changes that", where, rows,
            )  # fmt: skip
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
    return f"--split_names {_pairs(names)} (one of the words for each; {LEFT_OUT}: left out)"


def _pairs(names: Iterable[str]) -> str:
    pairs = [f"{' '.join(name.split())[:MAX_NAME]}={'|'.join(SPLIT_MEANINGS)}" for name in list(names)[:MAX_NAMED]]
    return f'"{",".join(pairs)}"'


def splits_of_files(paths: Sequence[str], meanings: SplitMeanings) -> list[str]:
    """Returns for each file the name of its split, in the words of its path; empty where it has none.

    A file's own name decides where it is nothing but a split and numbers (train-00000-of-00001, test1k), then the
    nearest of its folders. A split at the end of other words (coco-val-000) counts, too; elsewhere, it counts only
    where another file has another split in its place (train-clean-0, test-clean-0), or every file has one at its
    beginning: dev-hayvanlar-000 is no split.

    Args:
        paths: relative paths without suffixes, with forward slashes.
        meanings: of the source.

    Raises:
        SourceError: some files have no split while others are named for training.
    """
    names = _names_of_files(paths, meanings)
    meanings.check_layout(names.values(), FILES)
    return [names[path] if meanings.known(names[path]) else "" for path in paths]


def _names_of_files(paths: Sequence[str], meanings: SplitMeanings) -> dict[str, str]:
    """Returns path → the part of it that may name a split: its own name, or that of a folder; empty without either."""
    groups = {path: group_of(path.rpartition("/")[2]) for path in paths}
    swapped = _swapped(set(groups.values()))
    names = {}
    for path, group in groups.items():
        folders = path.split("/")[-2::-1]
        own = group if meanings.known(group) else ""
        split = own or next(filter(meanings.known, folders), "") or _ends(group)[0] or swapped.get(group, "")
        at_an_end = (name for name in (group, *folders) if any(_ends(name)))
        names[path] = split or next(at_an_end, group or (folders or [""])[0])
    return names


def splits_of_folders(paths: Iterable[str], meanings: SplitMeanings) -> dict[str, str]:
    """Returns folder → the part of its path that names its split; empty where none does.

    The nearest part that means a split counts; else the nearest that ends or begins with the word of one, where the
    others do.

    Args:
        paths: relative paths, with forward slashes; "" is the folder that they start from.
        meanings: of the source.

    Raises:
        SourceError: some folders have no split while others are named for training.
    """
    names = {}
    for path in paths:
        parts = path.split("/")[::-1]
        split = next(filter(meanings.known, parts), "")
        names[path] = split or next((part for part in parts if any(_ends(part))), path)
    meanings.check_layout(names.values(), FOLDERS)
    return {path: name if meanings.known(name) else "" for path, name in names.items()}


def splits_of_sources(paths: Sequence[str]) -> dict[str, str]:
    """Returns for each of several sources the split that its own name or a folder's means; empty for none.

    >>> list(splits_of_sources(["cc12m-train", "cc12m-val"]).values()), splits_of_sources(["test/captions"])
    (['train', 'validation'], {'test/captions': 'test'})
    >>> splits_of_sources(["captions_train2017", "test-sürüşü", "kuş"])
    {'captions_train2017': 'train', 'test-sürüşü': '', 'kuş': ''}

    Args:
        paths: without suffixes, from the folder that they have in common.
    """
    meanings = SplitMeanings(Source(captions="sources"))
    names = {path: name or path for path, name in _names_of_files(paths, meanings).items()}
    meanings.compare(list(dict.fromkeys(names.values())), FILES)
    return {path: meanings.known(name) for path, name in names.items()}


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
        words = WORDS.findall(folded_split(group))
        for place, word in enumerate(words):
            if split_of(word):
                alike[(*words[:place], "", *words[place + 1 :])].append((group, word))
    pairs = (pair for found in alike.values() if len({split_of(word) for _, word in found}) > 1 for pair in found)
    return dict(pairs)
