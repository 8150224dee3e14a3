"""The subcommands of turkish-clip for images: index, search, classify, compare, filter, duplicates, app."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from turkish_clip.cli import output
from turkish_clip.cli.arguments import (
    After,
    At,
    Before,
    DecodeProcesses,
    Decoder,
    Device,
    Generator,
    ImageModel,
    Images,
    Json,
    Model,
    Sheet,
    Workers,
    check_index_place,
    classifier_of,
    files_of,
    has_index,
    images_folder,
    index_command,
    keep_text_encoder,
    known_images,
    lines_of,
    load,
    open_index,
    open_without_models,
    remember_model,
    stale_advice,
    taken_within,
)
from turkish_clip.cli.regions import boxes_of_hits, find_things, regions_of_hits
from turkish_clip.errors import InputError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from turkish_clip.filtering import Flag
    from turkish_clip.search.text_encoder import KeptTextEncoder
    from turkish_clip.search.update import UpdateSummary
    from turkish_clip.text_side import TextSide

FEW_TEXTS = 16  # with more, a text encoder is quicker that takes longer to open


def index(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="folder of images with its subfolders; with --from, the new folder of the index")
    ],
    at: At = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="vectors that the image model has made already, searched without embedding again: a folder of "
            "clip-retrieval, immich's database (pg_dump, or CSV), Parquet, a Lance table, or .npy with --names",
        ),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="file of the images' names beside an .npy file: text, JSON, CSV or Parquet")
    ] = None,
    vectors_column: Annotated[
        str | None, typer.Option(help="column of vectors in a table of --from", show_default="the only one")
    ] = None,
    names_column: Annotated[
        str | None, typer.Option(help="column of paths or names in a table", show_default="the first with a usual name")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="OLD=NEW",
            help="beginning of the paths of --from, and what it is on this machine: /usr/src/app/upload=/mnt/photos",
        ),
    ] = None,
    no_probe: Annotated[
        bool,
        typer.Option(
            "--no-probe",
            help="do not embed a few images of --from, by which vectors of another image model are found out",
        ),
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="remove images of other indexed folders if those folders no longer exist")
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="UTF-8 file of texts as they will be searched, one a line, at least 100: images that answer all of "
            "them are put back",
            show_default="the index's, else the text bank beside the model",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="read and embed every image again, and mend those that have the vector of another one"
        ),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="files or folders to leave out, by their path from FOLDER or their name ('*.gif', thumbs, 'a/old*'); "
            "may be repeated; the index remembers them, in place of earlier ones; '' leaves out none",
            show_default="those that the index remembers",
        ),
    ] = None,
    video_every: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=86_400,
            metavar="SECONDS",
            help="seconds from one frame of a video to the next (extra video), for videos that are read from now on; 0 "
            "leaves videos out; the index remembers it",
            show_default="what the index has, else 2",
        ),
    ] = None,
    sounds: Annotated[
        bool | None,
        typer.Option(
            "--sounds/--no-sounds",
            help="also index sounds by their spectrograms (extra sound), for an image model that was trained on such; "
            "the index remembers it",
            show_default="what the index has, else --no-sounds",
        ),
    ] = None,
    text_encoder: Annotated[
        Literal["float32", "int8", "none"] | None,
        typer.Option(
            help="text encoder to keep beside the index, for quick searches without torch (extra onnx): exact, smaller "
            "with slightly other scores, or none; the index remembers it",
            show_default="what the index has, else float32",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="go on until interrupted, and index again when something changes")
    ] = False,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    workers: Workers = 2,
    decode_processes: DecodeProcesses = -1,
    json: Json = False,
) -> None:
    """Make an index of an image folder, or update it with what is new, changed or gone since the last time."""
    from turkish_clip.bank import check_enough

    _check_given(context, source)
    if source is not None:
        _import(
            folder,
            source,
            (vectors_column, names_column, names),
            prefix,
            not no_probe,
            (model, image_model, device),
            text_encoder,
            json,
        )
        return
    if watch:
        from turkish_clip.search.watch import check_watch

        check_watch()
    if not folder.is_dir():
        raise InputError(f"expected a folder of images, got {folder}, which is not one; check the path")
    texts = None if queries is None else lines_of(queries)
    if texts is not None:
        check_enough(len(set(texts)))  # before the models are loaded
    check_index_place(folder, at)
    images = open_index(folder, at, model, image_model, device)
    options: dict[str, Any] = {
        "workers": workers,
        "decode_processes": decode_processes,
        "prune": prune,
        "exclude": exclude,
        "video_every": video_every,
        "sounds": sounds,
    }

    def update(**more: Any) -> UpdateSummary:
        with output.progress("indexing", quiet=json) as advance:
            return images.add(folder, **options, **more, progress=advance)

    shown: list[UpdateSummary] = []  # the last

    def show(added: UpdateSummary, kept: KeptTextEncoder | None) -> None:
        output.show_added(added, images.uri, kept, json, before=shown[-1] if shown else None)
        shown[:] = [added]

    def first() -> None:
        show(update(queries=texts, verify=verify), keep_text_encoder(images, text_encoder))

    if watch:
        _watch(folder, images.uri, first, lambda: show(update(), None))
    else:
        first()
        _leave(bool(shown[-1].skipped) or not shown[-1].images)


# Options of index that are for vectors of others alone, and those that are for a folder of images alone.
OF_SOURCES = ("names", "vectors_column", "names_column", "prefix", "no_probe")
OF_FOLDERS = (
    "at",
    "prune",
    "queries",
    "verify",
    "exclude",
    "video_every",
    "sounds",
    "watch",
    "workers",
    "decode_processes",
)


def _check_given(context: typer.Context, source: Path | None) -> None:
    """Refuses options that would do nothing.

    Raises:
        InputError: there is one.
    """
    for name in OF_FOLDERS if source is not None else OF_SOURCES:
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            what = "a folder of images, got it with --from" if source is not None else "--from, got it without"
            raise InputError(f"expected {option} with {what}; leave it out")


def _import(
    folder: Path,
    source: Path,
    columns: tuple[str | None, str | None, Path | None],
    prefix: str | None,
    probe: bool,
    models: tuple[str | None, str | None, str | None],
    text_encoder: Literal["float32", "int8", "none"] | None,
    json: bool,
) -> None:
    """Makes an index of stored vectors, with the text encoder beside it."""
    from turkish_clip.search.importing import check_new_place
    from turkish_clip.search.index import ImageIndex
    from turkish_clip.search.vector_sources import open_source

    vectors_column, names_column, names = columns
    if prefix is not None and "=" not in prefix:
        raise InputError(f"expected --prefix OLD=NEW, got {prefix!r}; write both, with = between them")
    old, _, new = (prefix or "").partition("=")
    opened = open_source(source, vectors_column=vectors_column, names_column=names_column, names=names)
    check_new_place(str(folder), opened)  # before the models are loaded
    encoder = load(*models)
    with output.progress("reading", quiet=json) as advance:
        made = ImageIndex.import_vectors(
            opened, folder, encoder, prefix=None if prefix is None else (old, new), probe=probe, progress=advance
        )
    images = ImageIndex.open(folder, encoder)
    output.show_imported(made, images.uri, keep_text_encoder(images, text_encoder), probe, prefix is not None, json)


def _watch(folder: Path, uri: str, first: Callable[[], Any], again: Callable[[], None]) -> None:
    """Indexes a folder, and again whenever it changes, until the command is interrupted or the folder is gone."""
    from turkish_clip.search.storage import folder_of
    from turkish_clip.search.watch import changes

    waits = False
    try:
        for changed in changes(folder, folder_of(uri)):
            waits = False
            if not changed:  # from now on no change is missed
                first()
                output.note(f"watching {folder}; Ctrl-C ends it")
            else:
                try:
                    again()
                except InputError as error:  # such as another process that writes; the next change tries again
                    if not folder.is_dir():
                        raise
                    output.note(f"error: {one_line(error, None)}")
            waits = True
    except KeyboardInterrupt:
        if not waits:
            raise
        output.note(f"no longer watching {folder}; its index is up to date")


def search(
    folder: Annotated[str, typer.Argument(help="indexed folder, or the index itself: a folder or a URI (s3://…)")],
    query: Annotated[list[str] | None, typer.Argument(help="what to look for, in Turkish")] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--and",
            metavar="TEXT",
            help="what the images are to show as well; may be repeated. A number at the end is its weight, as in QUERY "
            "and --not: 'gece^0.5'",
        ),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="what to keep away; may be repeated")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="image file to find similar images to; may be repeated, and with words: like it but as they say"
        ),
    ] = None,
    without_image: Annotated[
        list[Path] | None,
        typer.Option("--not-image", help="image file that the images are not to be like; may be repeated"),
    ] = None,
    image_weight: Annotated[
        float | None, typer.Option(help="weight of each image beside words, which have 1", show_default="0.25")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="number of images to find")] = 10,
    offset: Annotated[
        int, typer.Option(min=0, max=100_000, help="number of the best images to leave out: those of earlier pages")
    ] = 0,
    only_fitting: Annotated[
        bool, typer.Option("--only-fitting", help="leave out images that do not fit the words but are the nearest")
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(
            help="SQL condition over path, also_at, bytes, modified, taken, lat, lon and camera: "
            "\"camera LIKE '%Canon%'\" or \"modified > timestamp '2026-01-31'\""
        ),
    ] = None,
    after: After = None,
    before: Before = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster that searches: auto (that of this machine), local (a new one here), or its address",
            show_default="this process searches",
        ),
    ] = None,
    by_cosine: Annotated[
        bool,
        typer.Option(
            "--by-cosine",
            help="order by cosine alone, and print no second score; else an index that corrects words for hubs prints "
            "the score that the images are ordered by behind the cosine, of every query with words",
        ),
    ] = False,
    regions: Annotated[
        bool,
        typer.Option(
            "--regions", help="also look where in each image the words are, and draw it in the sheet; takes a while"
        ),
    ] = False,
    copy_to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="new or empty folder to copy the images found into")
    ] = None,
    open_found: Annotated[
        bool,
        typer.Option(
            "--open", help="open what was found with the system's viewer: the sheet, the copies, or the best image"
        ),
    ] = False,
    at: At = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    sheet: Sheet = None,
    csv: Annotated[bool, typer.Option("--csv", help="print the images as CSV instead of text")] = False,
    json: Json = False,
) -> None:
    """Find the images of an index that fit Turkish words best, are most similar to an image, or both."""
    from turkish_clip.found import check_copy_folder
    from turkish_clip.search.composition import Query, weighted
    from turkish_clip.search.dates import Taken, both

    if csv and json:
        raise InputError("expected --csv or --json, got both; leave one out")
    given_images = [*(image or []), *(without_image or [])]
    if image_weight is not None and not given_images:
        raise InputError("expected --image beside --image-weight, got none; name the image, or leave the weight out")
    for path in given_images:
        if not path.exists():
            raise InputError(f"expected an image at {path}, got no file; check the path")
    taken = Taken.parse(after, before)
    words = " ".join(query or [])
    given = [words] if query else []
    asked = Query(
        *map(weighted, [*given, *(also or [])]),
        without=[*map(weighted, without or [])],
        images=image or [],
        without_images=without_image or [],
        image_weight=image_weight,
    )
    if regions and not asked.wanted:
        raise InputError("expected words to look for with --regions, got an image alone; add words, or leave it out")
    if copy_to is not None:
        check_copy_folder(copy_to)  # before the models are loaded
    words_only = not given_images and not regions
    images = open_index(folder, at, model, image_model, device, must_exist=True, cluster=cluster, words_only=words_only)
    if copy_to is not None:
        check_copy_folder(copy_to, images.folders())
    answer = images.ask(asked, k, offset=offset, where=both(where, taken), corrected=not by_cosine)
    undated = None if taken is None else images.without_date(where)
    if only_fitting and answer.fits is None and given_images:  # without one, it is said anyway
        output.note(f"--only-fitting leaves nothing out: {answer.no_cutoff}")
    hits = [hit for hit in answer.hits if hit.fits is not False] if only_fitting else answer.hits
    copies = output.copy_hits(hits, copy_to)
    where_in = regions_of_hits(images.encoder, answer.query.wanted, hits, quiet=json or csv) if regions else None
    output.show_answer(
        answer,
        hits,
        lambda: stale_advice(images, folder, at),
        images.left_out(),
        as_json=json,
        as_csv=csv,
        offset=offset,
        copies=copies,
        undated=undated,
        regions=where_in,
    )
    tiles = output.tiles_of_hits(hits)
    output.write_sheet(sheet, tiles, str(asked) if asked.texts else f"{asked} gibi olanlar", boxes_of_hits(where_in))
    if open_found:
        output.open_hits(hits, sheet if tiles else None, copy_to if copies else None)
    remember_model(images)


def classify(
    images: Images,
    labels: Annotated[
        str | None, typer.Option(help="labels separated by commas, synonyms by |: kedi,araba|otomobil")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="folder with a subfolder of example images for each label, instead of --labels")
    ] = None,
    reject_below: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help="cosine to the best of --labels below which an image has none of them",
            show_default="every image gets a label",
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="text with one {} for the label, such as 'bir {} fotoğrafı'; may be repeated",
            show_default="built-in templates for photographs",
        ),
    ] = None,
    regions: Annotated[
        bool,
        typer.Option(
            "--regions", help="find several things in one image, each with its place and label; takes a while"
        ),
    ] = False,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    workers: Workers = 2,
    decode_processes: DecodeProcesses = -1,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Give each image a label with probabilities, by the words of the labels or by example images."""
    if labels is not None and examples is not None:
        raise InputError("expected --labels or --examples, got both; leave one out")
    if examples is not None and reject_below is not None:
        raise InputError("expected --reject-below with --labels, got it with --examples; leave it out")
    if examples is not None and regions:
        raise InputError("expected --regions with --labels, got it with --examples; leave one out")
    paths, skipped, passed_over = files_of(images)
    if regions:
        find_things(
            paths,
            labels or "",
            template or [],
            reject_below,
            lambda: load(model, image_model, device),
            output.reasons_of(skipped),
            passed_over,
            sheet,
            json,
        )
    known = None if examples is not None else known_images(paths, model, image_model, device, few_texts=False)
    classifier = classifier_of(
        labels,
        examples,
        template or [],
        reject_below,
        lambda: known[0] if known is not None else load(model, image_model, device),
    )
    left_out = output.reasons_of(skipped) + [(error.name, error.reason) for error in classifier.skipped]
    temperature = classifier.encoder.temperature_info if examples is None else {}
    if not json and temperature.get("temperature_is_fitted") is False:
        output.note(f"probabilities with the default temperature {temperature['temperature']}: none was fitted")
    with output.progress("classifying", quiet=json) as advance:
        found = []
        images_of = (
            classifier.classify_each(paths, workers=workers, decode_processes=decode_processes)
            if known is None
            else classifier.classify_vectors(known[1])
        )
        for result in images_of:
            found.append(result)
            advance(len(found), len(paths))
    output.show_classes(paths, found, left_out, temperature, json, passed_over)
    tiles = [
        (str(path), f"{result.label or '–'} {result.probability:.2f}  {path.name}")
        for path, result in zip(paths, found)
        if result.error is None
    ]
    output.write_sheet(sheet, tiles, output.title_of_labels(found))
    _leave(bool(left_out) or any(result.error is not None for result in found))


def compare(
    images: Images,
    text: Annotated[
        list[str] | None, typer.Option("--text", "-t", help="Turkish text to compare the images with; may be repeated")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="UTF-8 file of Turkish texts, one a line")] = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Compare images with texts: a table of cosines with the best image of each text, or the best of many texts."""
    from turkish_clip.dual_encoder import map_in_order
    from turkish_clip.images import ImageError

    compared = [*(text or []), *(lines_of(texts) if texts is not None else [])]
    if not compared or not all(line.strip() for line in compared):
        got = "an empty one" if compared else f"none in {texts}"
        raise InputError(f"expected texts to compare with, got {got}; add -t 'karda bir ev' or --texts FILE")
    paths, skipped, passed_over = files_of(images)
    known = known_images(paths, model, image_model, device, few_texts=len(compared) <= FEW_TEXTS)
    if known is not None:
        encoder, vectors = known
        rows: list[Any] = list(vectors @ encoder.encode_texts(compared).T)
    else:
        loaded = load(model, image_model, device)
        text_vectors = loaded.encode_texts(compared)
        batches = loaded.embed_images(paths)
        rows = list(map_in_order(batches, lambda vectors: list(vectors @ text_vectors.T), lambda error: error))
    errors = {str(path): row.reason for path, row in zip(paths, rows) if isinstance(row, ImageError)}
    errors.update(output.reasons_of(skipped))
    scores = {str(path): row.tolist() for path, row in zip(paths, rows) if not isinstance(row, ImageError)}
    output.show_scores(scores, compared, errors, json, passed_over)
    output.write_sheet(sheet, *output.tiles_of_scores(scores, compared))
    _leave(bool(errors))


def filter_images(
    folder: Annotated[
        str, typer.Argument(help="folder of images, indexed or not, or an index itself: a folder or a URI")
    ],
    prompt: Annotated[
        list[str], typer.Option("--prompt", "-p", help="Turkish description of what to flag; may be repeated")
    ],
    contrast: Annotated[
        list[str] | None,
        typer.Option(
            help="Turkish description of images not to flag; may be repeated",
            show_default="bir fotoğraf, bir resim, herhangi bir şey",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="score (a cosine) from which on an image is flagged", show_default="none"),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="probability against the contrast from which on an image is flagged",
            show_default="0.5 without --threshold, else none",
        ),
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="images that should be flagged, to measure the filter by: a folder of them inside FOLDER, or a UTF-8 "
            "file of paths, one a line; with --contrast, the default contrast is measured beside it",
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="print the flagged images as CSV instead of text")] = False,
    after: After = None,
    before: Before = None,
    at: At = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
    workers: Workers = 2,
    decode_processes: DecodeProcesses = -1,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Flag images that show something. Nothing is moved or deleted; it can err, so look at the images."""
    from turkish_clip.filter_quality import check_expected, expected_among, quality_of
    from turkish_clip.filtering import CONTRAST, ImageFilter, best_of_each, flagged_first
    from turkish_clip.search.dates import Taken
    from turkish_clip.search.files import SkippedFile

    if csv and json:
        raise InputError("expected --csv or --json, got both; leave one out")
    if expected is not None:
        check_expected(expected)  # before the models are loaded
    taken = Taken.parse(after, before)
    images, update, undated = None, "", None if taken is None else 0
    paths, skipped = list[Path](), list[SkippedFile]()
    seconds: dict[str, float | None] = {}
    indexed = at is not None or has_index(folder)
    if not indexed and not Path(folder).exists():
        raise InputError(f"expected images or an index, got {folder}, which is not there; check the path")
    if not indexed:
        paths, skipped, passed_over = files_of([Path(folder)])
        if taken is not None:
            paths, undated = taken_within(paths, taken)
            skipped, undated = [], undated + len(skipped)
    elif taken is not None:
        dated = open_without_models(folder, at)
        if len(dated) and not dated.vectors(taken.condition)[0]:  # the models have nothing to look at
            output.show_flags([], [], [], json, csv, dated.left_out(), undated=dated.without_date())
            _leave(False)
    if not indexed and not paths:
        output.show_flags([], [], skipped, json, csv, passed_over, undated=undated)
        _leave(bool(skipped))
    if indexed:
        images = open_index(folder, at, model, image_model, device, must_exist=True, words_only=True)
    if expected is not None and not indexed:
        expected_among(paths, expected, folder)
    encoder: TextSide = images.text_side if images is not None else load(model, image_model, device)
    image_filter = ImageFilter(
        encoder, prompt, contrast=contrast or CONTRAST, threshold=threshold, min_probability=min_probability
    )
    plain = None  # the same with the default contrast, to measure beside it
    if expected is not None and contrast:
        plain = ImageFilter(encoder, prompt, threshold=threshold, min_probability=min_probability, warn=False)
    by_default: list[Flag] = []
    if images is not None:
        names, at_seconds, vectors = images.vectors_with_seconds(None if taken is None else taken.condition)
        if not names and not len(images):
            raise images.no_images()
        undated = None if taken is None else images.without_date()
        best = best_of_each(names, image_filter.flag_vectors(vectors))
        paths, flags = [Path(names[n]) for n, _ in best], [flag for _, flag in best]
        if plain is not None:
            by_default = [flag for _, flag in best_of_each(names, plain.flag_vectors(vectors))]
        skipped = images.skipped() if taken is None else []  # of those nothing says that they are of that time
        seconds = {names[n]: at_seconds[n] for n, _ in best}
        passed_over = images.left_out()
        update = stale_advice(images, folder, at)
        if images.imported():
            output.note(f"{len(paths)} images as they were taken over from {images.imported()}")
        else:
            new = index_command(folder, at, images.folders())
            output.note(f"{len(paths)} images as they were indexed; {new} adds what is new")
    else:
        flags = []
        with output.progress("looking", quiet=json or csv) as advance:
            for flag in image_filter.flag(
                paths,
                workers=workers,
                decode_processes=decode_processes,
                seen=None if plain is None else lambda vectors: by_default.extend(plain.flag_vectors(vectors)),
            ):
                flags.append(flag)
                advance(len(flags), len(paths))
        if plain is not None:
            others = iter(by_default)  # of the images that opened
            by_default = [flag if flag.error is not None else next(others) for flag in flags]
    image_filter.warn_of_none(flags)
    measured = None
    if expected is not None:
        wanted = expected_among(paths, expected, folder)
        measured = [quality_of(flags, wanted, image_filter.contrast)]
        measured += [] if plain is None else [quality_of(by_default, wanted, plain.contrast)]
    output.show_flags(paths, flags, skipped, json, csv, passed_over, update, undated, seconds, measured)
    output.write_sheet(sheet, output.tiles_of_flags(flagged_first(paths, flags), seconds), ", ".join(prompt))
    if images is not None:
        remember_model(images)
    _leave(bool(skipped) or any(flag.error is not None for flag in flags))


def duplicates(
    folder: Annotated[str, typer.Argument(help="indexed folder, or the index itself: a folder or a URI (s3://…)")],
    exact: Annotated[
        bool, typer.Option("--exact", help="only files of the same bytes, without looking at the images")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="print the groups as CSV instead of text")] = False,
    at: At = None,
    workers: Workers = 2,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """List images that an index has more than once: encoded again, resized, cropped a little. Nothing is deleted."""
    if csv and json:
        raise InputError("expected --csv or --json, got both; leave one out")
    images = open_without_models(folder, at)
    with output.progress("comparing", quiet=json or csv) as advance:
        found = images.duplicates(exact=exact, workers=workers, progress=advance)
    output.show_duplicates(found, stale_advice(images, folder, at), json, csv)
    output.write_sheet(sheet, output.tiles_of_duplicates(found), "Tekrarlar")
    _leave(bool(found.unread))


def web_page(
    folder: Annotated[
        str | None,
        typer.Argument(
            help="folder of images, which the page can index, or an index itself; without one there is no search"
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="address to listen on: 127.0.0.1 or ::1 for this machine alone, 0.0.0.0 or :: for all who reach it"
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port to listen on")] = 7860,
    generator: Generator = None,
    decoder: Decoder = None,
    at: At = None,
    model: Model = None,
    image_model: ImageModel = None,
    device: Device = None,
) -> None:
    """Serve a web page in Turkish for phone and desk: browse, search, filter, index and classify images."""
    from turkish_clip.app import build_page
    from turkish_clip.app.drawing import DrawnBy
    from turkish_clip.serving import check_address, end_at_signals, is_for_this_machine, serve

    end_at_signals()
    check_address(host, port)  # before the models are loaded
    drawn_by = DrawnBy(generator, decoder)
    if folder is None and at is None:
        serve(build_page(load(model, image_model, device), None, drawn_by=drawn_by), host=host, port=port)
        return
    root = images_folder(folder or ".")
    is_new = at is None and root is not None and not has_index(str(root))
    if is_new and root is not None:
        check_index_place(root, at)
    images = open_index(folder or ".", at, model, image_model, device, must_exist=not is_new)
    output.note_not_indexed(images.left_out())
    can_index = is_for_this_machine(host)  # others may look, no more
    page = build_page(images.encoder, images, root, can_index=can_index, drawn_by=drawn_by)
    serve(page, host=host, port=port)


def _leave(imperfect: bool) -> None:
    """Ends the command with exit code 1 if something could not be read, else 0."""
    raise typer.Exit(1 if imperfect else 0)
