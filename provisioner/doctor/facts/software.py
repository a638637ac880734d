"""Kernels, packages, signatures: what the host would boot, and in which state its packages are."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import timezone

from provisioner.doctor.facts.driver import LOCKSTEP, named
from provisioner.doctor.facts.fact import UNSEEN, Fact, Seen
from provisioner.doctor.host import Host, shown
from provisioner.doctor.truth import Evidence
from provisioner.facts import driver as facts_of_driver
from provisioner.facts import kernel as facts_of_kernel
from provisioner.facts.listing import listed
from provisioner.model.capture import UNKNOWN
from provisioner.model.openpgp import public_keys
from provisioner.probe.request import INITRAMFS, KEYRINGS


def _running(host: Host) -> Seen:
    return (
        UNSEEN
        if host.running is UNKNOWN
        else Seen(
            host.running, (shown("running", host.running, host.shown_by("/proc/sys/kernel/osrelease", "uname -r")),)
        )
    )


def _next(host: Host) -> Seen:
    if host.next_boot is UNKNOWN:
        return UNSEEN
    return Seen(host.next_boot, (shown("boots next", host.next_boot, "/boot/grub/grub.cfg"),))


def _headers(host: Host) -> Seen:
    """Whether modules can be built for the running kernel."""
    if host.running is UNKNOWN:
        return UNSEEN
    where = host.shown_by(f"ls -d /lib/modules/{host.running}/build", "ls -d /lib/modules/*/build/Makefile")
    for path in (f"/lib/modules/{host.running}/build", f"/lib/modules/{host.running}/build/Makefile"):
        there = host.exists(path)
        if there is not UNKNOWN:
            return Seen(there, (shown("headers", "there" if there else f"none: {path} is absent", where),))
    known = facts_of_kernel.headers(host.capture)
    if known is UNKNOWN:
        return UNSEEN
    there = host.running in known
    return Seen(there, (shown("headers", f"for {', '.join(known) or 'no kernel'}", "ls -d /lib/modules/*/build"),))


def _without_initrd(host: Host) -> Seen:
    """Kernels in /boot that have no initramfs; hosts that use none at all are left alone."""
    names = listed(host.capture, "ls /boot")
    if names is UNKNOWN or host.installed is UNKNOWN:
        return UNSEEN
    images = {
        re.sub(r"^(initrd\.img-|initramfs-|initrd-)|(\.img)$", "", name) for name in names if name.startswith("init")
    }
    if not images:
        return Seen(())
    missing = tuple(release for release in host.installed if release not in images)
    return Seen(
        missing,
        tuple(shown("boot", f"vmlinuz-{release} without initrd.img-{release}", "ls /boot") for release in missing),
    )


def _broken_initrd(host: Host) -> Seen:
    """Kernels whose initramfs cannot be read to its end."""
    answer = host.capture.command(INITRAMFS.line)
    if answer is UNKNOWN or answer.rc != 0 or answer.stderr:
        return UNSEEN
    images = [line for line in answer.stdout.splitlines() if line.startswith("/boot/initrd.img-")]
    rows = tuple(shown("initramfs", "it cannot be read to its end", image) for image in images)
    return Seen(tuple(image.partition("/boot/initrd.img-")[2] for image in images), rows)


def _without_module(host: Host) -> Seen:
    """Kernels that can be booted and have no module of NVIDIA's, while another one has."""
    if host.installed is UNKNOWN or host.modules is UNKNOWN:
        return UNSEEN
    have = {build.kernel for build in host.modules}
    if not have:
        return Seen(())
    missing = tuple(release for release in host.installed if release not in have)
    return Seen(
        missing, tuple(shown("no module", release, "ls -d /lib/modules/*/updates/dkms/nvidia*") for release in missing)
    )


def _other_module(host: Host) -> Seen:
    """Kernels whose module on disk is of another version than the library."""
    library = facts_of_driver.library(host.capture, host.os)
    if host.modules is UNKNOWN or library is UNKNOWN:
        return UNSEEN
    wrong = [build for build in host.modules if isinstance(build.version, str) and library and build.version != library]
    rows = tuple(
        shown("on disk", f"{build.version} for {build.kernel}", "readlink -f /var/lib/dkms/*/kernel-*")
        for build in wrong
    )
    return Seen(tuple(build.kernel for build in wrong), rows)


def _secure_boot(host: Host) -> Seen:
    state = facts_of_driver.secure_boot(host.capture)
    if state is UNKNOWN:
        return UNSEEN
    return Seen(state, (shown("Secure Boot", "on" if state else "off", "mokutil --sb-state"),))


def _nouveau(host: Host) -> Seen:
    loaded = facts_of_driver.module_loaded(host.capture, "nouveau")
    held = [gpu for gpu in host.gpus if gpu.bound_to == "nouveau"] if host.gpus is not UNKNOWN else []
    if held:
        return Seen(True, (shown("bound to", f"{held[0].slot} nouveau", host.bus),))
    if loaded is UNKNOWN:
        return UNSEEN
    return Seen(loaded, (shown("nouveau", "loaded" if loaded else "not loaded", "lsmod"),))


def _broken(host: Host) -> Seen:
    """Packages that dpkg left half-way."""
    rows = []
    looked = False
    if host.packages is not UNKNOWN:
        looked = host.package("linux-base") is not UNKNOWN
        for package in host.packages.values():
            if not package.whole:
                rows.append((package.name, shown("half-way", f"{package.name} {package.version}", host.package_line)))
    for line, answer in host.answers("dpkg-query -W*", "dpkg -l*"):
        for row in answer.stdout.splitlines():
            words = re.match(r"\s*([uihrp][UFHWt]R?)\s+([a-z0-9][\w.+-]+)", row)
            if words:
                looked = True
                rows.append((words[2], shown("half-way", row, line)))
    names = dict.fromkeys(name for name, _ in rows)
    if not names and not looked:
        return UNSEEN
    return Seen(tuple(names), tuple(dict(rows).values())[:4])


def _automatic(host: Host) -> Seen:
    """Whether packages are upgraded with nobody watching."""
    path, text = host.first_file("/etc/apt/apt.conf.d/20auto-upgrades")
    if isinstance(text, str):
        match = re.search(r'^[ \t]*APT::Periodic::Unattended-Upgrade\s+"(\d+)"', text, re.MULTILINE)
        on = bool(match and match[1] != "0")
        return Seen(on, (shown("unattended", match[0] if match else "not set", path),))
    return Seen(False, (shown("unattended", "no such file", path),)) if text is None else UNSEEN


_UPGRADE = re.compile(
    r"^(?:Start-Date: (?P<date>.*))$|^Commandline: (?P<line>.*)$|^(?P<kind>Upgrade|Install|Downgrade): (?P<what>.*)$",
    re.M,
)


def _moved_by(host: Host) -> Seen:
    """The last transaction of apt that moved the driver: whose command it was."""
    path, text = host.first_file("/var/log/apt/history.log")
    if not isinstance(text, str):
        return UNSEEN if text is UNKNOWN else Seen(None)
    last: Seen = Seen(None)
    date = command = ""
    for match in _UPGRADE.finditer(text):
        if match["date"] is not None:
            date, command = match["date"], ""
        elif match["line"] is not None:
            command = match["line"]
        elif re.search(r"\b(?:lib)?nvidia-(?!container|settings)[\w-]*:\w+ \(", match["what"]):
            number = text.count("\n", 0, match.start()) + 1
            moved = re.search(r"\b(?:lib)?nvidia-(?!container|settings)[\w-]*:\w+ \([^)]*\)", match["what"])
            row = f"{date}: {command or 'apt'}: {moved[0] if moved else ''}"
            last = Seen(
                "unattended" if "unattended" in command else "by hand", (shown("moved by", row, f"{path}:{number}"),)
            )
    return last


def _os_family(host: Host) -> Seen:
    return UNSEEN if host.os is UNKNOWN else Seen(host.os.id, (shown("system", host.os.name, "/etc/os-release"),))


def _kernel_held_back(host: Host) -> Seen:
    """Whether the driver's packages can move on their own: none of them is on hold."""
    if host.packages is UNKNOWN:
        return UNSEEN
    mine = [item for name, item in host.packages.items() if named(LOCKSTEP).match(name)]
    free = [item for item in mine if not item.held]
    return Seen(
        bool(free) and len(free) == len(mine),
        tuple(shown("not held", f"{i.name} {i.version}", host.package_line) for i in free[:1]),
    )


def _expired_keys(host: Host) -> Seen:
    """Keyrings of package sources in which no key holds any more; one key that does is enough for apt."""
    answer = host.capture.command(KEYRINGS.line)
    if answer is UNKNOWN or answer.rc == 127:
        return UNSEEN
    taken = host.capture.taken_at
    now = taken if taken.tzinfo else taken.replace(tzinfo=timezone.utc)
    found: dict[str, Evidence] = {}
    for line in answer.stdout.splitlines():
        path, _, text = line.partition(" ")
        try:
            keys = public_keys(base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error, IndexError, OverflowError):
            continue
        ends = [key.until for key in keys]
        last = max((end for end in ends if end is not None), default=None)
        if last is not None and None not in ends and last < now:
            found[path] = shown("key", f"…{keys[-1].fingerprint[-16:]} ended on {last:%Y-%m-%d}", path)
    return Seen(tuple(found), tuple(found.values()))


FACTS = (
    Fact("kernel.running", "text", "the running kernel", "uname -r", _running),
    Fact("kernel.next", "text", "the kernel that boots next", "grub-editenv list; ls /boot", _next),
    Fact("kernel.headers", "truth", "headers of the running kernel", "ls -d /lib/modules/$(uname -r)/build", _headers),
    Fact("kernel.without_initrd", "texts", "kernels without an initramfs", "ls /boot", _without_initrd),
    Fact(
        "kernel.broken_initrd",
        "texts",
        "kernels whose initramfs is damaged",
        "lsinitramfs /boot/initrd.img-$(uname -r) >/dev/null",
        _broken_initrd,
    ),
    Fact(
        "kernel.without_module",
        "texts",
        "bootable kernels without the module",
        "ls -d /lib/modules/*/updates/dkms/nvidia*",
        _without_module,
    ),
    Fact("kernel.other_module", "texts", "kernels with a module of another version", "dkms status", _other_module),
    Fact("kernel.nouveau", "truth", "whether nouveau is loaded", "lsmod | grep nouveau", _nouveau),
    Fact("secure_boot", "truth", "Secure Boot", "mokutil --sb-state", _secure_boot),
    Fact("packages.broken", "texts", "half-installed packages", "dpkg --audit", _broken),
    Fact("packages.automatic", "truth", "unattended upgrades", "cat /etc/apt/apt.conf.d/20auto-upgrades", _automatic),
    Fact(
        "packages.driver_free",
        "truth",
        "whether no package of the driver is held",
        "apt-mark showhold",
        _kernel_held_back,
    ),
    Fact("packages.moved_by", "text", "who moved the driver last", "less /var/log/apt/history.log", _moved_by),
    Fact(
        "packages.expired_keys",
        "texts",
        "keys of package sources that have expired",
        "gpg --show-keys /etc/apt/keyrings/*",
        _expired_keys,
    ),
    Fact("os", "text", "the operating system", "cat /etc/os-release", _os_family),
)
