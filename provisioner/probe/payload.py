"""Turns a request into the bytes that travel to a host, and the bytes that come back into a capture."""

from __future__ import annotations

import json
import zlib
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from provisioner import __version__
from provisioner.model.capture import Capture
from provisioner.probe.request import Request

MAX_ANSWER = 64 << 20
_MARK = b"#provision-probe-1 "
_HERE = Path(__file__).parent
# Names that are never read on a host, whoever asks.
_FORBIDDEN = ("/etc/shadow", "/etc/gshadow", "/etc/apt/auth.conf", "/proc/self/environ", "/root/.ssh/id_", "/.netrc")
_FORBIDDEN_ENDS = (".key", ".pem", ".vault", "_key", "id_rsa", "id_ed25519", "id_ecdsa", "auth.conf")

BOOTSTRAP = (
    "import sys,zlib;"
    'sys.version_info<(3,6)and sys.exit("provision-python-too-old "+sys.version.split()[0]);'
    "exec(zlib.decompress(sys.stdin.buffer.read()))"
)
"""What stands behind `python3 -IS -c`, on one line for every login shell; the rest comes through standard input."""


class Garbled(ValueError):
    """What came back is no answer of the probe; the text says what it looks like instead."""


def nvml_calls(*, health: bool = False) -> str:
    """The text of what NVML is asked; with `health` also what only doctor wants to know of each card."""
    files = ("nvml_calls.py", "nvml_health.py") if health else ("nvml_calls.py",)
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in files)


@lru_cache(maxsize=256)
def payload(request: Request, shaken_pynvml: str | None = None) -> bytes:
    """Script and request, compressed; hosts that are asked the same get the same bytes, made once."""
    asked = _plain(request)
    if request.profile.nvml and shaken_pynvml is not None:
        asked |= {
            "nvml": shaken_pynvml,
            "nvml_calls": nvml_calls(health=request.profile.nvml_health),
            "nvml_limit": request.profile.nvml_limit_s,
        }
    return zlib.compress(f"{_script()}\nmain({asked!r})\n".encode(), 9)


@lru_cache(maxsize=1)
def _script() -> str:
    return (_HERE / "script.py").read_text(encoding="utf-8")


def _plain(request: Request) -> dict[str, Any]:
    profile = request.profile
    files = list(dict.fromkeys((*profile.files, *request.files)))
    for path in files:
        if not path.startswith("/"):
            raise ValueError(f"'{path}' is not an absolute path")
        if path.startswith(_FORBIDDEN) or path.endswith(_FORBIDDEN_ENDS):
            raise ValueError(f"'{path}' may hold a secret; the probe does not read it")
    return {
        "files": files,
        "listings": list(profile.listings),
        "folders": list(profile.folders),
        "links": list(profile.links),
        "stats": list(dict.fromkeys(path for path in (*request.files, *request.stats) if "*" not in path)),
        "disks": list(profile.disks),
        "devices": [[item.root, item.vendor, list(item.names)] for item in profile.devices],
        "commands": [[command.line, command.argv, command.limit_s] for command in request.commands],
        "width": profile.width,
    }


def capture_from(answer: bytes, host: str, taken_at: datetime) -> Capture:
    """Find the framed answer in what the session printed; banners before and after it do not matter.

    Raises Garbled when there is none, it is cut short, or it is not of format 1.
    """
    at = answer.rfind(b"\n" + _MARK)
    if at < 0:
        raise Garbled("no answer in what the session printed")
    head, _, rest = answer[at + 1 + len(_MARK) :].partition(b"\n")
    kind, _, length = head.partition(b" ")
    if kind not in (b"z", b"j") or not length.isdigit():
        raise Garbled("the answer's first line is damaged")
    if len(rest) < int(length):
        raise Garbled(f"the answer ends after {len(rest)} of {int(length)} bytes")
    body = rest[: int(length)]
    try:
        data = json.loads(_inflate(body) if kind == b"z" else body)
        return Capture.model_validate({**data, "host": host, "taken_at": taken_at, "probe": __version__})
    except (ValueError, TypeError, RecursionError, zlib.error) as error:
        raise Garbled(f"the answer cannot be read: {str(error).splitlines()[0]}") from error


def _inflate(body: bytes) -> bytes:
    """A host that was broken into must not be able to fill the operator's memory."""
    stream = zlib.decompressobj()
    data = stream.decompress(body, MAX_ANSWER)
    if stream.unconsumed_tail or not stream.eof:
        raise Garbled("the answer is damaged or larger than 64 MiB")
    return data
