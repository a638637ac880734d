"""What a rehearsal keeps in its folder: what passed, and that only one rehearsal at a time works there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from provisioner import __version__
from provisioner.errors import BadInput, Exit, ProvisionError
from provisioner.model.rehearsal import Case, CaseResult


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Hold the folder; whoever died with it holds it no more. Raises ProvisionError when another one works there."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise ProvisionError(
                "rehearsal-runs-already",
                f"another rehearsal works in {root}",
                hint="wait for it, or rehearse in another folder, with another --name",
                exit_code=Exit.BUSY,
            ) from problem
        yield


class CaseFiles:
    """The Memory of the command line: a file per case that passed, valid for this very version of provision."""

    def __init__(self, root: Path) -> None:
        self._root = root / "passed"

    def passed(self, case: Case) -> CaseResult | None:
        try:
            value = json.loads((self._root / f"{case.id}.json").read_text(encoding="utf-8"))
            result = CaseResult.model_validate(value["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if value.get("made_by") != __version__ or result.case.id != case.id:
            return None
        log = self._root / f"{case.id}.log"
        return result.model_copy(update={"log": str(log)}) if log.exists() else result

    def note(self, result: CaseResult) -> None:
        """What failed is not kept as known, and forgets a former pass: the next rehearsal tries it again."""
        path = self._root / f"{result.case.id}.json"
        try:
            if result.verdict != "passed":
                path.unlink(missing_ok=True)
                path.with_suffix(".log").unlink(missing_ok=True)
                return
            self._root.mkdir(parents=True, exist_ok=True)
            if result.log:
                # Beside the result: CI keeps this folder alone, and a report is to show the log all the same.
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(result.log, path.with_suffix(".log"))
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            text = json.dumps({"made_by": __version__, "result": result.model_dump(mode="json")}, indent=1)
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
        except OSError as problem:
            raise BadInput("rehearsal-not-kept", f"{path} cannot be written: {problem}") from problem


def jobs_here() -> int:
    """Hosts at once that this machine bears: one per core, and two GiB of free memory each."""
    try:
        memory = Path("/proc/meminfo").read_text(encoding="ascii")
        free_kib = int(memory.partition("MemAvailable:")[2].split()[0])
    except (OSError, ValueError, IndexError):
        free_kib = 2 << 20
    return max(1, min(os.cpu_count() or 1, free_kib // (2 << 20)))
