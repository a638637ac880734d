"""Which kernel runs, which lie in /boot, which boots next, and for which of them modules can be built."""

from __future__ import annotations

from provisioner.facts.listing import listed, matching, natural
from provisioner.host.grub import default_kernel, forgets
from provisioner.host.trial import DROP_IN
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import KernelFacts

APPARMOR = "/sys/module/apparmor/parameters/enabled"
CONTAINER = "/run/systemd/container"  # where the first process notes what it is in, if it is
_LEFTOVERS = (".old", ".bak", ".dpkg-tmp", ".dpkg-bak", ".dpkg-new", ".signed", ".efi.signed", ".hmac")


def read(capture: Capture) -> KernelFacts:
    there = installed(capture)
    return KernelFacts(
        running=running(capture),
        installed=there,
        next_boot=next_boot(capture, there),
        headers=headers(capture),
        boots_once=boots_once(capture),
        apparmor=apparmor(capture),
        stays=stays(capture),
    )


def running(capture: Capture) -> str | Unknown:
    text = capture.file("/proc/sys/kernel/osrelease")
    if isinstance(text, str) and text.strip():
        return text.strip()
    answer = capture.command("uname -r")
    return answer.stdout.strip() or UNKNOWN if answer is not UNKNOWN and answer.rc == 0 else UNKNOWN


def installed(capture: Capture) -> tuple[str, ...] | Unknown:
    """Releases with a `vmlinuz-RELEASE` in /boot, oldest first."""
    names = listed(capture, "ls /boot")
    if names is UNKNOWN:
        return UNKNOWN
    releases = (name[len("vmlinuz-") :] for name in names if name.startswith("vmlinuz-"))
    releases = (release for release in releases if not release.startswith("0-rescue-"))
    return tuple(sorted((r for r in releases if not r.endswith(_LEFTOVERS)), key=natural))


def next_boot(capture: Capture, there: tuple[str, ...] | Unknown) -> str | Unknown:
    """What GRUB takes when it is there, the newest in /boot when there is no GRUB (as other loaders of Debian do).

    RHEL-likes keep their entries outside grub.cfg, and grubby knows which of them is the default.
    """
    if there is UNKNOWN or not there:
        return UNKNOWN
    answer = capture.command("grubby --default-kernel")
    if answer is not UNKNOWN and answer.rc == 0 and answer.stdout.strip():
        release = answer.stdout.strip().rpartition("/vmlinuz-")[2]
        return release if release in there else UNKNOWN
    config = capture.file("/boot/grub/grub.cfg")
    if config is UNKNOWN:
        return UNKNOWN
    if config is None:
        return there[-1]
    environment = capture.file("/boot/grub/grubenv")
    if environment is UNKNOWN:
        return UNKNOWN
    chosen = default_kernel(config, environment or "")
    return chosen if chosen is not None and chosen in there else UNKNOWN


def boots_once(capture: Capture) -> bool | Unknown:
    """Whether GRUB is the loader, and can write down that it took an entry once."""
    config, mounts = capture.file("/boot/grub/grub.cfg"), capture.file("/proc/mounts")
    if config is None:
        return False
    return UNKNOWN if config is UNKNOWN or not isinstance(mounts, str) else forgets(mounts)


def apparmor(capture: Capture) -> bool | Unknown:
    """Whether AppArmor is on; a host that is a container sees the setting of a machine whose profiles it has not."""
    inside, text = capture.file(CONTAINER), capture.file(APPARMOR)
    if isinstance(inside, str) or text is None:
        return False
    return UNKNOWN if UNKNOWN in (inside, text) else str(text).strip() == "Y"


def stays(capture: Capture) -> str | Unknown | None:
    """The comment of the file that a trial leaves when the newer kernel was taken back."""
    text = capture.file(DROP_IN)
    if not isinstance(text, str):
        return text
    words = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    return " ".join(words).replace("Written by provision: ", "")


def headers(capture: Capture) -> tuple[str, ...] | Unknown:
    """Releases whose build folder leads somewhere; a link that dangles after headers were purged does not count."""
    paths = matching(capture, "/lib/modules/*/build/Makefile")
    return UNKNOWN if paths is UNKNOWN else tuple(sorted((path.split("/")[3] for path in paths), key=natural))
