"""Quantities as people read them."""

from __future__ import annotations


def megabytes(size: int) -> str:
    """Return a size in bytes as text, such as `212 MB`."""
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
