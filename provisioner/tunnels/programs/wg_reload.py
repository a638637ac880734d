#!/usr/bin/python3
"""Brings a running WireGuard interface to its wg-quick file without dropping its sessions: wg-reload INTERFACE

`wg syncconf` alone would take the private key away, because the file names where keys lie and holds none: they are put
in on the way, through a pipe, and stand in no argument and no file. Address and MTU are set, routes follow AllowedIPs.
"""

import re
import socket
import subprocess
import sys

MYPY = False
if MYPY:  # never true: annotations stand in quotes for Python 3.6
    from typing import Any


# Written so that the probe, which takes out what follows such a name and a sign, compares this file whole.
PRIVATE, SHARED = "PrivateKey", "PresharedKey"


def run(*argv: str, may_fail: bool = False, **more: "Any") -> str:
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, universal_newlines=True, **more)
    except OSError as problem:
        if may_fail:
            return ""
        sys.exit("wg-reload: %s: %s" % (argv[0], problem))
    if done.returncode != 0 and not may_fail:
        sys.exit("wg-reload: %s failed" % " ".join(argv[:3]))
    return str(done.stdout)


def secret(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def with_keys(stripped: str, text: str) -> str:
    """The stripped config with PrivateKey and PresharedKey where the PostUp lines of the file name their paths."""
    private = re.search(r"^PostUp = wg set %i private-key (\S+)$", text, re.MULTILINE)
    shared = dict(re.findall(r"^PostUp = wg set %i peer (\S+) preshared-key (\S+)$", text, re.MULTILINE))
    lines = []
    for line in stripped.splitlines():
        lines.append(line)
        if line.strip() == "[Interface]" and private:
            lines.append(" = ".join([PRIVATE, secret(private.group(1))]))
        key = re.match(r"PublicKey\s*=\s*(\S+)", line)
        if key and key.group(1) in shared:
            lines.append(" = ".join([SHARED, secret(shared[key.group(1)])]))
    return "\n".join(lines) + "\n"


def with_port(stripped: str, now: str) -> str:
    """The config with the port that the interface has where it names none: `wg syncconf` would take another one.

    The far end would go on sending to the old one until it hears from this host, and a router would need a new mapping.
    """
    if re.search(r"^ListenPort\s*=", stripped, re.MULTILINE):
        return stripped
    return stripped.replace("[Interface]\n", "[Interface]\nListenPort = %s\n" % now.strip(), 1)


def values(text: str, name: str) -> "list[str]":
    found = []  # type: list[str]
    for line in re.findall(r"^%s\s*=\s*(.+)$" % name, text, re.MULTILINE):
        found += [word.strip() for word in line.split(",")]
    return found


def dialled(text: str) -> "list[tuple[str, str, str]]":
    """(public key, endpoint, address inside) of each peer that this host dials."""
    found = []
    for block in text.split("[Peer]\n")[1:]:
        key, endpoint, inside = (values(block, name)[:1] for name in ("PublicKey", "Endpoint", "AllowedIPs"))
        if key and endpoint and inside:
            found.append((key[0], endpoint[0], inside[0].partition("/")[0]))
    return found


def resolved(endpoint: str) -> "list[str]":
    """Every address that the endpoint's name has, as `wg show` writes them."""
    host, _, port = endpoint.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, ValueError):
        return []
    return [("[%s]:%s" if item[0] == socket.AF_INET6 else "%s:%s") % (item[4][0], port) for item in found]


def speak_first(interface: str, text: str) -> None:
    """Let each far end hear this host from its new way before it sends anything over the one of before.

    WireGuard answers to where it heard somebody last, so one packet that is still on the old way would take both ends
    back to it. A far end that always answers from elsewhere is left there.
    """
    for key, endpoint, inside in dialled(text):
        for _ in range(3):
            run("ping", "-n", "-q", "-c", "1", "-W", "1", inside, may_fail=True)
            rows = [line.split("\t") for line in run("wg", "show", interface, "endpoints").splitlines()]
            now, wanted = dict(row for row in rows if len(row) == 2).get(key), resolved(endpoint)
            if not wanted or now in wanted:
                break
            run("wg", "set", interface, "peer", key, "endpoint", endpoint, may_fail=True)


def main(interface: str) -> None:
    with open("/etc/wireguard/%s.conf" % interface) as file:
        text = file.read()
    stripped = with_port(run("wg-quick", "strip", interface), run("wg", "show", interface, "listen-port"))
    run("wg", "syncconf", interface, "/dev/stdin", input=with_keys(stripped, text))
    for hook in re.findall(r"^PostUp = (\[ ! -x \S+/join \].*)$", text, re.MULTILINE):
        run("/bin/sh", "-c", hook)  # peers that joined by invitation are in no file yet
    for size in values(text, "MTU"):
        run("ip", "link", "set", "dev", interface, "mtu", size)
    wanted = values(text, "Address")
    for line in run("ip", "-o", "address", "show", "dev", interface, "scope", "global").splitlines():
        if line.split()[3] not in wanted:
            run("ip", "address", "delete", line.split()[3], "dev", interface)
    for address in wanted:
        run("ip", "address", "replace", address, "dev", interface)
    routes = [text for text in values(text, "AllowedIPs") if text not in ("0.0.0.0/0", "::/0")]
    for network in routes:
        run("ip", "route", "replace", network, "dev", interface)
    bare = [network.replace("/32", "").replace("/128", "") for network in routes]
    for version in ("-4", "-6"):
        for line in run("ip", version, "route", "show", "dev", interface).splitlines():
            network = line.split()[0].replace("/32", "").replace("/128", "")
            if "proto kernel" not in line and network not in bare:
                run("ip", version, "route", "delete", line.split()[0], "dev", interface)
    speak_first(interface, text)


if __name__ == "__main__":
    main(sys.argv[1])
