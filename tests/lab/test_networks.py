"""From bare to enrolled and serving, and what happens to a rig that serves: drift, jobs, hung clients, heat, Xids.

One story in numbered steps on one host of Debian 12; each step needs those before it. Driver and toolkit are the
stand-ins of `standins.py`, the clients' containers those of `images.py`: what is proven is what gate, drain, watchdog,
Docker, systemd and apt do; nothing of the networks' own clients is, but for btcli and vastai, which are installed. The
host serves Lium, and at the end io.net, Render and Akash too.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioner.adapters.lab import Lab
from provisioner.adapters.runs import SystemClock
from provisioner.adapters.signing import load_or_make
from provisioner.errors import Exit
from provisioner.model.enrolment import EnrolmentRecord, read_record
from tests.enrolments import signed
from tests.lab import images, standins
from tests.lab.conftest import ssh
from tests.lab.operator import BIN, LONG
from tests.lab.serving import DATA, SLOW, Serving, unpacked

# Not in the short form before it was seen to pass as a whole.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

HOST = "rig-net"
RECORD = "/var/lib/provision/enrolment.json"
POWER_W = 300
POWER = [{"model": "*", "limit_w": POWER_W, "clocks_mhz": [210, 1800]}]


class Rig(Serving):
    """An operator of one host."""

    def wish(self, network: str, clients: list[dict[str, Any]] | None = None, **more: Any) -> None:
        """State the host's intent and resolve it."""
        self.variables(
            HOST, network, clients or [], **{"provision_driver": "==580.95.05", "provision_power": POWER, **more}
        )
        self.run("resolve", *SLOW)

    def root(self, command: str, rc: int = 0) -> str:
        return self.as_root(HOST, command, rc)

    def watched(self, *, at_once: bool = True) -> dict[str, Any]:
        """Let the watchdog look once, now; `at_once`: as if the wait behind its last step were over."""
        if at_once:
            self.root(
                "python3 - <<'EOF'\nimport json, os\npath = '/var/lib/provision/watchdog.json'\n"
                "if os.path.exists(path):\n    status = json.load(open(path))\n"
                "    for cause in status['memory']['ladder']['causes'].values():\n        cause['next'] = 0\n"
                "    json.dump(status, open(path, 'w'))\nEOF"
            )
        self.root("/usr/local/sbin/provision-watchdog run")
        found: dict[str, Any] = json.loads(self.root("cat /var/lib/provision/watchdog.json"))
        return found

    def forget_causes(self) -> None:
        """Begin every ladder anew. Each apply starts the timer again: its rounds would take steps in between."""
        self.root("systemctl stop provision-watchdog.timer provision-watchdog.service")
        self.root("rm -f /var/lib/provision/watchdog.json; rm -rf /var/lib/provision/drained")

    def active(self, network: str) -> str:
        return self.lab.host(HOST).exec(f"systemctl is-active provision-client@{network}").stdout.strip()

    def healthy(self, network: str) -> bool:
        return self.serves(HOST, network)


def actions(status: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["action"], one["cause"]) for one in status["actions"]]


@pytest.fixture(scope="module")
def rig(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    repository = standins.build(tmp_path_factory.mktemp("standins"))
    lab = lab_factory(f"{HOST}=bookworm:rtx-3090")
    unpacked(lab, HOST, repository)
    found = Rig(lab, tmp_path_factory.mktemp("operator"), repository)
    for name in ("executor-executor-1", "io-worker-vc", "io-worker-monitor", "stand-in-render"):
        found.images[name] = images.made(lab, HOST, f"standin/{name}", "1")
        found.root(f"mkdir -p {DATA}/{name}")
    yield found


def lium(rig: Rig, **more: Any) -> list[dict[str, Any]]:
    return [rig.stand_in("lium", "executor-executor-1", 8001, "update-status", **more)]


def test_01_bad_wishes_are_told_before_anything_is_changed(rig: Rig) -> None:
    """An image without a digest, a port that is taken, a version that has no image."""
    path = rig.lab.folder / "host_vars" / f"{HOST}.yml"
    rig.wish("lium", lium(rig))
    good = path.read_text(encoding="utf-8")
    path.write_text(good.replace(rig.images["executor-executor-1"], "standin/executor:latest"), encoding="utf-8")
    assert "has no digest" in rig.run("resolve", code=Exit.BAD_INPUT)
    path.write_text(good, encoding="utf-8")

    one = lium(rig)[0]
    rig.wish("lium", [{**one, "image": None, "images": {"0.0.1": rig.images["executor-executor-1"]}}])
    assert "no image for client" in rig.run("plan", *SLOW, code=Exit.FAILED)
    rig.wish("lium", [{**one, "ports": ["5000:8080"]}])
    assert "wants port 5000/tcp, and something listens on it" in rig.run("plan", *SLOW, code=Exit.FAILED)


def test_02_from_bare_to_serving(rig: Rig) -> None:
    """One apply: driver, engine, toolkit, image by digest from the registry, checks, record, client."""
    rig.wish("lium", lium(rig))
    assert f"{HOST}  enrolled" in rig.run("apply", "--yes", *SLOW)

    rig.wait_for(lambda: rig.healthy("lium"), 30, "the stand-in serves")
    assert rig.active("lium") == "active"
    answer = rig.root(
        "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8001/update-status')"
        '.read().decode())"'
    )
    assert "stand-in standin/executor-executor-1 1 gpus=all" in answer
    assert rig.images["executor-executor-1"].partition("@")[2] in rig.root(
        "docker inspect --format '{{.Config.Image}}' executor-executor-1"
    )
    assert "Nothing to change" in rig.run("plan", "--exit-code", *SLOW)
    rig.root("systemctl stop provision-watchdog.timer")  # the steps below look when they choose to


def test_03_the_gate_is_quick_and_status_says_who_serves(rig: Rig) -> None:
    """Under 300 ms of processor time (a busy machine makes it wait longer), and one line of the table."""
    took = rig.root(
        "python3 - 2>/dev/null <<'EOF'\nimport resource, subprocess\nfor n in range(5):\n"
        "  before = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "  subprocess.check_call(['/usr/local/sbin/provision-gate', 'check', 'lium'])\n"
        "  after = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "  print(round(1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)))\nEOF"
    ).split()
    assert sorted(map(int, took))[2] < 300, took
    assert "enrolled" in rig.run("status", *SLOW)


def test_04_a_client_that_ends_is_started_again(rig: Rig) -> None:
    """Its exit code and last words stand in the journal; systemd starts it after 30 s."""
    rig.root(f"echo 7 >{DATA}/executor-executor-1/end")
    journal = "journalctl -u provision-client@lium -o cat --since -2min"
    rig.wait_for(lambda: "ended with exit code 7" in rig.root(journal), 20, "the end is told")
    assert "told to end" in rig.root(journal)
    rig.wait_for(lambda: rig.healthy("lium"), 60, "it serves again")


def test_05_an_engine_that_is_late_is_waited_for(rig: Rig) -> None:
    """The gate is closed for what may pass: systemd asks again, and the client comes up by itself."""
    rig.root("systemctl stop provision-client@lium docker.socket docker.service")
    rig.root("systemctl start --no-block provision-client@lium; sleep 3")
    assert "Docker does not answer" in rig.root("journalctl -u provision-client@lium -o cat --since -1min")
    assert rig.active("lium") in ("activating", "inactive")
    rig.root("systemctl start docker.socket docker.service")
    rig.wait_for(lambda: rig.healthy("lium"), 90, "it comes up by itself")


def test_06_a_running_job_is_waited_for(rig: Rig) -> None:
    """A change of the client drains first: a pod_* container is a job, and apply waits until it is gone."""
    image = f"{images.REGISTRY}/{rig.images['executor-executor-1']}"
    rig.root(f"docker run -d --name pod_7 --entrypoint /bin/sleep {image} 600")
    rig.wish("lium", lium(rig, heartbeat_s=12))
    running = rig.start("apply", "--yes", *SLOW)
    try:
        rig.wait_for(lambda: "by provision" in rig.root("cat /var/lib/provision/drained/lium; true"), 120, "it drains")
        time.sleep(6)
        assert running.poll() is None
        assert rig.active("lium") == "active"
    finally:
        rig.root("docker rm -f pod_7")
    output, _ = running.communicate(timeout=200)

    assert running.returncode == Exit.OK, output
    rig.wait_for(lambda: rig.healthy("lium"), 30, "it serves again")


def test_07_a_foreign_driver_change_closes_the_gate_and_apply_mends(rig: Rig) -> None:
    """Somebody's package replaces the library under the loaded module: gate, doctor, watchdog, then apply."""
    rig.forget_causes()
    deb = f"{standins.WHERE}/libnvidia-ml1_580.159.03-1_amd64.deb"
    rig.root(f"dpkg -i --force-all {deb} >/dev/null 2>&1")
    assert "NVML: " in rig.root("/usr/local/sbin/provision-gate check lium", rc=1)
    assert "580.159.03" in rig.run("doctor", HOST, *SLOW, code=Exit.FAILED)
    rig.forget_causes()
    assert actions(rig.watched()) == [("drain", "gate-closed/lium")]
    assert actions(rig.watched()) == [("stop-client", "gate-closed/lium")]
    rig.wait_for(lambda: rig.active("lium") == "inactive", 60, "the client stops")
    rig.root("systemctl start provision-client@lium")
    assert rig.active("lium") == "inactive"
    assert "stays stopped" in rig.root("journalctl -u provision-client@lium -o cat -n 20")

    rig.forget_causes()
    assert f"{HOST}  enrolled" in rig.run("apply", "--yes", *SLOW)
    rig.wait_for(lambda: rig.healthy("lium"), 30, "it serves again")


def test_08_a_hung_client_is_restarted_and_given_up_in_the_end(rig: Rig) -> None:
    """Neither answer nor heartbeat: three restarts, then it is told; never while a job runs."""
    rig.forget_causes()
    rig.root(f"touch {DATA}/executor-executor-1/hang")
    rig.wait_for(lambda: not rig.healthy("lium"), 30, "the health check sees it")
    image = f"{images.REGISTRY}/{rig.images['executor-executor-1']}"
    rig.root(f"docker run -d --name pod_8 --entrypoint /bin/sleep {image} 600")
    status = rig.watched()
    assert (actions(status), status["held"]) == ([], {"heartbeat-stale/lium": "restart-client: a job runs"})
    rig.root("docker rm -f pod_8")
    taken = []
    for _ in range(4):
        taken += actions(rig.watched())
        rig.wait_for(lambda: rig.active("lium") == "active", 60, "it was restarted")
    assert taken == [("restart-client", "heartbeat-stale/lium")] * 3 + [("tell", "heartbeat-stale/lium")]
    rig.root(f"rm {DATA}/executor-executor-1/hang; systemctl restart provision-client@lium")
    rig.wait_for(lambda: rig.healthy("lium"), 60, "it serves again")


def test_09_a_hot_card(rig: Rig) -> None:
    """95 °C: the caps come first, then the gate closes, then the client stops; cool again, it all opens."""
    card = "/run/provision-lab/nvml/0"
    before = rig.root(f"cat {card}")
    rig.forget_causes()
    rig.root(f"sed -i /^temperature/d {card}; printf 'temperature 95\\ntemperature_slowdown 93\\n' >>{card}")
    taken = [action for _ in range(6) for action, _ in actions(rig.watched())]
    assert taken == ["cap-power"] * 3 + ["drain", "stop-client", "tell"]
    assert "is at 95 °C" in rig.root("/usr/local/sbin/provision-gate check", rc=1)
    rig.root(f"cat >{card} <<'EOF'\n{before}EOF")
    rig.root(
        "python3 - <<'EOF'\nimport json\npath = '/var/lib/provision/watchdog.json'\nstatus = json.load(open(path))\n"
        "for cause in status['memory']['ladder']['causes'].values():\n    cause['seen'] -= 600\n"
        "json.dump(status, open(path, 'w'))\nEOF"
    )
    assert ("reopen", "lium") in actions(rig.watched(at_once=False))
    rig.watched()  # the client that was stopped is down now, and may start
    rig.wait_for(lambda: rig.healthy("lium"), 60, "it serves again")


def test_10_xid_79_and_no_reboot_unless_it_was_asked_for(rig: Rig) -> None:
    """A card fell off the bus: the gate closes, nothing reboots by itself, and it is told."""
    rig.forget_causes()
    line = "3,901,1200000,-;NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus."
    rig.root(f"rm -f /dev/kmsg; echo {shlex.quote(line)} >/dev/kmsg")  # the machine's own log stays out of it
    assert actions(rig.watched()) == [("drain", "xid-hardware")]
    assert actions(rig.watched()) == [("tell", "xid-hardware")]
    assert "drained: watchdog: Xid 79" in rig.root("/usr/local/sbin/provision-gate check lium", rc=1)
    rig.root("rm -f /dev/kmsg")
    rig.forget_causes()


def test_11_a_full_disk(rig: Rig) -> None:
    """Less than the configured rest is free: no new job, and what runs goes on."""
    config = "/etc/provision/watchdog.json"
    before = rig.root(f"cat {config}")
    rig.root(f"sed -i 's/{{/{{\"disk_mib\": 999999999,/' {config}")
    assert actions(rig.watched()) == [("drain", "disk-full")]
    assert actions(rig.watched()) == [("tell", "disk-full")]
    assert rig.active("lium") == "active"
    rig.root(f"cat >{config} <<'EOF'\n{before}EOF")
    rig.forget_causes()


def test_12_records_that_are_none(rig: Rig, tmp_path: Path) -> None:
    """Edited, forged with another key, another host's, and expired: the gate says what each is."""
    real = rig.root(f"cat {RECORD}")
    record = read_record(real)
    assert record is not None
    own = load_or_make(rig.folder / "config")
    other = load_or_make(tmp_path / "other")
    now = SystemClock().now().replace(microsecond=0)
    bound = record.bound_to.model_copy(update={"machine": "0" * 64})
    envelope = json.loads(real)
    envelope["payload"] = envelope["payload"][:-8] + "AAAA" + envelope["payload"][-4:]
    tried = {
        "is wrong: it was edited or damaged": json.dumps(envelope),
        "a key that this host does not trust": signed(record, other).text,
        "was made for another machine": signed(_but(record, bound_to=bound), own).text,
        "the enrolment ended at": signed(
            _but(record, enrolled_at=now - timedelta(days=31), expires_at=now - timedelta(days=1)), own
        ).text,
    }
    try:
        for words, text in tried.items():
            done = ssh(rig.lab, HOST, f"sudo tee {RECORD} >/dev/null", given=text.encode())
            assert done.rc == 0
            assert words in rig.root("/usr/local/sbin/provision-gate check lium", rc=1)
    finally:
        ssh(rig.lab, HOST, f"sudo tee {RECORD} >/dev/null", given=real.encode())
    rig.root("/usr/local/sbin/provision-gate check lium")


def _but(record: EnrolmentRecord, **changes: Any) -> EnrolmentRecord:
    return record.model_copy(update=changes)


def test_13_the_record_for_a_third_party(rig: Rig) -> None:
    """With the file and the public key alone; and a page that shows the same."""
    kept = str(rig.folder / ".provision" / "enrolled" / f"{HOST}.json")
    page = rig.folder / "rig.html"
    key = str(rig.folder / "config" / "signing.pub")
    assert "the record holds until" in rig.alone("attest", "verify", kept, "--key", key)
    rig.alone("attest", "report", kept, "--key", key, "-o", str(page))
    assert "580.95.05" in page.read_text(encoding="utf-8")


def card(rig: Rig) -> dict[str, str]:
    """The simulated card's state: what a driver would answer."""
    return dict(line.split(" ", 1) for line in rig.root("cat /run/provision-lab/nvml/0").splitlines() if " " in line)


def test_14_the_power_policy_outlives_reboot_and_driver(rig: Rig) -> None:
    """Both lose it. A card gets what it allows when the policy asks for more, and its own limit when it is undone."""
    assert int(card(rig)["power_limit_mw"]) == POWER_W * 1000
    assert (card(rig)["clock_locked_least"], card(rig)["clock_locked_most"]) == ("210", "1800")
    rig.root("/usr/local/sbin/provision-power show")

    rig.lab.host(HOST).reboot()
    rig.wait_for(lambda: card(rig)["power_limit_mw"] == str(POWER_W * 1000), 30, "it is set again after the boot")
    assert card(rig)["clock_locked_most"] == "1800"
    rig.wait_for(lambda: rig.healthy("lium"), 60, "it serves after the boot")

    # The module loaded anew begins with the card's defaults, and the kernel says that it was added.
    rig.root(f"sed -i 's/^power_limit_mw .*/power_limit_mw {card(rig)['power_default_mw']}/' /run/provision-lab/nvml/0")
    assert f"policy {POWER_W} W" in rig.root("/usr/local/sbin/provision-power show", rc=1)
    rule = rig.root("cat /etc/udev/rules.d/90-provision-power.rules")
    wanted = 'ACTION=="add", SUBSYSTEM=="module", KERNEL=="nvidia", RUN+="'
    command = next(line for line in rule.splitlines() if line.startswith(wanted)).removeprefix(wanted).rstrip('"')
    rig.root(command)
    rig.wait_for(lambda: card(rig)["power_limit_mw"] == str(POWER_W * 1000), 20, "it is set again for the new module")

    rig.root("/usr/local/sbin/provision-power undo")
    assert card(rig)["power_limit_mw"] == card(rig)["power_default_mw"]
    assert "clock_locked_most" not in card(rig)
    rig.root("""sed -i.was 's/"limit_w": [0-9.]*/"limit_w": 1900/' /etc/provision/power.json""")
    assert "above what the card allows" in rig.root("/usr/local/sbin/provision-power apply")
    assert card(rig)["power_limit_mw"] == card(rig)["power_max_mw"]
    rig.root("mv /etc/provision/power.json.was /etc/provision/power.json; /usr/local/sbin/provision-power apply")


def test_15_planted_secrets_are_in_their_files_and_nowhere_else(rig: Rig, tmp_path: Path) -> None:
    """Twelve marked values, half of them in a vault, half in the environment; then everything is searched."""
    marks = {f"secret-{number:02}": f"planted-{secrets.token_hex(12)}" for number in range(12)}
    names = list(marks)
    vaulted, exported = names[:6], names[6:]
    password = tmp_path / "password"
    password.write_text(secrets.token_hex(8), encoding="utf-8")
    # Not in a folder host_vars/HOST: for Ansible that would take the place of the file of this name.
    vault = rig.lab.folder / "group_vars" / "lab" / "vault.yml"
    vault.parent.mkdir(parents=True)
    plain = json.dumps({f"lium_{name.replace('-', '_')}": marks[name] for name in vaulted})
    encrypt = [str(BIN / "ansible-vault"), "encrypt", "--vault-password-file", str(password), "--output", str(vault)]
    subprocess.run(encrypt, input=plain, text=True, check=True, capture_output=True)
    shut = (rig.lab.folder / "host_vars" / f"{HOST}.yml").read_text(encoding="utf-8")
    before = dict(rig.environment)
    rig.environment |= {"ANSIBLE_VAULT_PASSWORD_FILE": str(password)}
    rig.environment |= {f"LIUM_{name.replace('-', '_').upper()}": marks[name] for name in exported}
    sources = [{"network": "lium", "name": name, "variable": f"lium_{name.replace('-', '_')}"} for name in vaulted] + [
        {"network": "lium", "name": name, "env": f"LIUM_{name.replace('-', '_').upper()}"} for name in exported
    ]
    try:
        rig.wish("lium", lium(rig, secrets=names), provision_secrets=sources)
        said = [rig.run("plan", *SLOW), rig.run("plan", "--json", *SLOW)]
        with Processes(rig.folder / "processes") as seen:
            said.append(rig.run("apply", "--yes", *SLOW))
        said += [rig.run("status", "--live", "--json", *SLOW), rig.run("verify", *SLOW), rig.run("plan", *SLOW)]
        rig.run("capture", HOST, "-o", str(rig.folder / "capture.yml"), *SLOW)
        rig.alone(
            *("attest", "report", str(rig.folder / ".provision" / "enrolled" / f"{HOST}.json")),
            *("--key", str(rig.folder / "config" / "signing.pub"), "-o", str(rig.folder / "secrets.html")),
        )
    finally:
        rig.environment = before
    rig.wait_for(lambda: rig.healthy("lium"), 60, "it serves")

    # Each is where it belongs, for root alone, and the client can read it.
    for name, mark in marks.items():
        assert rig.root(f"cat /etc/provision/secrets/lium.{name}").strip() == mark
        assert rig.root(f"docker exec executor-executor-1 cat /run/secrets/{name}").strip() == mark
    assert set(rig.root("stat -c '%a %U' /etc/provision/secrets/lium.*").split("\n")[:-1]) == {"600 root"}

    # Nowhere else: what was said, what ran, what lies here, what lies there.
    assert seen.count > 20
    here = [path for folder in (rig.folder, rig.lab.folder, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert len([path for path in here if ".provision/runs" in str(path)]) > 5
    for mark in marks.values():
        assert not [text for text in said if mark in text]
        assert not [path for path in here if mark.encode() in path.read_bytes()]
    patterns = "\n".join(marks.values())
    looked = "/etc /var /usr/local /opt /root /home /srv /tmp /run /boot"
    command = f"grep -rlF -f - --exclude-dir=provision-lab --devices=skip {looked} 2>/dev/null; true"
    done = ssh(rig.lab, HOST, f"sudo sh -c {shlex.quote(command)}", given=patterns.encode())
    assert sorted(done.stdout.split()) == sorted(f"/etc/provision/secrets/lium.{name}" for name in marks)
    told = rig.root(
        "journalctl -o cat; docker inspect executor-executor-1; docker logs executor-executor-1; dmesg; true"
    )
    assert not [name for name, mark in marks.items() if mark in told]

    # A wallet that others can read is put right, and one that cannot be had stops the plan.
    rig.root("chmod 644 /etc/provision/secrets/lium.secret-03")
    rig.environment |= {"ANSIBLE_VAULT_PASSWORD_FILE": str(password)}
    try:
        assert "secret-missing" in rig.run("plan", *SLOW, code=Exit.FAILED)
        rig.environment |= {f"LIUM_{name.replace('-', '_').upper()}": marks[name] for name in exported}
        rig.run("apply", "--yes", *SLOW)
    finally:
        rig.environment = before
        vault.unlink()
        (rig.lab.folder / "host_vars" / f"{HOST}.yml").write_text(shut, encoding="utf-8")
    assert rig.root("stat -c %a /etc/provision/secrets/lium.secret-03").strip() == "600"


class Processes:
    """Notes every command line of this machine while it is open: those of the lab's hosts are among them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: set[bytes] = set()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look)

    @property
    def count(self) -> int:
        return len(self.lines)

    def __enter__(self) -> Processes:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.path.write_bytes(b"\n".join(sorted(self.lines)))

    def _look(self) -> None:
        while not self.ended.wait(0.05):
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.lines.add(place.read_bytes())


@pytest.mark.parametrize("network", ["ionet", "render", "akash"])
def test_16_the_other_networks(rig: Rig, network: str) -> None:
    """The same rig for another network: enrolled, its gate open, its stand-in up where there is one."""
    clients = {
        "ionet": [("io-worker-vc", 8002), ("io-worker-monitor", 8003)],
        "render": [("stand-in-render", 8004)],
        "akash": [],
    }[network]
    rig.wish(network, [rig.stand_in(network, name, port) for name, port in clients])
    assert f"{HOST}  enrolled" in rig.run("apply", "--yes", *SLOW)
    rig.root(f"/usr/local/sbin/provision-gate check {network}")
    assert "not for lium" in rig.root("/usr/local/sbin/provision-gate check lium", rc=1)
    if clients:
        rig.wait_for(lambda: rig.healthy(network), 60, "the stand-ins serve")
    assert "Nothing to change" in rig.run("plan", "--exit-code", *SLOW)


@pytest.mark.parametrize(
    ("network", "version", "offline"),
    [
        ("bittensor", "btcli --version", "btcli --help"),
        ("vast-ai", "vastai --version", "vastai --help"),
    ],
)
def test_17_python_clients_are_really_there(rig: Rig, network: str, version: str, offline: str) -> None:
    """Installed by hash into an environment of their own; both answer without a network."""
    rig.wish(network)
    rig.run("apply", "--yes", *SLOW)
    program = f"/opt/provision/{network}/current/bin/"
    assert any(sign.isdigit() for sign in rig.root(program + version))
    assert "usage" in rig.root(f"unshare --net {program}{offline}").lower()
