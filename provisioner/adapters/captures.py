"""Writes captures to disk, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from provisioner.errors import BadInput
from provisioner.facts.files import dump_capture
from provisioner.model.capture import Capture


def save(capture: Capture, path: Path) -> None:
    """Write `capture` as JSON; a crash in between leaves what was there before. Raises BadInput when it cannot."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A host's packages and configuration are nobody else's business.
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(dump_capture(capture))
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise BadInput("capture-not-written", f"the capture cannot be written to {path}: {error.strerror}") from error
