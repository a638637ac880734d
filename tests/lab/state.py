"""What a host is, in one text that can be compared: packages, holds, pins, modules, units, what is loaded."""

from __future__ import annotations

import difflib

from tests.lab.operator import Operator

# Times and run ids are left out, and so is what a repair may leave to dpkg's taste: which log has which line.
LOOK = r"""
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n' | grep -v ' rc $' | grep -v ' un $'
echo "# marks"; apt-mark showhold
echo "# pins"; cat /etc/apt/preferences.d/provision.pref /etc/apt/apt.conf.d/52provision-unattended-upgrades 2>/dev/null
echo "# files"; ls /etc/modprobe.d /etc/systemd/system /etc/dkms /usr/share | grep -i -e provision -e dkms
cat /etc/docker/daemon.json 2>/dev/null
echo "# modules"; command -v dkms >/dev/null && dkms status
for f in /lib/modules/*/updates/dkms/nvidia*.ko*; do [ -e "$f" ] && echo "$f $(modinfo -F version "$f")"; done
echo "# running"; cat /sys/module/nvidia/version 2>/dev/null
for u in docker nvidia-persistenced provision-clients.target; do
  systemctl show -p Id,ActiveState,UnitFileState "$u" | paste -sd' '
done
echo "# dpkg"; dpkg --audit; ls /var/lib/dpkg/updates
echo "# left over"; ls -d /var/lib/provision/build /var/lib/provision/apply.lock 2>/dev/null
:
"""


def state(operator: Operator, host: str) -> str:
    """Return the host's state as root sees it."""
    return operator.lab.host(host).told(LOOK)


def difference(then: str, now: str) -> str:
    """The lines in which a state differs from another one, as diff tells them."""
    lines = difflib.unified_diff(then.splitlines(), now.splitlines(), "then", "now", n=0, lineterm="")
    return "\n".join(lines)


def record(operator: Operator, host: str) -> bool:
    """Whether the host carries an enrolment record."""
    return operator.lab.host(host).exec("test -e /var/lib/provision/enrolment.json").rc == 0
