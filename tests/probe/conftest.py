"""The installed pynvml, from which the travelling part is cut."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pynvml_source() -> str:
    """The source of nvidia-ml-py's module, not imported."""
    spec = importlib.util.find_spec("pynvml")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")
