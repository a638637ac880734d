"""Rehearses on lab hosts, with the very commands that an operator types: `provision plan`, `apply` and `rollback`.

Each case has a lab of its own, with one host, and a folder of its own: nothing of it meets the fleet's runs, keys or
locks. The commands are processes of their own, so that one can be ended, and what it said is one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from provisioner import __version__
from provisioner.adapters.lab import Host, HostSpec, Lab, engine_errors, ensure_engine, gpu_models
from provisioner.adapters.lab import image as lab_image
from provisioner.errors import BadInput, Exit, HostError
from provisioner.matrix.files import digest_in_use
from provisioner.model.enrolment import lock_digest
from provisioner.model.paths import data_dir
from provisioner.model.rehearsal import Case, CaseResult, Outcome
from provisioner.model.stack import HostLock, Lock

RIG = "rig"
SUITE_OF = {"debian-11": "bullseye", "debian-12": "bookworm", "debian-13": "trixie"}
_STATES = {
    "enrolled": "good",
    "unchanged": "good",
    "restored": "good",
    "out": "unverified",
    "rolled-back": "unverified",
}


class LabTheatre:
    """The Theatre of the command line. `prefix` begins the names of its labs, `root` is where everything is kept."""

    def __init__(self, root: Path, prefix: str) -> None:
        self._root = root.resolve()
        self._prefix = prefix
        self._running: set[subprocess.Popen[str]] = set()
        self._guard = threading.Lock()
        self._stopped = False

    def lacks(self, case: Case) -> str | None:
        """The lab has Debian's releases and packages, and shows the cards of the matrix; all else it can't rebuild."""
        before = case.before or case.after
        if before.os not in SUITE_OF:
            return f"the lab has no {before.os}"
        if before.os != case.after.os:
            return f"another release ({before.os} → {case.after.os}) is a new installation, not an upgrade"
        known = gpu_models()
        for gpu in dict.fromkeys((*before.gpus, *case.after.gpus)):
            if gpu not in known:
                return f"the lab cannot show a {gpu}"
        return None

    def raise_up(self, case: Case) -> LabStage:
        """Start the case's host; what a killed rehearsal left of it is removed first."""
        self.take_down(case)
        folder = self.folder(case)
        folder.mkdir(parents=True, exist_ok=True)
        begins = case.before or case.after
        tag = present_image(begins) if case.before is not None else ""
        with engine_errors():
            cached = bool(tag) and _has_image(tag)
            spec = HostSpec(RIG, SUITE_OF[begins.os], begins.gpus)
            lab = Lab.up(self._name(case), folder / "lab", [spec], images={RIG: tag} if cached else {})
            stage = LabStage(self, lab, folder, tag, cached)
            if not cached:
                stage.boot(begins.kernels)
            return stage

    def take_down(self, case: Case) -> None:
        with engine_errors():
            Lab(ensure_engine(), self._name(case), self.folder(case) / "lab").down()
        shutil.rmtree(self.folder(case) / "lab", ignore_errors=True)

    def stop(self) -> None:
        """End the commands as Ctrl-C does: they give their host back and exit."""
        with self._guard:
            self._stopped = True
            for running in self._running:
                with contextlib.suppress(ProcessLookupError):
                    running.send_signal(signal.SIGINT)

    def folder(self, case: Case) -> Path:
        return self._root / case.name

    def _name(self, case: Case) -> str:
        return f"{self._prefix}-{case.id[:8]}"

    def run(self, words: Sequence[str], folder: Path, log: Path) -> tuple[int, str]:
        """Run a command of provision in a folder; return its exit code and stdout. All that it says is kept."""
        environment = {
            **os.environ,
            "NO_COLOR": "1",
            "PROVISION_CONFIG_DIR": str(self._root / "config"),  # lab records are not signed with the operator's key
        }
        with log.open("a", encoding="utf-8") as said:
            said.write(f"\n$ provision {' '.join(words)}\n")
            said.flush()
            argv = [sys.executable, "-m", "provisioner.cli", *words]
            with self._guard:
                if self._stopped:
                    return int(Exit.INTERRUPTED), ""
                # In a session of its own: Ctrl-C at the terminal reaches it once, through `stop`, not twice.
                process = subprocess.Popen(
                    argv,
                    cwd=folder,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                out, _ = process.communicate()
            finally:
                with self._guard:
                    self._running.discard(process)
        with log.open("a", encoding="utf-8") as said:
            said.write(out)
        return process.returncode, out


class LabStage:
    """The Stage of one case: a lab host, and a folder in which the commands run."""

    def __init__(self, theatre: LabTheatre, lab: Lab, folder: Path, tag: str, cached: bool) -> None:
        self._theatre = theatre
        self._lab = lab
        self._folder = folder
        self._tag = tag
        self._changed_in = ""  # the run that upgraded, when it changed anything
        self.cached = cached
        self.log = str(folder / "log.txt")
        Path(self.log).write_text(f"provision {__version__}: {folder.name}; the GPU is simulated\n", encoding="utf-8")

    def boot(self, kernels: Sequence[str]) -> None:
        """Give the host the kernels of its lock entry and no other, and boot it. Raises when one is not to be had."""
        host = self._lab.host(RIG)
        have = host.exec("cd /boot && ls vmlinuz-* | sed s/vmlinuz-//").stdout.split()
        missing = [kernel for kernel in kernels if kernel not in have]
        extra = [kernel for kernel in have if kernels and kernel not in kernels]
        if not missing and not extra:
            return
        self._on(host, "apt-get update -q", "read the package index")
        if missing:
            self._on(
                host, f"apt-get install -q -y {' '.join(f'linux-image-{k}' for k in missing)}", "install its kernel"
            )
        if extra:
            self._on(host, f"apt-get purge -q -y {' '.join(f'linux-image-{k}' for k in extra)}", "remove other kernels")
        host.reboot()

    def _on(self, host: Host, command: str, what: str) -> None:
        done = host.exec(f"DEBIAN_FRONTEND=noninteractive {command}")
        with Path(self.log).open("a", encoding="utf-8") as said:
            said.write(f"\nrig# {command}\n{done.stdout}{done.stderr}")
        if done.rc != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()][-4:]
            raise HostError("not-rebuilt", RIG, f"the throwaway host could not {what}", context=lines)

    def apply(self, entry: HostLock) -> Outcome:
        self._prepare(entry)
        return self._outcome(["apply", "--yes", "--json", *self._where()])

    def plan(self, entry: HostLock) -> str:
        self._prepare(entry)
        _, out = self._theatre.run(["plan", *self._where()], self._folder, Path(self.log))
        return out

    def back(self) -> Outcome:
        """Take the upgrade back by what the host itself keeps; where it changed nothing, nothing is to do."""
        if not self._changed_in:
            return Outcome("good")
        return self._outcome(["rollback", RIG, self._changed_in, "--yes", "--json", "-i", str(self._lab.inventory)])

    def keep(self) -> None:
        with engine_errors():
            self._lab.host(RIG).keep_as(self._tag)

    def _where(self) -> list[str]:
        return ["-i", str(self._lab.inventory), "--lock", "provision.lock"]

    def _prepare(self, entry: HostLock) -> None:
        """The request and the lock of this step. The matrix named is the one that the command will have in use."""
        variables = self._lab.folder / "host_vars"
        variables.mkdir(exist_ok=True)
        asked = {f"provision_{key}": value for key, value in entry.intent.model_dump(mode="json").items()}
        (variables / f"{RIG}.yml").write_text(yaml.safe_dump(asked), encoding="utf-8")
        lock = Lock(made_by=__version__, matrix=digest_in_use(data_dir("matrix")), hosts={RIG: entry})
        (self._folder / "provision.lock").write_text(lock.model_dump_json(), encoding="utf-8")

    def _outcome(self, words: Sequence[str]) -> Outcome:
        began = time.monotonic()
        log = Path(self.log)
        at = log.stat().st_size
        code, out = self._theatre.run(words, self._folder, log)
        said = log.read_bytes()[at:].decode(errors="replace")
        found = outcome_of(code, out, said, round(time.monotonic() - began, 1))
        self._changed_in = _changed_in(out)
        return found


def outcome_of(code: int, out: str, said: str, seconds: float) -> Outcome:
    """Read what `apply --json` or `rollback --json` printed; without its shape, the last lines are the reason."""
    host = _host_of(out)
    if code == Exit.INTERRUPTED:
        return Outcome("interrupted", seconds)
    if host is None:
        lines = [line.strip() for line in said.removesuffix(out).splitlines() if line.strip()]
        return Outcome(
            "failed", seconds, reference="command-failed", detail=tuple(lines[-6:]) or (f"exit code {code}",)
        )
    return Outcome(
        state=_STATES.get(host["state"], "failed"),  # type: ignore[arg-type]  # values of the table above
        seconds=seconds,
        verify_s=float(host["seconds"].get("verify", 0.0)),
        not_serving_s=float(host["not_serving_s"]),
        taken_back=host["state"] == "rolled-back",
        reference=host["reference"],
        detail=(host["reason"], *host["context"]) if host["reason"] else (),
        hint=host["hint"],
    )


def _host_of(out: str) -> Mapping[str, Any] | None:
    try:
        hosts: Mapping[str, Any] = json.loads(out)["hosts"]
        found: Mapping[str, Any] = hosts[RIG]
        return found
    except (ValueError, KeyError, TypeError):
        return None


def _changed_in(out: str) -> str:
    """The run that rendered something, or ''."""
    try:
        value = json.loads(out)
        return str(value["run"]) if value["folder"] else ""
    except (ValueError, KeyError, TypeError):
        return ""


def present_image(entry: HostLock) -> str:
    """The tag of the image of a present state: by its lock entry, by the bare image it grew on, and by who made it."""
    bare = lab_image.recipe(SUITE_OF[entry.os], lab_image.machine_mirror()).tag
    text = f"{bare} {lock_digest(entry)} {__version__}"
    return f"{lab_image.REPOSITORY}:present-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _has_image(tag: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        ensure_engine().images.get(tag)
    except ImageNotFound:
        return False
    return True


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
        return result if value.get("made_by") == __version__ and result.case.id == case.id else None

    def note(self, result: CaseResult) -> None:
        """What failed is not kept as known, and forgets a former pass: the next rehearsal tries it again."""
        path = self._root / f"{result.case.id}.json"
        try:
            if result.verdict != "passed":
                path.unlink(missing_ok=True)
                return
            self._root.mkdir(parents=True, exist_ok=True)
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
