"""The model card in Turkish: model_card.tr.md filled with the fields of the English card, numbers with a comma."""

from __future__ import annotations

from typing import Any

from training.evaluation.report import read_phrases
from training.release.card import TEMPLATE, check_filled, environment_of, percent
from turkish_clip.language import Phrases, turkish_numbers

NAME = "README.tr.md"
IMAGE = "donmuş görüntü modelinin açıklamanın resmine verdiği, uzunluğu 1'e getirilmiş gömme"
ENGLISH = "donmuş görüntü modelinin resmin İngilizce açıklamalarına verdiği metin gömmelerinin ortalaması"
TRANSLATION = (
    "donmuş görüntü modelinin, açıklamanın çevirdiği İngilizce açıklamaya verdiği metin gömmesi (bilinmediği yerde "
    "resmin İngilizce açıklamalarınınkinin ortalaması)"
)
# What the fields say in English → in Turkish, in the form of the command's catalog.
PHRASES = {
    "text_to_image": "metin → resim",
    "image_to_text": "resim → metin",
    "Turkish text → image": "Türkçe metin → resim",
    "image → Turkish text": "resim → Türkçe metin",
    "English text → image, teacher reference": "İngilizce metin → resim, öğretmen",
    "image → English text, teacher reference": "resim → İngilizce metin, öğretmen",
    "The miniature world ({name})": "Minyatür dünya ({name})",
    "{cores} cores ({processor})": "{cores} çekirdek ({processor})",
    # architecture and backbone
    "{layers} → dense {width} → {dim} → normalise": "{layers} → yoğun {width} → {dim} → birim uzunluk",
    "{layers} → dense {width} → {dim} → normalise, beside {other}": (
        "{layers} → yoğun {width} → {dim} → birim uzunluk, yanında {other}"
    ),
    "{model} → mean pooling": "{model} → ortalama havuzlama",
    "{model} → [CLS] pooling": "{model} → [CLS] havuzlama",
    "one vector for each of {tokens} tokens → mean over the tokens": (
        "{tokens} belirtecin her birine bir vektör → belirteçlerin ortalaması"
    ),
    "{model}, revision `{commit}`": "{model}, sürüm `{commit}`",
    "fine-tuned from {model}": "ince ayarı yapılan model: {model}",
    "a text encoder that is not on the Hub": "Hub'da olmayan bir metin kodlayıcı",
    "an encoder that is not on the Hub": "Hub'da olmayan bir kodlayıcı",
    "token vectors of {model}": "{model} belirteç vektörleri",
    "word vectors of the file {file}": "{file} dosyasının sözcük vektörleri",
    "token vectors of an untrained BERT of {size}, with a vocabulary learnt from the training captions": (
        "{size} eğitilmemiş bir BERT'in belirteç vektörleri, sözlüğü eğitim açıklamalarından öğrenilmiş"
    ),
    "a new BERT of {size}, with a vocabulary learnt from the training captions": (
        "{size} yeni bir BERT, sözlüğü eğitim açıklamalarından öğrenilmiş"
    ),
    "{layers} layer, {hidden} wide": "{layers} katmanlı, {hidden} boyutlu",
    "{layers} layers, {hidden} wide": "{layers} katmanlı, {hidden} boyutlu",
    # baselines
    "this model": "bu model",
    "all captions": "bütün açıklamalar",
    "one caption an image": "resim başına bir açıklama",
    "measured on {images} images, {captions} captions": "{images} resim, {captions} açıklama üzerinde ölçüldü",
    "{model} (MSE to English text vectors)": "{model} (İngilizce metin vektörlerine MSE)",
    "{model} (contrastive, LAION-5B)": "{model} (karşıtsal, LAION-5B)",
    "LaBSE with a linear head, {rest}": "doğrusal başlıklı LaBSE, {rest}",
    "CLIP ViT-B/32 on the English captions of these images": "CLIP ViT-B/32, bu resimlerin İngilizce açıklamalarında",
    "{model}, {pixels} pixels": "{model}, {pixels} piksel",
    "trained on captions of COCO": "COCO'nun açıklamalarıyla eğitilmiş",
    "mean of recall@1, @5 and @10 {figure}": "recall@1, @5 ve @10 ortalaması {figure}",
    "text → image @5 at {widths} wide {figures}": "metin → resim @5, {widths} boyutta {figures}",
    "800 of XTD10's 1,000 images are COCO train2014: a model that was trained on COCO's captions, as M-CLIP was, has "
    "seen them. XM3600 has no such overlap": (
        "XTD10'un 1.000 resminden 800'ü COCO train2014'tendir: M-CLIP gibi COCO'nun açıklamalarıyla eğitilmiş bir "
        "model onları görmüştür. XM3600'de böyle bir örtüşme yoktur"
    ),
    # objectives
    "MSE distillation: captions go in, the regression target is {target}": (
        "MSE damıtma: açıklamalar girer, regresyon hedefi {target}"
    ),
    "Contrastive distillation: captions go in, the frozen image model's embeddings of their images are the "
    "positives of {loss}": (
        "Karşıtsal damıtma: açıklamalar girer, donmuş görüntü modelinin resimlerine verdiği gömmeler şu kaybın "
        "olumlularıdır: {loss}"
    ),
    "the frozen image model's embedding of the caption's image, scaled to norm 1": IMAGE,
    "the frozen image model's embedding of the caption's image, scaled to norm 1, minus the mean of all of them, "
    "scaled to norm 1 again": f"{IMAGE}, hepsinin ortalaması çıkarılıp uzunluğu yeniden 1'e getirilmiş",
    "the mean of the frozen image model's text embeddings of the image's English captions": ENGLISH,
    "the mean of the image's embedding and {target}": "resmin gömmesi ile {target} arasındaki ortalama",
    "the frozen image model's text embedding of the English caption that the caption translates (where that is not "
    "known, the mean over the image's English captions)": TRANSLATION,
    "{target}, scaled to norm 1": "{target}, uzunluğu 1'e getirilmiş",
    "{target}, not scaled": "{target}, uzunluğu değiştirilmemiş",
    "plus {loss}": "buna ek olarak {loss}",
    "plus, with weight 0.1, {loss}": "buna ek olarak 0,1 ağırlıkla {loss}",
    "plus, in the second half of the training, {loss}": "buna ek olarak eğitimin ikinci yarısında {loss}",
    "and {loss}": "ve {loss}",
    "a contrastive (InfoNCE) loss against in-batch negatives": (
        "yığındaki öbür resimlere karşı karşıtsal (InfoNCE) kayıp"
    ),
    "a contrastive (InfoNCE) loss against a bank of the stored embeddings of all training images": (
        "bütün eğitim resimlerinin saklanmış gömmelerinden bir bankaya karşı karşıtsal (InfoNCE) kayıp"
    ),
    "{loss}, with a learnt temperature": "{loss}, sıcaklığı öğrenilir",
    "the squared difference between the cosines of the batch's captions and those of their targets": (
        "yığındaki açıklamaların kosinüsleri ile hedeflerininkiler arasındaki farkın karesi"
    ),
    "a choice between each caption and one with a colour, relation or number exchanged, or with a negation": (
        "her açıklama ile rengi, ilişkisi ya da sayısı değiştirilmiş ya da olumsuzlanmış biri arasında seçim"
    ),
}
HOLD_PHRASES = frozenset("layers size model target loss rest".split())


def render_turkish(fields: dict[str, Any]) -> str:
    """Renders the card in Turkish, from the fields of the English one and without metadata, which that has.

    Raises:
        CardError: a field is empty.
    """
    phrases = Phrases({**read_phrases(), **PHRASES}, HOLD_PHRASES)
    templates = environment_of()
    for name in ("figure", "cells", "estimate", "recall", "difference", "row"):
        templates.filters[name] = _with_comma(templates.filters[name])
    templates.filters |= {
        "comma": turkish_numbers,
        "percent": lambda measured: turkish_numbers(percent(measured)),
        "turkish": lambda text: _in_turkish(phrases, text),
    }
    card = templates.get_template(f"{TEMPLATE.stem}.tr.md").render(fields)
    check_filled(card, free_texts=[fields["limits"], *(item["license"] for item in fields["data"])])
    return card


def _with_comma(shown: Any) -> Any:
    return lambda *values: turkish_numbers(shown(*values))


def _in_turkish(phrases: Phrases, text: str) -> str:
    """Returns what a field says in Turkish; a name of a model or data set as it is."""
    bare = text.removesuffix(".")
    return (phrases.of(bare, part=True) or bare) + text[len(bare) :]
