"""A person at a terminal: a folder of their own, an inventory, a lock, and the command as it is installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.conftest import ssh

BIN = Path(sys.executable).parent
ASKING = ("resolve", "plan", "apply", "verify", "rollback")
"""Commands that look at hosts: apt's own answer can take minutes on a machine that CI shares with others."""
LONG = bool(os.environ.get("PROVISION_LONG"))


class Operator:
    """A person at a terminal in a folder of their own, with an inventory, a lock and the command."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.inventory = lab.folder / "inventory.yml"
        self.environment = {
            **os.environ,
            "PROVISION_CONFIG_DIR": str(folder / "config"),
            "NO_COLOR": "1",
            "PATH": f"/usr/bin:/bin:{os.environ['PATH']}",
        }

    def argv(self, command: str, *words: str) -> list[str]:
        patience = ("--timeout", "400") if command in ASKING and "--timeout" not in words else ()
        return [str(BIN / "provision"), command, *words, *patience, "-i", str(self.inventory)]

    def run(self, command: str, *words: str, code: int = Exit.OK) -> str:
        """Run a command to its end and return what it printed; the exit code must be `code`."""
        done = subprocess.run(
            self.argv(command, *words),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(command, *words),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def plan(self) -> dict[str, dict[str, Any]]:
        hosts: dict[str, dict[str, Any]] = json.loads(self.run("plan", "--json"))["hosts"]
        return hosts

    def runs(self) -> int:
        """How many runs were rendered: one that changes nothing renders none."""
        folder = self.folder / ".provision" / "runs"
        return len(list(folder.iterdir())) if folder.is_dir() else 0

    def on(self, host: str, command: str) -> str:
        done = ssh(self.lab, host, command)
        assert done.rc == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def want(self, host: str, **variables: object) -> None:
        """State the host's intent in the inventory, and resolve it."""
        folder = self.lab.folder / "host_vars"
        folder.mkdir(exist_ok=True)
        text = "".join(f"provision_{key}: {json.dumps(value)}\n" for key, value in variables.items())
        (folder / f"{host}.yml").write_text(text, encoding="utf-8")
        self.run("resolve", "--limit", host)


def kill_tree(running: subprocess.Popen[str]) -> None:
    """The command and all it started: ansible-playbook forks, and would go on for minutes by itself."""
    found = [running.pid]
    for pid in found:
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
        found += [int(child) for child in children.split()]
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    running.wait(timeout=60)
