"""WebDataset shards: samples by key, images by offset, and no tar that escapes, exhausts memory or loses samples."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from samples import paint

from training import embed_images
from training.data.readers.webdataset import MAX_TEXT_BYTES, ShardImage, shard_records
from training.data.sources import Captions, read_captions
from training.data.splits import SplitMeanings
from training.embeddings import shard_writer
from training.run.source import SourceConfig, SourceError

Part = tuple[str, bytes]


def source(captions: object, **options: Any) -> SourceConfig:
    return SourceConfig(captions=str(captions), run="unused", max_skipped_fraction=1.0, **options)


def read(captions: object, **options: Any) -> Captions:
    options = {"test_fraction": 0.0, "validation_fraction": 0.0} | options
    return read_captions(source(captions, **options))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, parts: Iterable[Part], kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in parts:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def sample(key: str, number: int, caption: str, **fields: Any) -> list[Part]:
    parts = [(f"{key}.png", png(number)), (f"{key}.txt", caption.encode())]
    return [*parts, (f"{key}.json", json.dumps(fields).encode())] if fields else parts


def reasons(captions: Captions) -> list[tuple[str, str]]:
    return [(sample.image_id, sample.reason) for sample in captions.skipped]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_of_img2dataset(tmp_path: Path, kind: int) -> None:
    """The layout of img2dataset: 00000.tar of 000000000.jpg, .json, .txt, beside 00000.parquet and 00000_stats.json."""
    parts: list[Part] = []
    for number in range(3):
        about = {"caption": f"resim {number}", "url": "http://x", "key": f"{number:09d}", "status": "success"}
        parts += [
            (f"{number:09d}.jpg", png(number)),
            (f"{number:09d}.json", json.dumps(about).encode()),
            (f"{number:09d}.txt", f"\ufeffresim\n {number}\n".encode()),
        ]
    write_shard(tmp_path / "00000.tar", parts, kind)
    (tmp_path / "00000_stats.json").write_text("{}", encoding="utf-8")
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    captions = read(tmp_path)
    assert [row.image_id for row in captions.rows] == [f"00000/{number:09d}" for number in range(3)]
    assert [row.captions for row in captions.rows] == [(f"resim {number}",) for number in range(3)]
    assert [row.open().getpixel((0, 0)) for row in captions.rows] == [(number, 0, 0) for number in range(3)]
    assert [row.size for row in captions.rows] == [len(png(number)) for number in range(3)]
    assert not reasons(captions)


def test_json_without_txt_gives_captions_ids_and_splits(tmp_path: Path) -> None:
    fields = [
        {"captions": ["bir ev", "ev"], "captions_en": ["a house"], "image_id": "ev", "split": "test"},
        {"captions": ["kuş"], "image_id": "kus", "split": "train"},
    ]
    parts = [(f"{n}.{kind}", content) for n, about in enumerate(fields) for kind, content in
             (("json", json.dumps(about).encode()), ("webp", png(n)))]  # fmt: skip
    row, other = read(write_shard(tmp_path / "a.tar", parts)).rows
    assert (row.image_id, row.captions, row.english, row.split) == ("ev", ("bir ev", "ev"), ("a house",), "test")
    assert (other.image_id, other.split) == ("kus", "train")


def test_named_columns_and_several_texts_and_images(tmp_path: Path) -> None:
    parts = [
        ("x/1.mask.png", png(9)),
        ("x/1.jpg", png(1)),
        ("x/1.tr.txt", b"bir ev"),
        ("x/1.en.txt", b"a house"),
        ("x/1.json", json.dumps({"about": {"tr": "ev"}}).encode()),
    ]
    tar = write_shard(tmp_path / "a.tar", parts)
    (row,) = read(tar, caption_columns=("tr.txt", "about.tr"), english_columns=("en.txt",)).rows
    assert (row.image_id, row.captions, row.english) == ("a/x/1", ("bir ev", "ev"), ("a house",))
    assert row.open().getpixel((0, 0)) == (1, 0, 0)
    (masked,) = read(tar, caption_columns=("tr.txt",), image_column="mask.png").rows
    assert masked.open().getpixel((0, 0)) == (9, 0, 0)
    with pytest.raises(SourceError, match=r"the column 'de.txt' in .*a.tar, got .*tr.txt.*; name one of those"):
        read(tar, caption_columns=("de.txt",))


@pytest.mark.parametrize("order", ["by name", "by kind"])
def test_names_with_dots_of_their_own(tmp_path: Path, order: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    parts = sample("IMG 10.30.03", 1, "bir") + sample("IMG 10.30.04", 2, "iki", n=5) + sample("IMG 11.30.03", 3, "üç")
    parts += [("IMG 11.30.04.png", png(4)), ("IMG 11.30.05.txt", b"resimsiz"), ("IMG 11.30.03.en.txt", b"three")]
    parts += [
        ("IMG 11.30.06.png", png(6)),
        ("IMG 11.30.06.txt", b"\xfe"),
        ("0.meta.json", b"{"),
        *sample("0", 7, "yedi"),
    ]
    parts.sort(key=lambda part: (part[0].rpartition(".")[2] if order == "by kind" else "", part[0]))
    captions = read(write_shard(tmp_path / "a.tar", parts))
    assert {row.image_id: row.captions for row in captions.rows} == {
        "a/0": ("yedi",),
        "a/IMG 10.30.03": ("bir",),
        "a/IMG 10.30.04": ("iki",),
        "a/IMG 11.30.03": ("üç",),
    }
    assert {row.image_id: row.open().getpixel((0, 0))[0] for row in captions.rows} == {
        "a/0": 7,
        "a/IMG 10.30.03": 1,
        "a/IMG 10.30.04": 2,
        "a/IMG 11.30.03": 3,
    }
    assert sorted(reasons(captions)) == [
        ("a/IMG 11.30.04", "no caption"),
        ("a/IMG 11.30.05", "no image beside the caption"),
        ("a/IMG 11.30.06", "a .30.06.txt that is not UTF-8"),
    ]
    assert "left out: 1 .meta.json" in caplog.text


def test_images_of_one_caption_stay_one_sample(tmp_path: Path) -> None:
    parts = [("a.left.png", png(1)), ("a.right.png", png(2)), ("a.txt", b"ev")]
    (row,) = read(write_shard(tmp_path / "a.tar", parts)).rows
    assert (row.image_id, row.captions) == ("a/a", ("ev",))


def test_patterns_single_files_and_folders_give_the_same(tmp_path: Path) -> None:
    for number in range(11):
        write_shard(tmp_path / f"shard-{number:06d}.tar", sample("0", number, f"resim {number}"))
    (tmp_path / ".shard-hidden.tar").write_bytes(b"x")
    names = [row.image_id for row in read(tmp_path).rows]
    assert names == [f"shard-{number:06d}/0" for number in range(11)]
    pattern = tmp_path / "shard-{000000..000010}.tar"
    assert [row.image_id for row in read(pattern).rows] == names
    two = read(str(tmp_path / "shard-00000{3,5}.tar")).rows
    assert [row.captions for row in two] == [("resim 3",), ("resim 5",)]
    assert [row.image_id for row in read(tmp_path / "shard-000007.tar").rows] == ["shard-000007/0"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shard-{0..3}.tar", r"expected 4 shards by the name .*, got 1, without .*shard-1.tar; fetch the missing ones"),
        ("shard-{3..0}.tar", "expected 1 to 100000 shards, got none or more from"),
        ("shard-{0..99999999}.tar", "expected 1 to 100000 shards, got none or more from"),
        ("shard-0.tar.gz", "expected an uncompressed .tar, got .*; uncompress it"),
        ("none.tar", r"expected 1 shards by the name .*none.tar, got 0"),
    ],
)
def test_missing_or_too_many_shards(tmp_path: Path, name: str, message: str) -> None:
    write_shard(tmp_path / "shard-0.tar", sample("0", 0, "ev"))
    with pytest.raises(SourceError, match=message):
        read(tmp_path / name)


def test_a_folder_of_compressed_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar.gz").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"expected uncompressed .tar files in .*; uncompress them"):
        read(tmp_path)


def test_splits_are_words_in_the_names_of_shards_or_their_folders(tmp_path: Path) -> None:
    names = ["cc-train-0.tar", "cc-val-0.tar", "test/0.tar", "train/0.tar", "validation/test0.tar"]
    for number, name in enumerate(names):
        write_shard(tmp_path / name, sample("0", number, "ev"))
    splits = {row.image_id: row.split for row in read(tmp_path).rows}
    assert splits == {
        "cc-train-0/0": "train",
        "cc-val-0/0": "validation",
        "test/0/0": "test",
        "train/0/0": "train",
        "validation/test0/0": "test",
    }


def test_one_key_in_two_shards_is_two_images(tmp_path: Path) -> None:
    for number in range(2):
        write_shard(tmp_path / f"{number}.tar", sample("000", number, f"resim {number}"))
    assert [row.captions for row in read(tmp_path).rows] == [("resim 0",), ("resim 1",)]


def test_names_are_not_paths_and_nothing_is_unpacked(tmp_path: Path) -> None:
    outside = paint(tmp_path / "secret.png", 1)
    inside = tmp_path / "in"
    parts = [*sample("../../x", 1, "bir"), *sample("/etc/y", 2, "iki"), *sample("a/../../z", 3, "üç")]
    tar = write_shard(inside / "a.tar", parts)
    with tarfile.open(tar, "a") as archive:
        for kind, target in ((tarfile.SYMTYPE, str(outside)), (tarfile.LNKTYPE, "../secret.png")):
            link = tarfile.TarInfo(f"link{kind.decode()}.png")
            link.type, link.linkname = kind, target
            archive.addfile(link)
            text = tarfile.TarInfo(f"link{kind.decode()}.txt")
            text.size = 2
            archive.addfile(text, io.BytesIO(b"ev"))
        device = tarfile.TarInfo("dev.png")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    before = sorted(tmp_path.rglob("*"))
    captions = read(tar)
    assert [row.image_id for row in captions.rows] == ["a/../../x", "a//etc/y", "a/a/../../z"]
    assert [row.open().getpixel((0, 0)) for row in captions.rows] == [(n, 0, 0) for n in (1, 2, 3)]
    assert reasons(captions) == [(f"a/link{n}", "no image beside the caption") for n in (2, 1)]
    assert sorted(tmp_path.rglob("*")) == before


def test_samples_that_can_not_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    parts = [
        *sample("0", 0, "ev"),
        ("1.txt", b"image lost"),
        ("2.png", png(2)),
        ("3.png", png(3)),
        ("3.txt", "kırmızı".encode("cp1254")),
        ("4.png", png(4)),
        ("4.json", b"{oops"),
        ("5.png", png(5)),
        ("5.json", b"[1]"),
        ("6.png", png(6)),
        ("6.txt", b"x" * (MAX_TEXT_BYTES + 1)),
        *sample("7", 7, " "),
        ("README", b"no sample"),
        (".DS_Store", b"no sample"),
    ]
    captions = read(write_shard(tmp_path / "a.tar", parts))
    assert [row.image_id for row in captions.rows] == ["a/0"]
    assert dict(reasons(captions)) == {
        "a/1": "no image beside the caption",
        "a/2": "no caption",
        "a/3": "a .txt that is not UTF-8",
        "a/4": "a .json that does not read",
        "a/5": "a .json that is no record",
        "a/6": f"a .txt of more than {MAX_TEXT_BYTES} bytes",
        "a/7": "no caption",
    }


def test_members_of_a_sample_need_not_be_neighbours(tmp_path: Path) -> None:
    keys = [f"{number:02d}" for number in range(20)]
    parts = [(f"{key}.png", png(number)) for number, key in enumerate(keys)]
    parts += [(f"{key}.txt", f"resim {key}".encode()) for key in reversed(keys)]
    captions = read(write_shard(tmp_path / "a.tar", parts))
    assert not reasons(captions)
    found = {row.captions[0]: row.open().getpixel((0, 0)) for row in captions.rows}
    assert found == {f"resim {key}": (number, 0, 0) for number, key in enumerate(keys)}


def header_of(name: str, size: int) -> bytes:
    """Returns the header of a member of any size."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def test_an_image_of_absurd_size_is_counted_not_read(tmp_path: Path) -> None:
    """The tar is a sparse file on disk, so that its members are as large as their headers say."""
    huge = 2 << 30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(header_of("0.png", huge))
        file.seek(huge, 1)
        file.write(header_of("0.txt", 2) + b"ev".ljust(512, b"\0") + bytes(1024))
    with pytest.raises(SourceError, match=r"1 × an image of more than 715827880 bytes"):
        read(path)


def test_a_header_of_absurd_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        member = tarfile.TarInfo("x")
        member.type, member.size = kind, 1 << 30
        path = tmp_path / "a.tar"
        with path.open("wb") as file:
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.truncate(1 << 31)
        tracemalloc.start()
        with pytest.raises(SourceError, match=r"which is not one \(a header of 1073741824 bytes\); fetch it again"):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000


def test_headers_of_negative_size_or_without_end_are_refused(tmp_path: Path) -> None:
    negative = tarfile.TarInfo("0.png")
    negative.pax_headers = {"size": "-1024"}
    endless = b"".join(_pax_header() for _ in range(3000))
    for content in (negative.tobuf(tarfile.PAX_FORMAT) + bytes(2048), endless + bytes(1024)):
        path = tmp_path / "a.tar"
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"expected a whole tar file, got .*a.tar"):
            read(path)


def _pax_header() -> bytes:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 12
    return member.tobuf(tarfile.USTAR_FORMAT) + b"12 path=abc\n".ljust(512, b"\0")


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    parts = [part for number in range(10) for part in sample(f"{number}", number, f"resim {number}")]
    return write_shard(tmp_path / "whole.tar", parts, tarfile.USTAR_FORMAT).read_bytes()


def test_a_shard_cut_anywhere_is_an_error_or_a_warning(
    whole: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples are never lost silently; a cut between two members looks like a missing end mark, hence the warning."""
    end = len(whole.rstrip(b"\0"))
    path = tmp_path / "cut" / "a.tar"
    path.parent.mkdir()
    for cut in [*range(1, end, 611), *range(512, end, 512), end - 1]:
        path.write_bytes(whole[:cut])
        caplog.clear()
        with contextlib.suppress(SourceError):
            read(path)
            assert "has no end mark" in caplog.text, cut


def test_a_damaged_header_is_not_taken_for_the_end(whole: bytes, tmp_path: Path) -> None:
    damaged = bytearray(whole)
    damaged[4 * 1024 + 20] ^= 1
    (tmp_path / "a.tar").write_bytes(damaged)
    with pytest.raises(SourceError, match=r"cut off or damaged after 4 members \(bad checksum\); fetch it again"):
        read(tmp_path / "a.tar")


@pytest.mark.parametrize("content", [b"", b"x", b"file_name,caption\n" * 100, bytes(range(256)) * 8])
def test_a_file_that_is_not_a_tar(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SourceError, match=r"expected a whole tar file, got .*a.tar, which is not one"):
        read(tmp_path / "a.tar")


def test_a_shard_that_vanishes_or_shrinks_stops_the_run(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(whole)
    row = read(path).rows[-1]
    path.write_bytes(whole[:2000])
    with pytest.raises(SourceError, match="got a shorter file; start again"):
        row.open()
    path.unlink()
    with pytest.raises(SourceError, match=r"expected the shard .*a.tar, got No such file .*; restore it"):
        row.open()


def test_memory_does_not_grow_with_the_members_of_a_shard(tmp_path: Path) -> None:
    def peak(samples: int) -> int:
        parts = (part for number in range(samples) for part in sample(f"{number:06d}", 1, "ev"))
        path = write_shard(tmp_path / f"{samples}.tar", parts, tarfile.USTAR_FORMAT)
        tracemalloc.start()
        assert (
            sum(isinstance(r.values["png"], ShardImage) for r in shard_records([path], SplitMeanings(source(path))))
            == samples
        )
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(2000) < peak(100) + 100_000


@pytest.fixture(scope="module")
def shards(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes the captioned folder as three shards."""
    folder = tmp_path_factory.mktemp("shards")
    lines = (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for start in range(0, len(rows), 20):
        parts: list[Part] = []
        for number, row in enumerate(rows[start : start + 20]):
            image = (captioned_folder / row["file_name"]).read_bytes()
            parts += [(f"{number}.png", image), (f"{number}.json", json.dumps(row).encode())]
        write_shard(folder / f"{start}.tar", parts)
    return folder


def embed(captions: Path, clip: Path, run: Path) -> Path:
    base = f"--image_model {clip} --image_batch_size 4 --shard_size 10 --device cpu --workers 3"
    embed_images.main([*base.split(), "--captions", str(captions), "--run", str(run)])
    return run / "embeddings"


def test_shards_give_the_embeddings_of_the_folder_they_were_made_of(
    captioned_folder: Path, shards: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    one, other = (embed(source, tiny_clip, tmp_path / source.name) for source in (captioned_folder, shards))
    files = [path.name for path in sorted(one.glob("*.parquet"))]
    assert len(files) == 5
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_no_work_is_lost_when_a_shard_vanishes_while_it_is_embedded(
    shards: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(shards, source)
    written: list[int] = []
    write = shard_writer.write_shard

    def write_and_remove(folder: Path, number: int, *rest: Any, **more: Any) -> Any:
        written.append(number)
        (source / "40.tar").unlink(missing_ok=True)
        return write(folder, number, *rest, **more)

    monkeypatch.setattr(shard_writer, "write_shard", write_and_remove)
    with pytest.raises(SourceError, match=r"expected the shard .*40.tar, got No such file"):
        embed(source, tiny_clip, tmp_path / "run")
    done = len(written)
    assert 0 < done < 5
    monkeypatch.setattr(
        shard_writer,
        "write_shard",
        lambda folder, n, *rest, **more: written.append(n) or write(folder, n, *rest, **more),
    )
    shutil.copy(shards / "40.tar", source / "40.tar")
    embeddings = embed(source, tiny_clip, tmp_path / "run")
    assert written == list(range(5))
    whole = embed(shards, tiny_clip, tmp_path / "whole")
    assert (embeddings / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()


@pytest.mark.parametrize("hidden", ["._0", "__MACOSX/._0", "@eaDir/0", ".thumbnails/0"])
def test_hidden_members_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, hidden: str) -> None:
    caplog.set_level("INFO")
    shard = write_shard(tmp_path / "a.tar", [*sample("./0", 0, "ev"), *sample(hidden, 1, "kuş")])
    assert [row.captions for row in read(shard).rows] == [("ev",)]
    assert "members that are no image, .txt or .json are left out: 2 hidden" in caplog.text
