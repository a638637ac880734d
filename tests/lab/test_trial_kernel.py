"""A kernel that is tried once, in a virtual machine: real GRUB, two kernels of Debian, the programs as they travel.

The older kernel runs and the newer one would boot next, as after its installation. One machine confirms it; in the
other its boot image is broken, so that it panics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provisioner.host import programs
from tests.lab import vm
from tests.lab.operator import LONG

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not LONG, reason="long form: scripts/test --all"),
    pytest.mark.skipif(
        bool(vm.missing_tools()), reason=f"needs {', '.join(vm.missing_tools())}: PROVISION_LONG=1 scripts/setup --dev"
    ),
]

RUN = "20261125T000000Z-0001"
RECORD = {
    "format": 1, "run": RUN, "began": RUN, "at": "2026-11-25T00:00:00Z", "driver": None, "to": {}, "bytes": 0,
    "from": {"entry": {}, "matrix": "m"}, "packages": {}, "files": {}, "units": {},
}  # fmt: skip

STORY = """#!/usr/bin/python3
import json, os, subprocess, time

TRIAL = "/var/lib/provision/trial"


def tell(**words):
    with open("/dev/ttyS0", "w") as out:
        out.write("\\nSTORY " + json.dumps(dict(words, kernel=os.uname().release)) + "\\n")


def do(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode:
        tell(failed=" ".join(words), said=done.stdout[-800:])
    return done.stdout


def state():
    try:
        with open(TRIAL + "/state.json") as file:
            return json.load(file)
    except OSError:
        return None


def saved():
    env = do("grub-editenv", "-", "list").splitlines()
    return dict(line.split("=", 1) for line in env if "=" in line)


def end():
    found = [p for p in (TRIAL, "/etc/systemd/system/provision-trial.service",
                         "/etc/default/grub.d/zz-provision-trial.cfg") if os.path.exists(p)]
    tell(step="end", left=found, saved=saved(), cmdline=open("/proc/cmdline").read().strip(), state=state())
    subprocess.call(["systemctl", "poweroff"])


mode = open("/root/mode").read().strip()
step = int(open("/root/step").read())
with open("/root/step", "w") as out:
    out.write(str(step + 1))
os.sync()
if step == 0:
    do("update-grub")
    newer = json.load(open(TRIAL + "/wish.json"))["once"]
    if mode == "broken":
        with open("/boot/initrd.img-" + newer, "r+b") as image:
            image.truncate(4096)
    said = do(TRIAL + "/run", "arm")
    tell(step="armed", said=said, saved=saved())
    subprocess.call(["systemctl", "reboot"])
elif step == 1:
    for _ in range(300):
        now = state()
        if now is None or now["state"] in ("sound", "back", "gave-up"):
            break
        time.sleep(1)
    tell(step="looked", state=now, saved=saved())
    if mode == "broken":
        time.sleep(12)
        end()
    else:
        do(TRIAL + "/run", "confirm")
        subprocess.call(["systemctl", "reboot"])
else:
    end()
"""
UNIT = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/root/story\n[Install]\nWantedBy=multi-user.target\n"


@dataclass(frozen=True)
class Machine:
    """The parts that both machines are made of."""

    root: Path
    older: str
    newer: str
    folder: Path

    def play(self, mode: str) -> list[dict[str, object]]:
        """What the story told, step by step."""
        (self.root / "root/mode").write_text(mode)
        path = self.folder / f"{mode}.img"
        vm.disk(self.root, path)
        said = vm.play(path, self.folder / f"{mode}.log", boots=3)
        path.unlink()
        steps = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("STORY ")]
        assert not [step for step in steps if "failed" in step], steps
        return steps


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("vm")
    root, (older, newer) = vm.tree(folder)
    state = root / "var/lib/provision"
    wish = {"run": RUN, "what": f"kernel {newer}", "driver": None, "once": newer, "limit_s": 900}
    history = state / "history" / RUN
    texts = {state / "trial" / path: text for path, text in programs.trial().items()}
    texts |= {
        state / "trial/wish.json": json.dumps(wish),
        history / "record.json": json.dumps(RECORD),
        root / "root/story": STORY,
        root / "root/step": "0",
        root / "etc/systemd/system/story.service": UNIT,
        root / "etc/hostname": "rig-01\n",
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    vm.run("chroot", str(root), "systemctl", "enable", "story.service")
    yield Machine(root, older, newer, folder)


def test_a_kernel_that_comes_up_is_confirmed_and_becomes_the_default(machine: Machine) -> None:
    """It boots once by GRUB's one-shot entry while the default is still the older one; confirmed, it boots again."""
    armed, looked, end = machine.play("sound")

    assert armed["kernel"] == machine.older
    assert re.search(rf"{re.escape(machine.older)}-advanced", str(armed["saved"]["saved_entry"]))  # type: ignore[index]
    assert re.search(rf"{re.escape(machine.newer)}-advanced", str(armed["saved"]["next_entry"]))  # type: ignore[index]
    assert looked["kernel"] == machine.newer
    assert looked["state"]["state"] == "sound"  # type: ignore[index]
    assert not looked["saved"].get("next_entry")  # type: ignore[attr-defined]
    assert end["kernel"] == machine.newer
    assert end["left"] == [] and "panic" not in str(end["cmdline"])
    assert not end["saved"].get("saved_entry")  # type: ignore[attr-defined]


def test_a_kernel_that_panics_leaves_the_host_on_the_one_before(machine: Machine) -> None:
    """Its boot image is broken: it panics, restarts by itself, and GRUB takes the older one, which stays."""
    armed, looked, end = machine.play("broken")
    log = (machine.folder / "broken.log").read_text(errors="replace")

    assert armed["kernel"] == machine.older
    assert f"Linux version {machine.newer}" in log and "Kernel panic - not syncing" in log
    assert looked["kernel"] == machine.older
    assert looked["state"]["state"] == "back"  # type: ignore[index]
    assert looked["state"]["why"] == f"kernel {machine.older} runs, not {machine.newer}"  # type: ignore[index]
    assert end["left"] == ["/var/lib/provision/trial", "/etc/default/grub.d/zz-provision-trial.cfg"]
    assert machine.older in str(end["saved"]["saved_entry"])  # type: ignore[index]
