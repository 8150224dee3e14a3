"""Token vectors are weighted as the paper says; a static text side goes through all that a BERT does."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from killing import run_killed
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from training import distill, embed_images, evaluate
from training.evaluation.results import Results
from training.release.build import build, finished_run
from training.run.config import DistillConfig, PublishConfig, read
from training.run.recipe import ConfigError
from training.small_models import static
from turkish_clip import build_text_encoder, load_dual_encoder, pair, save_text_encoder
from turkish_clip.encoder import ModelError, bare_tokenizer, load_model
from turkish_clip.exports.export import export_for
from turkish_clip.exports.folder import ExportError
from turkish_clip.onnx.export import export_onnx
from turkish_clip.onnx.runtime import OnnxTextEncoder
from turkish_clip.verify import verify

SMALL = "--backbone static --batch_size 16 --epochs 1 --evaluations 2 --device cpu"
CAPTIONS = ["kırmızı bir ev", "mavi bir kuş, bir ağaç", "", "zzzz"]


@pytest.fixture(scope="module")
def options(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a distillation but for its run and where its token vectors come from."""
    source = f"--captions {captioned_folder} --image_model {tiny_clip}".split()
    folder = tmp_path_factory.mktemp("embedded")
    embed_images.main([*source, "--device", "cpu", "--run", str(folder)])
    return [*source, "--embeddings", str(folder / "embeddings"), *SMALL.split()]


@pytest.fixture(scope="module")
def run(options: list[str], tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with token vectors of the tiny BERT."""
    folder = tmp_path_factory.mktemp("runs") / "static"
    distill.main([*options, "--static_from", str(tiny_bert), "--run", str(folder), "--epochs", "2"])
    return folder


def tokenizer_of(folder: Path) -> Tokenizer:
    backend: Tokenizer = build_text_encoder(folder, dim=16, max_tokens=16, device="cpu").tokenizer.backend_tokenizer
    return backend


def test_frequencies_by_hand(tiny_bert: Path) -> None:
    tokenizer = bare_tokenizer(tokenizer_of(tiny_bert))
    found = static.token_frequencies(tokenizer, iter(["bir ev bir kuş", "bir"]))
    shares = {token: found[tokenizer.token_to_id(token)] for token in ("bir", "ev", "kuş", "mavi", "[CLS]")}
    assert shares == {"bir": 3 / 5, "ev": 1 / 5, "kuş": 1 / 5, "mavi": 0, "[CLS]": 0}
    assert static.token_frequencies(tokenizer, []).sum() == 0


def test_frequent_tokens_weigh_less_and_special_ones_nothing() -> None:
    vectors = np.array([[9.0, 9.0], [3.0, 4.0], [2.0, 2.0]], np.float32)
    # with a = 0.01: 0.01 / (0.01 + 0.99) = 0.01, and 0.01 / (0.01 + 0) = 1
    found = static.weighted(vectors, np.array([0.0, 0.99, 0.0]), [0])
    by_hand = np.array([[0, 0], [0.03, 0.04], [2, 2]])
    assert found == pytest.approx(by_hand / np.sqrt((by_hand**2).mean()), rel=1e-6)
    assert np.square(found).mean() == pytest.approx(1)
    assert not static.weighted(np.zeros((2, 2), np.float32), np.zeros(2), []).any()


def test_a_vector_is_that_of_the_token_alone(tiny_bert: Path) -> None:
    encoder = build_text_encoder(tiny_bert, dim=16, max_tokens=16, device="cpu")
    pooled = SentenceTransformer(modules=list(encoder.children())[:2], device="cpu")
    vectors = static.token_vectors(pooled)
    for word in ("ev", "kuş", "İstanbul"):
        number = pooled.tokenizer.convert_tokens_to_ids(word)
        assert vectors[number] == pytest.approx(pooled.encode(word), abs=1e-5)


def test_a_static_model_of_plain_modules(run: Path) -> None:
    model = SentenceTransformer(str(run / "model"), device="cpu")
    assert [type(module) for module in model] == [StaticEmbedding, Dense, Normalize]
    vectors = model.encode(["mavi bir kuş", "kuş bir mavi", "kırmızı bir ev"])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)  # a bag of words knows no order
    assert abs(vectors[0] - vectors[2]).max() > 1e-3
    assert (model.encode(unicodedata.normalize("NFD", "kırmızı kuş’da")) == model.encode("kırmızı kuş'da")).all()
    record = json.loads((run / "model" / "turkish_clip.json").read_text(encoding="utf-8"))
    assert record["max_tokens"] == 0
    assert model.encode("bir " * 5000).shape == (16,)  # nothing is cut
    summary = json.loads((run / "run.json").read_text(encoding="utf-8"))["summary"]
    assert summary["captions_truncated"] == 0
    assert summary["closed_form_penalty"] > 0


def test_it_is_searched_with_as_any_other(run: Path, tiny_clip: Path, tmp_path: Path) -> None:
    encoder = load_dual_encoder(run, device="cpu")
    (caution,) = encoder.cautions(["zzzz"])
    assert "zzzz" in str(caution)
    assert not encoder.cautions(["kırmızı ev " * 300])  # of no limit
    both = pair(run / "model", tiny_clip, device="cpu")
    save_text_encoder(both, tmp_path / "pair")
    loaded = SentenceTransformer(str(tmp_path / "pair"), device="cpu")
    texts = ["kırmızı bir ev", "mavi kuş", ""]
    assert loaded.encode(texts) == pytest.approx(encoder.encode_texts(texts), abs=1e-6)
    paired = load_dual_encoder(tmp_path / "pair", device="cpu")
    texts += ["https://example.org/kırmızı.jpg", "ev.png"]  # which the host would take for images
    assert paired.encode_texts(texts) == pytest.approx(encoder.encode_texts(texts), abs=1e-6)


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_its_onnx_graph_gives_the_same_vectors(run: Path, tmp_path: Path, int8: bool) -> None:
    written = export_onnx(run / "model", tmp_path / "onnx", int8=int8)
    assert written.record["max_tokens"] == 0
    exported = OnnxTextEncoder(written.folder)
    own = load_model(run / "model", device="cpu").encode(CAPTIONS)
    assert exported.encode(CAPTIONS, warn=False) == pytest.approx(own, abs=0.05 if int8 else 1e-5)
    assert not exported.cautions(["kırmızı ev " * 300])


def test_other_programs_get_it_too(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turkish_clip.exports.immich.WIDTHS", {"ViT-B-32__openai": 16})
    for program in ("fastembed", "immich"):
        found = export_for(program, run, tmp_path / program, side="text").record.text
        assert found is not None
        assert found["difference"] < 1e-5
    with pytest.raises(ExportError, match="whose mean one more layer computes, got .*, a StaticEmbedding; publish"):
        export_for("transformers", run, tmp_path / "transformers")


def test_the_card_of_a_static_model_claims_no_bert(run: Path, options: list[str], tiny_bert: Path) -> None:
    evaluate.main([*options, "--run", str(run), "--bootstrap_samples", "10"])
    config = read(
        PublishConfig, [str(run), *"--paired --paired_id me/pair --license mit --captions_license mit".split()]
    )
    build(config, finished_run(run), Results.read(run))
    card = (config.output / "README.md").read_text(encoding="utf-8")
    tokens = len((tiny_bert / "vocab.txt").read_text(encoding="utf-8").split())
    assert f"one vector for each of {tokens} tokens → mean over the tokens → dense 32 → 16 → normalise" in card
    assert "token vectors of an encoder that is not on the Hub" in card
    assert "texts of any length" in card
    assert "does not know their order" in card
    assert "peak learning rates of 0.1 (token vectors)" in card
    assert "Bert" not in card.partition("### Baselines")[0]
    assert not [check for check in verify(config.output, device="cpu") if not check.passed]


def test_the_vectors_are_made_once_and_a_killed_run_ends_the_same(
    run: Path, options: list[str], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*options, "--static_from", str(tiny_bert), "--epochs", "2", "--run", str(tmp_path)]
    run_killed("training.distill", "training.distillation.callbacks:SaveLog.on_log", 6, argv)

    def again(_: object) -> None:
        raise RuntimeError("made again")

    monkeypatch.setattr(static, "token_vectors", again)
    found = distill.main([*argv, "--resume"])
    assert found["weights_sha256"] == json.loads((run / "run.json").read_text())["summary"]["weights_sha256"]


def test_from_a_run_and_on_from_a_static_one(run: Path, options: list[str], tiny_bert: Path, tmp_path: Path) -> None:
    bert = [tiny_bert if word == "static" else word for word in options]
    distill.main([*map(str, bert), "--max_tokens", "32", "--run", str(tmp_path / "bert")])
    distill.main([*options, "--static_from", str(tmp_path / "bert"), "--run", str(tmp_path / "one"), "--epochs", "0"])
    distill.main([*options, "--init", str(tmp_path / "one"), "--matryoshka", "8", "--run", str(tmp_path / "two")])
    assert json.loads((tmp_path / "two" / "run.json").read_text())["summary"]["steps"] > 0
    plain = [word for word in options if word not in ("--backbone", "static")]
    with pytest.raises(ModelError, match="expected 'backbone' static beside an 'init' that is static.*add --backbone"):
        distill.main([*plain, "--init", str(run), "--run", str(tmp_path / "three")])
    with pytest.raises(ModelError, match="'init' that is static.* static with .*bert; leave it out"):
        distill.main([*options, "--init", str(tmp_path / "bert"), "--run", str(tmp_path / "four")])
    with pytest.raises(ModelError, match="expected a backbone, or a text encoder with one, for 'static_from', got .*"):
        distill.main([*options, "--static_from", str(run), "--run", str(tmp_path / "five")])


def test_from_scratch_with_losses_of_the_batch(options: list[str], tmp_path: Path) -> None:
    more = "--static_from scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300"
    more += " --objective mse_bank_negatives --matryoshka 8 --gradient_accumulation 2 --loader_processes 1"
    found = distill.main([*options, *more.split(), "--run", str(tmp_path)])
    assert found["best_validation_mrr"] > 0
    assert (tmp_path / "backbone").is_dir()


def test_options_that_do_not_go_together() -> None:
    for words, message in (
        ("--static_from x", "expected 'static_from' beside 'backbone' static, got dbmdz/.*; add --backbone static"),
        ("--backbone static --static_from x --init y", "expected 'static_from' or 'init', got both"),
        ("--backbone static --prompt query:", "expected no 'prompt' with a static backbone"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(DistillConfig, ["--captions", "x", "--run", "r", *words.split()])


def test_the_model_needs_none_of_our_code(run: Path) -> None:
    program = (
        "import sys; sys.modules['turkish_clip'] = None; sys.modules['training'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"print(SentenceTransformer({str(run / 'model')!r}, device='cpu').encode('mavi').shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "(16,)"
