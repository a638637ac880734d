"""An operator of hosts with tunnels that it reaches directly: wishes, the lock's tunnels, what each host says."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.lab.operator import Operator

INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends"
# As an owner writes them: everything comes in by name, and what is no answer and no ssh is dropped.
RULES = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
COMMIT
"""


class Members(Operator):
    """Wishes stand in host_vars, which it makes; `confirm_s` is how long a change waits for somebody to confirm it."""

    confirm_s = 40

    def wish(self, host: str, networks: tuple[str, ...] = (), **wish: Any) -> None:
        """Write what is wanted of a host into its file of variables."""
        value = {"confirm_s": self.confirm_s, **({"kind": "wireguard"} | wish)}
        path = self.lab.folder / "host_vars" / f"{host}.yml"
        path.parent.mkdir(exist_ok=True)
        lines = [f"provision_tunnel: {json.dumps(value)}\n"]
        lines += [f"provision_networks: {json.dumps(networks)}\n"] if networks else []
        path.write_text("".join(lines), encoding="utf-8")

    def settle(self) -> None:
        """Resolve and apply until nothing is left: keys are made on their hosts first."""
        for _ in range(3):
            self.run("resolve")
            self.run("apply", "--yes")
            before = self.lock_text()
            self.run("resolve")
            if self.lock_text() == before:
                break
        assert "Nothing to change" in self.run("plan")

    def lock_text(self) -> str:
        return (self.folder / "provision.lock").read_text(encoding="utf-8")

    def tunnel(self, host: str) -> dict[str, Any]:
        tunnel: dict[str, Any] = json.loads(self.lock_text())["hosts"][host]["tunnel"]
        return tunnel

    def root(self, host: str, command: str) -> str:
        """Run a line of shell there as root; it must end well."""
        return self.on(host, f"sudo sh -c {shlex.quote(command)}")

    def guard(self, host: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.root(host, "/usr/local/lib/provision/guard status"))
        return value

    def carries(self, host: str, address: str, seconds: int = 40) -> None:
        """Wait until an address answers from a host."""
        once = f"ping -n -q -c 1 -W 1 {address} >/dev/null"
        self.root(host, f"for i in $(seq {seconds}); do {once} && exit 0; sleep 1; done; exit 1")
