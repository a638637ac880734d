"""provision-gate: may this network's client start now? Compares the host with its signed enrolment record.

The record is an in-toto statement in a DSSE envelope (docs/reference/enrolment.md). Every disagreement is told in a
line of its own, to the journal when a unit asks; whatever can not be told keeps the gate closed. It needs no controller
and writes nothing.

    provision-gate check [NETWORK]    exit 0: open; 1: closed, with the reasons
    provision-gate admit NETWORK      the same for a unit; exit 255: closed, for reasons that may pass by themselves
    provision-gate observe            what a record would be compared with, as JSON: what enrolment signs
"""

# pathlib, typing, datetime and subprocess cost more to import than the whole comparison takes.
# ruff: noqa: PTH123, PTH208

import base64
import ctypes
import hashlib
import hmac
import json
import os
import re
import select
import socket
import sys
import time

from provisioner.host import ed25519, nvml

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

STATE = "/var/lib/provision"
RECORD = STATE + "/enrolment.json"
KEYS = STATE + "/trusted_keys"
DRAINED = STATE + "/drained"
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
HOST_KEYS = ("ed25519", "ecdsa", "rsa")
DOCKER = "/run/docker.sock"
TUNNEL = "/etc/provision/tunnel.json"
TUNNEL_NOTES = "/run/provision/tunnel.json"

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:provision:enrolment:v2"
PAYLOAD = "application/vnd.in-toto+json"
NVML_LIMIT_S = 20.0
DOCKER_LIMIT_S = 5.0
BEHIND_S = 300  # a clock may be this much behind the one that signed
LATER = 255  # of an ExecCondition: a failure, which Restart= tries again; any other code skips the start for good


class Closed(Exception):
    """Why the record as such does not count."""


class Passing(str):
    """A reason that may pass by itself: a clock that is not set yet, heat, an engine that is still starting."""


# What is seen.


def observe(root: str = "", ask: "Callable[[], Json]" = nvml.look) -> "Json":
    """What this host is and has now. None: not there; `error` under `nvml`: it did not answer, and what it said."""
    return {
        "machine": machine(root),
        "host_key": host_key(root),
        "driver": (read(root + "/sys/module/nvidia/version") or "").strip() or None,
        "flavour": flavour(root),
        "nvml": apart(ask, NVML_LIMIT_S),
        "docker": docker(root + DOCKER),
        "cdi": cdi(root),
        "tunnel": silent(root),
        "clock_kept": clock_kept(),
    }


def read(path: str) -> "str | None":
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def machine(root: str) -> "str | None":
    """A name for the machine that does not tell its machine-id: machine-id(5) asks for a keyed hash of it."""
    name = (read(root + "/etc/machine-id") or "").strip()
    return hmac.new(name.encode(), b"provision enrolment", hashlib.sha256).hexdigest() if name else None


def host_key(root: str) -> "str | None":
    """Fingerprint of the ssh host key, as `ssh-keygen -l` prints it; None on a host without sshd."""
    for kind in HOST_KEYS:
        words = (read(root + "/etc/ssh/ssh_host_" + kind + "_key.pub") or "").split()
        if len(words) > 1:
            return fingerprint(base64.b64decode(words[1]))
    return None


def fingerprint(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def flavour(root: str) -> "str | None":
    said = read(root + "/proc/driver/nvidia/version")
    if said is None or "Kernel Module" not in said:
        return None
    return "open" if "Open Kernel Module" in said else "proprietary"


def cdi(root: str) -> "dict[str, list[str]]":
    """Specification -> driver versions that the libraries in it carry; a new driver leaves an old specification."""
    found = {}
    for folder in CDI_FOLDERS:
        try:
            names = sorted(os.listdir(root + folder))
        except OSError:
            continue
        for name in names:
            if name.endswith((".yaml", ".yml", ".json")):
                text = read(root + folder + "/" + name) or ""
                versions = re.findall(r"lib(?:cuda|nvidia-ml)\.so\.(\d+\.\d+(?:\.\d+)?)", text)
                found[folder + "/" + name] = sorted(set(versions))
    return found


def docker(path: str) -> "str | None":
    """The version that Docker's own socket tells; None when it does not answer."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(DOCKER_LIMIT_S)
    try:
        line.connect(path)
        line.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        got = [line.recv(65536)]
        while got[-1]:
            got.append(line.recv(65536))
        version = json.loads(b"".join(got).partition(b"\r\n\r\n")[2].decode())["Version"]
        return str(version)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    finally:
        line.close()


def silent(root: str) -> "list[str]":
    """Far ends that this host dials and that do not answer, as the tunnel's keeper noted; none where it noted nothing.

    One that dials this host, as a rig does its hub, may be switched off. Notes outlive the tunnel they are of.
    """
    try:
        dialled = [end["host"] for end in json.loads(read(root + TUNNEL) or "{}").get("peers", []) if end["endpoint"]]
        ends = json.loads(read(root + TUNNEL_NOTES) or "{}").get("peers", [])
        return [str(end["host"]) for end in ends if end.get("loss_pct", 0) >= 100 and end["host"] in dialled]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2) is 208 bytes on 64-bit Linux; only its state is of interest here.
    _fields_ = [("modes", ctypes.c_uint), ("rest", ctypes.c_ubyte * 508)]


def clock_kept() -> "bool | None":
    """Whether the kernel says that something keeps its clock: adjtimex(2) gives TIME_ERROR (5) when nothing does."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(_Timex(modes=0)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5


def apart(work: "Callable[[], Json]", limit_s: float) -> "Json":
    """Ask in a child: a sick card makes a process wait for ever, and this one must still say so."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as out:
                json.dump(work(), out)
        finally:
            os._exit(0)
    os.close(writing)
    text = b""
    ends_at = time.monotonic() + limit_s
    with os.fdopen(reading, "rb", 0) as answer:
        while True:
            ready, _, _ = select.select([answer], [], [], max(0.0, ends_at - time.monotonic()))
            part = answer.read(65536) if ready else None
            if not part:
                break
            text += part
    if part is None:
        os.kill(child, 9)  # it may not die of it; its pipe is closed, and nobody waits
        return {"error": f"no answer within {limit_s:g} s"}
    os.waitpid(child, 0)
    try:
        return dict(json.loads(text.decode()))
    except ValueError:
        return {"error": "the process that asked ended without an answer"}


# The record.


def opened(envelope: str, keys: str) -> "Json":
    """The predicate of a record whose signature holds. Raises Closed."""
    try:
        outer = json.loads(envelope)
        payload = base64.b64decode(outer["payload"], validate=True)
        kind = outer["payloadType"]
        signatures = [(one.get("keyid"), base64.b64decode(one["sig"], validate=True)) for one in outer["signatures"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Closed(f"{RECORD} is no enrolment record") from None
    if kind != PAYLOAD:
        raise Closed(f"{RECORD} holds {kind}, not an in-toto statement")
    if not signatures:
        raise Closed("the enrolment record is not signed")
    trusted = trusted_keys(keys)
    if not trusted:
        raise Closed(f"{KEYS} names no key that may sign")
    known = [(trusted[keyid], signature) for keyid, signature in signatures if keyid in trusted]
    if not known:
        raise Closed(f"the enrolment record is signed with a key that this host does not trust ({signatures[0][0]})")
    signed = pae(kind, payload)
    if not any(ed25519.verify(key, signed, signature) for key, signature in known):
        raise Closed("the signature of the enrolment record is wrong: it was edited or damaged")
    try:
        statement = json.loads(payload.decode())
        predicate = statement["predicate"]
        if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
            raise Closed(f"the record is {statement['predicateType']}; this gate reads {PREDICATE}")
        return dict(predicate)
    except (ValueError, KeyError, TypeError):
        raise Closed(f"{RECORD} is no enrolment record") from None


def pae(kind: str, payload: bytes) -> bytes:
    """What a DSSE signature covers (pre-authentication encoding of its protocol, version 1)."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def trusted_keys(text: str) -> "dict[str, bytes]":
    """Fingerprint -> key, from lines such as `ssh-ed25519 AAAA… name`; other lines count for nothing."""
    keys = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "ssh-ed25519":
            continue
        try:
            blob = base64.b64decode(words[1], validate=True)
        except ValueError:
            continue
        if len(blob) == 51 and blob[:19] == b"\0\0\0\x0bssh-ed25519\0\0\0\x20":
            keys[fingerprint(blob)] = blob[19:]
    return keys


# The comparison.


def reasons(record: "Json", now: "Json", at: float, network: "str | None" = None, passing: bool = True) -> "list[str]":
    """Everything in which the host is not as it was enrolled; none: the gate is open. `at` is the time, in seconds.

    `passing`: what may pass by itself counts as well, heat and a silent tunnel; for a client that runs already the
    watchdog has ladders for these.
    """
    told = binding(record, now) + times(record, now, at)
    told += driver(record["stack"], now, passing) + runtime(record["stack"], now)
    told += [Passing(f"the tunnel carries nothing: {end} does not answer") for end in now["tunnel"] if passing]
    if network is not None and network not in record["networks"]:
        told.append(f"this host is enrolled for {', '.join(record['networks']) or 'no network'}, not for {network}")
    return told


def binding(record: "Json", now: "Json") -> "list[str]":
    told = []
    bound = record["bound_to"]
    if now["machine"] is None or bound["machine"] != now["machine"]:
        told.append(f"the record was made for another machine ({record['host']}): its machine-id is not this host's")
    if bound["host_key"] != now["host_key"]:
        told.append(
            f"the ssh host key is {now['host_key'] or 'gone'}, enrolled with {bound['host_key'] or 'none'}: "
            "the host was reinstalled, or the record copied"
        )
    return told


def times(record: "Json", now: "Json", at: float) -> "list[str]":
    """Times are UTC in one spelling, so text compares as time does."""
    told = []
    if stamp(at) >= record["expires_at"]:
        told.append(f"the enrolment ended at {record['expires_at']}")
    if stamp(at + BEHIND_S) < record["enrolled_at"]:
        told.append(Passing(f"the clock says {stamp(at)}, before the enrolment at {record['enrolled_at']}"))
    if record["stack"]["clock_kept"] and now["clock_kept"] is False:
        told.append(Passing("nothing keeps the clock now; something did when the host was enrolled"))
    return told


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def driver(stack: "Json", now: "Json", passing: bool) -> "list[str]":
    told = []
    if stack["driver"] != now["driver"]:
        told.append(f"the loaded driver is {now['driver'] or 'none'}, enrolled with {stack['driver'] or 'none'}")
    if stack["flavour"] != now["flavour"]:
        told.append(f"the loaded module is {now['flavour'] or 'none'}, enrolled with {stack['flavour'] or 'none'}")
    if stack["driver"] is None:
        return told
    seen = now["nvml"]
    if "error" in seen:
        return [*told, f"NVML: {seen['error']}"]
    if seen["driver"] != stack["driver"]:
        told.append(f"NVML reports driver {seen['driver'] or 'none'}, enrolled with {stack['driver']}")
    cards = {card["uuid"]: card for card in seen["gpus"]}
    for card in stack["gpus"]:
        if card["uuid"] not in cards:
            told.append(f"{card['name']} ({card['uuid']}) is gone")
    for uuid in sorted(set(cards) - {card["uuid"] for card in stack["gpus"]}, key=str):
        told.append(f"{cards[uuid]['name']} ({uuid}) was not there when the host was enrolled")
    return told + [words for card in seen["gpus"] if passing for words in hot(card)]


def hot(card: "Json") -> "list[str]":
    """At its own slowdown threshold a card already serves less than it promised."""
    degrees, limit = card["temperature_c"], card["slowdown_c"]
    if degrees is None or limit is None or degrees < limit:
        return []
    return [Passing(f"{card['name']} is at {degrees} °C; it slows down at {limit} °C")]


def runtime(stack: "Json", now: "Json") -> "list[str]":
    told = []
    if stack["docker"] is not None and stack["docker"] != now["docker"]:
        if now["docker"]:
            told.append(f"Docker is {now['docker']}, enrolled with {stack['docker']}")
        else:
            told.append(Passing(f"Docker does not answer, enrolled with {stack['docker']}"))
    for path, versions in sorted(stack["cdi"].items()):
        if path not in now["cdi"]:
            told.append(f"{path} is gone")
        elif now["cdi"][path] != versions:
            told.append(f"{path} names driver {listed(now['cdi'][path])}, enrolled with {listed(versions)}")
    return told


def listed(words: "list[str]") -> str:
    return ", ".join(words) or "none"


# The command.


def check(
    network: "str | None" = None,
    root: str = "",
    ask: "Callable[[], Json]" = nvml.look,
    clock: "Callable[[], float]" = time.time,
) -> "list[str]":
    """Every reason to stay closed."""
    if network is not None:
        drained = read(f"{root}{DRAINED}/{network}")
        if drained is not None:
            return [f"drained: {drained.strip() or 'no reason was given'}"]
    envelope = read(root + RECORD)
    if envelope is None:
        return ["this host is not enrolled"]
    try:
        record = opened(envelope, read(root + KEYS) or "")
        return reasons(record, observe(root, ask), clock(), network)
    except Closed as problem:
        return [str(problem)]
    except (KeyError, TypeError, ValueError) as problem:
        return [f"the record lacks what this gate compares: {type(problem).__name__}: {problem}"]


def closed_for_running(network: str, root: str = "") -> "list[str]":
    """Why a client that runs should stop: what keeps the gate closed, but for drains, heat and a silent tunnel."""
    try:
        record = opened(read(root + RECORD) or "", read(root + KEYS) or "")
        return reasons(record, observe(root), time.time(), network, passing=False)
    except Closed as problem:
        return [str(problem)]
    except (KeyError, TypeError, ValueError) as problem:
        return [f"the record lacks what this gate compares: {type(problem).__name__}: {problem}"]


def main(argv: "list[str]", **with_: "Any") -> int:
    if argv[:1] == ["observe"] and len(argv) == 1:
        print(json.dumps(observe(**with_), sort_keys=True))
        return 0
    if argv[:1] not in (["check"], ["admit"]) or len(argv) > 2 or argv == ["admit"]:
        sys.stderr.write((__doc__ or "").partition("\n\n")[2])
        return 2
    network = argv[1] if len(argv) > 1 else None
    try:
        told = check(network, **with_)
    except Exception as problem:  # whatever goes wrong here must not open the gate
        told = [f"the gate itself failed: {type(problem).__name__}: {problem}"]
    name = network or "the clients"
    for reason in told:
        say(f"{name} stays stopped: {reason}" if network else f"{name} stay stopped: {reason}")
    if not told:
        say(f"{name} may start: the host is as it was enrolled", level=6)
    if told and argv[0] == "admit" and all(isinstance(reason, Passing) for reason in told):
        return LATER
    return 1 if told else 0


def say(line: str, level: int = 3) -> None:
    """The journal reads the level from `<3>` in front (sd-daemon(3)); a person does not need it."""
    mark = f"<{level}>" if "JOURNAL_STREAM" in os.environ else ""
    sys.stderr.write(f"{mark}{line}\n")


def entry() -> None:
    sys.exit(main(sys.argv[1:]))
