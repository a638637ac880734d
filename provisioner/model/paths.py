"""Where data lies: what ships with the package (beside the checkout, or inside the wheel), and what was fetched."""

from __future__ import annotations

from pathlib import Path

FETCHED = Path(".provision/matrix")
"""Releases of the matrix that `provision matrix update` fetched for the fleet of this folder, by digest."""

_PACKAGE = Path(__file__).resolve().parent.parent


def data_dir(name: str) -> Path:
    """Return the folder `name` (`matrix`, `templates`, `playbooks` or `requirements`).

    A wheel carries it under `provisioner/data/`; a checkout has it at the top level.
    """
    packed = _PACKAGE / "data" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name
