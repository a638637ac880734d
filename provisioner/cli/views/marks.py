"""Text in Markdown: what it would take for a mark is written as code or escaped."""

from __future__ import annotations

import re

_MARKS = re.compile(r"[\\*\[\]~$`]|(?<!\w)_|_(?!\w)")


def marked(text: str) -> str:
    """Return Markdown that shows exactly this text."""
    text = re.sub(r"\s+", " ", text).strip()
    if " " not in text and "`" not in text and re.search(r"[\\*<>\[\]~$|&]|^_|_$", text):
        return f"`{text}`"
    escaped = _MARKS.sub(lambda mark: f"\\{mark[0]}", text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def cell(text: str) -> str:
    """The same for a cell of a table."""
    return marked(text).replace("|", "\\|")
