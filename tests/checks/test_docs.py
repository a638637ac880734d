"""The guide lists every check as the table has it."""

from __future__ import annotations

from pathlib import Path

from provisioner.checks.table import CHECKS

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "verify.md"


def test_the_guide_lists_every_check() -> None:
    """Same ids, titles and weights, in the same order."""
    rows = [line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    expected = [f"| `{c.id}` | {c.title} | {'required' if c.required else 'advisory'} |" for c in CHECKS]

    assert [row for row in rows if row.count("|") == 4 and ("required" in row or "advisory" in row)] == expected
