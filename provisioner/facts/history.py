"""Which changes a host keeps, and with which stack it was last enrolled."""

from __future__ import annotations

from pydantic import ValidationError

from provisioner.model.capture import Capture
from provisioner.model.history import HISTORY, Entry, Record

RECORDS = f"{HISTORY}/*/record.json"
ENDS = f"{HISTORY}/*/done"


def read(capture: Capture) -> tuple[Entry, ...]:
    """Return the entries, oldest first; a record that is none of ours, or cannot be read, is left out."""
    found = []
    for path, text in capture.files.items():
        folder, _, name = path.rpartition("/")
        if name != "record.json" or not folder.startswith(f"{HISTORY}/") or text is None:
            continue
        try:
            record = Record.model_validate_json(text)
        except ValidationError:
            continue
        found.append(Entry(record=record, done=capture.files.get(f"{folder}/done") is not None))
    return tuple(sorted(found, key=lambda entry: entry.record.run))
