"""Packages: is what was locked installed, whole, and going to stay whatever apt or unattended-upgrades do?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import wraps

from provisioner.checks.check import Check, Judge, NotMade, Seen, Verdict, failed, listed, not_applicable, passed
from provisioner.model.manager import manager_of
from provisioner.model.stack import HostLock

# rpm's list in the same columns: an entry of dnf's version lock is a hold. Of kernels side by side the locked one comes
# last, and counts.
INSTALLED = r"""
if command -v dpkg-query >/dev/null || ! command -v rpm >/dev/null; then
  exec dpkg-query -W -f '${Package}\t${Version}\t${db:Status-Want}\t${db:Status-Status}\t${db:Status-Eflag}\n'
fi
locks=/etc/dnf/plugins/versionlock.list
on='^ *enabled *= *(1|yes|true|on) *$'
grep -qiE "$on" /etc/dnf/plugins/versionlock.conf 2>/dev/null && [ -f $locks ] || locks=/dev/null
form='%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{NAME}-%|EPOCH?{%{EPOCH}}:{0}|:%{VERSION}-%{RELEASE}.*\n'
rpm -qa --qf "$form" | grep -v '^gpg-pubkey' | awk -F '\t' -v OFS='\t' '
  FILENAME != "-" { held[$0]; next }
  { print $1, $2, ($3 in held) ? "hold" : "install", "installed", "ok" }' $locks - | sort -s -t "$(printf '\t')" -k 3,3r
"""
# rpm has no such audit; a transaction that was cut short leaves packages in two versions, as only kernels may be.
AUDIT = r"""
if command -v dpkg >/dev/null || ! command -v rpm >/dev/null; then LC_ALL=C exec dpkg --audit; fi
rpm -qa --qf '%{NAME}.%{ARCH}\n' | sort | uniq -d | grep -vE '^(kernel(-|[.])|gpg-pubkey|kmod-nvidia-[0-9])' || :
"""
# apt-get dist-upgrade protects every held package before it decides anything else (apt's pkgDistUpgrade), unless
# APT::Ignore-Hold says otherwise; whether the pins stand too is a check of its own. Calculating the whole upgrade
# costs more than all other looks together, so it is left for where no hold is in force. Without locking: a check must
# not stand in apt's way.
UPGRADE = r"""
if ! command -v dpkg-query >/dev/null && command -v dnf >/dev/null; then
  said=$(LC_ALL=C timeout 90 dnf --assumeno upgrade 2>&1)
  case $said in *"Nothing to do"*|*"Transaction Summary"*) ;; *) printf '%s\n' "$said" | tail -n 3 >&2; exit 1 ;; esac
  echo 'Calculating upgrade'
  printf '%s\n' "$said" | awk '
    /^=+$/ { rules++; next }
    rules != 2 { next }
    /^ *$/ { rules = 9; next }
    /^[A-Z][A-Za-z ]*:$/ { word = /^Removing/ ? "Remv" : "Inst"; row = ""; next }
    $1 == "replacing" { sub(/[.][^.]*$/, "", $2); print "Remv", $2; next }
    { row = row " " $0; if (split(row, column) >= 5) { print word, column[1]; row = "" } }'
  exit 0
fi
set -- $(dpkg-query -W -f '${db:Status-Want} ${Package}\n' | sed -n 's/^hold //p')
config=$(apt-config dump | grep -E '^(APT::Architecture |APT::Ignore-Hold |Unattended-Upgrade::Package-Blacklist)')
printf '%s\n' "$config"
case $config in *APT::Ignore-Hold*) doubt=holds ;; *) doubt= ;; esac
if [ $# -gt 0 ]; then printf 'held %s\n' "$@"; else doubt=none; fi
[ -z "$doubt" ] || LC_ALL=C timeout 90 apt-get -s -q -o Debug::NoLocking=true dist-upgrade
"""
PREFERENCES = r"""
for f in /etc/apt/preferences /etc/apt/preferences.d/*; do
  case ${f##*/} in *.pref|preferences) ;; *.*) continue ;; esac
  [ -f "$f" ] && { printf '\n'; cat "$f"; printf '\n'; }
done
:"""
INTERRUPTED = r"""for f in /var/lib/dpkg/updates/*; do [ -e "$f" ] && printf '%s\n' "$f"; done; :"""
LOCKS = r"""
stat -c 'file %i %n' /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock 2>/dev/null
sed 's/^/lock /' /proc/locks"""


@dataclass(frozen=True)
class _Package:
    version: str
    want: str
    status: str
    flag: str


def _packages(seen: Seen) -> dict[str, _Package]:
    packages: dict[str, _Package] = {}
    for line in seen.output.splitlines():
        name, *rest = line.split("\t")
        if len(rest) != 4:
            raise NotMade(f"dpkg-query printed a line that cannot be read: {line[:80]}")
        known = _Package(*rest)
        # A foreign architecture may have the same name; the installed one counts.
        if name not in packages or known.status == "installed":
            packages[name] = known
    if not packages:
        raise NotMade("dpkg-query named no package")
    return packages


NOTHING_LOCKED = not_applicable("the lock names no packages")


def _with_apt(judge: Judge) -> Judge:
    """A check of what only apt and dpkg have."""

    @wraps(judge)
    def judged(wanted: HostLock, *seen: Seen) -> Verdict:
        if manager_of(wanted.os) == "dnf":
            return not_applicable("the host has dnf, whose version lock holds against everything")
        return judge(wanted, *seen)

    return judged


def versions(wanted: HostLock, seen: Seen) -> Verdict:
    if not wanted.packages:
        return NOTHING_LOCKED
    packages = _packages(seen)
    wrong = []
    for locked in wanted.packages:
        known = packages.get(locked.name)
        if known is None or known.status != "installed":
            wrong.append(f"{locked.name} is {known.status if known else 'not installed'}")
        elif known.version != locked.version:
            wrong.append(f"{locked.name} {known.version}, lock {locked.version}")
    return failed(listed(wrong)) if wrong else passed(f"{len(wanted.packages)} packages")


def held(wanted: HostLock, seen: Seen) -> Verdict:
    names = [locked.name for locked in wanted.packages if locked.hold]
    if not names:
        return not_applicable("the lock holds no packages")
    packages = _packages(seen)
    loose = [name for name in names if name not in packages or packages[name].want != "hold"]
    return failed(f"not held: {listed(loose)}") if loose else passed(f"{len(names)} packages")


def whole(wanted: HostLock, seen: Seen, audit: Seen) -> Verdict:
    broken = [
        f"{name} ({package.status}{', reinst-required' if package.flag == 'reinstreq' else ''})"
        for name, package in _packages(seen).items()
        if package.status not in ("installed", "config-files", "not-installed") or package.flag != "ok"
    ]
    if broken:
        return failed(listed(broken))
    said = audit.stdout.strip().splitlines()
    if said and manager_of(wanted.os) == "dnf":
        return failed(f"installed in two versions: {listed(said)}")
    return failed(f"dpkg --audit: {said[0]}") if audit.rc != 0 or said else passed()


def _pins(text: str) -> list[tuple[list[str], str, int]]:
    """Stanzas of apt_preferences(5) that pin a version: package patterns, version, priority."""
    pins = []
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^\s*#.*\n?", "", text)):
        fields = {
            key.strip().lower(): value.strip()
            for key, _, value in (line.partition(":") for line in stanza.splitlines() if ":" in line)
        }
        pin = fields.get("pin", "")
        if pin.startswith("version ") and re.fullmatch(r"-?\d+", fields.get("pin-priority", "")):
            pins.append((fields.get("package", "").split(), pin[8:].strip(), int(fields["pin-priority"])))
    return pins


def pinned(wanted: HostLock, seen: Seen) -> Verdict:
    """A hold ends with one `apt-mark unhold`; a pin above 1000 stands also against a newer repository."""
    locked = [package for package in wanted.packages if package.hold]
    if not locked:
        return not_applicable("the lock holds no packages")
    pins = _pins(seen.output)
    loose = [
        package.name
        for package in locked
        if not any(
            priority > 1000
            and fnmatchcase(package.version, version)
            and any(fnmatchcase(package.name, name) for name in names)
            for names, version, priority in pins
        )
    ]
    return failed(f"no pin above 1000 for {listed(loose)}") if loose else passed(f"{len(locked)} packages")


def _upgrade(wanted: HostLock) -> str:
    return "dnf upgrade" if manager_of(wanted.os) == "dnf" else "dist-upgrade"


def upgrade_leaves(wanted: HostLock, seen: Seen) -> Verdict:
    names = {locked.name for locked in wanted.packages if locked.hold}
    if not names:
        return not_applicable("the lock holds no packages")
    lines = seen.output.splitlines()
    touched = []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word in ("Inst", "Remv") and rest.split(" ")[0].split(":")[0] in names:
            touched.append(f"{'remove' if word == 'Remv' else 'install'} {rest.split(' ')[0]}")
    if touched:
        return failed(f"{_upgrade(wanted)} would {listed(touched)}")
    if any(line.startswith("Calculating upgrade") for line in lines):
        return passed("simulated")
    loose = sorted(names - {line[5:] for line in lines if line.startswith("held ")})
    return failed(f"free to change: {listed(loose)}") if loose else passed("held, and nothing sets the holds aside")


def unattended(wanted: HostLock, seen: Seen, config: Seen) -> Verdict:
    names = [locked.name for locked in wanted.packages if locked.hold]
    if not names:
        return not_applicable("the lock holds no packages")
    if not re.search(r"^APT::Architecture ", config.output, re.MULTILINE):
        raise NotMade("apt-config did not tell its settings")
    package = _packages(seen).get("unattended-upgrades")
    if package is None or package.status != "installed":
        return passed("unattended-upgrades is not installed")
    patterns = re.findall(r'^Unattended-Upgrade::Package-Blacklist:: "(.*)";$', config.output, re.MULTILINE)
    try:
        rules = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        return failed(f"a blacklist entry is not a regular expression: {error}")
    loose = [name for name in names if not any(rule.match(name) for rule in rules)]
    return failed(f"unattended-upgrades may touch {listed(loose)}") if loose else passed(f"{len(names)} packages")


def not_interrupted(wanted: HostLock, seen: Seen) -> Verdict:
    files = seen.output.split()
    return failed("dpkg was interrupted; run: dpkg --configure -a") if files else passed()


def not_locked(wanted: HostLock, seen: Seen) -> Verdict:
    lines = seen.output.splitlines()
    inodes = {line.split()[1] for line in lines if line.startswith("file ")}
    holders = [
        line.split()[5]
        for line in lines
        if line.startswith("lock ") and (match := re.search(r":(\d+) 0 \S+$", line)) and match[1] in inodes
    ]
    return failed(f"process {listed(holders)} holds dpkg's lock") if holders else passed()


def one_driver(wanted: HostLock, seen: Seen) -> Verdict:
    """A second branch beside the locked one shares the library's name, and the loader takes either."""
    if wanted.driver_version is None:
        return not_applicable("the lock wants no driver on this host")
    locked = {package.name for package in wanted.packages}
    strangers = [
        f"{name} {package.version}"
        for name, package in _packages(seen).items()
        if package.status == "installed"
        and name not in locked
        and re.match(r"(lib)?(nvidia|cuda1|nvcuvid)", name)
        and (match := re.match(r"(?:\d+:)?(\d{3}\.\d+(?:\.\d+)?)", package.version))
        and match[1] != wanted.driver_version.value
    ]
    return failed(listed(strangers)) if strangers else passed()


CHECKS = (
    Check("packages-version", "Locked packages are installed at their versions", versions, (INSTALLED,)),
    Check("packages-held", "Locked packages are held", held, (INSTALLED,)),
    Check("packages-pinned", "apt preferences pin the locked versions", _with_apt(pinned), (PREFERENCES,)),
    Check("upgrade-leaves", "An upgrade by hand would leave them alone", upgrade_leaves, (UPGRADE,)),
    Check("unattended-upgrades", "unattended-upgrades leaves them alone", _with_apt(unattended), (INSTALLED, UPGRADE)),
    Check("packages-whole", "No package is half installed", whole, (INSTALLED, AUDIT)),
    Check("dpkg-finished", "dpkg was not interrupted", _with_apt(not_interrupted), (INTERRUPTED,)),
    Check("dpkg-free", "Nobody holds dpkg's lock", _with_apt(not_locked), (LOCKS,), required=False),
    Check("one-driver", "No packages of another driver version", one_driver, (INSTALLED,), required=False),
)
