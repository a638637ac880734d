"""The lab itself, on real hosts: what other tests and the demo build on.

1. Hosts of each suite boot without a failed unit, have an identity of their own and keep it over reboots.
2. A bare host shows its cards to nouveau, and to no NVIDIA tool.
3. A driver of Debian's, installed by hand, works after the reboot and not before: pynvml and nvidia-smi say so.
4. User space of another version than the loaded module gives the true mismatch.
5. What up made, down removes, also of half a lab.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.adapters.lab import Host, HostSpec, Lab, labs, take_down
from provisioner.adapters.lab.hosts import LABEL
from provisioner.errors import BadInput
from tests.lab.conftest import nvml, ssh

pytestmark = pytest.mark.lab

HOSTS = ("old=bullseye:gtx-1080", "main=bookworm:rtx-3090*2", "new=trixie:rtx-4090", "plain=bookworm")
NAMES = [text.split("=")[0] for text in HOSTS]


@pytest.fixture(scope="module")
def lab(lab_factory: Callable[..., Lab]) -> Lab:
    return lab_factory(*HOSTS)


@pytest.mark.parametrize("name", NAMES)
def test_host_boots_without_a_failed_unit(lab: Lab, name: str) -> None:
    host = lab.host(name)

    assert host.exec("systemctl is-system-running").stdout.strip() == "running", host.exec("systemctl --failed").stdout


@pytest.mark.parametrize("name", NAMES)
def test_operator_logs_in_with_a_checked_host_key_and_becomes_root(lab: Lab, name: str) -> None:
    assert ssh(lab, name, "sudo -n id -un; hostname").stdout.split() == ["root", name]


@pytest.mark.parametrize("name", NAMES)
def test_every_view_of_the_kernel_agrees(lab: Lab, name: str) -> None:
    """The kernel that "runs" is the newest in /boot, whoever asks."""
    newest = lab.host(name).exec("ls /boot/vmlinuz-* | sort -V | tail -1").stdout.strip().removeprefix("/boot/vmlinuz-")

    seen = ssh(lab, name, "uname -r; cat /proc/sys/kernel/osrelease; cut -d' ' -f3 /proc/version; sudo uname -r")

    assert seen.stdout.split() == [newest] * 4


def test_hosts_share_no_identity(lab: Lab) -> None:
    ids = [lab.host(name).exec("cat /etc/machine-id").stdout.strip() for name in NAMES]
    keys = [lab.host(name).host_keys() for name in NAMES]

    assert all(len(i) == 32 for i in ids)
    assert len(set(ids)) == len(set(keys)) == len(NAMES)


def test_up_again_changes_nothing(lab: Lab) -> None:
    before = {host.name: host.exec("cat /proc/sys/kernel/random/boot_id").stdout for host in lab.hosts()}

    again = Lab.up(lab.name, lab.folder, [host.spec for host in lab.hosts()])

    assert {host.name: host.exec("cat /proc/sys/kernel/random/boot_id").stdout for host in again.hosts()} == before


def test_up_with_another_spec_is_refused(lab: Lab) -> None:
    with pytest.raises(BadInput, match="plain is up already, as plain=bookworm"):
        Lab.up(lab.name, lab.folder, [HostSpec("plain", "trixie")])


@pytest.mark.parametrize("how", ["reboot", "reboot_hard"])
def test_reboot_keeps_identity_and_address(lab: Lab, how: str) -> None:
    host = lab.host("plain")
    kept = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = (host.exec(kept).stdout, host.address)
    old_boot = host.exec(boot).stdout

    getattr(host, how)()

    assert (host.exec(kept).stdout, host.address) == before
    assert host.exec(boot).stdout != old_boot
    assert ssh(lab, host, "true").rc == 0


def test_bare_host_has_its_cards_under_nouveau(lab: Lab) -> None:
    """The PCI bus shows them with no driver; no NVIDIA tool is there."""
    host = lab.host("main")
    seen = host.exec(
        "cd /sys/bus/pci/devices; for d in *; do "
        "echo $(cat $d/vendor $d/device $d/class) $(basename $(readlink $d/driver)); done | grep 0x10de.*0x0300"
    )

    assert seen.stdout.splitlines() == ["0x10de 0x2204 0x030000 nouveau"] * 2
    assert host.exec("lsmod").stdout.splitlines()[1].startswith("nouveau ")
    assert host.exec("nvidia-smi").rc == 127
    assert "NVMLError_LibraryNotFound" in nvml(lab, host, "n.nvmlInit()").stderr


def test_driver_works_after_the_reboot_and_not_before(lab: Lab) -> None:
    """Debian's own packages, through DKMS; this is the slow one when the build cache is cold (3 to 4 minutes)."""
    host = lab.host("main")
    # The suite's own version rather than the security archive's, so that this test and others share one module build.
    host.exec(r"printf 'Package: *nvidia*\nPin: release n=bookworm\nPin-Priority: 990\n' >/etc/apt/preferences.d/test")
    host.exec("echo blacklist nouveau >/etc/modprobe.d/test.conf")
    _apt(host, "install linux-headers-$(uname -r) nvidia-kernel-dkms nvidia-smi libnvidia-ml1 nvidia-persistenced")
    version = _version(host, "nvidia-kernel-dkms")

    early = host.exec("nvidia-smi")

    assert (early.rc, early.stdout.split(". ")[0]) == (
        9,
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver",
    )
    assert "NVMLError_DriverNotLoaded" in nvml(lab, host, "n.nvmlInit()").stderr

    host.reboot()

    assert host.exec("cat /sys/module/nvidia/version").stdout.strip() == version
    assert f"Kernel Module  {version}  " in host.exec("cat /proc/driver/nvidia/version").stdout
    assert host.exec("lsmod | cut -d' ' -f1").stdout.split()[-1] == "nvidia"
    assert host.exec("systemctl is-active nvidia-persistenced").stdout.strip() == "active"
    assert host.exec("nvidia-smi -L").stdout.count("NVIDIA GeForce RTX 3090 (UUID: GPU-") == 2
    query = host.exec("nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv,noheader")
    assert query.stdout.splitlines() == [
        f"{index}, NVIDIA GeForce RTX 3090, {version}, 24576 MiB" for index in range(2)
    ]
    table = host.exec("nvidia-smi").stdout.splitlines()
    assert f"Driver Version: {version} " in table[2]
    assert len({len(line) for line in table[1:]}) == 1  # a table: every line as wide as the next
    asked = nvml(
        lab,
        host,
        "n.nvmlInit()\n"
        "print(n.nvmlSystemGetDriverVersion(), n.nvmlDeviceGetCount())\n"
        "c = n.nvmlDeviceGetHandleByIndex(1)\n"
        "print(n.nvmlDeviceGetName(c), n.nvmlDeviceGetPciInfo(c).busId, n.nvmlDeviceGetCudaComputeCapability(c))\n"
        "m = n.nvmlDeviceGetMemoryInfo(c, version=n.nvmlMemory_v2)\n"
        "print(n.nvmlDeviceGetMemoryInfo(c).total >> 20, m.reserved >> 20)\n"
        "print(n.nvmlDeviceGetTemperature(c, 0), n.nvmlDeviceGetPersistenceMode(c))\n"
        "print(n.nvmlDeviceGetComputeRunningProcesses(c))\n"
        "try: n.nvmlDeviceGetMigMode(c)\n"
        "except n.NVMLError_NotSupported: print('no MIG')\n",
    )
    assert asked.stdout.splitlines() == [
        f"{version} 2",
        "NVIDIA GeForce RTX 3090 00000000:21:00.0 (8, 6)",
        "24576 300",
        "34 1",
        "[]",
        "no MIG",
    ], asked.stderr


def test_a_card_can_be_heated_and_lost(lab: Lab) -> None:
    """Tests change a card's state by writing into its file; the next question sees it."""
    host = lab.host("main")
    host.exec(
        "sed -i 's/^temperature .*/temperature 93/' /run/provision-lab/nvml/0; echo lost 1 >>/run/provision-lab/nvml/1"
    )

    asked = nvml(
        lab,
        host,
        "n.nvmlInit(); print(n.nvmlDeviceGetTemperature(n.nvmlDeviceGetHandleByIndex(0), 0))\n"
        "n.nvmlDeviceGetHandleByIndex(1)",
    )

    assert asked.stdout.strip() == "93"
    assert "NVMLError_GpuIsLost" in asked.stderr


def test_other_user_space_than_the_loaded_module_is_a_mismatch(lab: Lab) -> None:
    """As after an upgrade without a reboot; the package's own version makes it, nothing is told to the simulation."""
    host = lab.host("main")
    loaded = host.exec("cat /sys/module/nvidia/version").stdout.strip()
    other = next(v for v in _offered(host, "libnvidia-ml1") if not v.startswith(loaded))
    # Only the library is exchanged, which spares the second build of a module.
    done = host.exec(
        f"cd /tmp && apt-get download -q libnvidia-ml1={other}"
        " && dpkg --force-depends --force-downgrade -i libnvidia-ml1_*.deb"
    )
    assert done.rc == 0, done.stderr
    upstream = other.split("-")[0]

    seen = host.exec("nvidia-smi")

    assert (seen.rc, seen.stdout.splitlines()) == (
        18,
        [
            "Failed to initialize NVML: Driver/library version mismatch",
            f"NVML library version: {'.'.join(upstream.split('.')[:2])}",
        ],
    )
    assert "NVMLError_LibRmVersionMismatch" in nvml(lab, host, "n.nvmlInit()").stderr
    assert host.exec("cat /sys/module/nvidia/version").stdout.strip() == loaded


def test_taking_the_library_away_takes_the_simulated_one_away(lab: Lab) -> None:
    host = lab.host("main")
    assert host.exec("dpkg --purge nvidia-smi libnvidia-ml1").rc == 0

    assert "NVMLError_LibraryNotFound" in nvml(lab, host, "n.nvmlInit()").stderr
    assert host.exec("ls /usr/bin/nvidia-smi").rc != 0
    assert "provision-lab/libnvidia" not in host.exec("cat /proc/self/mountinfo").stdout


def test_hosts_reach_each_other_by_name(lab: Lab) -> None:
    assert lab.host("plain").exec("getent hosts main").stdout.split()[0] == lab.host("main").address


def test_down_removes_exactly_its_own(lab: Lab, lab_factory: Callable[..., Lab]) -> None:
    """A second lab goes; the first stays as it is."""
    second = lab_factory("one=bookworm")
    (second.folder / "host_vars").mkdir()
    client = second._client

    second.down()

    filters = {"label": f"{LABEL}={second.name}"}
    assert not client.containers.list(all=True, filters=filters)
    assert not client.volumes.list(filters=filters)
    assert not client.networks.list(filters=filters)
    assert [p.name for p in second.folder.iterdir()] == ["host_vars"]
    assert [host.state for host in lab.hosts()] == ["running"] * len(HOSTS)


def test_renewed_host_begins_on_the_disk_that_was_kept(lab_factory: Callable[..., Lab]) -> None:
    """Same name, address and login; of the disk what was there when it was kept, or nothing."""
    lab = lab_factory("one=bookworm")
    host = lab.host("one")
    address, tag = host.address, f"provision-lab:{lab.name}"
    host.exec("touch /root/kept")
    host.keep_as(tag)
    try:
        host.exec("touch /root/later")
        kept = lab.renew("one", tag)
        assert (kept.exec("ls /root").stdout.split(), kept.address) == (["kept"], address)
        assert ssh(lab, kept, "true").rc == 0
        assert lab.renew("one").exec("ls /root").stdout == ""
    finally:
        lab._client.images.remove(tag, force=True)


def test_half_a_lab_goes_too(lab_factory: Callable[..., Lab], lab: Lab) -> None:
    """After a crash in the middle of up there may be a volume and no network; labels find it all the same."""
    client = lab._client
    name = f"{lab.name}-half"
    client.volumes.create(f"provision-lab-{name}-x-docker", labels={LABEL: name})
    network = client.networks.create(f"provision-lab-{name}", labels={LABEL: name, "provision.lab.dir": "/nowhere/lab"})

    assert name in [found.name for found in labs()]
    assert take_down(name) == ["1 volume", "1 network"]
    assert network.id not in [n.id for n in client.networks.list()]
    assert take_down(name) == []


def _apt(host: Host, words: str) -> None:
    done = host.exec(f"DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends {words}")
    assert done.rc == 0, done.stdout[-2000:] + done.stderr[-2000:]


def _version(host: Host, package: str) -> str:
    """The installed version as NVIDIA writes it."""
    return str(host.exec(f"dpkg-query -W -f '${{Version}}' {package}").stdout.split("-")[0])


def _offered(host: Host, package: str) -> list[str]:
    lines = host.exec(f"apt-cache madison {package}").stdout.splitlines()
    return [line.split("|")[1].strip() for line in lines]


def test_folder_is_free_of_private_keys_of_hosts(lab: Lab) -> None:
    """A host's private key never leaves it; only the lab's own login key lies here."""
    assert sorted(p.name for p in Path(lab.folder / "ssh").iterdir()) == [
        "config",
        "id_ed25519",
        "id_ed25519.pub",
        "known_hosts",
    ]
