"""What mkdocs does to a page beyond Markdown: formulas become MathML, numbers of arXiv become links.

Formulas are written as $…$ and $$…$$, which GitHub renders too. MathML needs no script, so that the site can be read
without a network; a page that would fetch something stops the build.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_PAPER = re.compile(r"\barXiv (\d{4}\.\d{5})\b(?!</a>)")


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Replace formulas and numbers of papers in the HTML of a page.

    Raises:
        PluginError: if a formula has a command that MathML has no sign for; write it otherwise.
    """

    def formula(match: re.Match[str]) -> str:
        block, source = match[1] == "div", html.unescape(match[2]).strip()
        mathml: str = convert(source, display="block" if block else "inline")
        if "\\" in mathml or "<mi>&<" in mathml:
            raise PluginError(f"Expected a formula that latex2mathml knows in {page.file.src_uri}, got '{source}'.")
        return f'<div class="formula">{mathml}</div>' if block else mathml

    return _PAPER.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', _FORMULA.sub(formula, content))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Return the page as it is.

    Raises:
        PluginError: if it loads something from another place.
    """
    for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", output):
        if re.search(r"""\b(?:src|href)=["']?(?:https?:)?//""", tag) and 'rel="canonical"' not in tag:
            raise PluginError(f"Expected a page that reads without a network, got {tag} in {page.file.src_uri}.")
    return output
