"""Does a container really run? The look that asks Docker's own socket, and the program that the container runs.

The docker command would do the same with four processes of its own, which cost more than the container. No registry
is asked: the image is one tiny static program, made here. It stays on the host (a few hundred bytes), because making
it anew costs as much as running it.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import struct
from dataclasses import dataclass

from provisioner.checks.check import NotMade, Seen, python

WORD = "provision-check-ran"

_TEXT = f"{WORD}\n".encode()
_BASE = 0x400000
_HEADERS = 64 + 56  # an ELF header and one program header; the code follows

# write(1, text, length), exit(0); the text stands right behind the code.
_X86_64 = (
    b"\xb8\x01\x00\x00\x00"  # mov  eax, 1 (write)
    b"\xbf\x01\x00\x00\x00"  # mov  edi, 1
    b"\x48\x8d\x35\x10\x00\x00\x00"  # lea  rsi, [rip + 16]
    + b"\xba"
    + struct.pack("<I", len(_TEXT))  # mov  edx, length
    + b"\x0f\x05"  # syscall
    b"\xb8\x3c\x00\x00\x00"  # mov  eax, 60 (exit)
    b"\x31\xff"  # xor  edi, edi
    b"\x0f\x05"  # syscall
)
_AARCH64 = struct.pack(
    "<8I",
    0xD2800020,  # mov  x0, 1
    0x100000E1,  # adr  x1, text (28 bytes on)
    0xD2800002 | len(_TEXT) << 5,  # mov  x2, length
    0xD2800808,  # mov  x8, 64 (write)
    0xD4000001,  # svc  0
    0xD2800000,  # mov  x0, 0
    0xD2800BA8,  # mov  x8, 93 (exit)
    0xD4000001,  # svc  0
)


def _program(machine: int, code: bytes) -> bytes:
    """A static ELF executable of one segment; field by field as in elf(5)."""
    size = _HEADERS + len(code) + len(_TEXT)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return ident + header + segment + code + _TEXT


PROGRAMS = {"x86_64": _program(62, _X86_64), "aarch64": _program(183, _AARCH64)}
"""`uname -m` -> the whole executable."""

_SCRIPT = r"""
import binascii, os, sys
import _signal, _socket

def stop(number, frame):
    raise SystemExit(143)

_signal.signal(15, stop)
said = []

def ask(step, method, path, body=b"", kind="application/json", limit=60):
    line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    line.settimeout(limit)
    try:
        line.connect("/run/docker.sock")
        head = "%s %s HTTP/1.0\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (method, path, kind, len(body))
        line.sendall(head.encode() + body)
        got = [line.recv(65536)]
        while got[-1]:
            got.append(line.recv(65536))
    except _socket.timeout:
        said.append((step, 0, "no answer within %d s" % limit))
        return False
    except OSError as error:
        said.append((step, 0, str(error)))
        return False
    finally:
        line.close()
    head, _, rest = b"".join(got).partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head.startswith(b"HTTP/") else 0
    said.append((step, status, rest.decode("utf-8", "replace")))
    return 200 <= status < 300

def archive(name, data):
    head = name.encode().ljust(100, b"\0") + b"0000755\0" + b"0000000\0" * 2
    head += b"%011o\0" % len(data) + b"0" * 11 + b"\0"
    sums = b"%06o\0 " % sum((head + b" " * 8 + b"0"))
    return (head + sums + b"0").ljust(512, b"\0") + data.ljust(512, b"\0") + bytes(1024)

def run(program):
    box = "/containers/provision-check-%d" % os.getpid()
    new = "/containers/create?name=" + box[12:]
    want = '{"Image":"%s:%s","Cmd":["/ran"],"NetworkDisabled":true,"HostConfig":{"NetworkMode":"none",' \
        '"LogConfig":{"Type":"json-file"}}}' % (IMAGE, TAG)
    try:
        if not ask("create", "POST", new, want.encode()):
            if said[-1][1] != 404:
                return
            tar = archive("ran", binascii.a2b_base64(program))
            path = "/images/create?fromSrc=-&repo=%s&tag=%s" % (IMAGE, TAG)
            if not ask("image", "POST", path, tar, "application/x-tar"):
                return
            if not ask("create", "POST", new, want.encode()):
                return
        if ask("start", "POST", box + "/start") and ask("wait", "POST", box + "/wait"):
            ask("logs", "GET", box + "/logs?stdout=1&stderr=1")
    finally:
        ask("remove", "DELETE", box + "?force=1")

if ask("info", "GET", "/info", limit=20):
    program = PROGRAMS.get(os.uname().machine)
    if program:
        run(program)
    else:
        said.append(("image", 0, "no test program for " + os.uname().machine))
print(ascii(said))
"""

IMAGE = "provision-check"
_NAMES: dict[str, object] = {
    "PROGRAMS": {name: base64.b64encode(data).decode() for name, data in PROGRAMS.items()},
    "IMAGE": IMAGE,
    "TAG": hashlib.sha256(b"".join(PROGRAMS.values())).hexdigest()[:12],
}

DOCKER = python("\n".join(f"{name} = {value!r}" for name, value in _NAMES.items()) + _SCRIPT, 90)
"""Asks what `docker info` shows; makes, runs and removes a container, and makes its image when that is not there."""


@dataclass(frozen=True)
class Step:
    """What Docker's socket answered; status 0 when there was no answer, and then `body` says why."""

    status: int
    body: str

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def said(self) -> str:
        """Docker's own message of an error."""
        try:
            return str(json.loads(self.body)["message"])
        except (ValueError, TypeError, KeyError):
            return self.body.strip() or f"status {self.status}"


def steps(seen: Seen) -> dict[str, Step]:
    """Step -> its last answer. Raises NotMade when the look gave none."""
    if seen.rc == 127:
        raise NotMade("the host has no python3 to ask Docker with")
    try:
        said = ast.literal_eval(seen.output)
        return {str(step): Step(int(status), str(body)) for step, status, body in said}
    except (ValueError, SyntaxError, TypeError):
        raise NotMade("Docker's answer could not be read") from None
