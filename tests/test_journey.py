"""From Hub ids to a published model that others load: real clients in processes of their own, and a stand-in Hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_layouts import (
    flickr8k_turkish,
    flickr30k_turkish,
    write_berturk,
    write_clip_l_14,
    write_electra,
    write_stock_clip,
)
from stand_in_hub import READER, StandInHub
from tower_layouts import write_siglip2

from turkish_clip.encoder import load_model
from turkish_clip.verify import GOLDEN_TEXTS, encode_each, golden_images, unit

ROOT = Path(__file__).parents[1]
TEXT, PAIR, STOCK = "org/turkish-clip-text", "org/turkish-clip", "clip-ViT-B-32"
TRAIN = """
import sys
from training import distill, embed_images, evaluate
for command in (embed_images, distill, evaluate):
    command.main(sys.argv[1:])
"""
# As in a clean checkout, whatever the state of this one.
PUBLISH = """
import sys
from training import publish
from training.release import checks
from training.run.provenance import GitState
from training.run.command import run_command
checks.git_state = lambda: GitState("0" * 40)
run_command(publish.main)
"""
# As above, with the folder that was built before.
PUBLISH_AGAIN = PUBLISH.replace(
    "checks.git_state", "publish.build = publish.check_isolated = lambda *_: []\nchecks.git_state"
)
LOAD = """
import sys
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
texts, out = sys.argv[3:], sys.argv[1]
each = dict(batch_size=1, show_progress_bar=False)
text = SentenceTransformer("org/turkish-clip-text")
tagged = SentenceTransformer("org/turkish-clip-text", revision="v1")
image = SentenceTransformer("clip-ViT-B-32")
pair = SentenceTransformer("org/turkish-clip", token="hf_test")
images = [Image.open(path) for path in sys.argv[2].split(",")]
np.savez(out, text=text.encode(texts, **each), tagged=tagged.encode(texts, **each),
         image=image.encode(images, **each), pair_text=pair.encode(texts, **each),
         pair_image=pair.encode(images, **each),
         scores=text.similarity(image.encode(images), text.encode(texts)).numpy())
"""


class Journey:
    """A Hub with the repositories that the recipes name, and a run that was trained from them by their ids."""

    def __init__(self, hub: StandInHub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.run_folder = folder / "run"

    def process(self, *argv: str, cache: str = "cache", token: str = "hf_test") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=ROOT,
            env=self.hub.environment(self.folder / cache, token),
        )

    def python(self, program: str, *argv: str, **options: str) -> subprocess.CompletedProcess[str]:
        done = self.process(sys.executable, "-W", "ignore", "-c", program, *argv, **options)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    def train(self, recipe: str, run: Path) -> None:
        small = "--device cpu --epochs 1 --batch_size 32 --evaluations 1 --bf16 false --bootstrap_samples 50"
        self.python(TRAIN, recipe, "--run", str(run), *small.split())
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        record["git"] = {"commit": "0" * 40}
        (run / "run.json").write_text(json.dumps(record), encoding="utf-8")

    def publish(self, *argv: str, program: str = PUBLISH) -> dict[str, Any]:
        recipe = ["turkish-clip-vit-b-32", "--run", str(self.run_folder), "--json"]
        return json.loads(self.python(program, *recipe, *argv).stdout)


@pytest.fixture(scope="module")
def rows(captioned_folder: Path) -> list[dict[str, Any]]:
    lines = (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def journey(
    captioned_folder: Path, rows: list[dict[str, Any]], tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Journey]:
    folder = tmp_path_factory.mktemp("journey")
    with StandInHub() as hub:
        hub.put("models", "dbmdz/bert-base-turkish-cased", write_berturk(folder / "berturk", rows))
        hub.put("models", "dbmdz/electra-small-turkish-cased-discriminator", write_electra(folder / "electra", rows))
        hub.put("models", f"sentence-transformers/{STOCK}", write_stock_clip(folder / "clip", tiny_clip))
        hub.put("models", "sentence-transformers/clip-ViT-L-14", write_clip_l_14(folder / "clip-l-14"))
        hub.put("models", "google/siglip2-base-patch32-256", write_siglip2(folder / "siglip2"))
        hub.put("datasets", "atasoglu/flickr30k-turkish", flickr30k_turkish(captioned_folder, rows))
        hub.put("datasets", "atasoglu/flickr8k-turkish", flickr8k_turkish(captioned_folder, rows))
        started = Journey(hub, folder)
        started.train("turkish-clip-vit-b-32", started.run_folder)
        yield started


@pytest.fixture(scope="module")
def published(journey: Journey) -> dict[str, Any]:
    """The text encoder on main and on v1, and the private pair."""
    journey.hub.fail("POST", "/commit/main", 503)
    journey.hub.fail("PUT", "/lfs/", "cut")
    summary = journey.publish("--push", TEXT, "--paired_id", PAIR)
    journey.publish("--push", TEXT, "--revision", "v1", program=PUBLISH_AGAIN)
    journey.publish("--push", PAIR, "--paired", "--private", "--model_id", TEXT)
    return summary


def on_hub(journey: Journey, name: str, ref: str = "main") -> dict[str, bytes]:
    repository = journey.hub.repositories["models", name]
    return {path: content for path, content in repository.commits[repository.refs[ref]].items() if path[0] != "."}


def test_the_run_was_trained_on_both_sources_by_their_ids(journey: Journey) -> None:
    results = json.loads((journey.run_folder / "results.json").read_text(encoding="utf-8"))
    assert results["dataset"] == "atasoglu/flickr30k-turkish + atasoglu/flickr8k-turkish"
    assert results["images"] == 10  # both data sets hold the same images, which count once
    assert results["duplicates"]["repeated"]["test"] == 10
    sources = results["sources"]
    assert {name: figures["images"] for name, figures in sources.items()} == {
        "atasoglu/flickr30k-turkish": 10,
        "atasoglu/flickr8k-turkish": 10,
    }
    assert "teacher_text_to_image" in sources["atasoglu/flickr30k-turkish"]
    assert "teacher_text_to_image" not in sources["atasoglu/flickr8k-turkish"]
    record = json.loads((journey.run_folder / "run.json").read_text(encoding="utf-8"))
    commits = {name: repository.refs["main"] for (_, name), repository in journey.hub.repositories.items()}
    assert record["inputs"]["backbone_revision"] == commits["dbmdz/bert-base-turkish-cased"]
    assert record["inputs"]["image_model"]["revision"] == commits[f"sentence-transformers/{STOCK}"]
    assert record["inputs"]["captions_revisions"] == [
        commits[f"atasoglu/flickr{size}-turkish"] for size in ("30k", "8k")
    ]


def test_what_is_published_is_on_the_hub_as_it_was_built(journey: Journey, published: dict[str, Any]) -> None:
    folder = journey.run_folder / "publish" / "text"
    built = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert on_hub(journey, TEXT) == built
    assert set(published["files"]) == set(built)
    assert published["uploaded"].startswith(f"{journey.hub.url}/{TEXT}/commit/")
    assert all(check["passed"] for check in published["checks"])
    assert journey.hub.repositories["models", PAIR].private
    assert not journey.hub.repositories["models", TEXT].private


def test_the_card_names_commits_licences_and_both_test_sets(journey: Journey, published: dict[str, Any]) -> None:
    card = on_hub(journey, TEXT)["README.md"].decode()
    record = json.loads((journey.run_folder / "run.json").read_text(encoding="utf-8"))["inputs"]
    commits = [record["backbone_revision"], record["image_model"]["revision"], *record["captions_revisions"]]
    assert len(commits) == 4
    assert all(commit in card for commit in commits)
    assert "base_model_relation: finetune" in card
    assert card.count("Turkish text → image |") == 2
    assert card.count("There are no English captions") == 1
    assert str(journey.folder) not in card
    assert "base_model_relation: merge" in on_hub(journey, PAIR)["README.md"].decode()


def test_a_process_with_an_empty_cache_gets_the_vectors_of_the_run_bit_for_bit(
    journey: Journey, published: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    texts = [*GOLDEN_TEXTS[:4], *rows[0]["captions"]]
    out, images = journey.folder / "loaded.npz", []
    for number, image in enumerate(golden_images()):
        images.append(str(journey.folder / f"golden-{number}.png"))
        image.save(images[-1])
    journey.hub.requests.clear()
    journey.python(LOAD, str(out), ",".join(images), *texts, cache="fresh")
    loaded = np.load(out)
    expected = encode_each(load_model(journey.run_folder / "model", device="cpu"), texts)
    for name in ("text", "tagged", "pair_text"):
        assert np.array_equal(loaded[name], expected), name
    golden = json.loads(on_hub(journey, TEXT)["turkish_clip.json"])["golden"]
    assert np.array_equal(unit(loaded["image"]), np.asarray(golden["image_vectors"], np.float32))
    # From a pickle and from safetensors, weights lie differently in memory: the last bits of a product may differ.
    assert np.allclose(loaded["pair_image"], loaded["image"], atol=1e-5)
    assert loaded["scores"].shape == (3, len(texts))
    refs = journey.hub.repositories["models", TEXT].refs
    for commit in (refs["main"], refs["v1"]):
        assert f"GET /{TEXT}/resolve/{commit}/model.safetensors" in journey.hub.requests


def test_verify_from_the_hub(journey: Journey, published: dict[str, Any]) -> None:
    command = str(Path(sys.executable).with_name("turkish-clip"))
    done = journey.process(command, "verify", TEXT, "--revision", "v1", "--json", cache="fresh")
    result = json.loads(done.stdout)
    assert (done.returncode, result["passed"]) == (0, True)
    assert (
        "3 golden images through clip-ViT-B-32"
        in {check["name"]: check["found"] for check in result["checks"]}["pairs"]
    )
    journey.hub.put("models", "org/unsafe", {**on_hub(journey, TEXT), "pytorch_model.bin": b"x"})
    refused = journey.process(command, "verify", "org/unsafe", cache="fresh")
    assert refused.returncode == 1
    assert refused.stdout.splitlines()[-1].startswith("FAIL  files           expected safetensors and JSON alone")
    nothing = journey.process(command, "verify", "org/nothing")
    assert nothing.returncode == 1
    assert nothing.stdout.startswith("FAIL  record          expected a published model, got org/nothing, which is no")
    assert "Traceback" not in nothing.stderr


def test_hf_upload_takes_the_folder_unchanged(journey: Journey, published: dict[str, Any]) -> None:
    hf = str(Path(sys.executable).with_name("hf"))
    done = journey.process(hf, "upload", "org/copy", str(journey.run_folder / "publish" / "text"))
    assert done.returncode == 0, done.stderr
    assert on_hub(journey, "org/copy") == on_hub(journey, TEXT)


def test_snapshot_download_and_a_private_repository_without_a_token(
    journey: Journey, published: dict[str, Any]
) -> None:
    download = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1], revision=sys.argv[2]))"
    folder = Path(journey.python(download, TEXT, "v1", cache="snapshot").stdout.strip())
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name: content for name, content in files.items() if name[0] != "."} == on_hub(journey, TEXT, "v1")
    program = "import huggingface_hub as h; h.model_info('org/turkish-clip', token=False)"
    refused = journey.process(sys.executable, "-c", program)
    assert "RepositoryNotFoundError: 401" in refused.stderr


def test_a_refused_push_is_one_line_and_leaves_the_folder(journey: Journey, published: dict[str, Any]) -> None:
    folder = journey.run_folder / "publish" / "text"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    argv = ["turkish-clip-vit-b-32", "--run", str(journey.run_folder), "--push", TEXT]
    done = journey.process(sys.executable, "-W", "ignore", "-c", PUBLISH_AGAIN, *argv, token=READER)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: expected the Hub to accept {TEXT}, got 403")
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("recipe", "backbone", "dim"),
    [
        ("turkish-clip-small", "ElectraModel", 16),
        ("turkish-clip-vit-l-14", "BertModel", 768),
        ("turkish-siglip2-b-32", "BertModel", 32),
    ],
)
def test_the_other_recipes(journey: Journey, recipe: str, backbone: str, dim: int) -> None:
    run = journey.folder / recipe
    journey.train(recipe, run)
    model = load_model(run / "model", device="cpu")
    assert type(model[0].auto_model).__name__ == backbone
    assert model.get_embedding_dimension() == dim
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert "teacher_text_to_image" in results["sources"]["atasoglu/flickr30k-turkish"]


def test_a_text_encoder_for_siglip_2_is_published(journey: Journey) -> None:
    run = journey.folder / "turkish-siglip2-b-32"
    if not run.is_dir():
        journey.train("turkish-siglip2-b-32", run)
    argv = ["turkish-siglip2-b-32", "--run", str(run), "--model_id", "org/turkish-siglip2-text", "--json"]
    summary = json.loads(journey.python(PUBLISH, *argv).stdout)
    assert all(check["passed"] for check in summary["checks"])
    found = {check["name"]: check["found"] for check in summary["checks"]}
    assert "3 golden images through google/siglip2-base-patch32-256" in found["pairs"]
    assert "[google/siglip2-base-patch32-256](https://huggingface.co/google/siglip2-base-patch32-256)" in (
        run / "publish" / "text" / "README.md"
    ).read_text(encoding="utf-8")
