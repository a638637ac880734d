"""Rehearses on lab hosts, with the very commands that an operator types: `provision plan`, `apply` and `rollback`.

Each case has a lab of its own, with one host (and a hub, when the host has a tunnel), and a folder of its own: nothing
of it meets the fleet's runs, keys, locks or secrets. The commands are processes of their own, so that one can be ended,
and what it said is one file.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
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
from provisioner.adapters.lab import Host, HostSpec, Lab, engine_errors, ensure_engine, gpu_models, labs
from provisioner.adapters.lab import image as lab_image
from provisioner.adapters.lab.spec import MOST_GPUS
from provisioner.adapters.rehearsal_outcome import changed_in, outcome_of, together
from provisioner.errors import Exit, HostError
from provisioner.matrix.files import digest_in_use
from provisioner.model.paths import data_dir
from provisioner.model.rehearsal import Case, Outcome
from provisioner.model.stack import HostLock, Lock
from provisioner.model.tunnel import TunnelLock
from provisioner.tunnels import twin
from provisioner.tunnels.keys import public_key, public_path
from provisioner.tunnels.wireguard import CONFIG

RIG = "rig"
SUITE_OF = {"debian-11": "bullseye", "debian-12": "bookworm", "debian-13": "trixie"}
HUB_OS = "debian-12"
TUNNEL_S = 90
ROUNDS = 3
"""A tunnel takes two: in the first the hosts make their keys, in the second they are joined."""


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
        return twin.not_rebuilt(before) or twin.not_rebuilt(case.after)

    def sweep(self) -> None:
        """Remove what killed rehearsals of this folder left up, whatever they rehearsed."""
        with engine_errors():
            for lab in labs():
                if lab.name.startswith(f"{self._prefix}-") and lab.folder.is_relative_to(self._root):
                    lab.down()

    def raise_up(self, case: Case) -> LabStage:
        """Start the case's host; what a killed rehearsal left of it is removed first."""
        self.take_down(case)
        folder = self.folder(case)
        folder.mkdir(parents=True, exist_ok=True)
        begins = case.before or case.after
        joined = twin.has_tunnel(begins) or twin.has_tunnel(case.after)
        tags = present_images(case, joined=joined) if case.before is not None else {}
        specs = [HostSpec(RIG, SUITE_OF[begins.os], shown(begins.gpus))]
        if joined:
            specs.append(HostSpec(twin.HUB, SUITE_OF[HUB_OS]))
        with engine_errors():
            cached = bool(tags) and all(_has_image(tag) for tag in tags.values())
            if not cached:
                # A bare host has no tunnel yet, and must not be sought behind one.
                shutil.rmtree(folder / ".provision", ignore_errors=True)
            lab = Lab.up(self._name(case), folder / "lab", specs, images=tags if cached else {})
            stage = LabStage(self, lab, folder, tags, cached)
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

    def run(self, words: Sequence[str], folder: Path, log: Path, secrets: Mapping[str, str]) -> tuple[int, str]:
        """Run a command of provision in a folder; return its exit code and stdout. All that it says is kept."""
        environment = {
            **os.environ,
            **secrets,
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

    def __init__(self, theatre: LabTheatre, lab: Lab, folder: Path, tags: Mapping[str, str], cached: bool) -> None:
        self._theatre = theatre
        self._lab = lab
        self._folder = folder
        self._tags = tags
        self._joined = any(host.name == twin.HUB for host in lab.hosts())
        self._tunnels: dict[str, TunnelLock] = {}
        self._secrets: dict[str, str] = {}
        self._changed_in = ""  # the first run of the upgrade that changed anything
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
        """Bring the host to an entry; with a tunnel once more, as soon as the keys are known on both sides."""
        self._changed_in = ""
        self._prepare(entry)
        done = self._command(["apply", "--yes", "--json", *self._where()])
        for _ in range(ROUNDS):
            if done.state != "good" or not self._to_join(entry):
                break
            self._prepare(entry)
            done = together(done, self._command(["apply", "--yes", "--json", *self._where()]))
        return done

    def plan(self, entry: HostLock) -> str:
        self._prepare(entry)
        words = ["plan", *self._where(), *(["--limit", RIG] if self._joined else [])]
        _, out = self._theatre.run(words, self._folder, Path(self.log), self._secrets)
        return out

    def back(self) -> Outcome:
        """Take the upgrade back by what the host itself keeps; where it changed nothing, nothing is to do."""
        if not self._changed_in:
            return Outcome("good")
        return self._command(["rollback", RIG, self._changed_in, "--yes", "--json", "-i", str(self._lab.inventory)])

    def keep(self) -> None:
        """Hub first: the host that is started last dials one that is up."""
        with engine_errors():
            for name, tag in sorted(self._tags.items()):
                self._lab.host(name).keep_as(tag)

    def _where(self) -> list[str]:
        return ["-i", str(self._lab.inventory), "--lock", "provision.lock"]

    def _prepare(self, entry: HostLock) -> None:
        """The request and the lock of this step. The matrix named is the one that the command will have in use."""
        entries = {RIG: self._own(entry)}
        if self._joined:
            entries[twin.HUB] = twin.hub_entry(HUB_OS, self._tunnels.get(twin.HUB))
        folder = self._lab.folder / "host_vars"
        folder.mkdir(exist_ok=True)
        values, self._secrets = stand_ins(entry)
        for name, one in entries.items():
            asked = {f"provision_{key}": value for key, value in one.intent.model_dump(mode="json").items()}
            text = yaml.safe_dump(asked | (values if name == RIG else {}))
            (folder / f"{name}.yml").write_text(text, encoding="utf-8")
        lock = Lock(made_by=__version__, matrix=digest_in_use(data_dir("matrix")), hosts=entries)
        (self._folder / "provision.lock").write_text(lock.model_dump_json(), encoding="utf-8")
        self._wait_for_tunnel()

    def _wait_for_tunnel(self) -> None:
        """A host that was just started may be sought over its tunnel, which needs some seconds more."""
        mine = self._tunnels.get(RIG)
        if mine is None or not mine.complete:
            return
        look = f"ping -c 1 -W 1 {mine.hub_address} >/dev/null"
        wait = f"[ ! -e {CONFIG} ] || for n in $(seq {TUNNEL_S}); do {look} && exit 0; sleep 1; done; [ ! -e {CONFIG} ]"
        if self._lab.host(RIG).exec(wait).rc != 0:
            raise HostError(
                "not-rebuilt",
                RIG,
                f"its tunnel to the hub was not up {TUNNEL_S} s after its start",
                context=self._lab.host(RIG).exec("wg show; journalctl -q -n 8 -u wg-quick@prov0").stdout.splitlines(),
            )

    def _own(self, entry: HostLock) -> HostLock:
        """The entry with the tunnel of this lab in the place of the fleet's."""
        if not twin.has_tunnel(entry):
            none = TunnelLock(kind="none", role="spoke", host=RIG) if entry.tunnel is not None else None
            return entry.model_copy(update={"tunnel": none})
        self._tunnels = twin.joined(
            RIG, entry, self._keys(), self._tunnels, kernel_module=Path("/sys/module/wireguard").is_dir()
        )
        intent = entry.intent.model_copy(update={"tunnel": twin.wish_of(entry)})
        return entry.model_copy(update={"intent": intent, "tunnel": self._tunnels[RIG]})

    def _to_join(self, entry: HostLock) -> bool:
        """Whether both ends show keys by now that the last command did not know."""
        if not twin.has_tunnel(entry) or all(one.complete for one in self._tunnels.values()):
            return False
        return all(self._keys().values())

    def _keys(self) -> dict[str, str | None]:
        return {
            name: public_key("wireguard", self._lab.host(name).exec(f"cat {public_path('wireguard')}").stdout)
            for name in (RIG, twin.HUB)
        }

    def _command(self, words: Sequence[str]) -> Outcome:
        began = time.monotonic()
        log = Path(self.log)
        at = log.stat().st_size
        code, out = self._theatre.run(words, self._folder, log, self._secrets)
        said = log.read_bytes()[at:].decode(errors="replace")
        found = outcome_of(code, out, said, round(time.monotonic() - began, 1), RIG)
        self._changed_in = self._changed_in or changed_in(out, RIG)
        return found


def stand_ins(entry: HostLock) -> tuple[dict[str, Any], dict[str, str]]:
    """Values in the place of the fleet's secrets, as variables and as environment: no real one gets onto a lab host."""
    word = "stands in for a secret, in a rehearsal"
    variables: dict[str, Any] = {one.variable: word for one in entry.intent.secrets if one.variable is not None}
    if entry.intent.tunnel.preshared:
        variables["provision_tunnel_preshared"] = base64.b64encode(hashlib.sha256(word.encode()).digest()).decode()
    return variables, {one.env: word for one in entry.intent.secrets if one.env is not None}


def shown(gpus: Sequence[str]) -> tuple[str, ...]:
    """The cards that the lab host shows: all of them, or, where there are too many, each model and some more."""
    if len(gpus) <= MOST_GPUS:
        return tuple(gpus)
    models = list(dict.fromkeys(gpus))
    more = list(gpus)
    for model in models:
        more.remove(model)
    kept = (*models, *more)[:MOST_GPUS]
    return tuple(gpu for model in models for gpu in kept if gpu == model)


def present_images(case: Case, *, joined: bool) -> dict[str, str]:
    """The tags of a present state's images, by host: what it rests on, the bare images it grew on, and who made it."""
    begins = case.before or case.after
    # One stack may stand for hosts with other addresses in the tunnel; an image has those of one of them.
    own = [begins.tunnel.address, begins.tunnel.range, begins.tunnel.hub_address] if begins.tunnel and joined else []
    found = {}
    for name, os_id in ((RIG, begins.os), *(((twin.HUB, HUB_OS),) if joined else ())):
        text = " ".join([name, _bare_image(SUITE_OF[os_id]), case.present, __version__, *own])
        found[name] = f"{lab_image.REPOSITORY}:present-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return found


@functools.lru_cache(maxsize=8)
def _bare_image(suite: str) -> str:
    return lab_image.recipe(suite, lab_image.machine_mirror()).tag


def _has_image(tag: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        ensure_engine().images.get(tag)
    except ImageNotFound:
        return False
    return True
