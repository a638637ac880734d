#!/usr/bin/python3
"""Lets invited hosts in, on the hub: an invitation is for one host, once, for a while, and needs its code.

    join admit            write down an invitation (JSON on stdin) and open the door for its key; the operator's side
    join serve ID         what the door leads to: the rig says its code and keys, and hears its configuration
    join restore          put peers that joined and are in no configuration yet on the interface (after it came up)
    join settle           forget those that are in the configuration now
    join revoke HOST      take back every invitation of a host

The door is a login that can do nothing else: its key runs `join serve ID` and has no terminal and no forwarding.
State: /var/lib/provision/join/ID.json until it is used, then used/ID.json; /var/lib/provision/joined/HOST.json.
"""

import base64
import fcntl
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time

MYPY = False
if MYPY:  # never true: annotations stand in quotes for Python 3.6
    from typing import Any

ROOT = os.environ.get("PROVISION_JOIN_ROOT", "/var/lib/provision")
DOOR = ROOT + "/join"
JOINED = ROOT + "/joined"
KEYS = ROOT + "/join/authorized_keys"
SSHD = os.environ.get("PROVISION_JOIN_SSHD", "/etc/ssh/sshd_config.d/provision-join.conf")
SUDOERS = os.environ.get("PROVISION_JOIN_SUDOERS", "/etc/sudoers.d/provision-join")
CONFIG = os.environ.get("PROVISION_JOIN_CONFIG", "/etc/wireguard/prov0.conf")
INTERFACE = "prov0"
USER = "provision-join"
TRIES = 3
LARGEST = 65536


class Refused(Exception):
    """Why somebody is not let in; they hear it, and it is noted."""


def write(path: str, text: str, mode: int = 0o600) -> None:
    handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


def read_json(path: str) -> "Any":
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


class Lock:
    def __enter__(self) -> "Lock":
        for path in (DOOR, DOOR + "/used", JOINED):
            os.makedirs(path, mode=0o755, exist_ok=True)
        self.file = open(ROOT + "/join.lock", "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def digest(code: str, salt: str) -> str:
    """The code as it is kept. Three tries guard it on the hub; the cost guards it against who reads this file."""
    raw = hashlib.pbkdf2_hmac("sha256", code.encode(), base64.b64decode(salt), 200000)
    return base64.b64encode(raw).decode()


def keys_without(id_: str) -> str:
    try:
        with open(KEYS) as file:
            return "".join(line for line in file if ("join serve %s" % id_) not in line)
    except OSError:
        return ""


# The operator's side.


def admit() -> "dict[str, Any]":
    record = json.loads(sys.stdin.read(LARGEST))
    id_, host = record["id"], record["host"]
    if not re.match(r"[0-9a-f]{32}\Z", id_) or not re.match(r"[A-Za-z0-9._-]+\Z", host):
        raise Refused("this is no invitation")
    with Lock():
        withdraw(host)
        key = record.pop("door_key")
        write(DOOR + "/" + id_ + ".json", json.dumps(record))
        command = 'command="sudo -n %s serve %s",restrict,expiry-time="%s"' % (
            os.path.abspath(__file__),
            id_,
            time.strftime("%Y%m%d%H%M", time.localtime(record["expires"] + 60)),
        )
        write(KEYS, keys_without(id_) + command + " " + key + "\n", 0o644)
        open_door()
    return {"id": id_, "host": host, "expires": record["expires"]}


def open_door() -> None:
    """The login, what it may run, and where sshd finds its keys; sshd is told only when its settings changed."""
    subprocess.call(
        ["useradd", "--system", "--no-create-home", "--home-dir", DOOR, "--shell", "/bin/sh", "--password", "*", USER],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.chmod(DOOR, 0o755)
    # The sign comes apart from its word, behind which the probe would take out what it takes for a secret.
    write(SUDOERS, "%s ALL=(root) NOPASSWD%s %s serve *\n" % (USER, ":", os.path.abspath(__file__)), 0o440)
    wanted = (
        "# Written by provision invite: a login that takes invitations and nothing else.\n"
        "Match User %s\n    AuthorizedKeysFile %s\n    AllowTcpForwarding no\n    X11Forwarding no\n"
        "    PermitTTY no\n    PasswordAuthentication no\nMatch all\n" % (USER, KEYS)
    )
    try:
        with open(SSHD) as file:
            now = file.read()
    except OSError:
        now = ""
    if now != wanted:
        write(SSHD, wanted, 0o644)
        if subprocess.call(["/usr/sbin/sshd", "-t"]) != 0:
            os.unlink(SSHD)
            raise Refused("sshd does not take %s" % SSHD)
        subprocess.call(["systemctl", "reload", "ssh.service"])


def withdraw(host: str) -> int:
    """Earlier invitations of a host end when it gets a new one."""
    count = 0
    for name in os.listdir(DOOR):
        record = read_json(DOOR + "/" + name) if name.endswith(".json") else None
        if record and record.get("host") == host:
            os.unlink(DOOR + "/" + name)
            write(KEYS, keys_without(name[: -len(".json")]), 0o644)
            count += 1
    return count


def revoke(host: str) -> "dict[str, Any]":
    with Lock():
        return {"host": host, "revoked": withdraw(host)}


# The rig's side.


def serve(id_: str) -> "dict[str, Any]":
    asked = json.loads(sys.stdin.read(LARGEST))
    if not isinstance(asked, dict):
        raise Refused("this is no answer to an invitation")
    if not re.match(r"[0-9a-f]{32}\Z", id_):
        raise Refused("this is no invitation")
    path = DOOR + "/" + id_ + ".json"
    with Lock():
        record = read_json(path)
        if record is None:
            used = read_json(DOOR + "/used/" + id_ + ".json")
            if used is not None:
                raise Refused("this invitation was used %s, from %s" % (when(used["at"]), used["came_from"]))
            raise Refused("this invitation was taken back, or never given")
        if time.time() > record["expires"]:
            close(id_)
            raise Refused("this invitation ended %s" % when(record["expires"]))
        if not hmac.compare_digest(digest(str(asked.get("code", "")), record["salt"]), record["code"]):
            record["tries"] = record.get("tries", 0) + 1
            if record["tries"] >= TRIES:
                close(id_)
                raise Refused("the code is wrong for the third time; this invitation has ended")
            write(path, json.dumps(record))
            raise Refused("the code is wrong; %d tries are left" % (TRIES - record["tries"]))
        key, host_keys = str(asked.get("public_key", "")), asked.get("host_keys")
        check(key, host_keys)
        came_from = (os.environ.get("SSH_CLIENT") or client_of_parents() or "unknown").split()[0]
        now = int(time.time())
        # First used, then let in: whatever fails from here on, nobody uses it twice.
        write(DOOR + "/used/" + id_ + ".json", json.dumps({"host": record["host"], "at": now, "came_from": came_from}))
        close(id_)
        joined = {
            "host": record["host"],
            "id": id_,
            "address": record["address"],
            "public_key": key,
            "host_keys": host_keys,
            "machine": str(asked.get("machine", ""))[:200],
            "came_from": came_from,
            "at": now,
            "intent": record["intent"],
        }
        write(JOINED + "/" + record["host"] + ".json", json.dumps(joined, sort_keys=True) + "\n", 0o644)
        set_peer(joined)
    return {name: record[name] for name in ("host", "address", "hub_address", "config", "user", "operator_keys")}


def check(key: str, host_keys: "Any") -> None:
    try:
        fits = len(base64.b64decode(key, validate=True)) == 32
    except ValueError:
        fits = False
    if not fits:
        raise Refused("its WireGuard key is none")
    keys = host_keys if isinstance(host_keys, list) else []
    if not keys or not all(
        isinstance(line, str) and re.match(r"(ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/=]{40,2000}\Z", line) for line in keys
    ):
        raise Refused("it shows no ssh host key")
    with open(CONFIG) as file:
        if key in file.read():
            raise Refused("its WireGuard key is that of another host")


def close(id_: str) -> None:
    try:
        os.unlink(DOOR + "/" + id_ + ".json")
    except OSError:
        pass
    write(KEYS, keys_without(id_), 0o644)


def client_of_parents() -> str:
    """sudo takes SSH_CLIENT away; the process that it was started from still has it."""
    process = os.getppid()
    while process > 1:
        try:
            with open("/proc/%d/environ" % process, "rb") as file:
                for item in file.read().split(b"\0"):
                    if item.startswith(b"SSH_CLIENT="):
                        return item.decode("ascii", "replace").split("=", 1)[1]
            with open("/proc/%d/stat" % process) as file:
                process = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            return ""
    return ""


def when(seconds: float) -> str:
    return time.strftime("on %Y-%m-%d at %H:%M UTC", time.gmtime(seconds))


# The interface.


def set_peer(joined: "dict[str, Any]") -> None:
    bits = "128" if ":" in joined["address"] else "32"
    subprocess.check_call(
        ["wg", "set", INTERFACE, "peer", joined["public_key"], "allowed-ips", joined["address"] + "/" + bits]
    )


def all_joined() -> "list[tuple[str, dict[str, Any]]]":
    found = []
    for name in sorted(os.listdir(JOINED)) if os.path.isdir(JOINED) else []:
        record = read_json(JOINED + "/" + name)
        if record:
            found.append((JOINED + "/" + name, record))
    return found


def restore() -> "dict[str, Any]":
    with open(CONFIG) as file:
        text = file.read()
    back = [record for _, record in all_joined() if record["public_key"] not in text]
    for record in back:
        set_peer(record)
    return {"restored": [record["host"] for record in back]}


def settle() -> "dict[str, Any]":
    with open(CONFIG) as file:
        text = file.read()
    done = [(path, record["host"]) for path, record in all_joined() if record["public_key"] in text]
    for path, _ in done:
        os.unlink(path)
    return {"settled": [host for _, host in done]}


def main(argv: "list[str]") -> int:
    plain = {"admit": admit, "restore": restore, "settle": settle}
    named = {"serve": serve, "revoke": revoke}
    try:
        if len(argv) == 1 and argv[0] in plain:
            answer = plain[argv[0]]()
        elif len(argv) == 2 and argv[0] in named:
            answer = named[argv[0]](argv[1])
        else:
            sys.stderr.write(__doc__)
            return 2
    except Refused as problem:
        print(json.dumps({"refused": str(problem)}))
        return 1
    except (ValueError, KeyError, TypeError) as problem:
        print(json.dumps({"refused": "this cannot be read: %s" % type(problem).__name__}))
        return 1
    print(json.dumps(answer, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
