"""`provision upgrade NETWORK --to VERSION --apply` over six hosts: pins first, canary, health, batches, the way back.

One story in numbered steps; each needs those before it. go-livepeer went from CUDA 11 to 12 with v0.7.3, and rig-06 has
driver 470 from before: it must get another driver before it may get that client. The clients are stand-ins in
containers of Docker's own; driver 470 is Debian's, the other driver and the toolkit are those of `standins.py`, the
cards are simulated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from provisioner.resolve.lock import read_lock
from tests.lab import images, standins
from tests.lab.operator import LONG
from tests.lab.serving import DATA, SLOW, Serving, unpacked

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

HOSTS = tuple(f"rig-0{number}" for number in range(1, 7))
OLD_DRIVER = "470.256.02"
LAST = HOSTS[-1]
CLIENT = "go-livepeer"
OLD, NEW, BROKEN = "v0.7.2", "v0.7.3", "v0.8.9"
# It comes up, answers for a moment, and ends: what an update that cannot work on a host looks like from outside.
ENDS = "#!/bin/sh\necho 'no CUDA-capable device is detected'\nsleep 2\nexit 3\n"
WATCH = ("--watch", "15")
QUIET = (
    "mkdir -p /run/systemd/system/provision-watchdog.service.d"
    " && printf '[Unit]\nConditionPathExists=/nowhere\n' >/run/systemd/system/provision-watchdog.service.d/quiet.conf"
    " && systemctl daemon-reload"
)


def prepared(lab: Lab, host: str, repository: standins.Repository) -> dict[str, str]:
    """The images on one host's own registry: the same bytes everywhere, so the same digests."""
    unpacked(lab, host, repository)
    assert lab.host(host).exec(f"mkdir -p {DATA}/{CLIENT}").rc == 0
    return {
        version: images.made(lab, host, f"standin/{CLIENT}", version.replace(".", "-"), script)
        for version, script in ((OLD, images.CLIENT), (NEW, images.CLIENT), (BROKEN, ENDS))
    }


@pytest.fixture(scope="module")
def fleet(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    repository = standins.build(tmp_path_factory.mktemp("standins"))
    lab = lab_factory(*(f"{host}=bookworm:rtx-3090" for host in HOSTS))
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda host: prepared(lab, host, repository), HOSTS))
    assert all(one == made[0] for one in made)
    found = Serving(lab, tmp_path_factory.mktemp("operator"), repository)
    found.images = made[0]
    yield found


def wish(fleet: Serving, network: str, hosts: tuple[str, ...] = HOSTS, **more: str) -> None:
    """The same request for all six; what serves is not thrown out because its branch is past its end.

    Nor because of where it came from: NVIDIA's own repository is no wish, it only offers the newest driver.
    """
    policy = {"past_end_of_life": "keep", "driver_source": "auto"}
    for host in hosts:
        client = fleet.stand_in("livepeer", CLIENT, 8935, "status", images=dict(fleet.images))
        fleet.variables(host, network, [client], policy=dict(policy), **more)


def drivers(fleet: Serving) -> dict[str, str]:
    return {host: fleet.as_root(host, "cat /sys/module/nvidia/version").strip() for host in HOSTS}


def run_by(fleet: Serving) -> dict[str, str]:
    """The version whose image each host's container runs."""
    versions = {image.partition("@")[2]: version for version, image in fleet.images.items()}
    shown = {host: fleet.as_root(host, f"docker inspect --format '{{{{.Config.Image}}}}' {CLIENT}") for host in HOSTS}
    return {host: versions.get(image.strip().partition("@")[2], image) for host, image in shown.items()}


def locked(fleet: Serving) -> dict[str, str]:
    lock = read_lock(fleet.folder / "provision.lock")
    return {host: lock.hosts[host].networks["livepeer"].value for host in HOSTS}


def in_order(text: str, *words: str) -> None:
    """Each is there, behind the one before."""
    at = 0
    for word in words:
        assert word in text[at:], f"{word!r} is not behind what should come before it:\n{text}"
        at = text.index(word, at) + len(word)


def test_01_six_hosts_serve_the_former_client(fleet: Serving) -> None:
    """rig-06 from long ago with Debian's driver 470; then from bare in one apply, and rig-06 keeps what it has."""
    wish(fleet, f"livepeer@{OLD}", (LAST,), provision_driver=f"=={OLD_DRIVER}")
    fleet.run("resolve", "--limit", LAST, *SLOW)
    fleet.run("apply", "--limit", LAST, "--yes", *SLOW)

    wish(fleet, f"livepeer@{OLD}")
    fleet.run("resolve", *SLOW)
    said = fleet.run("apply", "--yes", *SLOW)
    assert all(f"{host}  enrolled" in said for host in HOSTS), said

    for host in HOSTS:
        fleet.wait_for(lambda host=host: fleet.serves(host, "livepeer"), 60, f"{host} serves")  # type: ignore[misc]
    assert run_by(fleet) == dict.fromkeys(HOSTS, OLD)
    assert drivers(fleet) == {**dict.fromkeys(HOSTS[:-1], "580.159.03"), LAST: OLD_DRIVER}


def test_02_a_version_without_an_image_changes_nothing(fleet: Serving) -> None:
    """Said before the first host is touched; the lock is as it was."""
    wish(fleet, "livepeer")
    before = (fleet.folder / "provision.lock").read_text(encoding="utf-8")
    said = fleet.run("upgrade", "livepeer", "--to", "v0.8.10", "--apply", "--yes", code=Exit.BAD_INPUT)
    assert f"rig-01: {CLIENT} has images for {OLD}, {NEW}, {BROKEN}" in said
    assert (fleet.folder / "provision.lock").read_text(encoding="utf-8") == before
    assert run_by(fleet) == dict.fromkeys(HOSTS, OLD)


def test_03_pins_first_then_a_canary_then_batches(fleet: Serving) -> None:
    """rig-06 gets its driver while the former client stays; then all get the new one, one, three, two."""
    said = fleet.run("upgrade", "livepeer", "--to", NEW, "--apply", "--yes", "--batch", "3", *WATCH, *SLOW)
    in_order(
        said,
        f"{LAST}  moves",
        "driver and runtime first; the client stays: 1 host",
        f"canary: {LAST}",
        f"watch {LAST}",
        "the client: 6 hosts",
        "canary: rig-01",
        "watch rig-01",
        "batch 1: rig-02, rig-03, rig-04",
        "batch 2: rig-05, rig-06",
    )
    assert [host for host in HOSTS if f"{host}  serves with {NEW}\n" not in said] == []
    assert run_by(fleet) == locked(fleet) == dict.fromkeys(HOSTS, NEW)
    assert set(drivers(fleet).values()) == {"580.159.03"}
    assert "Nothing to change" in fleet.run("plan", "--exit-code", *SLOW)
    # The former client ran once more on rig-06, after the reboot that brought its driver.
    began = fleet.as_root(LAST, "journalctl -u provision-client@livepeer -o cat -b | grep ' runs '").splitlines()
    versions = {image.partition("@")[2]: version for version, image in fleet.images.items()}
    assert [versions[line.partition("@")[2]] for line in began][-2:] == [OLD, NEW]


def test_04_a_canary_that_does_not_serve_goes_back_and_nobody_follows(fleet: Serving) -> None:
    """The broken client ends at once: rig-01 serves with the former one again, and five never heard of it."""
    began = time.time()
    said = fleet.run("upgrade", "livepeer", "--to", BROKEN, "--apply", "--yes", *WATCH, *SLOW, code=Exit.FAILED)
    in_order(said, "canary: rig-01", "rig-01 does not serve", "rig-01  rolled back", "rig-02  not touched")
    assert said.count("not touched\n") == 5
    assert "batch" not in said

    fleet.wait_for(lambda: fleet.serves("rig-01", "livepeer"), 60, "rig-01 serves again")
    assert run_by(fleet) == locked(fleet) == dict.fromkeys(HOSTS, NEW)
    told = "journalctl -u provision-client@livepeer -o cat --since"
    assert "ended with exit code 3" in fleet.as_root("rig-01", f"{told} @{began:.0f}")
    for host in HOSTS[1:]:
        assert " runs " not in fleet.as_root(host, f"{told} @{began:.0f}"), f"{host} was started anew"
    assert "Nothing to change" in fleet.run("plan", "--exit-code", *SLOW)


def test_05_status_says_who_serves_what_since_when_and_why_not(fleet: Serving) -> None:
    """Six hosts at a glance: one is drained by a person, one's client hangs, one lost a package."""
    for host in HOSTS:  # its timer belongs to the host's state and runs on: only the looks are left out
        fleet.as_root(host, QUIET)
    fleet.as_root("rig-02", "provision-client drain livepeer --wait 0; systemctl stop provision-client@livepeer")
    fleet.as_root("rig-03", f"touch {DATA}/{CLIENT}/hang")
    fleet.as_root("rig-04", "dpkg -i --force-all /srv/standins/libnvidia-ml1_580.95.05-1_amd64.deb")
    fleet.wait_for(lambda: not fleet.serves("rig-03", "livepeer"), 30, "the health check sees it")
    text = fleet.run("status", "--live", *SLOW)
    print(text)
    told = json.loads(fleet.run("status", "--live", "--json", *SLOW))["hosts"]

    for host in ("rig-01", "rig-05", "rig-06"):
        assert (told[host]["state"], told[host]["driver"]) == ("enrolled", "580.159.03")
        client = told[host]["live"]["clients"]["livepeer"]
        assert client["serves"] and client["since"] and not client["why"]
        assert f"livepeer {NEW}" in next(line for line in text.splitlines() if line.startswith(host))
    why = {host: told[host]["live"]["clients"]["livepeer"]["why"] for host in HOSTS[1:4]}
    assert [told[host]["live"]["clients"]["livepeer"]["serves"] for host in HOSTS[1:4]] == [False, False, True]
    assert why["rig-02"].startswith("drained: by provision, since ")
    assert "does not answer" in why["rig-03"]
    assert why["rig-04"].startswith("NVML: ")
    assert told["rig-04"]["state"] == "out"
    assert "libnvidia-ml1" in told["rig-04"]["reason"]
    # Two looks: a client that hangs ends a connection now in this way, now in that.
    assert all(words in text for words in (why["rig-02"], "/status does not answer: ", why["rig-04"]))
