"""Vectors that others have computed: what is stored, skipped and refused, and a run on them without any image."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from killing import run_killed
from numpy.typing import NDArray
from samples import file_contents, stored_ids, stored_vectors

from training import distill, embed_images, evaluate, import_embeddings, publish
from training.data.sources import read_captions
from training.embeddings.manifest import EmbeddingsError, Manifest
from training.embeddings.store import TextEmbeddings, read_embeddings
from training.pairs.teacher import NoTowerError
from training.run.config import DistillConfig
from training.run.recipe import ConfigError
from training.run.record import RunError
from training.run.source import SourceError
from training.studies import ablate
from turkish_clip.atomic import TEMPORARY
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.encoder import load_model
from turkish_clip.metrics import unit

ROWS = 40
SHA = "0" * 64
WORDS = "kırmızı mavi sarı yeşil bir iki ev ağaç çiçek köpek kuş".split()


def vectors(rows: int = ROWS, width: int = 16, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, width), np.float32)


def halved(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    return numbers.astype(np.float16).astype(np.float32)


def records(rows: int = ROWS) -> list[dict[str, Any]]:
    """Captions in two languages of images that are on no disk."""
    return [
        {
            "image_path": f"photos/{number}.png",
            "captions": [f"{WORDS[number % 11]} {WORDS[number % 7]} {number}"],
            "captions_en": [f"caption {number}"],
            "split": "test" if number % 4 == 3 else "validation" if number % 8 == 2 else "train",
            "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        }
        for number in range(rows)
    ]


def write_kit(folder: Path, half: bool = True) -> Path:
    """Writes clip-retrieval's layout, in two parts of different size, with English text vectors."""
    images, texts, rows = vectors(), vectors(seed=1), records()
    for part in (folder / "img_emb", folder / "metadata", folder / "text_emb_en"):
        part.mkdir(parents=True)
    dtype = np.float16 if half else np.float32
    for number, some in ((9, slice(0, 25)), (10, slice(25, ROWS))):  # 10 comes after 9
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", images[some].astype(dtype))
        pq.write_table(pa.Table.from_pylist(rows[some]), folder / "metadata" / f"metadata_{number}.parquet")
    np.save(folder / "text_emb_en" / "text_emb_0.npy", texts.astype(dtype))
    captions = pa.table({"text": [row["captions_en"][0] for row in rows]})
    pq.write_table(captions, folder / "text_emb_en" / "text_0.parquet")
    pq.write_table(pa.Table.from_pylist(rows), folder / "captions.parquet")
    return folder


def arguments(run: Path, source: Path, *more: str) -> list[str]:
    return [*f"--vectors {source} --run {run} --image_model some/clip --shard_size 8".split(), *more]


def known(run: Path, source: Path, *more: str) -> list[str]:
    return arguments(run, source, "--image_model_sha256", SHA, *more)


def skipped(run: Path) -> list[tuple[str, str, str]]:
    lines = (run / "embeddings" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    return [tuple(json.loads(line).values()) for line in lines]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kit(tmp_path_factory.mktemp("others") / "kit")


@pytest.fixture(scope="module")
def base(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a run whose embeddings are imported; its images are nowhere."""
    run = tmp_path_factory.mktemp("imported") / "run"
    options = f"--captions {kit / 'captions.parquet'} --image_model some/clip --run {run} --device cpu".split()
    texts = f"--text_vectors {kit / 'text_emb_en'} --image_model_sha256 {SHA}"
    import_embeddings.main([*options, "--vectors", str(kit), *texts.split(), "--content_column", "sha256"])
    return options


SMALL = "--scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 --epochs 1 --batch_size 8"


def test_the_layout_of_clip_retrieval(base: list[str]) -> None:
    folder = Path(base[base.index("--run") + 1]) / "embeddings"
    embeddings = read_embeddings(folder, image_model="some/clip", dim=16)
    manifest = embeddings.manifest
    assert (manifest.images, manifest.skipped, manifest.complete, manifest.dtype) == (ROWS, 0, True, "float16")
    assert (manifest.weights_sha256, manifest.normalised, manifest.content) == (SHA, False, "sha256")
    assert stored_ids(folder) == [row["image_path"] for row in records()]
    assert np.allclose(stored_vectors(folder), unit(halved(vectors())), atol=1e-6)
    contents = embeddings.contents(16)
    assert contents is not None
    assert contents[3] == bytes.fromhex(records()[3]["sha256"])[:16]
    texts = TextEmbeddings.of(embeddings)
    rows = texts.find(["caption 30", "unknown", "caption 2"])
    found = {int(place): stored for places, stored in texts.by_shard(rows) for place, stored in zip(places, stored)}
    assert set(found) == {0, 2}
    assert np.array_equal(found[0], vectors(seed=1)[30].astype(np.float16))
    assert np.array_equal(found[2], vectors(seed=1)[2].astype(np.float16))


@pytest.mark.parametrize("kind", ["fixed", "list", "large", "folder"])
def test_a_parquet_column(kind: str, tmp_path: Path) -> None:
    numbers = vectors()
    inner = pa.float16() if kind == "fixed" else pa.float32()
    column = {
        "fixed": lambda: pa.array(list(numbers.astype(np.float16)), pa.list_(inner, 16)),
        "large": lambda: pa.array(list(numbers), pa.large_list(inner)),
    }.get(kind, lambda: pa.array(list(numbers), pa.list_(inner)))()
    table = pa.table(
        {"image_id": [f"bi\u0307r-{number}" for number in range(ROWS)], "vector": column, "n": range(ROWS)}
    )
    path = tmp_path / "table" / "part-0.parquet"
    path.parent.mkdir()
    pq.write_table(table, path, row_group_size=7)  # less than a shard
    import_embeddings.main(known(tmp_path, path.parent if kind == "folder" else path))
    assert stored_ids(tmp_path / "embeddings")[:2] == ["bir-0", "bir-1"]  # as the captions have them
    manifest = Manifest.read(tmp_path / "embeddings")
    assert manifest is not None
    assert [shard.images for shard in manifest.shards] == [8] * 5
    assert manifest.dtype == ("float16" if kind == "fixed" else "float32")
    expected = unit(numbers)
    assert np.allclose(stored_vectors(tmp_path / "embeddings"), expected, atol=1e-3 if kind == "fixed" else 1e-6)


@pytest.mark.parametrize("suffix", ["txt", "csv", "parquet"])
def test_a_npy_with_a_list_of_ids(suffix: str, tmp_path: Path) -> None:
    ids = [f"../çiçek {number}, \u0130" for number in range(ROWS)]  # names only, wherever they seem to lead
    np.save(tmp_path / "all.npy", vectors().astype(">f4"))
    path = tmp_path / f"ids.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"key": ids}), path)
    else:
        lines = ids if suffix == "txt" else ["key", *(f'"{one}"' for one in ids)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    more = [] if suffix == "txt" else ["--id_column", "key"]
    import_embeddings.main(known(tmp_path, tmp_path / "all.npy", "--ids", str(path), "--id_prefix", "mine/", *more))
    assert stored_ids(tmp_path / "embeddings") == [f"mine/{one}" for one in ids]
    assert np.array_equal(np.argmax(stored_vectors(tmp_path / "embeddings"), axis=1), np.argmax(vectors(), axis=1))


def test_bad_rows_are_skipped_by_name(tmp_path: Path) -> None:
    rows: list[tuple[str | None, Any, str]] = [
        ("good", [1.0, 2.0], SHA),
        ("nan", [1.0, float("nan")], SHA),
        ("infinite", [1.0, float("inf")], SHA),
        ("null inside", [1.0, None], SHA),
        ("zero", [0.0, 0.0], SHA),
        ("wide", [1.0, 2.0, 3.0], SHA),
        ("none", None, SHA),
        (None, [1.0, 2.0], SHA),
        ("", [1.0, 2.0], SHA),
        ("good", [2.0, 4.0], SHA),  # the same direction again
        ("good", [2.0, 1.0], SHA),
        ("late", [0.0, 0.0], SHA),
        ("late", [3.0, 1.0], SHA),  # the first good one of that name
        ("no hash", [3.0, 1.0], "abc"),
    ]
    names, lists, hashes = (list(column) for column in zip(*rows))
    table = pa.table({"image_id": names, "vector": pa.array(lists, pa.list_(pa.float32())), "content": hashes})
    pq.write_table(table, tmp_path / "table.parquet")
    argv = known(tmp_path, tmp_path / "table.parquet", "--content_column", "content")
    with pytest.raises(SourceError, match=r"at most 2.0% skipped .*, got 7 of 14 \(3 × NaN or infinity"):
        import_embeddings.main(argv)
    result = import_embeddings.main([*argv, "--max_skipped_fraction", "0.9"])
    assert (result["images"], result["skipped"]) == (2, 11)
    assert stored_ids(tmp_path / "embeddings") == ["good", "late"]
    assert skipped(tmp_path) == [
        ("nan", "table.parquet, row 1", "NaN or infinity in its vector"),
        ("infinite", "table.parquet, row 2", "NaN or infinity in its vector"),
        ("null inside", "table.parquet, row 3", "NaN or infinity in its vector"),
        ("zero", "table.parquet, row 4", "a vector of zeros"),
        ("wide", "table.parquet, row 5", "a vector of width 3 instead of 2"),
        ("none", "table.parquet, row 6", "no vector"),
        ("", "table.parquet, row 7", "no image_id"),
        ("", "table.parquet, row 8", "no image_id"),
        ("good", "table.parquet, row 10", "the image_id of an earlier row, with another vector"),
        ("late", "table.parquet, row 11", "a vector of zeros"),
        ("no hash", "table.parquet, row 13", "no SHA-256 in column content"),
    ]
    assert read_embeddings(tmp_path / "embeddings").skipped >= {"nan", "infinite", "zero", "wide", "none", "no hash"}
    assert not read_embeddings(tmp_path / "embeddings").skipped & {"good", "late"}


def test_a_repeated_text_is_stored_once(kit: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "texts.npy", np.array([[1, 2], [2, 4], [2, 1], [1, 0]], np.float32).repeat(8, axis=1))
    (tmp_path / "texts.txt").write_text("a  dog\n a dog\na dog\na cat\n", encoding="utf-8")
    more = f"--text_vectors {tmp_path / 'texts.npy'} --texts {tmp_path / 'texts.txt'} --max_skipped_fraction 0.1"
    import_embeddings.main(known(tmp_path, kit, *more.split()))
    texts = TextEmbeddings.of(read_embeddings(tmp_path / "embeddings"))
    assert texts.find(["a dog", "a cat", "a  dog"]).tolist() == [0, 1, -1]
    assert skipped(tmp_path) == [("", "texts.npy, row 2: a dog", "the text of an earlier row, with another vector")]


@pytest.mark.parametrize(
    ("target", "nth"),
    [
        ("training.embeddings.imported:write_shard", 4),
        ("training.embeddings.manifest:Manifest.write", 9),
    ],
)
def test_a_killed_import_ends_with_the_same_bytes(target: str, nth: int, kit: Path, tmp_path: Path) -> None:
    more = ["--text_vectors", str(kit / "text_emb_en"), "--content_column", "sha256"]
    import_embeddings.main(known(tmp_path / "whole", kit, *more))
    run_killed("training.import_embeddings", target, nth, known(tmp_path / "killed", kit, *more))
    import_embeddings.main(known(tmp_path / "killed", kit, *more))
    whole, killed = (file_contents(tmp_path / name / "embeddings") for name in ("whole", "killed"))
    assert {name: content for name, content in killed.items() if not TEMPORARY.fullmatch(name)} == whole


def test_a_second_import_writes_only_what_changed(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shutil.copytree(kit, tmp_path / "kit")
    import_embeddings.main(known(tmp_path, source))
    before = file_contents(tmp_path / "embeddings")
    changed = vectors()[:25].astype(np.float16)
    changed[9] = 1
    np.save(source / "img_emb" / "img_emb_9.npy", changed)
    import_embeddings.main(known(tmp_path, source))
    after = file_contents(tmp_path / "embeddings")
    assert [name for name in before if before[name] != after[name]] == ["manifest.json", "shard-00001.parquet"]

    def never(*_: object, **__: object) -> None:
        raise RuntimeError("written again")

    monkeypatch.setattr("training.embeddings.imported.write_shard", never)
    import_embeddings.main(known(tmp_path, source))
    assert file_contents(tmp_path / "embeddings") == after


def test_files_that_do_not_fit_together(kit: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", vectors())
    (tmp_path / "ids.txt").write_text("a\nb\n", encoding="utf-8")
    np.save(tmp_path / "flat.npy", np.ones(3, np.float32))
    np.save(tmp_path / "numbers.npy", np.ones((2, 2), np.int64))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "torn.npy").write_bytes((tmp_path / "all.npy").read_bytes()[:-8])
    column = pa.array([[1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"image_id": ["a"], "v": column, "w": column}), tmp_path / "two.parquet")
    shutil.copytree(kit, tmp_path / "kit")
    (tmp_path / "kit" / "metadata" / "metadata_10.parquet").unlink()
    ids = f"--ids {tmp_path / 'ids.txt'}"
    for source, more, message in (
        ("all.npy", ids, "expected a name for each of 40 vectors of .*all.npy, got 2 in .*ids.txt"),
        ("all.npy", "", "expected the names of the rows of .*all.npy, got none; add --ids FILE"),
        ("all.npy", "--ids none.txt", "expected the names of the rows .* in none.txt, got no file"),
        ("all.npy", f"{ids} --content_column x", "expected a table with the column 'x', got the list .*ids.txt"),
        ("flat.npy", ids, r"expected float16 or float32 of shape \(rows, width\), got float32 of shape \(3,\)"),
        ("numbers.npy", ids, "expected float16 or float32 .* got int64"),
        ("objects.npy", ids, "expected a .npy of vectors, got .* in .*objects.npy; copy it again"),
        ("torn.npy", ids, "expected a .npy of vectors, got mmap length .* in .*torn.npy; copy it again"),
        ("two.parquet", "", "expected one column of float vectors in .*, got v, w; name it with --vector_column"),
        ("two.parquet", "--vector_column x", "expected the column 'x' of float vectors in .*, got v, w"),
        ("two.parquet", "--id_column x", "expected a column x in .*two.parquet, got image_id, v, w; name it with --id"),
        ("kit", "", "expected a Parquet table numbered as .*img_emb_10.npy in .*metadata, got none"),
        ("nowhere", "", "expected a .npy, a Parquet table, a folder of tables, or clip-retrieval's .* got .*nowhere"),
    ):
        with pytest.raises(EmbeddingsError, match=message):
            import_embeddings.main(known(tmp_path / "run", tmp_path / source, *more.split()))
    narrow = f"--text_vectors {tmp_path / 'two.parquet'} --text_vector_column v --text_column image_id"
    with pytest.raises(EmbeddingsError, match="expected vectors of width 16, as in .*, got 1 in .*two.parquet"):
        import_embeddings.main(known(tmp_path, kit, *narrow.split()))


def test_whose_vectors_they_are(kit: Path, tiny_clip: Path, tmp_path: Path) -> None:
    options = ["--vectors", str(kit), "--run", str(tmp_path)]
    with pytest.raises(ConfigError, match="expected 'image_model', got nothing; add --image_model"):
        import_embeddings.main(options)
    with pytest.raises(ConfigError, match="expected 'image_model_sha256' of 64 hexadecimal digits or unknown, got 'A'"):
        import_embeddings.main([*options, "--image_model", "some/clip", "--image_model_sha256", "A"])
    with pytest.raises(EmbeddingsError, match="got none: expected a model, got some/clip.* give --image_model_sha256"):
        import_embeddings.main([*options, "--image_model", "some/clip"])
    result = import_embeddings.main([*options, "--image_model", str(tiny_clip)])
    assert result["weights_sha256"] == weights_sha256(load_model(tiny_clip, device="cpu"))
    with pytest.raises(EmbeddingsError, match="got weights_sha256 0+ instead of .*; give another --embeddings"):
        import_embeddings.main([*options, "--image_model", str(tiny_clip), "--image_model_sha256", SHA])
    np.save(tmp_path / "narrow.npy", vectors(width=4))
    (tmp_path / "ids.txt").write_text("a\n" * ROWS, encoding="utf-8")
    narrow = f"--vectors {tmp_path / 'narrow.npy'} --ids {tmp_path / 'ids.txt'} --run {tmp_path / 'narrow'}"
    with pytest.raises(EmbeddingsError, match="which are 16 wide, got 4 in .*narrow.npy; name the image model"):
        import_embeddings.main([*narrow.split(), "--image_model", str(tiny_clip)])


def test_embedding_and_importing_into_one_folder_are_refused(
    kit: Path, captioned_folder: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    import_embeddings.main(["--vectors", str(kit), "--run", str(tmp_path), "--image_model", str(tiny_clip)])
    options = f"--captions {captioned_folder} --image_model {tiny_clip} --run {tmp_path} --device cpu"
    with pytest.raises(EmbeddingsError, match="got embeddings of training.embed_images instead of training.import"):
        embed_images.main(options.split())


@pytest.mark.parametrize("objective", ["mse", "mse_both", "mse_translation_raw"])
def test_a_run_needs_no_image_and_no_tower(objective: str, base: list[str], tmp_path: Path) -> None:
    shared = [*base, "--run", str(tmp_path), "--embeddings", f"{base[base.index('--run') + 1]}/embeddings"]
    distill.main([*shared, "--backbone", "scratch", *SMALL.split(), "--objective", objective])
    results = evaluate.main([*shared, "--bootstrap_samples", "0"])
    assert (results["images"], results["captions"], results["teacher_captions"]) == (10, 10, 10)
    images, texts = (unit(halved(part))[3::4] for part in (vectors(), vectors(seed=1)))
    expected = ((texts @ images.T).argmax(axis=1) == np.arange(10)).mean()
    assert results["teacher_text_to_image"]["recall_at_1"] == pytest.approx(expected)
    none = {"train": 0, "validation": 0, "test": 0}
    assert results["duplicates"] == {"removed": none, "repeated": none}
    assert (tmp_path / "report.html").is_file()
    embeddings = Path(base[base.index("--run") + 1]) / "embeddings"
    assert not list(embeddings.glob("english-*"))


def test_an_ablation_needs_no_image(base: list[str], tmp_path: Path) -> None:
    shared = [*base, "--run", str(tmp_path), "--embeddings", f"{base[base.index('--run') + 1]}/embeddings"]
    found = ablate.main([*shared, "--backbone", "scratch", *SMALL.split(), "--objectives", "mse", "--seeds", "0"])
    assert found["images"] == 5
    assert "teacher_text_to_image" in found


def test_english_texts_without_a_vector(kit: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "training")
    options = f"--captions {kit / 'captions.parquet'} --image_model some/clip --run {tmp_path} --device cpu".split()
    import_embeddings.main([*options, "--vectors", str(kit), "--image_model_sha256", SHA])
    assert "text_emb_en is not imported; if its texts are English captions, name it with --text_vectors" in caplog.text
    with pytest.raises(
        NoTowerError, match=r"got neither for 25 of 25, the first 'caption 0' \(expected a model, got some/clip"
    ):
        distill.main([*options, "--backbone", "scratch", *SMALL.split(), "--objective", "mse_text"])
    distill.main([*options, "--backbone", "scratch", *SMALL.split()])
    results = evaluate.main([*options, "--bootstrap_samples", "0"])
    assert "teacher_captions" not in results
    assert "no teacher reference: expected imported vectors of English texts, or a text tower" in caplog.text
    assert "got neither for 10 of 10, the first 'caption 3'" in caplog.text


def test_the_tower_embeds_what_was_not_imported(captioned_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    """The teacher reference of half imported texts is that of the tower alone."""
    options = f"--captions {captioned_folder} --image_model {tiny_clip} --device cpu --bootstrap_samples 0".split()
    run, again = tmp_path / "run", tmp_path / "imported"
    embed_images.main([*options, "--run", str(run)])
    small = ["--backbone", "scratch", *SMALL.split()]
    distill.main([*options, "--run", str(run), *small, "--objective", "mse_text"])
    expected = evaluate.main([*options, "--run", str(run)])
    rows = list(read_captions(DistillConfig(captions=str(captioned_folder), run="x")).rows)
    embeddings = read_embeddings(run / "embeddings")
    table = pa.table({"image_id": stored_ids(run / "embeddings"), "v": list(stored_vectors(run / "embeddings"))})
    pq.write_table(table, tmp_path / "images.parquet")
    texts = list(dict.fromkeys(text for row in rows for text in row.english))[::2]
    encoded = load_model(tiny_clip, device="cpu").encode(texts)
    pq.write_table(pa.table({"text": texts, "v": list(encoded)}), tmp_path / "texts.parquet")
    sources = f"--vectors {tmp_path / 'images.parquet'} --text_vectors {tmp_path / 'texts.parquet'} --run {again}"
    import_embeddings.main([*options, *sources.split()])
    distill.main([*options, "--run", str(again), *small, "--objective", "mse_text"])
    found = evaluate.main([*options, "--run", str(again)])
    assert found["teacher_text_to_image"] == expected["teacher_text_to_image"]
    assert len(embeddings.ids) == found["images"] + 38


def test_unknown_weights_are_said_and_not_published(
    kit: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = f"--captions {kit / 'captions.parquet'} --image_model some/clip --run {tmp_path} --device cpu".split()
    import_embeddings.main([*options, "--vectors", str(kit), "--image_model_sha256", "unknown"])
    distill.main([*options, "--backbone", "scratch", *SMALL.split()])
    assert "the weights of some/clip that made" in caplog.text
    evaluate.main([*options, "--bootstrap_samples", "0"])
    with pytest.raises(RunError, match="the weights of the image model some/clip are unknown, so nobody can tell"):
        publish.main([*options, "--license", "apache-2.0", "--captions_license", "other", "--model_id", "me/text"])


def test_duplicates_are_found_by_their_hashes(kit: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "training")
    source = shutil.copytree(kit, tmp_path / "kit")
    rows = records()
    rows[0]["sha256"] = rows[3]["sha256"]  # in train and in test
    pq.write_table(pa.Table.from_pylist(rows[:25]), source / "metadata" / "metadata_9.parquet")
    options = f"--captions {kit / 'captions.parquet'} --image_model some/clip --device cpu".split()
    for name, more, images in (("hashed", ["--content_column", "sha256"], 24), ("plain", [], 25)):
        run = ["--run", str(tmp_path / name)]
        import_embeddings.main([*options, *run, "--vectors", str(source), "--image_model_sha256", SHA, *more])
        assert distill.main([*options, *run, "--backbone", "scratch", *SMALL.split()])["training_images"] == images
    assert "left out, because the same image is in validation or test: 1 of train" in caplog.text
    assert "plain/embeddings holds no hashes of the images' files: images in two splits can't be found" in caplog.text


def test_captions_of_images_that_were_not_imported(kit: Path, tmp_path: Path) -> None:
    rows = [{**row, "image_path": f"other/{row['image_path']}"} for row in records()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "captions.parquet")
    options = f"--captions {tmp_path / 'captions.parquet'} --image_model some/clip --run {tmp_path}".split()
    import_embeddings.main([*options, "--vectors", str(kit), "--image_model_sha256", SHA])
    with pytest.raises(EmbeddingsError, match=r"25, the first 'other/photos/0.png'; .* are such as 'photos/0.png'\)"):
        distill.main([*options, "--backbone", "scratch", *SMALL.split(), "--device", "cpu"])
