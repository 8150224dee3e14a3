"""Classifiers by labels and by examples, the image filter, and their tables and contact sheets."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from turkish_clip.cli.output import to_csv
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.few_shot import PRIORS, ExampleError, FewShotClassifier, examples_in
from turkish_clip.filtering import ImageFilter, PromptError, flagged_first
from turkish_clip.sheet import SheetError, Tile, write_sheet
from turkish_clip.templates import PHOTOGRAPHS, fill
from turkish_clip.zero_shot import LabelError, ZeroShotClassifier, softmax

IMAGES = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "yellow")]


def test_no_template_inflects_the_label() -> None:
    assert len(PHOTOGRAPHS) == len(set(PHOTOGRAPHS)) == 20
    for template in PHOTOGRAPHS:
        filled = fill(template, "köpek")
        assert "köpek" in filled.split()
    for bad in ("{}'nin fotoğrafı", "{}in resmi", "resim", "{} ve {}", "{}’de"):
        with pytest.raises(ValueError, match="in a template|no suffix on the label"):
            fill(bad, "köpek")


def test_label_vectors_are_the_mean_of_their_prompts(encoder: DualEncoder) -> None:
    classifier = ZeroShotClassifier(encoder, {"ev": ["ev", "ağaç"], "kuş": ["kuş"]}, templates=["{}", "bir {}"])
    prompts = encoder.encode_texts(["ev", "bir ev", "ağaç", "bir ağaç"])
    mean = prompts.mean(axis=0)
    assert np.allclose(classifier.label_vectors[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_probabilities_are_a_softmax_over_cosines(encoder: DualEncoder) -> None:
    classifier = ZeroShotClassifier(encoder, ["ev", "kuş", "köpek"], temperature=0.1)
    found = classifier.classify(IMAGES)
    vectors = next(encoder.embed_images(IMAGES)).vectors
    expected = softmax(vectors @ classifier.label_vectors.T / 0.1)
    for result, row in zip(found, expected):
        assert np.allclose(list(result.probabilities.values()), row)
        assert result.label == classifier.labels[int(row.argmax())]
        assert result.probability == pytest.approx(row.max())
        assert sum(result.probabilities.values()) == pytest.approx(1)


def test_images_that_fit_no_label_or_do_not_open_have_no_label(encoder: DualEncoder, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("x", encoding="utf-8")
    found = ZeroShotClassifier(encoder, ["ev", "kuş"], reject_below=2.0).classify([IMAGES[0], bad, IMAGES[1]])
    assert [result.label for result in found] == [None, None, None]
    assert [result.error is not None for result in found] == [False, True, False]
    assert found[0].probability == 0
    assert found[0].score < 2


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["ev"], {}, "at least two different labels"),
        (["ev", "ev"], {}, "at least two different labels"),
        ("ev", {}, "expected a list of labels, got the text 'ev'"),
        (["ev", " "], {}, "got an empty one"),
        (["kuş", "ev", "ev ", " ev"], {}, "tells apart, got 'ev' and 'ev ', which it reads as the same; remove one"),
        ({"ağaç": ["ağaç"], "x": ["bir  kuş"], "y": ["bir kuş"]}, {}, "got 'x' and 'y', which it reads as the same"),
        (["ev", "kuş"], {"templates": []}, "at least one template"),
        (["ev", "kuş"], {"templates": ["{}in"]}, "no suffix on the label"),
        (["ev", "kuş"], {"temperature": 0.0}, "a temperature above 0"),
    ],
)
def test_unusable_labels_and_templates_are_refused(
    encoder: DualEncoder, labels: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        ZeroShotClassifier(encoder, labels, **options)  # type: ignore[arg-type]


def shades(colour: tuple[int, int, int], count: int) -> list[Image.Image]:
    rng = np.random.default_rng(sum(colour))
    return [
        Image.fromarray(np.clip(np.array(colour) + rng.normal(0, 25, (40, 40, 3)), 0, 255).astype(np.uint8))
        for _ in range(count)
    ]


COLOURS = {"kırmızı": (200, 30, 30), "mavi": (30, 30, 200), "sarı": (220, 210, 40)}


@pytest.fixture(scope="module")
def saved(encoder: DualEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    FewShotClassifier.fit(encoder, {"a": IMAGES[:1], "b": IMAGES[1:]}).save(folder)
    return folder


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"labels": []}, "as 'labels', not two or more different ones"),
        ({"labels": ["a"]}, "as 'labels', not two"),
        ({"labels": ["a", "a"]}, "as 'labels', not two"),
        ({"labels": ["a", "\ud800"]}, "half a character"),
        ({"labels": ["a", "c"]}, "as 'examples', not a number of at least 1 for each label"),
        ({"examples": {"a": 0, "b": 2}}, "as 'examples', not"),
        ({"examples": {}}, "as 'examples', not"),
        ({"prior": -3}, "-3 as 'prior', not above 0"),
        ({"prior": float("nan")}, "'nan' as 'prior'"),
    ],
)
def test_a_classifier_with_other_metadata_is_refused(
    encoder: DualEncoder, saved: Path, tmp_path: Path, fields: dict[str, object], said: str
) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    metadata = json.loads((folder / "few_shot.json").read_text(encoding="utf-8"))
    (folder / "few_shot.json").write_text(json.dumps({**metadata, **fields}), encoding="utf-8")
    with pytest.raises(ExampleError, match=f"expected few_shot.json of format 1 in .*{said}.*; fit and save"):
        FewShotClassifier.load(folder, encoder)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (None, "got none"),
        (np.ones((2, 7), np.float32), r"got float32 of shape \(2, 7\)"),
        (np.ones((3, 16), np.float32), r"got float32 of shape \(3, 16\)"),
        (np.ones(2, np.float32), r"got float32 of shape \(2,\)"),
        (np.ones((2, 16, 1), np.float32), r"got float32 of shape \(2, 16, 1\)"),
        (np.ones((2, 16), np.float64), r"got float64 of shape \(2, 16\)"),
        (np.ones((2, 16), np.int8), r"got int8 of shape"),
        (np.full((2, 16), np.nan, np.float32), "got larger ones or none that are numbers"),
        (np.full((2, 16), 1e38, np.float32), "got larger ones"),
        (np.full((2, 16), -np.inf, np.float32), "got larger ones"),
    ],
)
def test_a_classifier_with_other_weights_is_refused(
    encoder: DualEncoder, saved: Path, tmp_path: Path, weights: np.ndarray | None, said: str
) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    named = {"other": np.ones(1, np.float32)} if weights is None else {"weights": weights}
    save_file(named, folder / "few_shot.safetensors")
    with pytest.raises(ExampleError, match=rf"expected .*weights .* in .*few_shot.safetensors, {said}.*; fit and save"):
        FewShotClassifier.load(folder, encoder)


@pytest.mark.parametrize("count", [8, 12])
@pytest.mark.parametrize("labels", [("kırmızı", "mavi"), ("kırmızı", "mavi", "sarı")])
def test_a_few_examples_are_learnt_and_saved(
    encoder: DualEncoder, tmp_path: Path, count: int, labels: tuple[str, ...]
) -> None:
    examples = {label: shades(COLOURS[label], count) for label in labels}
    classifier = FewShotClassifier.fit(encoder, examples)
    for label in labels:
        found = classifier.classify(shades(COLOURS[label], 18)[12:])
        assert [result.label for result in found] == [label] * 6
        assert sum(found[0].probabilities.values()) == pytest.approx(1)
    classifier.save(tmp_path / "mine")
    assert {path.suffix for path in (tmp_path / "mine").iterdir()} == {".safetensors", ".json"}
    loaded = FewShotClassifier.load(tmp_path / "mine", encoder)
    assert loaded.classify(IMAGES) == classifier.classify(IMAGES)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (".", "got a link to all of them"),
        ("..", "got a link to all of them"),
        ("ev", "got those of 'ev' under 'z', too"),
        ("ev/inside", "got those of 'ev' under 'z', too"),
    ],
)
def test_links_do_not_put_an_image_under_two_labels(tmp_path: Path, target: str, said: str) -> None:
    for name in ("ev/inside", "kuş"):
        (tmp_path / "of" / name).mkdir(parents=True)
        IMAGES[0].save(tmp_path / "of" / name / "1.png")
    (tmp_path / "elsewhere").mkdir()
    IMAGES[1].save(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "of" / "ağaç").symlink_to(tmp_path / "elsewhere")
    assert list(examples_in(tmp_path / "of")) == ["ağaç", "ev", "kuş"]
    (tmp_path / "of" / "z").symlink_to(target)
    with pytest.raises(ExampleError, match=said):
        examples_in(tmp_path / "of")


def test_too_few_examples_leave_the_label_vectors_in_force(encoder: DualEncoder) -> None:
    labels = ["ev", "kuş", "köpek"]
    classifier = FewShotClassifier.fit(encoder, dict(zip(labels, ([image] for image in IMAGES))))
    words = ZeroShotClassifier(encoder, labels).label_vectors
    cosines = (classifier.weights * words).sum(axis=1) / np.linalg.norm(classifier.weights, axis=1)
    assert classifier.metadata.prior == PRIORS[0]
    assert cosines.min() > 0.9


def test_unusable_examples_and_saved_classifiers_are_refused(encoder: DualEncoder, tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match="at least two labels"):
        FewShotClassifier.fit(encoder, {"ev": IMAGES})
    with pytest.raises(ExampleError, match="expected images of 'kuş' that open, got none of 1"):
        FewShotClassifier.fit(encoder, {"ev": IMAGES, "kuş": [b"x"]})
    with pytest.raises(ExampleError, match="subfolder for each label"):
        examples_in(tmp_path / "none")
    with pytest.raises(ExampleError, match="at least two subfolders"):
        examples_in(tmp_path)
    for label in ("ev", "kuş", ".turkish-clip"):
        (tmp_path / label).mkdir()
    IMAGES[0].save(tmp_path / "ev" / "1.png")
    with pytest.raises(ExampleError, match="expected images in each subfolder of .*, got none in 'kuş'"):
        examples_in(tmp_path)
    IMAGES[1].save(tmp_path / "kuş" / "1.png")
    assert list(examples_in(tmp_path)) == ["ev", "kuş"]
    with pytest.raises(ExampleError, match="expected few_shot.json of format 1 in"):
        FewShotClassifier.load(tmp_path, encoder)
    classifier = FewShotClassifier.fit(encoder, {"a": IMAGES[:1], "b": IMAGES[1:]})
    classifier.save(tmp_path)
    metadata = json.loads((tmp_path / "few_shot.json").read_text(encoding="utf-8"))
    (tmp_path / "few_shot.json").write_text(json.dumps({**metadata, "weights_sha256": "0"}), encoding="utf-8")
    with pytest.raises(ExampleError, match="got other weights"):
        FewShotClassifier.load(tmp_path, encoder)


def test_a_filter_scores_by_cosine_and_flags_by_probability(encoder: DualEncoder) -> None:
    image_filter = ImageFilter(encoder, ["kırmızı ev", "kuş"], contrast=["mavi ağaç"], temperature=0.05)
    vectors = next(encoder.embed_images(IMAGES)).vectors
    cosines = vectors @ encoder.encode_texts(["kırmızı ev", "kuş", "mavi ağaç"]).T
    likely = softmax(cosines / 0.05)[:, :2].sum(axis=1)
    flags = list(image_filter.flag([*IMAGES, b"x"]))
    assert np.allclose([flag.score for flag in flags[:3]], cosines[:, :2].max(axis=1))
    assert np.allclose([flag.probability for flag in flags[:3]], likely)
    assert [flag.flagged for flag in flags[:3]] == [probability >= 0.5 for probability in likely]
    assert (flags[3].score, flags[3].flagged) == (0.0, False)
    assert flags[3].error is not None
    with pytest.raises(PromptError, match="something to look for"):
        ImageFilter(encoder, [" "])
    for contrast in ("ev", " EV ", "e\u0076"):
        with pytest.raises(PromptError, match="expected a contrast of other images, got 'ev' as both; name another"):
            ImageFilter(encoder, ["kuş", "ev"], contrast=["ağaç", contrast])
    with pytest.raises(PromptError, match="got 'bir resim' as both"):
        ImageFilter(encoder, ["bir resim"])
    with pytest.raises(PromptError, match="a threshold of -1 to 1, a cosine, got 2"):
        ImageFilter(encoder, ["ev"], threshold=2)
    with pytest.raises(PromptError, match="a probability of 0 to 1, got -1"):
        ImageFilter(encoder, ["ev"], min_probability=-1)


def unit_rows(*cosines: float) -> np.ndarray:  # type: ignore[type-arg]
    """Returns vectors with these cosines to the first axis."""
    return np.array([[cosine, (1 - cosine**2) ** 0.5] for cosine in cosines], np.float32)


@pytest.mark.parametrize(
    ("asked", "flagged"),
    [
        ({}, [0.9, 0.7, 0.5]),  # all of these have the probability 1
        ({"threshold": 0.6}, [0.9, 0.7]),
        ({"threshold": 0.69999}, [0.9, 0.7]),
        ({"threshold": 0.8, "min_probability": 0.5}, [0.9]),
        ({"threshold": -1}, [0.9, 0.7, 0.5, -0.9]),
        ({"threshold": -1, "min_probability": 0.5}, [0.9, 0.7, 0.5]),
        ({"min_probability": 0}, [0.9, 0.7, 0.5, -0.9]),
    ],
)
def test_scores_order_what_is_equally_likely(asked: dict[str, float], flagged: list[float]) -> None:
    class Fixed:
        temperature = 1e-4

        def cautions(self, texts: list[str]) -> list[str]:
            return []

        def encode_texts(self, texts: list[str], warn: bool = True) -> np.ndarray:  # type: ignore[type-arg]
            return unit_rows(*[1.0 if text == "ev" else 0.0 for text in texts]) * np.array([[1, -1]], np.float32)

    image_filter = ImageFilter(Fixed(), ["ev"], contrast=["kuş"], **asked)  # type: ignore[arg-type]
    cosines = [0.5, -0.9, 0.9, 0.7]
    flags = image_filter.flag_vectors(unit_rows(*cosines))
    assert [flag.probability for flag in flags] == [1.0, pytest.approx(0.0), 1.0, 1.0]
    names = [Path(str(cosine)) for cosine in cosines]
    assert [float(str(path)) for path, _ in flagged_first(names, flags)] == flagged


def test_scores_by_examples_are_cosines(encoder: DualEncoder) -> None:
    classifier = FewShotClassifier.fit(encoder, {"a": IMAGES[:1], "b": IMAGES[1:]})
    found = classifier.classify(IMAGES)
    vectors = next(encoder.embed_images(IMAGES)).vectors
    rows = classifier.weights / np.linalg.norm(classifier.weights, axis=1, keepdims=True)
    expected = [float(vector @ rows[classifier.labels.index(str(one.label))]) for vector, one in zip(vectors, found)]
    assert [one.score for one in found] == pytest.approx(expected, abs=1e-6)
    assert all(-1 <= one.score <= 1 for one in found)


def test_csv_holds_no_formula() -> None:
    text = to_csv([{"path": "=HYPERLINK(1)", "score": 0.5}, {"path": "a,b.png", "score": 1.0}], ["path", "score"])
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["path"] for row in rows] == ["'=HYPERLINK(1)", "a,b.png"]
    assert to_csv([], ["path", "score"]) == "path,score\n"


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_a_contact_sheet_shows_images_and_escapes_captions(tmp_path: Path, suffix: str) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (30, 20), "red").save(image)
    tiles = [Tile(image, "0.9 <b>kırmızı</b>"), Tile(tmp_path / "none.png", "x" * 200)] * 4
    path = write_sheet(tmp_path / f"sheet{suffix}", tiles, "kırmızı <i>")
    if suffix == ".png":
        with Image.open(path) as sheet:
            assert sheet.width > 800
            assert sheet.convert("RGB").getpixel((100, 120)) == (255, 0, 0)
    else:
        page = path.read_text(encoding="utf-8")
        assert page.count("<figure>") == 8
        assert "<b>" not in page
        assert "http" not in page
    with pytest.raises(SheetError, match="named .png or .html, got sheet.pdf"):
        write_sheet(tmp_path / "sheet.pdf", tiles, "")
    with pytest.raises(SheetError, match="got none"):
        write_sheet(tmp_path / "sheet.png", [], "")


def test_labels_are_composed_and_synonyms_are_lists(encoder: DualEncoder) -> None:
    classifier = ZeroShotClassifier(encoder, ["ko\u0308pek", "kuş"])
    assert classifier.labels == ["köpek", "kuş"]
    with pytest.raises(LabelError, match=r"expected a list of synonyms for 'araba', got the text 'otomobil'"):
        ZeroShotClassifier(encoder, {"araba": "otomobil", "kuş": ["kuş"]})


def test_prompts_that_are_encoded_in_parts_have_the_same_mean(
    encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"araba": ["araba", "otomobil"], "kuş": ["kuş"]}
    whole = ZeroShotClassifier(encoder, labels).label_vectors
    monkeypatch.setattr("turkish_clip.zero_shot.PROMPTS_AT_ONCE", 7)
    np.testing.assert_allclose(ZeroShotClassifier(encoder, labels).label_vectors, whole, atol=1e-6)
