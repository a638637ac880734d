"""An operator whose rigs stand behind home routers: invitations, wishes, wrong changes, what each host says itself."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.nat import HUB_NAME, NatLab
from tests.lab.operator import Operator

CODE = re.compile(r"\b(\d{4}-\d{4})$", re.MULTILINE)
SHA = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


class Tunnels(Operator):
    """An operator whose rigs stand behind routers."""

    def __init__(self, lab: Lab, folder: Path, homes: Mapping[str, str], confirm_s: int) -> None:
        """`homes`: rig → its router. Puts each rig behind its router, and writes what is wanted of all."""
        super().__init__(lab, folder)
        self.homes = homes
        self.nat = NatLab(lab, homes)
        self.figures: dict[str, float] = {}
        self.taken_back = 0
        (lab.folder / "host_vars").mkdir()
        try:
            self.nat.build()
        except BaseException:
            self.nat.close()
            raise
        self.hub(f"{HUB_NAME}:51820", confirm_s)
        for rig in homes:
            self.wish(rig, kind="wireguard", hub="hub", confirm_s=confirm_s)

    def __enter__(self) -> Tunnels:
        return self

    def __exit__(self, *_: object) -> None:
        self.nat.close()

    def hub(self, endpoint: str, confirm_s: int) -> None:
        """What is wanted of the hub. Its endpoint is a name that only the lab knows; ssh from here goes by address."""
        self.wish("hub", kind="wireguard", role="hub", endpoint=endpoint, range="10.87.0.0/24", confirm_s=confirm_s)
        self.find_hub()

    def find_hub(self) -> None:
        """Write the hub's present address into the inventory, as the operator does when it moved."""
        path = self.lab.folder / "host_vars" / "hub.yml"
        known = self.lab.folder / "ssh" / "known_hosts"
        args = f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o HostKeyAlias=hub"
        text = "".join(line + "\n" for line in path.read_text(encoding="utf-8").splitlines() if "provision_" in line)
        address = self.lab.host("hub").address
        path.write_text(f"{text}ansible_host: {address}\nansible_ssh_common_args: {args}\n", encoding="utf-8")

    def invite(self, rig: str) -> tuple[Path, str]:
        out = self.folder / f"{rig}.invite"
        out.unlink(missing_ok=True)
        told = self.run("invite", rig, "--hub-address", self.lab.host("hub").address)
        found = CODE.search(told)
        assert found is not None, told
        return out, found[1]

    def join(self, host: str, file: Path, code: str) -> tuple[int, str]:
        """The owner runs the file on a host, as root, at a console: nobody's ssh."""
        text = shlex.quote(file.read_text(encoding="utf-8"))
        done = self.lab.host(host).exec(["sh", "-c", f"printf %s {text} >/root/it && python3 /root/it {code}"])
        return done.rc, done.stdout + done.stderr

    def lock(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.folder / "provision.lock").read_text(encoding="utf-8"))
        return value

    def wish(self, host: str, **wish: Any) -> None:
        """Write what is wanted of a host into its file of variables; the inventory's own address leads nowhere."""
        lines = [f"provision_tunnel: {json.dumps(wish)}"]
        if host in self.homes:
            lines.append("ansible_host: unreachable.invalid")
        (self.lab.folder / "host_vars" / f"{host}.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def set_up_hub(self) -> None:
        """First its key, then, once the lock has it, the tunnel."""
        self.run("resolve", "--limit", "hub")
        assert "its tunnel waits for the key of this host" in self.run("plan", "--limit", "hub")
        self.run("apply", "--yes", "--limit", "hub")
        self.run("resolve", "--limit", "hub")
        assert "hub  enrolled" in self.run("apply", "--yes", "--limit", "hub")
        assert self.guard("hub")["state"] == "confirmed"

    def let_in(self, rig: str) -> str:
        """Invite a rig, have its owner join, accept the fingerprint that it showed; returns the code."""
        file, code = self.invite(rig)
        rc, said = self.join(rig, file, code)
        assert rc == 0, said
        shown = SHA.search(said)
        own = self.lab.host(rig).exec("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1]
        assert shown is not None and shown[0] == own
        assert "[fingerprint-differs]" in self.run(
            "invite", rig, "--accept", "--fingerprint", "SHA256:" + "A" * 43, code=Exit.BAD_INPUT
        )
        self.run("invite", rig, "--accept", "--fingerprint", own)
        return code

    def guess_in_vain(self, thief: str, rig: str) -> None:
        """Three wrong codes end an invitation, also for who has the right one afterwards."""
        file, code = self.invite(rig)
        wrong = [f"{n:04d}-0000" for n in range(1, 5) if f"{n:04d}-0000" != code][:3]
        said = [self.join(thief, file, guess)[1] for guess in wrong]

        assert "the code is wrong; 2 tries are left" in said[0]
        assert "the code is wrong for the third time; this invitation has ended" in said[2]
        assert self.join(thief, file, code)[0] != 0
        assert self.lab.host("hub").exec("wg show prov0 peers").stdout == ""
        assert self.lab.host(thief).exec("ls /etc/wireguard/prov0.conf").rc != 0

    def replay(self, thief: str, rig: str, code: str) -> None:
        """The same file and the right code, from another machine: the hub has closed that door."""
        peers = self.lab.host("hub").exec("wg show prov0 peers").stdout
        rc, said = self.join(thief, self.folder / f"{rig}.invite", code)

        assert rc != 0
        assert "does not know this invitation" in said or "was used" in said
        assert self.lab.host("hub").exec("wg show prov0 peers").stdout == peers

    def guard(self, host: str) -> dict[str, Any]:
        """What the host itself says of its last change, asked at its console."""
        seen = self.lab.host(host).exec("/usr/local/lib/provision/guard status")
        value: dict[str, Any] = json.loads(seen.stdout)
        return value

    def address(self, rig: str) -> str:
        return str(self.lock()["hosts"][rig]["tunnel"]["address"])

    def back(self, rig: str, what: str, *, since: float | None = None, within: float = 180) -> None:
        """Note how long it takes from the end of the fault (`since`, by default now) until the tunnel carries again."""
        began = time.monotonic() if since is None else since
        try:
            self.nat.carries(self.address(rig), within=within)
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{self.both_sides(rig)}") from None
        self.figures[f"{what}, {rig}"] = round(time.monotonic() - began, 1)
        print(f"carries again after {self.figures[f'{what}, {rig}']} s: {what}, {rig}")

    def both_sides(self, rig: str) -> str:
        """What rig and hub say of the tunnel and of the network below it, for a person who looks for the fault."""
        look = (
            "date +%s; wg show prov0; ip -4 -o address; ip route; grep lab /etc/hosts; cat /run/provision/tunnel.json; "
            "systemctl list-units --no-legend 'provision*' 'wg-quick*'; journalctl -q -n 15 -u 'wg-quick@prov0' "
            "-u provision-tunnel"
        )
        return "\n".join(f"== {name}\n{self.lab.host(name).exec(look).stdout}" for name in (rig, "hub"))


def _wrong_key(tunnel: dict[str, Any]) -> None:
    key = tunnel["peers"][0]["public_key"]
    tunnel["peers"][0]["public_key"] = ("B" if key[0] != "B" else "C") + key[1:]


def _wrong_route(tunnel: dict[str, Any]) -> None:
    tunnel["peers"][0]["allowed"] = ["10.99.0.1/32"]


def _ssh_shut_out(tunnel: dict[str, Any]) -> None:
    tunnel["admit"] = ["tcp/4"]


WRONGS = (_wrong_key, _wrong_route, _ssh_shut_out)
