"""What is put on a host: the text of each program, and the command that starts it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from provisioner.host import trial as trial_program

FOLDER = "/usr/local/lib/provision"
GATE = "/usr/local/sbin/provision-gate"
CLIENT = "/usr/local/sbin/provision-client"
WATCHDOG = "/usr/local/sbin/provision-watchdog"
POWER = "/usr/local/sbin/provision-power"
TRIAL = ("grub", "fallback", "trial")
CONTAINER = "/usr/local/sbin/provision-container"
CLUSTER = "/usr/local/sbin/provision-cluster"
BASELINE = "/usr/local/sbin/provision-baseline"
ENDING = "/usr/local/sbin/provision-end-containers"
MODULES = (
    "ed25519",
    "nvml",
    "gate",
    "client",
    "ladder",
    "power",
    "watchdog",
    "container",
    "cluster",
    "baseline",
    "ending",
)

_HERE = Path(__file__).parent

# -I and -S: no environment, no site packages; what somebody installs for a client cannot change the program.
_COMMAND = """#!/usr/bin/python3 -IS
# {purpose} Written by provision.
import sys

sys.path.insert(0, "{folder}")
from provisioner.host.{module} import entry

entry()
"""


def folders() -> tuple[str, ...]:
    """Folders that the programs need, outermost first."""
    return (FOLDER, f"{FOLDER}/provisioner", f"{FOLDER}/provisioner/host")


@lru_cache(maxsize=1)
def modules() -> dict[str, str]:
    """Path on the host -> text. The project's own names are kept, so that the same import works on both sides."""
    texts = {name: (_HERE / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    return {f"{FOLDER}/provisioner/host/{name}.py": text for name, text in texts.items()}


def trial() -> dict[str, str]:
    """Path below the folder of a trial -> text: a copy of its own, for the change may take other programs back."""
    texts = {f"provisioner/host/{name}.py": (_HERE / f"{name}.py").read_text(encoding="utf-8") for name in TRIAL}
    purpose = "Goes back by itself unless the host is sound and somebody confirms."
    return texts | {"run": _COMMAND.format(purpose=purpose, folder=trial_program.FOLDER, module="trial")}


def commands() -> dict[str, str]:
    """Path on the host -> text of a command, to be executable."""
    said = {
        GATE: ("gate", "May a client start now?"),
        CLIENT: ("client", "Stops a client without ending a job, and lets it start again."),
        WATCHDOG: ("watchdog", "Sees what is wrong and climbs its ladders."),
        POWER: ("power", "Holds each card to its power policy."),
        CONTAINER: ("container", "Runs the containers of a network's client."),
        CLUSTER: ("cluster", "Holds a Kubernetes node back from tenants, and gives it back."),
        BASELINE: ("baseline", "Notes how the cards are when the host is let in."),
        ENDING: ("ending", "Ends containers when the host goes down."),
    }
    return {
        path: _COMMAND.format(purpose=purpose, folder=FOLDER, module=module) for path, (module, purpose) in said.items()
    }
