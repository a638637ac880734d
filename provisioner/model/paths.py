"""Where the data that ships with the package lies: beside the checkout, or inside the wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def data_dir(name: str) -> Path:
    """Return the folder `name` (`matrix`, `templates` or `playbooks`).

    A wheel carries it under `provisioner/data/`; a checkout has it at the top level.
    """
    packed = _PACKAGE / "data" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name
