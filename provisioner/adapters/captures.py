"""Reads captures from disk and writes them there, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from provisioner.errors import BadInput
from provisioner.facts.files import bad_capture, dump_capture, parse_capture
from provisioner.model.capture import Capture

MAX_BYTES = 50 << 20


def load_capture(path: Path) -> Capture:
    """Read a capture, JSON or YAML. Raises BadInput that names the file and what is wrong with it."""
    try:
        if not path.is_file() and path.exists():
            raise bad_capture(str(path), "it is no plain file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise bad_capture(str(path), error.strerror or str(error)) from error
    if len(data) > MAX_BYTES:
        raise bad_capture(str(path), f"it is larger than {MAX_BYTES >> 20} MiB")
    return parse_capture(data, str(path))


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
