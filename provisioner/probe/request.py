"""What a host is asked: two profiles as plain data, and what one plan adds to them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from provisioner.model.shutdown import NOTED
from provisioner.model.source import LockedSource, preview

RPM = r"rpm -qa --qf '%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n'"
DPKG = r"dpkg-query -W -f='${Package}\t${Version}\t${db:Status-Abbrev}\n'"


@dataclass(frozen=True)
class Command:
    """A read-only command; `line` is its key in the capture, `shell` whether it needs one to run."""

    line: str
    limit_s: float = 10
    shell: bool = False
    program: str = ""  # a file beside this one, whose text the host's Python runs
    words: tuple[str, ...] = ()  # of a program that dnf's own Python runs, with dnf's modules

    @property
    def argv(self) -> list[str]:
        if self.program:
            text = (Path(__file__).parent / self.program).read_text(encoding="utf-8")
            return ["/bin/sh", "-c", _OF_DNF, text, *self.words] if self.words else ["python3", "-IS", "-c", text]
        return ["/bin/sh", "-c", self.line] if self.shell else shlex.split(self.line)


_OF_DNF = (
    "command -v dnf >/dev/null || exit 127; "
    'p=/usr/libexec/platform-python; [ -x "$p" ] || p=python3; exec "$p" -I -c "$0" "$@"'
)
"""RHEL 8 has dnf's modules in the system's own Python alone, and maybe no other one."""


@dataclass(frozen=True)
class Devices:
    """Devices under `root`: every one tells its vendor, those of `vendor` also the files in `names`."""

    root: str
    vendor: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """Lists of what to read. A star in a path is expanded on the host; what it matched is kept as `ls -d PATTERN`."""

    files: tuple[str, ...] = ()
    listings: tuple[str, ...] = ()  # answered as `ls -d PATTERN`
    folders: tuple[str, ...] = ()  # answered as `ls FOLDER`
    links: tuple[str, ...] = ()  # answered as `readlink -f PATH`
    disks: tuple[str, ...] = ()  # answered as one `df -B1M --output=file,avail PATH…`
    units: tuple[str, ...] = ()  # answered by one `systemctl show`
    commands: tuple[Command, ...] = ()
    devices: tuple[Devices, ...] = ()
    offers: tuple[str, ...] = ()  # package names, stars allowed, whose offered versions are wanted
    nvml: bool = False
    nvml_health: bool = False  # also ask each card how it feels
    nvml_limit_s: float = 15
    width: int = 4  # commands at a time


KUBECTL = ("/usr/bin/kubectl", "/usr/local/bin/kubectl", "/snap/bin/kubectl")
K3S = ("/usr/local/bin/k3s", "/usr/bin/k3s", "/opt/bin/k3s")
KUBELETS = ("/usr/bin/kubelet", "/usr/local/bin/kubelet", "/usr/local/bin/rke2", "/snap/bin/microk8s")
KUBERNETES = (*KUBECTL, *K3S, *KUBELETS)
"""Where programs of Kubernetes lie: packages, k3s's installer, kubespray, RKE2's installer, snaps."""


STATE = Profile(
    files=(
        "/etc/os-release",
        "/proc/version",
        "/proc/sys/kernel/osrelease",
        "/proc/cmdline",
        "/proc/modules",
        "/proc/meminfo",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/1/stat",
        "/proc/sys/kernel/random/boot_id",
        "/proc/driver/nvidia/version",
        "/sys/module/nvidia/version",
        "/sys/module/apparmor/parameters/enabled",
        "/run/systemd/container",
        "/etc/default/grub",
        "/etc/default/grub.d/*.cfg",
        "/boot/grub/grub.cfg",
        "/boot/grub/grubenv",
        "/proc/mounts",
        "/etc/modprobe.d/*.conf",
        "/lib/modprobe.d/*nvidia*",
        "/lib/modprobe.d/*nouveau*",
        "/etc/apt/preferences.d/*",
        "/etc/apt/apt.conf.d/*provision*",
        "/etc/apt/apt.conf.d/20auto-upgrades",
        "/etc/docker/daemon.json",
        "/sys/firmware/efi/efivars/SecureBoot-*",
        "/sys/firmware/efi/efivars/MokSBStateRT-*",
        "/var/lib/provision/*.json",
        "/var/lib/provision/enrolment.json",
        "/var/lib/provision/journal.json",
        "/var/lib/provision/trial/state.json",
        NOTED,
        "/run/provision/tunnel.json",
        "/etc/wireguard/prov0.conf",
        "/etc/nebula/provision/config.yml",
        "/etc/provision/provision-tunnel.keys",
        "/var/lib/provision/guard.json",
    ),
    listings=(
        "/sys/firmware/efi",
        "/sys/module/nouveau",
        "/lib/modules/*/build/Makefile",
        "/lib/modules/*/updates/dkms/nvidia*",
        "/lib/modules/*/kernel/nvidia-*/nvidia.ko*",
        "/lib/modules/*/kernel/drivers/video/nvidia.ko*",
        "/usr/bin/nvidia-uninstall",
        "/var/lib/provision/history/now.json",
        *KUBERNETES,
    ),
    folders=("/boot", "/var/lib/dpkg/updates"),
    links=(
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
        "/usr/lib64/libnvidia-ml.so.1",
        "/usr/lib/libnvidia-ml.so.1",
        "/var/lib/dkms/*/kernel-*",
    ),
    disks=("/", "/boot", "/usr", "/var", "/var/lib/docker", "/tmp"),
    units=("docker.service",),
    commands=(Command(DPKG),),
    devices=(Devices("/sys/bus/pci/devices", "0x10de", ("device", "class", "subsystem_vendor", "subsystem_device")),),
)
"""Enough for `provision plan` to see that nothing differs: two subprocesses, about a hundred small files.

Each unit that is named costs systemd a millisecond, so those that a plan compares come with its request.
"""


SOURCE_FILES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources")
"""Where apt's sources stand; a plan reads them only where the lock names a source."""

DNF_FILES = (
    "/etc/dnf/plugins/versionlock.list",
    "/etc/dnf/plugins/versionlock.conf",
)
DNF_LISTINGS = ("/lib/modules/*/extra/nvidia*",)
GRUBBY = Command("grubby --default-kernel")
"""What tells of RHEL-likes besides."""

DNF_STATE = Profile(
    files=(*(path for path in STATE.files if not path.startswith("/etc/apt/")), *DNF_FILES),
    listings=(*STATE.listings, *DNF_LISTINGS),
    folders=tuple(path for path in STATE.folders if "dpkg" not in path),
    links=STATE.links,
    disks=STATE.disks,
    units=STATE.units,
    commands=(Command(RPM), GRUBBY),
    devices=STATE.devices,
)
"""As STATE, of a host that is known to have dnf."""

FULL = Profile(
    files=(
        *STATE.files,
        *SOURCE_FILES,
        *DNF_FILES,
        "/etc/apt/preferences",
        "/etc/apt/apt.conf.d/50unattended-upgrades",
        "/etc/containerd/config.toml",
        "/etc/nvidia-container-runtime/config.toml",
        "/etc/debian_version",
        "/proc/cpuinfo",
        "/proc/net/route",
        "/proc/net/ipv6_route",
        "/etc/ufw/ufw.conf",
        "/etc/wireguard/prov0*.pub",
        "/etc/nebula/provision/prov0*.pub",
        "/etc/nebula/provision/signed/*.crt",
        "/etc/provision/prov0/prov0*.pub",
        "/etc/ssh/ssh_host_ed25519_key.pub",
        "/var/lib/provision/joined/*.json",
    ),
    listings=(
        *STATE.listings,
        *DNF_LISTINGS,
        "/sys/module/wireguard",
        "/lib/modules/*/kernel/drivers/net/wireguard/wireguard.ko*",
        "/usr/sbin/nft",
        "/etc/iptables/rules.v4",
    ),
    folders=STATE.folders,
    links=STATE.links,
    disks=STATE.disks,
    units=(
        "docker.service",
        "docker.socket",
        "containerd.service",
        "nvidia-persistenced.service",
        "nvidia-fabricmanager.service",
        "unattended-upgrades.service",
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "systemd-timesyncd.service",
        "chrony.service",
        "ntp.service",
        "ntpsec.service",
        "ssh.service",
    ),
    commands=(
        *STATE.commands,
        Command(RPM),
        GRUBBY,
        Command("dkms status"),
        Command("modinfo -F version nvidia"),
        Command("modinfo -F license nvidia"),
        Command("mokutil --sb-state"),
        Command("nvidia-smi", limit_s=20),
        Command("docker info --format '{{json .}}'", limit_s=15),
        Command("systemd-detect-virt"),
        Command("timedatectl show"),
    ),
    devices=STATE.devices,
    offers=(
        "nvidia-*",
        "libnvidia-*",
        "libcuda1",
        "libcuda1-*",
        "libnvcuvid1*",
        "libnvoptix1*",
        "libxnvctrl0*",
        "firmware-nvidia-*",
        "linux-headers-*",
        "linux-image-*",
        "linux-modules-nvidia-*",
        "linux-kbuild-*",
        "dkms",
        "docker.io",
        "docker-cli",
        "docker-ce",
        "docker-ce-cli",
        "docker-buildx-plugin",
        "docker-compose-plugin",
        "containerd",
        "containerd.io",
        "runc",
        "podman",
        "cuda-compat-*",
        "cuda-drivers",
        "cuda-drivers-*",
        "glx-alternative-*",
        "update-glx",
        "wireguard-tools",
        "wireguard-go",
    ),
    nvml=True,
)
"""Everything that facts and the resolver read: offers of the package sources, NVML, tools that tell more."""


DNF_OFFERS = (
    "kmod-nvidia-*",
    "nvidia-*",
    "libnvidia-*",
    "cuda-drivers*",
    "cuda-compat-*",
    "xorg-x11-nvidia",
    "kernel-devel",
    "dkms",
    "docker-ce",
    "docker-ce-cli",
    "docker-buildx-plugin",
    "docker-compose-plugin",
    "containerd.io",
    "podman",
)
"""Names whose offered versions are wanted of a RHEL-like."""


KEYRINGS = Command(
    "sed -nE 's/.*[Ss][Ii][Gg][Nn][Ee][Dd]-[Bb][Yy][=:] *([^],[:space:]]+).*/\\1/p'"
    " /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null | sort -u |"
    " { cat; ls -d /etc/apt/trusted.gpg.d/* 2>/dev/null | grep -vE '/(debian-archive|ubuntu-keyring)-'; } |"
    ' while read -r key; do [ -f "$key" ] && printf \'%s \' "$key" && head -c 100000 "$key" | base64 -w 0 && echo;'
    " done",
    shell=True,
)
"""The keys that sign the package sources, `PATH BASE64` a line: apt says that one has expired only when it is asked.

Those that Debian and Ubuntu put beside the sources of releases long past are left out.
"""
_LOCK = Command('grep -e ":$(stat -c %i /var/lib/dpkg/lock-frontend) " /proc/locks', shell=True)

INITRAMFS = Command(
    "command -v lsinitramfs >/dev/null || exit 127; "
    'for image in /boot/initrd.img-*; do [ ! -f "$image" ] || lsinitramfs "$image" >/dev/null 2>&1 || echo "$image";'
    " done",
    limit_s=30,
    shell=True,
)
"""The initramfs images that can't be read to their end: a disk that was full leaves the first half of one."""

BOOT_MODULES = Command("python3 -IS - <initramfs_modules.py", limit_s=30, program="initramfs_modules.py")
"""NVIDIA's module in every boot image, with its version: lsinitramfs shows names only."""

CDI_GONE = Command(
    "set -- /etc/cdi/*.yaml /etc/cdi/*.yml /etc/cdi/*.json /var/run/cdi/*.yaml /var/run/cdi/*.yml /var/run/cdi/*.json; "
    'for spec do [ ! -r "$spec" ] || grep -hoE \'"?(hostPath|path)"?: *("/[^"]+"|/[^",[:space:]]+)\' "$spec" |'
    " sed 's,^[^/]*,,; s,\"$,,' | sort -u | while read -r path; do "
    '[ -e "$path" ] || echo "$spec $path"; done; done',
    shell=True,
)
"""Every path in every CDI spec that is not there, `SPEC PATH` a line: engines fail on the first of them."""

IN_CONTAINERS = Command(
    "for maps in $(grep -lsE '/lib(cuda|nvidia-ml)[.]so[.][0-9]' /proc/[0-9]*/maps); do p=${maps%/maps}; "
    'id=$(grep -oE \'[0-9a-f]{64}\' "$p/cgroup" | tail -n 1); [ -n "$id" ] || continue; '
    'grep -q "$id" /proc/1/cgroup && continue; '
    "grep -ohE '/[^ ]*/lib(cuda|nvidia-ml)[.]so[.][0-9.]+' \"$maps\" | sort -u | "
    'sed "s|^|$id $(tr -d \' |&\' <"$p/comm") |"; done | sort -u',
    shell=True,
)
"""The driver's libraries that processes in containers hold, `CONTAINER PROGRAM LIBRARY` a line."""

HANDED_OUT = Command(
    "docker container ls -q --no-trunc | xargs -r docker inspect -f "
    "'{{.State.Pid}} {{.Name}} {{index .Config.Labels \"provision.network\"}}' | while read -r pid name network; do "
    'set -- /proc/$pid/root/dev/nvidia[0-9]*; [ -e "$1" ] || set --; echo "$name ${network:--} $#"; done',
    shell=True,
)
"""How many cards each running container has, `NAME NETWORK CARDS` a line: what a network's client can advertise."""

_KUBECTL = (
    'k=$(command -v kubectl) || { k=$(command -v k3s) || exit 127; k="$k kubectl"; }; n=$(hostname | tr A-Z a-z); '
    "[ -s ~/.kube/config ] || for c in /etc/kubernetes/kubelet.conf /etc/kubernetes/admin.conf; do "
    '[ ! -r "$c" ] || export KUBECONFIG="$c"; done; '
)
ALLOCATABLE = Command(
    _KUBECTL + "$k --request-timeout=5s get node \"$n\" -o jsonpath='{.status.allocatable.nvidia\\.com/gpu}'",
    limit_s=15,
    shell=True,
)
"""The cards of this node that the cluster may give away; nothing at all where the device plugin offers none."""

PROVIDER = Command(
    _KUBECTL + 'echo "$n"; $k --request-timeout=5s get --raw'
    " /api/v1/namespaces/akash-services/services/https:akash-provider:8443/proxy/status",
    limit_s=15,
    shell=True,
)
"""What Akash's provider tells of itself (its status page), behind the name of this node."""

AHEAD = Profile(
    files=("/etc/containerd/config.toml",),
    listings=("/snap/bin/docker",),
    commands=(KEYRINGS, _LOCK, INITRAMFS, Command("systemd-detect-virt")),
)
"""What a preflight wants to see besides, in the round trip that asks apt."""

DOCTOR = Profile(
    files=(
        *FULL.files,
        "/etc/docker/daemon.json*",
        "/etc/apt/apt.conf.d/*upgrades*",
        "/etc/cdi/*",
        "/var/run/cdi/*",
        "/proc/sys/kernel/pid_max",
        "/sys/kernel/iommu_groups/*/type",
        "/var/log/apt/history.log",
        "/var/lib/provision/baseline.json",
    ),
    listings=(
        *STATE.listings,
        "/proc/driver/nvidia/gpus/*",
        "/dev/nvidia*",
        "/dev/char/195:*",
        "/usr/bin/nvidia-*",
        "/snap/bin/docker",
        "/usr/lib/*/libcuda.so*",
        "/usr/lib/*/libnvidia-*.so*",
        "/usr/lib/*/nvidia/current/lib*",
        "/var/lib/dpkg/updates/*",
        "/lib/modules/*/build",
    ),
    folders=(*STATE.folders, "/lib/firmware/nvidia", "/run/nvidia/driver"),
    links=(
        *STATE.links,
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
        "/usr/lib64/libcuda.so.1",
    ),
    disks=(*STATE.disks, "/var/lib/containerd"),
    units=(
        *STATE.units,
        "nvidia-cdi-refresh.service",
        "kubelet.service",
        "k3s.service",
        "k3s-agent.service",
        "apt-daily-upgrade.service",
    ),
    commands=(
        *FULL.commands,
        Command("dmesg"),
        Command(
            "journalctl -q --no-pager -o short-iso _TRANSPORT=kernel --since=-30d --grep='Xid|RmInitAdapter' -n 500",
            limit_s=15,
        ),
        Command(
            "journalctl -q --no-pager -p warning --since=-1h -n 200 -u docker -u containerd -u kubelet -u k3s"
            " -u nvidia-persistenced -u nvidia-fabricmanager -u nvidia-cdi-refresh"
        ),
        Command("journalctl -q --no-pager --since=-2d -n 60 -u apt-daily -u apt-daily-upgrade"),
        Command("lspci -nnvv -d 10de:"),
        Command("lspci -vv -d ::0604"),
        Command("ip -o link"),
        Command("ps -eo stat,pid,ppid,comm"),
        Command("docker ps --format '{{.Names}} {{.Ports}}'"),
        Command("iptables -S DOCKER-USER"),
        Command("ufw status"),
        Command("podman --version"),
        Command("modinfo -F filename nvidia"),
        Command("mokutil --test-key /var/lib/dkms/mok.pub"),
        Command("mokutil --test-key /var/lib/shim-signed/mok/MOK.der"),
        Command("lsinitramfs \"/boot/initrd.img-$(uname -r)\" | grep -E 'nvidia|nouveau'", limit_s=30, shell=True),
        Command("grep -m 12 -nE '[Ee]rror' /var/lib/dkms/nvidia*/*/build/make.log", shell=True),
        _LOCK,
        KEYRINGS,
        INITRAMFS,
        BOOT_MODULES,
        CDI_GONE,
        IN_CONTAINERS,
        HANDED_OUT,
        ALLOCATABLE,
        PROVIDER,
        Command(
            "grep -hoE '/[^ ]*/lib(cuda|nvidia-ml)[.]so[.][0-9.]+( .deleted.)?' /proc/[0-9]*/maps | sort | uniq -c",
            shell=True,
        ),
    ),
    devices=(
        Devices(
            STATE.devices[0].root,
            STATE.devices[0].vendor,
            (*STATE.devices[0].names, "current_link_width", "max_link_width", "current_link_speed", "max_link_speed"),
        ),
    ),
    nvml=True,
    nvml_health=True,
)
"""What doctor looks at besides: logs, links, what runs and what fails; offers of the package sources it leaves out."""


@dataclass(frozen=True)
class Request:
    """A profile, and what one host's wanted resources add: files to compare, units, packages whose offers are wanted.

    Added files are also answered as `stat -c '%a %U:%G %F' PATH`, for their mode and owner; `stats` are files that
    are asked for that alone, because they hold a secret or are to be gone. `sums` are answered as `sha256sum PATH`,
    which tells whether a file is a known one without showing it; `asked` are further commands.
    """

    profile: Profile = STATE
    files: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()
    asked: tuple[Command, ...] = ()
    sums: tuple[str, ...] = ()

    @property
    def commands(self) -> tuple[Command, ...]:
        """Those of the profile, and the ones that its units and offers come down to."""
        units = tuple(dict.fromkeys((*self.profile.units, *self.units)))
        made = [*self.profile.commands, *(Command(f"sha256sum {shlex.quote(path)}") for path in self.sums), *self.asked]
        if units:
            made.insert(0, units_command(units))
        offers = tuple(dict.fromkeys((*self.profile.offers, *self.packages))) if self.profile.offers else ()
        if offers:
            made.insert(0, offers_command(offers))
            made.append(dnf_offers_command())
        return tuple(made)


def units_command(units: tuple[str, ...]) -> Command:
    """One call tells of the named units and, through `--state` and the pattern, of every failed one."""
    named = " ".join(shlex.quote(unit) for unit in units)
    return Command(
        f"systemctl show -p Id,LoadState,ActiveState,SubState,UnitFileState --state=failed '*' {named}", limit_s=15
    )


def dnf_offers_command() -> Command:
    """What the host's own repositories offer, by dnf itself; nothing where there is no dnf."""
    return Command(f"dnf offers {' '.join(DNF_OFFERS)}", limit_s=120, program="dnf_offers.py", words=DNF_OFFERS)


def offers_command(
    names: tuple[str, ...], sources: tuple[LockedSource, ...] = (), replaced: tuple[str, ...] = ()
) -> Command:
    """What the host's own sources offer: stanzas with checksums, then versions with their suites.

    One shell runs apt-cache step by step, because apt instances side by side would each build apt's cache anew.
    Descriptions are left out (they are most of the text), and so are debug packages. With `sources` apt is asked as
    if they stood on the host already, in place of the files `replaced`.
    """
    pattern = "|".join(name.replace(".", "[.]").replace("+", "[+]").replace("*", ".*") for name in names)
    fields = "^(Package|Version|Source|Architecture|SHA256|Size|Depends|Pre-Depends|Provides):|^$"
    if not sources:
        return Command(
            f"set -- $(apt-cache pkgnames | grep -E '^({pattern})$' | grep -vE -- '-dbg(sym)?$' | sort); "
            f'apt-cache show "$@" | grep -E \'{fields}\'; apt-cache madison "$@"',
            limit_s=30,
            shell=True,
        )
    asked = (
        f"n=$(apt-cache \"$@\" pkgnames | grep -E '^({pattern})$' | grep -vE -- '-dbg(sym)?$' | sort)",
        f"apt-cache \"$@\" show $n | grep -E '{fields}'",
        'apt-cache "$@" madison $n',
    )
    return Command("; ".join([*preview(sources, replaced), *asked]), limit_s=180, shell=True)
