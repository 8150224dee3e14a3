"""Word vectors from files: their format, Turkish letters, and a static text side that all loads as any other."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from word_cooccurrence import captions_of, write_vectors

from training import distill, embed_images, evaluate
from training.evaluation.results import Results
from training.release.build import build, finished_run
from training.run.config import PublishConfig, read
from training.run.recipe import ConfigError
from training.small_models.word_vectors import WordVectorsError, read_word_vectors, word_tokenizer
from turkish_clip import load_dual_encoder
from turkish_clip.encoder import load_model
from turkish_clip.onnx.export import export_onnx
from turkish_clip.onnx.runtime import OnnxTextEncoder
from turkish_clip.verify import verify

LINES = ["kedi 1 0 0", "İKİ 0 1 0", "iki 0 0 1", "Işık 0.5 0.5 0"]


def written(path: Path, lines: list[str]) -> Path:
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.vec", "a.vec.gz"])
@pytest.mark.parametrize("head", [["4 3"], []], ids=["with a head", "without"])
def test_words_are_lowercased_by_turkish_rules(name: str, head: list[str], tmp_path: Path) -> None:
    words, vectors = read_word_vectors(written(tmp_path / name, [*head, *LINES]), 100)
    assert words == ["kedi", "iki", "ışık"]
    # "iki" as it stands wins over "İKİ", which only becomes it
    assert vectors.tolist() == [[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0]]


def test_what_is_no_single_word_is_passed_over(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.vec", ["6 2", "Ankara'da 9 9", "iki kedi 9 9", "kedi 1 2", ". 3 4", "kedi 5 6", "ev 7 8"]
    )
    path.write_bytes(path.read_bytes() + b"k\xff 9 9\n")
    words, vectors = read_word_vectors(path, 100)
    assert words == ["kedi", ".", "ev"]
    assert vectors.tolist() == [[1, 2], [3, 4], [7, 8]]  # the first of two
    words, vectors = read_word_vectors(path, 2)
    assert (words, vectors.tolist()) == (["kedi", "."], [[1, 2], [3, 4]])


def test_the_first_line_is_read_behind_a_mark_and_compared_with_what_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.vec"
    path.write_bytes("\ufeff3 2\nev 1 2\nkuş 3 4\n".encode())  # with the mark, "\ufeff3" was a word of width 1
    with caplog.at_level("WARNING", "training"):
        words, vectors = read_word_vectors(path, 100)
    assert (words, vectors.tolist()) == (["ev", "kuş"], [[1.0, 2.0], [3.0, 4.0]])
    assert "says it has 3 words, and ends after 2" in caplog.text
    for content in ("x -2\nev 1 2\nkuş 3 4\n", "ev 1 2\nkuş 3 4 5\nku 3 4 5\n"):  # of another width than the first line
        path.write_text(content, encoding="utf-8")
        with pytest.raises(WordVectorsError, match="expected mostly single words .* got 2 other entries beside 1 such"):
            read_word_vectors(path, 100)


def test_a_tokenizer_of_words() -> None:
    tokenizer = word_tokenizer(["ışık", "iki", "ankara", "'", "da", ","])
    assert tokenizer.encode("IŞIK, İKİ Ankara’da deve").tokens == ["ışık", ",", "iki", "ankara", "'", "da", "[UNK]"]
    assert tokenizer.encode("i\u0307ki").tokens == ["iki"]
    assert tokenizer.encode("").ids == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"kedi 1 2\nev 1\n", "expected a word and 2 numbers in .*, line 2, got could not convert"),
        (b"kedi 1 2\nev 1 x\n", "line 2, got could not convert string to float"),
        (b"kedi 1 nan\n", "line 1, got 2 numbers after 'kedi', or one without an end"),
        (b"kedi\n", "expected vectors of 1 to 4096 numbers in .*, got 0 in the first line"),
        (b"", "expected words with their vectors in .*, got none"),
        (b"2 2\nbir-iki 1 2\n", "expected words with their vectors in .*, got none"),
        (b"3 2\nkedi \x00\x01\x02", "expected text in .*, got other bytes; save the vectors in the text format"),
        (b"k" * 300_000, "expected text in .*, got other bytes"),
        (gzip.compress(b"kedi 1 2\n" * 1000)[:-20], "expected a whole file in .*, got .*; get it again"),
    ],
)
def test_files_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.vec"
    path.write_bytes(content)
    with pytest.raises(WordVectorsError, match=message):
        read_word_vectors(path, 10)
    with pytest.raises(WordVectorsError, match="expected a file of word vectors, got .*; correct 'word_vectors'"):
        read_word_vectors(tmp_path / "none.vec", 10)


@pytest.fixture(scope="module")
def run(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with vectors that were made of its own captions."""
    folder = tmp_path_factory.mktemp("words")
    source = f"--captions {captioned_folder} --image_model {tiny_clip} --device cpu --run {folder / 'run'}".split()
    embed_images.main(source)
    vectors = write_vectors(captions_of(captioned_folder / "metadata.jsonl"), folder / "mine.vec", 24)
    (folder / "mine.vec.gz").write_bytes(gzip.compress(vectors.read_bytes()))
    more = f"--backbone static --word_vectors {folder / 'mine.vec.gz'} --batch_size 16 --epochs 2 --evaluations 2"
    distill.main([*source, *more.split()])
    evaluate.main([*source, "--bootstrap_samples", "10"])
    return folder / "run"


def test_it_is_loaded_searched_and_exported_as_any_static_model(run: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(run / "model"), device="cpu")
    assert [type(module) for module in model] == [StaticEmbedding, Dense, Normalize]
    texts = ["KIRMIZI BİR EV", "kırmızı bir ev", "zzz qqq", ""]
    vectors = model.encode(texts)
    assert (vectors[0] == vectors[1]).all()
    (caution,) = load_dual_encoder(run, device="cpu").cautions(["zzz"])
    assert "zzz" in str(caution)
    exported = OnnxTextEncoder(export_onnx(run / "model", tmp_path / "onnx").folder)
    assert exported.encode(texts, warn=False) == pytest.approx(load_model(run / "model").encode(texts), abs=1e-5)


def test_its_card_names_the_file(run: Path) -> None:
    more = "--paired --paired_id me/pair --license mit --captions_license mit"
    config = read(PublishConfig, [str(run), *more.split()])
    build(config, finished_run(run), Results.read(run))
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert "word vectors of the file `mine.vec.gz`" in card
    assert "`mine.vec.gz` dosyasının sözcük vektörleri" in (config.output / "README.tr.md").read_text(encoding="utf-8")
    assert not [check for check in verify(config.output, device="cpu") if not check.passed]


def test_a_file_of_other_words_is_refused(run: Path, tmp_path: Path) -> None:
    argv = [str(run), "--run", str(tmp_path), "--embeddings", str(run / "embeddings")]
    path = written(tmp_path / "english.vec", ["xylophone 1 2"])
    with pytest.raises(
        WordVectorsError, match="expected vectors of words of the captions in .*, got none of 1; choose"
    ):
        distill.main([*argv, "--word_vectors", str(path)])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--word_vectors x", "expected 'word_vectors' beside 'backbone' static, got dbmdz/.*; add --backbone static"),
        ("--backbone static --word_vectors x --static_from y", "expected 'word_vectors' or 'static_from', got both"),
        ("--backbone static --word_vectors x --init y", "expected 'word_vectors' or 'init', got both"),
        (
            "--backbone static --pooling cls",
            "expected 'pooling' mean with a static backbone, whose texts have no .CLS.",
        ),
    ],
)
def test_options_that_do_not_go_together(more: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        distill.main(["--captions", "x", "--run", str(tmp_path), *more.split()])
