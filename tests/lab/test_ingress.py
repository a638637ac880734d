"""Customers who come in by the tunnel: a rig that nobody reaches offers its network's port at its hub's address.

The network is Bittensor's chain node, whose one port (tcp/30333) is all that the matrix asks for from outside. What
answers there is a stand-in of the tests', first on the host itself, then in a container that Docker publishes. Once
with nftables on both hosts, once on hosts that live by iptables-persistent and drop what they do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.members import INSTALL, RULES, Members
from tests.lab.operator import LONG

# Ten minutes; the short form of tunnels is test_tunnel_story.py.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

PORT, OTHER = 30333, 30334
ANSWER = """import http.server
class Who(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(("seen from " + self.client_address[0]).encode())
http.server.ThreadingHTTPServer(("", %d), Who).serve_forever()
"""
CUSTOMER = """import sys, urllib.request
print(urllib.request.urlopen("http://%s:%d/", timeout=6).read().decode())
"""
UNIT = "[Service]\nExecStart=/usr/bin/python3 /opt/answer-%d.py\n[Install]\nWantedBy=multi-user.target\n"


class Offering(Members):
    """Hosts whose rig offers something."""

    def ask(self, who: str, port: int = PORT, where: str = "hub") -> str:
        """What a customer, a machine that has no part in any tunnel, is told at a port of a host; "" is no answer."""
        address = self.lab.host(where).address if where in ("hub", "rig") else where
        done = self.lab.host(who).exec(["python3", "-c", CUSTOMER % (address, port)])
        return done.stdout.strip() if done.rc == 0 else ""

    def answer(self, port: int) -> None:
        """Something on the rig itself that says who asks."""
        self.root("rig", f"cat >/opt/answer-{port}.py <<'END'\n{ANSWER % port}END")
        self.root("rig", f"cat >/etc/systemd/system/answer-{port}.service <<'END'\n{UNIT % port}END")
        self.root("rig", f"systemctl daemon-reload; systemctl enable --now answer-{port}")
        self.root("rig", f"for i in $(seq 50); do ss -tln | grep -q :{port} && exit 0; sleep 0.1; done; exit 1")


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def op(
    request: pytest.FixtureRequest, lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Offering]:
    lab = lab_factory("hub=bookworm", "rig=bookworm:rtx-3090", "customer=bookworm:rtx-3090")
    operator = Offering(lab, tmp_path_factory.mktemp("operator"))
    # Nobody wants anything of the customer.
    operator.inventory = lab.folder / "members.yml"
    lines = (lab.folder / "inventory.yml").read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip() == "customer:")
    operator.inventory.write_text("\n".join([*lines[:at], *lines[at + 2 :]]) + "\n", encoding="utf-8")
    if request.param == "iptables":
        for name in ("hub", "rig"):
            operator.root(name, f"{INSTALL} iptables iptables-persistent")
            operator.root(
                name, f"cat >/etc/iptables/rules.v4 <<'END'\n{RULES}END\nsystemctl restart netfilter-persistent"
            )
    yield operator
    lab.down()


def test_01_the_hub_hands_the_networks_port_on(op: Offering) -> None:
    """And the rig sees its hub, for it knows no way back to a customer."""
    op.wish("hub", role="hub", endpoint=f"{op.lab.host('hub').address}:51820", range="10.87.0.0/24")
    op.wish("rig", ("bittensor/subtensor-node",), hub="hub", ingress="tunnel")
    op.answer(PORT)
    op.answer(OTHER)
    op.settle()

    assert op.tunnel("rig")["admit"] == ["tcp/22", f"tcp/{PORT}"]
    (forward,) = op.tunnel("hub")["forwards"]
    assert (forward["host"], forward["protocol"], forward["ports"]) == ("rig", "tcp", str(PORT))
    assert op.ask("customer") == "seen from 10.87.0.1"
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_02_and_no_other(op: Offering) -> None:
    """Neither a port beside it, nor by the tunnel's own addresses, nor the hub's ssh from the rig."""
    assert op.ask("customer", OTHER) == ""
    assert op.ask("hub", OTHER, op.tunnel("rig")["address"]) == ""
    assert op.ask("hub", PORT, op.tunnel("rig")["address"]) == "seen from 10.87.0.1"
    assert op.lab.host("rig").exec("timeout 3 bash -c '</dev/tcp/10.87.0.1/22'").rc != 0


def test_03_a_container_that_docker_publishes(op: Offering) -> None:
    """Docker translates the address before any rule of ours sees it; the port that was asked for counts."""
    op.root("rig", f"systemctl disable --now answer-{PORT} answer-{OTHER}; {INSTALL} docker.io busybox-static")
    op.root(
        "rig", "mkdir -p /opt/web/bin && cp /bin/busybox /opt/web/bin/ && echo from a container >/opt/web/index.html"
    )
    op.root("rig", "tar -C /opt/web -c . | docker import - web:1")
    serve = "web:1 /bin/busybox httpd -f -p 80 -h /"
    op.root("rig", f"docker run -d --restart always --name web -p {PORT}:80 {serve}")
    op.root("rig", f"docker run -d --restart always --name other -p {OTHER}:80 {serve}")

    assert op.ask("customer") == "from a container"
    assert op.ask("customer", OTHER) == ""
    assert op.ask("hub", OTHER, op.tunnel("rig")["address"]) == ""


@pytest.mark.parametrize("name", ["hub", "rig"])
def test_04_a_reboot_changes_nothing(op: Offering, name: str) -> None:
    """Nor do containers that do not listen to SIGTERM hold it up, though live-restore keeps them from Docker."""
    op.lab.host(name).reboot()
    ended = op.root(name, "journalctl --no-pager -u docker -g 'the host goes down' || true")
    assert ("2 containers ended, 2 of them killed" in ended) is (name == "rig"), ended
    op.carries("hub", op.tunnel("rig")["address"], 90)
    op.root("rig", "for i in $(seq 60); do docker ps -q | grep -q . && exit 0; sleep 1; done; exit 1")

    assert op.ask("customer") == "from a container"
    assert op.ask("customer", OTHER) == ""
    assert "Nothing to change" in op.run("plan")


def test_05_customers_come_directly_again(op: Offering) -> None:
    """The hub's port is shut, and the rig admits its ssh alone by the tunnel."""
    op.wish("rig", ("bittensor/subtensor-node",), hub="hub", ingress="direct")
    op.settle()

    assert op.ask("customer") == ""
    assert op.ask("hub", PORT, op.tunnel("rig")["address"]) == ""
    assert str(PORT) not in op.root("hub", "nft list ruleset; iptables-save 2>/dev/null || true")
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_06_two_rigs_that_want_one_public_port(op: Offering) -> None:
    """Said at resolve, before anything is done to either."""
    op.wish("rig", ("bittensor/subtensor-node",), hub="hub", ingress="tunnel")
    op.inventory = op.lab.folder / "inventory.yml"
    op.wish("customer", ("bittensor/subtensor-node",), hub="hub", ingress="tunnel")

    assert "[tunnel-port-twice]" in op.run("resolve", code=Exit.BAD_INPUT)
