"""Pages in headless Chromium."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
NO_CHROMIUM = "no Chromium on this machine: set CHROMIUM to its path"


def broken_words(page: Page, selector: str) -> list[str]:
    """Returns the words in elements that stand on more than one line."""
    words: list[str] = page.eval_on_selector_all(
        selector,
        r"""all => all.flatMap(one => {
            const walker = document.createTreeWalker(one, NodeFilter.SHOW_TEXT), found = [];
            for (let node = walker.nextNode(); node; node = walker.nextNode())
                for (const {0: word, index} of node.data.matchAll(/[^\s-–]+/g)) {
                    const range = document.createRange();
                    range.setStart(node, index);
                    range.setEnd(node, index + word.length);
                    const tops = [...range.getClientRects()].map(({top}) => Math.round(top));
                    if (new Set(tops).size > 1) found.push(word);
                }
            return found;
        })""",
    )
    return words
