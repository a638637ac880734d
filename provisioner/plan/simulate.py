"""The command that lets a host's own apt simulate a plan's transaction, with the pins and sources in force by then."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from provisioner.model.plan import HostPlan
from provisioner.model.resource import (
    AbsentFile,
    AbsentPackage,
    File,
    KeptFile,
    Package,
    PackageSource,
    ReplacedSource,
    VersionLock,
)
from provisioner.model.source import preview
from provisioner.model.transaction import argv, dnf_line

_FOLDER = "/etc/apt/preferences.d"


def simulation(plan: HostPlan) -> str | None:
    """Return the shell line, which changes nothing; None when no package moves, or apt could not say anything true."""
    packages = plan.moving
    if not packages or plan.blocked or plan.interrupted:
        return None
    if plan.manager == "dnf":
        return _by_dnf(plan, packages)
    # Without a lock: a look must not stand in the way of somebody's apt, nor need root.
    words = argv(packages, "--simulate", "--option", "Debug::NoLocking=true")
    pins = [c.wanted for c in plan.changes if c.wanted.key.startswith(f"file {_FOLDER}/")]
    sources = [c.wanted.source for c in plan.changes if isinstance(c.wanted, PackageSource)]
    replaced = [c.wanted.path for c in plan.changes if isinstance(c.wanted, ReplacedSource)]
    if not pins and not sources:
        return _asking(shlex.join(words), packages)
    if sources:
        lines = preview(sources, replaced)
        lines.append('p="$d/preferences"; mkdir "$p"')
    else:
        lines = ["p=$(mktemp -d) || exit 1; trap 'rm -rf \"$p\"' EXIT"]
    lines.append(f'cp -p {_FOLDER}/* "$p" 2>/dev/null')
    for pin in pins:
        assert isinstance(pin, (File, KeptFile, AbsentFile))
        name = pin.path.rpartition("/")[2]
        if isinstance(pin, File):
            lines.append(f'printf %s {shlex.quote(pin.content)} >"$p/{name}"')
        elif isinstance(pin, KeptFile):
            lines.append(f'cp {shlex.quote(pin.source)} "$p/{name}"')
        else:
            lines.append(f'rm -f "$p/{name}"')
    at = words.index("install")
    options = ' "$@"' if sources else ""
    call = shlex.join(words[:at]) + options + ' --option Dir::Etc::PreferencesParts="$p" ' + shlex.join(words[at:])
    return "; ".join([*lines, _asking(call, packages, options)])


def _by_dnf(plan: HostPlan, packages: Sequence[Package | AbsentPackage]) -> str:
    """The version lock as it will be: a list of its own, in a folder of plugin settings that goes with the shell."""
    locks = [c.wanted for c in plan.changes if isinstance(c.wanted, (VersionLock, KeptFile, AbsentFile))]
    locks = [wanted for wanted in locks if wanted.path == VersionLock().path]
    if not locks:
        return f"export LC_ALL=C; {dnf_line(packages)}"
    wanted = locks[0]
    lines = ["p=$(mktemp -d) || exit 1; trap 'rm -rf \"$p\"' EXIT", 'cp -p /etc/dnf/plugins/*.conf "$p/" 2>/dev/null']
    if isinstance(wanted, VersionLock):
        lines.append(f"{{ sed '/^# BEGIN provision$/,/^# END provision$/d' {wanted.path} 2>/dev/null;")
        lines[-1] += f' printf "%s\\n" {shlex.join(wanted.lines)}; }} >"$p/locks"'
    elif isinstance(wanted, KeptFile):
        lines.append(f'cp {shlex.quote(wanted.source)} "$p/locks"')
    else:
        lines.append(': >"$p/locks"')
    lines.append('sed -i "s,^ *locklist *=.*,locklist = $p/locks," "$p/versionlock.conf"')
    lines += ["export LC_ALL=C", dnf_line(packages, '--setopt=pluginconfpath="$p"')]
    return "; ".join(lines)


RELATIONS = "# relations"


def _asking(call: str, packages: tuple[Package | AbsentPackage, ...], options: str = "") -> str:
    """What apt says, and where something would go, which relations it has with what would come."""
    coming = [f"{p.name}={p.version}" for p in packages if isinstance(p, Package) and p.archive is None]
    archives = [p.archive for p in packages if isinstance(p, Package) and p.archive is not None]
    fields = "^(Package|Provides|Conflicts|Breaks|Replaces):"
    asked = [f"apt-cache{options} show --no-all-versions $gone {shlex.join(coming)}"]
    asked += [f"dpkg-deb --field {shlex.quote(path)}" for path in archives]
    return (
        f"export LC_ALL=C; said=$({call}); code=$?; printf '%s\\n' \"$said\"; [ $code -eq 0 ] || exit $code; "
        "gone=$(printf '%s\\n' \"$said\" | sed -nE 's/^(Remv|Purg) ([^ ]+) .*/\\2/p'); "
        f"[ -z \"$gone\" ] || {{ echo '{RELATIONS}'; {{ {'; '.join(asked)}; }} 2>/dev/null | grep -E '{fields}'; }}; :"
    )
