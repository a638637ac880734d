"""How many examples a costly law is tried on: all of them on the Python at hand, a quarter on the others."""

from __future__ import annotations

import os


def examples(usual: int, at_length: int | None = None) -> int:
    """The number for `max_examples`.

    PROVISION_LONG takes `at_length`. PROVISION_EXAMPLES=quarter is what nox sets: these laws draw the same examples on
    every Python, so the others repeat what this one has tried, to show that the interpreter makes no difference.
    """
    if at_length is not None and os.environ.get("PROVISION_LONG"):
        return at_length
    return usual // 4 if os.environ.get("PROVISION_EXAMPLES") == "quarter" else usual
