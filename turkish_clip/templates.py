"""Turkish prompt templates for zero-shot labels.

No template inflects the label: a suffix would have to follow vowel harmony and consonant softening (köpek → köpeğin),
which a template can't. So a label stays as it is, before a noun (köpek fotoğrafı) or alone.
"""

from __future__ import annotations

PHOTOGRAPHS = (
    "{}",
    "bir {}",
    "bir {} fotoğrafı",
    "{} resmi",
    "güzel bir {} fotoğrafı",
    "yakından çekilmiş bir {} fotoğrafı",
    "uzaktan çekilmiş bir {} fotoğrafı",
    "bulanık bir {} fotoğrafı",
    "net bir {} fotoğrafı",
    "karanlık bir {} fotoğrafı",
    "aydınlık bir {} fotoğrafı",
    "siyah beyaz bir {} fotoğrafı",
    "renkli bir {} fotoğrafı",
    "küçük bir {}",
    "büyük bir {}",
    "bir {} çizimi",
    "bir {} karikatürü",
    "oyuncak bir {}",
    "bu bir {}",
    "fotoğrafta bir {} var",
)


def fill(template: str, label: str) -> str:
    """Returns a template with a label in place of its braces.

    >>> fill("bir {} fotoğrafı", "köpek")
    'bir köpek fotoğrafı'

    Args:
        template: text with one {}.
        label: one or more words, uninflected.

    Raises:
        ValueError: the template has not exactly one {}, or a suffix follows it.
    """
    before, braces, after = template.partition("{}")
    if not braces or "{}" in after:
        raise ValueError(f"expected one {{}} in a template, got {template!r}; write it as 'bir {{}} fotoğrafı'")
    if after[:1].isalpha() or after[:1] in ("'", "\u2019"):
        raise ValueError(f"expected no suffix on the label, got {template!r}; put a space after {{}} and a noun")
    return before + label + after
