"""The page of `provision matrix html`: data, style and script in one file that needs no network and no build step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("matrix_page.html")
_PLACE = "/*DATA*/null"


def page(data: Mapping[str, Any]) -> str:
    """The page with its data inside; `<` is escaped so that no text of the matrix can end the script."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return PAGE.read_text(encoding="utf-8").replace(_PLACE, text, 1)
