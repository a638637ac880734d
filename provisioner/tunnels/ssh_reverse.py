"""SSH reverse tunnel: the rig keeps a connection to the hub, on whose loopback address its own ssh port appears."""

from __future__ import annotations

import re

from provisioner.model.resource import Directory, Guarded, GuardedFile, KeyPair, Resource, Tool
from provisioner.model.tunnel import TunnelLock, split_endpoint
from provisioner.tunnels import keeping
from provisioner.tunnels.contract import HEADER, STATE, Own, Question
from provisioner.tunnels.host import guard_program
from provisioner.tunnels.keys import FOLDER, private_path, public_path

USER = "provision-tunnel"
UNIT = "provision-ssh-tunnel.service"
KEYS = f"{STATE}/{USER}.keys"
ALIVE_S = 15
"""ServerAliveInterval on the rig and ClientAliveInterval on the hub: three missed answers end a dead link in 45 s."""


def resources(me: Own) -> tuple[Resource, ...]:
    """On a rig key and unit, on the hub a login that may do nothing but open its one port."""
    if me.lock.role == "hub":
        found: list[Resource] = [Directory(path=STATE), *guard_program(), keeping.keeper()]
        return (*found, _hub(me)) if me.lock.complete else tuple(found)
    found = [
        Directory(path=FOLDER["ssh-reverse"], mode="0700"),
        Directory(path=STATE),
        Tool(name="openssh-client"),
        *guard_program(),
        keeping.keeper(),
        *(
            KeyPair(path=private_path("ssh-reverse", one), public=public_path("ssh-reverse", one), maker="ssh")
            for one in (me.lock.generation, me.lock.next_generation)
            if one is not None
        ),
    ]
    return (*found, _rig(me)) if me.lock.complete else tuple(found)


def _rig(me: Own) -> Guarded:
    hub = me.lock.peers[0]
    known = f"{STATE}/ssh_known_hosts"
    return Guarded(
        name="tunnel ssh-reverse",
        files=(
            GuardedFile(path=f"/etc/systemd/system/{UNIT}", content=unit(me, known)),
            GuardedFile(path=known, content=f"{_known_name(hub.endpoint or '')} {hub.public_key}\n"),
            *keeping.files(me, UNIT, 0),
        ),
        units=(UNIT, keeping.TIMER),
        confirm_s=me.wish.confirm_s,
        path=me.lock.address if me.wish.reach == "tunnel" else "",
    )


def unit(me: Own, known: str) -> str:
    """ssh under systemd, which starts it again whenever it ends; a forward that fails ends it."""
    hub = me.lock.peers[0]
    host, port = split_endpoint(hub.endpoint or "")
    ssh = me.lock.admit[0].partition("/")[2] if me.lock.admit else "22"
    words = [
        "/usr/bin/ssh -NT",
        f"-o IdentitiesOnly=yes -i {private_path('ssh-reverse', me.lock.generation)}",
        f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes -o BatchMode=yes",
        f"-o ExitOnForwardFailure=yes -o ServerAliveInterval={ALIVE_S} -o ServerAliveCountMax=3 -o ConnectTimeout=10",
        f"-R 127.0.0.1:{me.lock.port}:127.0.0.1:{ssh}",
        f"-p {port} {USER}@{host}",
    ]
    return (
        HEADER
        + "[Unit]\nDescription=SSH reverse tunnel to the hub\n"
        + "Wants=network-online.target\nAfter=network-online.target\nStartLimitIntervalSec=0\n\n"
        + "[Service]\nExecStart="
        + " \\\n    ".join(words)
        + "\nRestart=always\nRestartSec=5\n\n[Install]\nWantedBy=multi-user.target\n"
    )


def _known_name(endpoint: str) -> str:
    host, port = split_endpoint(endpoint)
    return host if port == 22 else f"[{host}]:{port}"


def _hub(me: Own) -> Guarded:
    return Guarded(
        name="tunnel ssh-reverse",
        files=(
            GuardedFile(
                path=f"/etc/sysusers.d/{USER}.conf", content=HEADER + f'u {USER} - "SSH reverse tunnels" / /bin/false\n'
            ),
            GuardedFile(path=f"/etc/ssh/sshd_config.d/{USER}.conf", content=_sshd(KEYS)),
            GuardedFile(path=KEYS, content=authorized_keys(me)),
            *keeping.files(me, "", 0),
        ),
        # A login that is locked (`!`) is refused by sshd where it does not use PAM; `*` only has no password.
        run=(("systemd-sysusers",), ("usermod", "-p", "*", USER), ("/usr/sbin/sshd", "-t")),
        units=("ssh.service", keeping.TIMER),
        confirm_s=me.wish.confirm_s,
    )


def _sshd(keys: str) -> str:
    return (
        HEADER
        + f"Match User {USER}\n    AuthorizedKeysFile {keys}\n    AllowTcpForwarding remote\n    GatewayPorts no\n"
        + "    PermitTTY no\n    X11Forwarding no\n    AllowAgentForwarding no\n    ForceCommand /bin/false\n"
        + f"    ClientAliveInterval {ALIVE_S}\n    ClientAliveCountMax 3\nMatch all\n"
    )


def authorized_keys(me: Own) -> str:
    """One line for each rig: its key may listen on its own port of the loopback address, and do nothing else."""
    lines = [
        f'restrict,port-forwarding,permitlisten="{peer.allowed[0]}" {peer.public_key} {peer.host}'
        for peer in sorted(me.lock.peers, key=lambda p: p.host)
        if peer.allowed
    ]
    return HEADER + "".join(line + "\n" for line in lines)


def cut_off(text: str, lock: TunnelLock) -> list[str]:
    """Whom a hub with this list of keys would lose if it had the lock's, and they went on as they are."""
    known = {host: (port, key) for port, key, host in _LINE.findall(text)}
    if lock.kind != "ssh-reverse":
        return list(known)
    now = {peer.host: (peer.allowed[0], peer.public_key) for peer in lock.peers if peer.allowed}
    return [name for name in known if name in now and now[name] != known[name]]


_LINE = re.compile(r'^restrict,port-forwarding,permitlisten="(\S+)" (\S+ \S+) (\S+)$', re.MULTILINE)


def questions(me: Own) -> tuple[Question, ...]:
    """A unit that runs is not a port that answers: both are asked, each where it can be."""
    if me.lock.role == "hub":
        return tuple(
            Question(f"the port of {peer.host}", f"ssh-keyscan -T 5 -p {peer.allowed[0].partition(':')[2]} 127.0.0.1",
                     "prints the rig's host keys")
            for peer in me.lock.peers
        )  # fmt: skip
    return (Question("the connection", f"systemctl is-active {UNIT}", "active"),)
