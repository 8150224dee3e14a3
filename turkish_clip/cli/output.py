"""What turkish-clip prints: text for people or one JSON object for programs on stdout, progress and notes on stderr."""

from __future__ import annotations

import csv
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turkish_clip.errors import printable
from turkish_clip.language import translated
from turkish_clip.terminal import as_json as as_json_line

if TYPE_CHECKING:
    from turkish_clip.exports.folder import ExportedFolder
    from turkish_clip.filter_quality import FilterQuality, Measured
    from turkish_clip.filtering import Flag
    from turkish_clip.folders import LeftOut
    from turkish_clip.generate import Drawing
    from turkish_clip.images import ImageError
    from turkish_clip.onnx.export import Exported
    from turkish_clip.regions import Box, FoundThing, Region
    from turkish_clip.search.duplicates import DuplicateFile, Duplicates
    from turkish_clip.search.files import SkippedFile
    from turkish_clip.search.importing import ImportSummary
    from turkish_clip.search.index import Answer, Hit
    from turkish_clip.search.text_encoder import KeptTextEncoder
    from turkish_clip.search.update import UpdateSummary
    from turkish_clip.verify import Check
    from turkish_clip.zero_shot import Classification

SHOWN_SKIPPED = 20  # files listed as skipped; --json has all
BEST = 3  # labels or texts shown for an image
COLUMNS = 8  # texts in a table; of more, the best are listed for each image
GONE, GONE_HERE = "  (not there now)", "  (artık yerinde değil)"
UNFIT = "  (does not fit)"
IDENTICAL, NEAR = "  (identical file)", "  (copy or near copy)"
TileOf = tuple[str, str, float | None]  # of a contact sheet: path, the line below it, and the second of a video's frame
FORMULA = tuple("=+-@|%＝＋－＠")  # begin a formula in one spreadsheet or another
HIT_COLUMNS = ("path", "second", "score", "corrected", "fits", "also_at", "taken", "lat", "lon", "camera", "is_there")
DUPLICATE_COLUMNS = ("group", "path", "bytes", "modified", "taken", "same", "second")
FLAG_COLUMNS = ("path", "second", "score", "probability", "prompt", "is_there")


class _Warnings(logging.Handler):
    """Keeps the warnings that the library logs, for the JSON; another handler prints them on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = printable(record.getMessage())
        if line not in self.lines:
            self.lines.append(line)


_warnings = _Warnings()


def collect_warnings() -> None:
    """Begins anew to collect the warnings that the library logs, which stand in the JSON of every command."""
    _warnings.lines.clear()
    logging.getLogger("turkish_clip").addHandler(_warnings)


def note(text: str) -> None:
    """Prints a note on stderr, in the language of the command."""
    print(printable(translated(text)), file=sys.stderr)


def _say(text: str) -> None:
    """Prints a line for people, in the language of the command."""
    print(printable(translated(text)))


def _print_line(text: str) -> None:
    """Prints a line of data."""
    print(printable(text))


def _print_json(value: dict[str, Any]) -> None:
    print(as_json_line({**value, "warnings": list(_warnings.lines)}))


def _as_records(skipped: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in skipped]


@contextmanager
def progress(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on stderr; yields a function that takes the numbers done and in all.

    Args:
        what: the text before the bar.
        quiet: show nothing, as if stderr were no terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(translated(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def reasons_of(skipped: Iterable[SkippedFile]) -> list[tuple[str, str]]:
    """Returns the path of each skipped file with the reason."""
    return [(file.path, file.reason) for file in skipped]


def note_left_out(left_out: LeftOut) -> None:
    """Prints on stderr what a folder has that is not read, a line for each rule."""
    for line in left_out.lines():
        note(line)


def note_not_indexed(left_out: LeftOut) -> None:
    """Prints on stderr how many files of the indexed folders are of kinds that are not read, if there are any."""
    if left_out.not_read:
        note(f"not in the index: {left_out.not_read_line()}")


def show_added(
    added: UpdateSummary,
    uri: str,
    kept: KeptTextEncoder | None,
    as_json: bool,
    before: UpdateSummary | None = None,
) -> None:
    """Prints what an update of an index did.

    Args:
        added: what `ImageIndex.add` returned.
        uri: place of the index.
        kept: the text encoder beside it; None without one.
        as_json: print one JSON object instead of text.
        before: the update before, of which this was printed: what was said then is not said again.
    """
    if as_json:
        _print_json({**asdict(added), "text_encoder": _kept_record(kept), "index": uri})
        return
    _say(
        f"{added.added} added, {added.unchanged} unchanged, {added.duplicates} duplicates, {added.moved} moved, "
        f"{added.vanished} gone{f', {added.excluded} excluded' if added.excluded else ''}; "
        f"{added.images} images in {uri}"
    )
    _show_kept(kept)
    if added.checked is not None:
        _say(f"{added.checked} images checked, {len(added.mended)} of them mended")
        for path in added.mended:
            note(f"  {path}: had vectors that are not its own")
        if added.checked < added.images:
            note(f"{_number_of(added.images - added.checked, 'image')} not checked: no file of them opens now")
    if not added.bank_texts and before is None:
        note("no correction of hubs: there is no text bank beside the model; --queries FILE gives texts in its place")
    for folder, count in added.missing.items():
        if before is None or before.missing.get(folder) != count:
            note(f"{_number_of(count, 'file')} of {folder} kept, which is not there now; --prune removes them")
    if not added.images:
        found = added.left_out.instead_of_images()
        note(f"no images yet: {found or 'add some to the folder'}; then run the same command again")
    elif before is None or before.left_out != added.left_out:
        note_left_out(added.left_out)
    said = [] if before is None else before.skipped
    show_skipped(reasons_of(file for file in added.skipped if file not in said))


def show_imported(
    made: ImportSummary, uri: str, kept: KeptTextEncoder | None, probe: bool, has_prefix: bool, as_json: bool
) -> None:
    """Prints what was taken over from another program.

    Args:
        made: what `ImageIndex.import_vectors` returned.
        uri: place of the index.
        kept: the text encoder beside it; None without one.
        probe: whether images were to be compared.
        has_prefix: whether a prefix of the paths was replaced.
        as_json: print one JSON object instead of text.
    """
    if as_json:
        _print_json({**asdict(made), "text_encoder": _kept_record(kept), "index": uri})
        return
    kind = made.source
    _say(f"{_number_of(made.images, 'image')} from {kind}, now in {uri}; no vector was computed anew")
    _show_kept(kept)
    if made.cosine is not None:
        _say(f"the same image model: median cosine {made.cosine:.4f} on {_number_of(made.probed, 'image')} embedded")
    elif probe:
        note("whether the image model made these vectors is not checked: none of its first images opens here")
    if made.without_vector:
        note(
            f"{_number_of(made.without_vector, 'image')} left out: no name, or no vector, or one of zeros or not finite"
        )
    if made.without_image:
        note(f"{_number_of(made.without_image, 'vector')} left out: their images are deleted, or in the bin")
    if made.repeated:
        note(f"{_number_of(made.repeated, 'name')} left out that came before")
    if made.not_here == made.images:
        tried = ", also with --prefix" if has_prefix else ""
        note(
            f"none of {_number_of(made.images, 'file')} is on this machine{tried}, the first being {made.example}; "
            "give the same command with --prefix OLD=NEW, the beginning of these paths and what it is here: it "
            "replaces this index"
        )
    elif made.not_here:
        note(
            f"{_number_of(made.not_here, 'file')} not on this machine, the first being {made.example}; the same "
            "command with --prefix OLD=NEW names other places"
        )
    if not made.bank_texts:
        note("no correction of hubs: there is no text bank beside the model")


def _kept_record(kept: KeptTextEncoder | None) -> dict[str, object] | None:
    return None if kept is None else {name: getattr(kept, name) for name in ("folder", "precision", "bytes")}


def _show_kept(kept: KeptTextEncoder | None) -> None:
    if kept is not None:
        _say(f"text encoder in {kept.precision} for quick searches beside it, {kept.bytes / 1e6:.1f} MB")


def show_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Prints paths that could not be read with their reasons on stderr, the first of many."""
    if skipped:
        note(f"{_number_of(len(skipped), 'file')} could not be read:")
        for path, reason in skipped[:SHOWN_SKIPPED]:
            note(f"  {path}: {reason}")
        if len(skipped) > SHOWN_SKIPPED:
            note(f"  … and {len(skipped) - SHOWN_SKIPPED} more; --json lists them all")


def _number_of(count: int, thing: str) -> str:
    """Returns a number with its noun.

    >>> _number_of(1, "file"), _number_of(2, "file")
    ('1 file', '2 files')
    """
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def show_answer(
    answer: Answer,
    hits: Sequence[Hit],
    update: Callable[[], str],
    left_out: LeftOut,
    *,
    as_json: bool,
    as_csv: bool,
    offset: int,
    copies: Mapping[str, str],
    undated: int | None = None,
    regions: Mapping[str, Sequence[tuple[Region, str]]] | None = None,
) -> None:
    """Prints the images that a search found.

    Args:
        answer: what the index answered.
        hits: those of its images that are to be shown, the best first.
        update: returns what to do about files that are not there now.
        left_out: of the folders, when they were indexed.
        as_json: print one JSON object instead of text.
        as_csv: print CSV instead of text.
        offset: number of the best images that were left out.
        copies: path of an image → that of its copy; empty where none was asked for.
        undated: number of images that were not looked at since they have no date; None where no date was asked for.
        regions: path of an image → where the texts are in it; None where that was not asked for.
    """
    if as_json:
        found = [{**_hit_record(hit), "regions": _regions_of(hit, regions)} for hit in hits]
        about = {"fits": answer.fits, "understood": answer.understood, "no_cutoff": answer.no_cutoff, "offset": offset}
        parts = [{"kind": part.kind, "value": str(part), "weight": part.weight} for part in answer.query.parts]
        rest = {"copies": dict(copies), "without_date": undated, "left_out": asdict(left_out)}
        _print_json({"query": str(answer.query), "parts": parts, **about, "hits": found, **rest})
        return
    note_not_indexed(left_out)
    _note_undated(undated)
    _note_fit(answer, hits)
    if as_csv:
        rows: list[dict[str, object]] = [{**_hit_record(hit), "also_at": " | ".join(hit.also_at)} for hit in hits]
        print(to_csv(rows, HIT_COLUMNS), end="")
    else:
        for hit in hits:
            _print_line(_line_of(hit, mark=answer.fits is True))
            for region, text in (regions or {}).get(hit.path, ()):
                _print_line(f"         {region_text(region)}  {text}")
    if not hits:
        note(_nothing_shown(answer, offset))
    gone = sum(not hit.is_there for hit in hits)
    if gone:
        advice = update()
        note(f"{gone} of them not there now; {advice}")
    if copies:
        note(f"{_number_of(len(copies), 'image')} copied to {Path(next(iter(copies.values()))).parent}")


def _line_of(hit: Hit, *, mark: bool) -> str:
    more = len(hit.also_at)
    copies = translated(f"  (+{more} {'copy' if more == 1 else 'copies'})") if more else ""
    order = "" if hit.corrected is None else f" {hit.corrected:7.3f}"
    unfit = translated(UNFIT) if mark and hit.fits is False else ""
    day = f"  {hit.photo.taken:%Y-%m-%d}" if hit.photo.taken else ""
    gone = "" if hit.is_there else translated(GONE)
    return f"{hit.score:7.3f}{order}  {hit.path}{_at(hit.second)}{copies}{day}{unfit}{gone}"


def _at(second: float | None) -> str:
    """Returns the time of a video's frame for people; empty for an image.

    >>> _at(75.0), _at(3725.5), _at(None)
    ('  at 1:15', '  at 1:02:05', '')
    """
    if second is None:
        return ""
    hours, rest = divmod(int(second), 3600)
    minutes, seconds = divmod(rest, 60)
    time = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"  {translated('at', part=True)} {time}"


def _note_fit(answer: Answer, hits: Sequence[Hit]) -> None:
    """Prints on stderr in one line that the images are no answer, that nothing fits, or that nothing tells."""
    if not answer.understood:
        if hits:  # of the words it is said by a warning
            note("the images below are no answer")
    elif answer.fits is False and answer.hits:
        below = "; the images below are merely the nearest (--only-fitting leaves them out)" if hits else ""
        note(f"nothing fits {answer.query}{below}")
    elif answer.no_cutoff and not answer.query.images and hits:
        note(f"whether they fit is not known: {answer.no_cutoff}")


def _nothing_shown(answer: Answer, offset: int) -> str:
    if answer.hits:
        return "no image shown: none of these fits"
    return f"no image beyond place {offset}" if offset else "no image meets the condition"


def copy_hits(hits: Sequence[Hit], folder: Path | None) -> dict[str, str]:
    """Copies the images of hits that are there now, and returns the path of each with that of its copy.

    Args:
        hits: in order.
        folder: new or empty; None copies nothing.
    """
    from turkish_clip.folders import is_there
    from turkish_clip.found import copy_images

    there = {hit.path: path for hit in hits for path in (hit.path, *hit.also_at)[::-1] if is_there(path)}
    if folder is None or not there:
        if folder is not None:
            note(f"nothing to copy: no folder {folder}")
        return {}
    names = copy_images([Path(path) for path in there.values()], folder)
    target = os.path.normpath(folder.absolute())
    return {path: str(Path(target) / name) for path, name in zip(there, names)}


def open_hits(hits: Sequence[Hit], sheet: Path | None, copies: Path | None) -> None:
    """Opens what was found with the system's viewer, in one call; a line on stderr says where there is none.

    Args:
        hits: in order.
        sheet: the contact sheet, if one was written; it is opened first of all.
        copies: the folder of copies, if there are any; it is opened where there is no sheet.
    """
    from turkish_clip.found import open_with_viewer

    best = next((Path(hit.path) for hit in hits if hit.is_there), None)
    target = sheet or copies or best
    if target is None:
        note("nothing to open")
    elif not open_with_viewer(target):
        note(f"no viewer here opens {target}")


def _hit_record(hit: Hit) -> dict[str, Any]:
    """Returns a hit as it stands in JSON: the date, place and camera beside the rest."""
    record = asdict(hit)
    photo = record.pop("photo")
    photo["taken"] = None if hit.photo.taken is None else hit.photo.taken.isoformat()
    return {**record, **photo, "is_there": hit.is_there}


def _regions_of(hit: Hit, regions: Mapping[str, Sequence[tuple[Region, str]]] | None) -> list[dict[str, Any]] | None:
    if regions is None:
        return None
    return [{"text": text, **_region_record(region)} for region, text in regions.get(hit.path, ())]


def _region_record(region: Region) -> dict[str, Any]:
    return {"box": list(region.box), "point": list(region.point), "score": region.score}


def region_text(region: Region) -> str:
    """Returns where a region is, as it is printed: left and top, then right and bottom, in pixels."""
    left, top, right, bottom = region.box
    return translated(f"{left},{top} to {right},{bottom}", part=True)


def _note_undated(undated: int | None) -> None:
    if undated:
        note(f"{_number_of(undated, 'image')} without a date taken left out")


def tiles_of_hits(hits: Sequence[Hit]) -> list[TileOf]:
    """Returns the images of a contact sheet with the lines below them."""
    return [
        (
            hit.path,
            f"{hit.score:.3f}  {Path(hit.path).name}{_at(hit.second)}{'' if hit.is_there else GONE_HERE}",
            hit.second,
        )
        for hit in hits
    ]


def show_classes(
    paths: Sequence[Path],
    found: Sequence[Classification],
    skipped: Sequence[tuple[str, str]],
    temperature: dict[str, Any],
    as_json: bool,
    left_out: LeftOut,
) -> None:
    """Prints the label of each image with the probabilities.

    Args:
        paths: the images.
        found: what each was classified as, in the same order.
        skipped: path and reason of files that were not classified.
        temperature: of the probabilities, and whether it was fitted; empty where there is none.
        as_json: print one JSON object instead of text.
        left_out: of the folders.
    """
    unread = [(str(path), result.error.reason) for path, result in zip(paths, found) if result.error]
    if as_json:
        rows = [
            {
                "path": str(path),
                "label": result.label,
                "probability": None if result.error else result.probability,
                "score": None if result.error else result.score,
                "probabilities": result.probabilities,
                "error": result.error.reason if result.error else None,
            }
            for path, result in zip(paths, found)
        ]
        not_read = _as_records([*unread, *skipped])
        _print_json({"images": rows, "skipped": not_read, "left_out": asdict(left_out), **temperature})
        return
    note_left_out(left_out)
    for path, result in zip(paths, found):
        if result.error is None:
            best = sorted(result.probabilities.items(), key=lambda item: -item[1])[:BEST]
            listed = ", ".join(f"{label} {probability:.1%}" for label, probability in best)
            _print_line(f"{result.label or translated('none of these'):<24}{path}  ({listed})")
    show_skipped([*unread, *skipped])


def title_of_labels(found: Sequence[Classification], labels: Sequence[str] = ()) -> str:
    """Returns the title of a sheet of classified images.

    Args:
        found: what images were classified as, whose labels are named.
        labels: those instead.
    """
    every = labels or next((list(result.probabilities) for result in found if result.probabilities), [])
    return f"Etiketlere göre: {', '.join(every)}"


def show_regions(path: Path, text: str, regions: Sequence[Region], fits: bool | None, as_json: bool) -> None:
    """Prints where in an image a text is.

    Args:
        path: the image.
        text: what was looked for.
        regions: the best first.
        fits: whether the image shows it at all; None where nothing tells.
        as_json: print one JSON object instead of text.
    """
    if as_json:
        found = [_region_record(region) for region in regions]
        _print_json({"path": str(path), "text": text, "fits": fits, "regions": found})
        return
    if fits is False:
        note(f"nothing in {path} fits '{text}'; below is merely what is nearest")
    for region in regions:
        _print_line(f"{region.score:7.3f}  {region_text(region)}")


def show_things(
    paths: Sequence[Path],
    found: Sequence[Sequence[FoundThing] | ImageError],
    skipped: Sequence[tuple[str, str]],
    temperature: dict[str, Any],
    as_json: bool,
    left_out: LeftOut,
) -> None:
    """Prints the things in each image.

    Args:
        paths: the images.
        found: what is in each, the most probable first, or why it did not open; in the same order.
        skipped: as in `show_classes`.
        temperature: as in `show_classes`.
        as_json: as in `show_classes`.
        left_out: as in `show_classes`.
    """
    errors = {str(path): str(of.reason) for path, of in zip(paths, found) if isinstance(of, Exception)}
    things = {str(path): [] if isinstance(of, Exception) else of for path, of in zip(paths, found)}
    unread = [*errors.items(), *skipped]
    if as_json:
        rows = [
            {
                "path": path,
                "things": [
                    {"label": thing.label, "probability": thing.probability, **_region_record(thing)} for thing in of
                ],
                "error": errors.get(path),
            }
            for path, of in things.items()
        ]
        _print_json({"images": rows, "skipped": _as_records(unread), "left_out": asdict(left_out), **temperature})
        return
    note_left_out(left_out)
    for path, of in things.items():
        for thing in of:
            _print_line(f"{thing.label:<24}{path}  {region_text(thing)}  ({thing.probability:.1%})")
        if not of and path not in errors:
            _print_line(f"{translated('none of these'):<24}{path}")
    show_skipped(unread)


def _best_images(scores: Mapping[str, Sequence[float]]) -> list[str]:
    """Returns for each text the path of the image with the highest score, from the scores of each image."""
    paths = list(scores)
    return [max(zip(column, paths), key=itemgetter(0))[1] for column in zip(*scores.values())]


def show_scores(
    scores: Mapping[str, Sequence[float]],
    texts: Sequence[str],
    errors: dict[str, str],
    as_json: bool,
    left_out: LeftOut,
) -> None:
    """Prints the cosines of images with texts.

    Args:
        scores: path of an image → its cosine with each text.
        texts: in the order of the scores.
        errors: path → why it could not be read.
        as_json: print one JSON object instead of text.
        left_out: of the folders.
    """
    best = _best_images(scores)
    if as_json:
        rows = [list(row) for row in scores.values()]
        _print_json(
            {
                "images": list(scores),
                "texts": list(texts),
                "scores": rows,
                "best": dict(zip(texts, best)) if best else dict.fromkeys(texts),
                "best_text": {path: texts[row.index(max(row))] for path, row in zip(scores, rows)},
                "skipped": _as_records(list(errors.items())),
                "left_out": asdict(left_out),
            }
        )
        return
    note_left_out(left_out)
    if len(texts) > COLUMNS:
        _print_best_texts(scores, texts)
    else:
        _print_table(scores, texts, best)
    show_skipped(list(errors.items()))


def tiles_of_scores(scores: Mapping[str, Sequence[float]], texts: Sequence[str]) -> tuple[list[tuple[str, str]], str]:
    """Returns the images of a contact sheet with the lines below them, and its title.

    Args:
        scores: path of an image → its cosine with each text.
        texts: in the order of the scores; up to `COLUMNS` each has its best image, of more each image its best text.
    """
    if len(texts) > COLUMNS:
        best = [(path, *max(zip(row, texts))) for path, row in scores.items()]
        return [(path, f"{score:.3f}  {text}") for path, score, text in best], "Her resme en uygun metin"
    tiles = [
        (path, f"{scores[path][column]:.3f}  {text}")
        for column, (path, text) in enumerate(zip(_best_images(scores), texts))
    ]
    return tiles, "Her metne en uygun resim"


def _print_best_texts(scores: Mapping[str, Sequence[float]], texts: Sequence[str]) -> None:
    for path, row in scores.items():
        _print_line(path)
        for score, text in sorted(zip(row, texts), reverse=True)[:BEST]:
            _print_line(f"{score:7.3f}  {text}")


def _print_table(scores: Mapping[str, Sequence[float]], texts: Sequence[str], best: Sequence[str]) -> None:
    """Prints a row for each image, with an arrow at the best of each text; separated by tabs if not on a terminal."""
    rows = [
        [path, *(f"{score:.3f}" + (" ←" if path == winner else "") for score, winner in zip(row, best))]
        for path, row in scores.items()
    ]
    heads = [translated("image"), *texts]
    if not sys.stdout.isatty():
        for cells in (heads, *rows):
            print("\t".join(map(printable, cells)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in heads:
        table.add_column(Text(printable(heading)), overflow="fold")
    for cells in rows:
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console().print(table)


def show_flags(
    paths: Sequence[Path],
    flags: Sequence[Flag],
    skipped: Sequence[SkippedFile],
    as_json: bool,
    as_csv: bool,
    left_out: LeftOut,
    advice: str = "",
    undated: int | None = None,
    seconds: Mapping[str, float | None] | None = None,
    measured: Sequence[FilterQuality] | None = None,
) -> None:
    """Prints the flagged images, the highest score first.

    Args:
        paths: the images.
        flags: of each image, in the same order.
        skipped: files that were not looked at.
        as_json: print one JSON object instead of text.
        as_csv: print CSV instead of text.
        left_out: of the folder, now or when it was indexed.
        advice: what to do about files that are not there now; empty without an index.
        undated: as in `show_answer`.
        seconds: path of a video → second of its best frame.
        measured: how well the filter does, with each contrast; None where that is not known.
    """
    from turkish_clip.filtering import flagged_first

    at = seconds or {}

    rows: list[dict[str, object]] = [
        {
            "path": str(path),
            "second": at.get(str(path)),
            "score": round(flag.score, 6),
            "probability": round(flag.probability, 6),
            "prompt": flag.prompt,
            "is_there": os.path.lexists(path),
        }
        for path, flag in flagged_first(paths, flags)
    ]
    errors = [(str(path), flag.error.reason) for path, flag in zip(paths, flags) if flag.error]
    errors += reasons_of(skipped)
    looked_at = sum(flag.error is None for flag in flags)
    if as_json:
        found = {"images": looked_at, "without_date": undated, "flagged": rows, "skipped": _as_records(errors)}
        quality = {} if measured is None else {"measured": [asdict(one) for one in measured]}
        _print_json({**found, "left_out": asdict(left_out), **quality})
        return
    note_left_out(left_out)
    _note_undated(undated)
    if as_csv:
        print(to_csv(rows, FLAG_COLUMNS), end="")
    else:
        for row in rows:
            shown = f"{row['path']}{_at(at.get(str(row['path'])))}"
            line = f"{row['score']:7.3f}  {shown}  ({row['prompt']} {row['probability']:.1%})"
            _print_line(line if row["is_there"] else line + translated(GONE))
        note(f"{len(rows)} of {looked_at} images flagged; nothing was moved or deleted")
    for one in measured or ():
        _show_quality(one, note if as_csv else _say)
    gone = sum(not row["is_there"] for row in rows)
    if gone:
        note(f"{gone} of them not there now; {advice}" if advice else f"{gone} of them not there now")
    show_skipped(errors)


def _show_quality(found: FilterQuality, say: Callable[[str], None]) -> None:
    """Prints how well a filter does with one contrast."""
    say(f"with the contrast {', '.join(found.contrast)}:")
    precision = "–" if found.precision is None else _with_interval(found.precision)
    say(f"  precision {precision}: {found.right} of {found.flagged} flagged images are right")
    say(f"  recall {_with_interval(found.recall)}: {found.right} of {found.expected} expected images are flagged")
    say(f"  F1 {_with_interval(found.f1)}; average precision {found.average_precision:.3f} in the order of scores")


def _with_interval(measured: Measured) -> str:
    return f"{measured.value:.3f} ({measured.ci95[0]:.3f}–{measured.ci95[1]:.3f})"


def tiles_of_flags(
    flagged: Iterable[tuple[Path, Flag]], seconds: Mapping[str, float | None] | None = None
) -> list[TileOf]:
    """Returns the flagged images of a contact sheet with the lines below them.

    Args:
        flagged: the images.
        seconds: as in `show_flags`.
    """
    at = seconds or {}
    return [
        (
            str(path),
            f"{flag.score:.2f}  {path.name}{_at(at.get(str(path)))}{'' if os.path.lexists(path) else GONE_HERE}",
            at.get(str(path)),
        )
        for path, flag in flagged
    ]


def show_drawing(drawing: Drawing, target: Path, as_json: bool) -> None:
    """Prints where an image was drawn to, and its cosines with the words.

    Args:
        drawing: what was drawn.
        target: its file.
        as_json: print one JSON object instead of text.
    """
    if as_json:
        _print_json(
            {
                "path": str(target),
                "scores": drawing.scores,
                "steps": drawing.steps,
                "stopped": drawing.stopped,
                "seconds": round(drawing.seconds, 3),
            }
        )
        return
    for text, score in drawing.scores.items():
        _print_line(f"{score:7.3f}  {text}")
    _say(f"{target}: {drawing.steps} steps, {drawing.seconds:.1f} seconds")
    if drawing.stopped:
        note(f"stopped early, and the best so far was kept: {drawing.stopped}")


def show_duplicates(found: Duplicates, advice: str, as_json: bool, as_csv: bool) -> None:
    """Prints groups of copies and near copies, the one to keep first.

    Args:
        found: what `ImageIndex.duplicates` returned.
        advice: what to do about files that are not there now.
        as_json: print one JSON object instead of text.
        as_csv: print CSV instead of text, a row for each file.
    """
    groups = [[_file_record(file) for file in group] for group in found.groups]
    if as_json:
        counts = {"images": found.images, "spare_bytes": found.spare_bytes, "gone": found.gone}
        _print_json({**counts, "groups": groups, "skipped": _as_records(reasons_of(found.unread))})
        return
    if as_csv:
        rows = [{"group": number, **file} for number, group in enumerate(groups, 1) for file in group]
        print(to_csv(rows, DUPLICATE_COLUMNS), end="")
    else:
        for number, group in enumerate(found.groups):
            _print_line("" if number else _heading_of_groups())
            for file in group:
                same = translated(IDENTICAL if file.same == "bytes" else NEAR) if file.same else ""
                _print_line(f"{file.bytes:12}  {file.modified:%Y-%m-%d}  {file.path}{same}")
        files = sum(map(len, found.groups))
        if found.groups:
            note(
                f"{_number_of(len(found.groups), 'group')} of {_number_of(files, 'file')} among "
                f"{_number_of(found.images, 'image')}, copies or near copies; all but the first of each take "
                f"{_size(found.spare_bytes)}; nothing was moved or deleted"
            )
        else:
            note(f"no image is there twice among {_number_of(found.images, 'image')}")
    if found.gone:
        note(f"{_number_of(found.gone, 'indexed file')} not there now; {advice}")
    show_skipped(reasons_of(found.unread))


def _size(count: int) -> str:
    """Returns a number of bytes for people.

    >>> _size(0), _size(999), _size(20_480), _size(3_500_000), _size(7_200_000_000)
    ('0 bytes', '999 bytes', '20.5 kB', '3.5 MB', '7.2 GB')
    """
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count} bytes"


def _heading_of_groups() -> str:
    keep = translated("the first of each group is the one to keep")
    return f"{translated('bytes'):>12}  {translated('changed'):<10}  {keep}"


def _file_record(file: DuplicateFile) -> dict[str, object]:
    taken = None if file.taken is None else file.taken.isoformat()
    return {**asdict(file), "modified": file.modified.isoformat(), "taken": taken}


def tiles_of_duplicates(found: Duplicates) -> list[TileOf]:
    """Returns the files of a contact sheet, group by group, with the lines below them."""
    return [
        (file.path, f"{number}. grup: {Path(file.path).name}, {file.bytes} bayt", file.second)
        for number, group in enumerate(found.groups, 1)
        for file in group
    ]


def show_metadata(metadata: dict[str, Any], as_json: bool) -> None:
    """Prints names and values, one a line.

    Args:
        metadata: name → value.
        as_json: print one JSON object instead of text.
    """
    if as_json:
        _print_json(metadata)
        return
    for name, value in metadata.items():
        shown = translated("yes" if value else "no") if isinstance(value, bool) else value
        _print_line(f"{translated(name.replace('_', ' ')):<24}{shown}")


def show_export(written: Exported, as_json: bool) -> None:
    """Prints what an ONNX export holds.

    Args:
        written: what `export_onnx` returned.
        as_json: print one JSON object instead of text.
    """
    record = written.record
    if as_json:
        figures = {name: asdict(found) for name, found in (("text", written.text), ("image", written.image)) if found}
        _print_json({"folder": str(written.folder), **record, "bytes": written.bytes, **figures})
        return
    size = f"{written.bytes / 1e6:.1f} MB"
    if written.text is None:
        shown = record["image_model"]["id"]
        _say(f"{written.folder}: {shown} in {record['precision']}, {size}; images → unit vectors of {record['dim']}")
    else:
        length = f"up to {record['max_tokens']} tokens" if record["max_tokens"] else "any length"
        what = f"texts of {length}{' and images' if written.image is not None else ''}"
        _say(
            f"{written.folder}: {record['model']} in {record['precision']}, {size}; {what} → unit vectors of "
            f"{record['dim']}"
        )
        if record["image_model"] is None:
            _say("its image model is not recorded; name it with --image-model")
        elif written.image is None:
            _say(f"to be compared with the vectors of images by {record['image_model']['id']}")
    _show_parity(*(None if found is None else asdict(found) for found in (written.text, written.image)))


def show_exported_folder(written: ExportedFolder, as_json: bool) -> None:
    """Prints what an export for another program holds, and how it is read.

    Args:
        written: what `export_for` returned.
        as_json: print one JSON object instead of text.
    """
    record = written.record
    if as_json:
        _print_json(written.as_json)
        return
    what = {"text": "texts", "image": "images", "both": "texts and images"}[record.sides]
    _say(
        f"{written.folder}: {record.model} for {record.kind} in {record.precision}, {written.bytes / 1e6:.1f} MB; "
        f"{what} → vectors of {record.dim}"
    )
    _say(
        {
            "immich": f"put it into immich's model cache as clip/{record.name}, and name that model in its settings",
            "fastembed": "add it by TextEmbedding.add_custom_model, with pooling=PoolingType.DISABLED",
            "transformers": 'pipeline("zero-shot-image-classification", model=FOLDER), with a Turkish '
            "hypothesis_template",
        }[record.kind]
    )
    _show_parity(record.text, record.image)


def _show_parity(text: dict[str, float] | None, image: dict[str, float] | None) -> None:
    """Prints how near the vectors of an export are to those of its model."""
    for found, what in ((text, "sentences"), (image, "images")):
        if found:
            _say(
                f"least cosine to the vectors of the model, on the golden {what}: {found['cosine']:.5f}; largest "
                f"difference of a component: {found['difference']:.1e}"
            )


def show_checks(model: str, checks: Sequence[Check], as_json: bool) -> None:
    """Prints the checks of a published model, one a line.

    Args:
        model: its Hub id or folder.
        checks: in order.
        as_json: print one JSON object instead of text.
    """
    if as_json:
        passed = all(check.passed for check in checks)
        _print_json({"model": model, "passed": passed, "checks": [asdict(check) for check in checks]})
        return
    from turkish_clip.verify import as_lines

    said = [replace(check, name=translated(check.name), found=translated(check.found)) for check in checks]
    print(as_lines(said, translated("ok"), translated("FAIL")))


def write_sheet(
    target: Path | None,
    tiles: Sequence[tuple[str, str] | TileOf],
    title: str,
    boxes: Mapping[str, Sequence[tuple[Box, str]]] | None = None,
) -> None:
    """Writes a contact sheet if one was asked for and there are images, and prints its path on stderr.

    Args:
        target: the file, named .png or .html, or None.
        tiles: paths of images with the lines below them, and of videos with the seconds of frames.
        title: the line at the top.
        boxes: path of an image → boxes with their texts, which are drawn over it.
    """
    if target is not None:
        from turkish_clip.sheet import MOST, TILE, Tile, write_sheet

        if not tiles:
            note(f"nothing to show: no contact sheet {target}")
            return
        drawn = {}
        if boxes:
            from turkish_clip.boxes import draw_boxes
            from turkish_clip.clips import still

            drawn = {
                path: draw_boxes(still(path, (*second, None)[0]), boxes[path], max_side=TILE)
                for path, _, *second in tiles[:MOST]
                if boxes.get(path)
            }
        made = [Tile(Path(path), text, drawn.get(path), *second) for path, text, *second in tiles]
        note(f"contact sheet: {write_sheet(target, made, title)}")


def to_csv(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> str:
    """Returns rows as CSV for spreadsheets, after a row of names; a cell that would be a formula starts with '.

    Args:
        rows: name of a column → value.
        columns: names in order.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) if isinstance(value, str) else value for key, value in row.items()})
    return buffer.getvalue()


def _cell(text: str) -> str:
    """Returns a text as it can stand in a cell: on one line, and no formula.

    >>> _cell("=1+1"), _cell(" @SUM(A1)"), _cell("a=1")
    ("'=1+1", "' @SUM(A1)", 'a=1')
    """
    shown = printable(text)
    return f"'{shown}" if text.lstrip()[:1] in FORMULA and text.strip() else shown
