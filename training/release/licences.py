"""The licences that the Hub knows: it refuses a model card whose metadata name another one.

Source: docs/hub/repositories-licenses.md of github.com/huggingface/hub-docs, 2026-08-22.
"""

from __future__ import annotations

import difflib
import re

LICENCES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other
    """.split()
)
LISTED_AT = "https://huggingface.co/docs/hub/repositories-licenses"
NEAR = 4  # names that are offered


def near_licences(name: str) -> list[str]:
    """Returns the Hub's ids that a name may mean, the likeliest first: those that it begins, then those like it.

    >>> near_licences("gpl-3.0-or-later")[0], near_licences("Apache 2.0")[0], near_licences("MIT License")[0]
    ('gpl-3.0', 'apache-2.0', 'mit')

    Args:
        name: of a licence, as people or SPDX write it.
    """
    plain = re.sub(r"[\s_/]+", "-", name.strip().lower())
    plain = re.sub(r"-?(the-)?(licen[cs]e|-or-later|-only|\+)+$", "", plain)
    plain = re.sub(r"-?v(?=\d)", "-", plain)
    bare = _letters(plain)
    exact = [one for one in LICENCES if _letters(one) == bare or _letters(one) in (f"{bare}0", f"{bare}10")]
    begun = sorted((one for one in LICENCES if bare and _letters(one).startswith(bare)), reverse=True)
    begun.sort(key=len)
    like = difflib.get_close_matches(plain, sorted(LICENCES), n=NEAR, cutoff=0.6)
    return list(dict.fromkeys([*sorted(exact), *begun, *like]))[:NEAR]


def _letters(name: str) -> str:
    """Returns the letters and digits of a name."""
    return "".join(letter for letter in name if letter.isalnum())
