"""The words that the Turkish card has for what the English one says."""

from __future__ import annotations

import re

import pytest

from training.evaluation.corruptions import CORRUPTION_TITLES
from training.evaluation.published import read_baselines, read_notes
from training.evaluation.report import read_phrases
from training.evaluation.results import few_images
from training.release.card import DIRECTIONS
from training.release.turkish import HOLD_PHRASES, PHRASES, _in_turkish
from training.run.objectives import OBJECTIVES
from turkish_clip.language import PLACEHOLDER, Phrases

BASELINES = read_baselines()
SAID = {
    *(objective.words for objective in OBJECTIVES.values()),
    *(title for title, _ in CORRUPTION_TITLES),
    *(text for direction in DIRECTIONS for key in ("key", "turkish", "english") for text in [direction[key]]),
    *read_notes(BASELINES),
    *(baseline["protocol"] for baseline in BASELINES),
    *(baseline["note"] for baseline in BASELINES if baseline["note"]),
    few_images(1),
    few_images(5),
}
ENGLISH = re.compile(r"\b(the|and|of|with|from|to|in|plus|captions?|images?|text|trained|loss|mean|embeddings?|not)\b")


@pytest.mark.parametrize("text", sorted(SAID))
def test_what_a_card_says_is_all_turkish(text: str) -> None:
    turkish = _in_turkish(Phrases({**read_phrases(), **PHRASES}, HOLD_PHRASES), text)
    assert turkish != text
    assert not ENGLISH.search(turkish), turkish
    numbers = [sorted(re.findall(r"\d+", one)) for one in (text, turkish)]
    assert numbers[0] == numbers[1]


def test_translations_have_the_placeholders_of_their_messages() -> None:
    for english, turkish in {**read_phrases(), **PHRASES}.items():
        assert sorted(PLACEHOLDER.findall(english)) == sorted(PLACEHOLDER.findall(turkish)), english


@pytest.mark.parametrize(
    ("english", "turkish"),
    [
        (
            "BertModel → [CLS] pooling → dense 768 → 512 → normalise",
            "BertModel → [CLS] havuzlama → yoğun 768 → 512 → birim uzunluk",
        ),
        ("word vectors of the file `cc.tr.300.vec.gz`", "`cc.tr.300.vec.gz` dosyasının sözcük vektörleri"),
        (
            "BertModel → mean pooling → dense 768 → 512 → normalise, beside CLIPModel",
            "BertModel → ortalama havuzlama → yoğun 768 → 512 → birim uzunluk, yanında CLIPModel",
        ),
        (
            "one vector for each of 300 tokens → mean over the tokens → dense 32 → 16 → normalise",
            "300 belirtecin her birine bir vektör → belirteçlerin ortalaması → yoğun 32 → 16 → birim uzunluk",
        ),
        (
            "a new BERT of 1 layer, 32 wide, with a vocabulary learnt from the training captions",
            "1 katmanlı, 32 boyutlu yeni bir BERT, sözlüğü eğitim açıklamalarından öğrenilmiş",
        ),
        (
            "[org/text](https://huggingface.co/org/text), revision `ab`",
            "[org/text](https://huggingface.co/org/text), sürüm `ab`",
        ),
        (
            "fine-tuned from a text encoder that is not on the Hub",
            "ince ayarı yapılan model: Hub'da olmayan bir metin kodlayıcı",
        ),
        ("2 cores (x86_64)", "2 çekirdek (x86_64)"),
        ("measured on 3600 images, 7233 captions", "3600 resim, 7233 açıklama üzerinde ölçüldü"),
        ("owner/a set of images", "owner/a set of images"),
    ],
)
def test_fields_in_turkish(english: str, turkish: str) -> None:
    assert _in_turkish(Phrases({**read_phrases(), **PHRASES}, HOLD_PHRASES), english) == turkish
