"""Which changes a host keeps, and which of their records cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from provisioner.model.capture import Capture
from provisioner.model.history import HISTORY, Entry, Record, Unreadable

RECORDS = f"{HISTORY}/*/record.json"
ENDS = f"{HISTORY}/*/done"


def read(capture: Capture) -> tuple[Entry, ...]:
    """Return the entries, oldest first."""
    return tuple(found for found in _all(capture) if isinstance(found, Entry))


def unreadable(capture: Capture) -> tuple[Unreadable, ...]:
    """Return the records that say nothing, oldest first: what changed on the host then is not known."""
    return tuple(found for found in _all(capture) if isinstance(found, Unreadable))


def _all(capture: Capture) -> Iterator[Entry | Unreadable]:
    for path, text in sorted(capture.files.items()):
        folder, _, name = path.rpartition("/")
        if name != "record.json" or not folder.startswith(f"{HISTORY}/") or text is None:
            continue
        run = folder.rpartition("/")[2]
        try:
            record = Record.model_validate_json(text)
            if record.run != run:
                # A run that took an unfinished change over was killed between the new name and the new record.
                record = Record.model_validate({**record.model_dump(by_alias=True), "run": run})
        except ValidationError as problem:
            yield Unreadable(run=run, why=_why(problem))
        else:
            yield Entry(record=record, done=capture.files.get(f"{folder}/done") is not None)


def _why(problem: ValidationError) -> str:
    """`packages.x.version: Field required`; the host's own text is not repeated."""
    first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"] if part != "[key]")
    return f"{place}: {first['msg']}" if place else first["msg"]
