"""Takes secrets out of a capture before it leaves the operator: what the host's own look missed, by shape.

The probe already removed what stands behind names such as password or token (provisioner/probe/script.py). Here the
shapes of keys themselves are looked for, wherever they stand, and names once more, for a capture may hold output that
a person added.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from provisioner.model.capture import Capture, CommandOutput

REMOVED = "***"

_NAME = (
    r"[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|preshared[_-]?key|auth[_-]?key"
    r"|credential|mnemonic|seed[_-]?phrase|wallet[_-]?key|session[_-]?id)[\w.-]*"
)
_BY_NAME = re.compile(
    rf"(?P<head>[\"']?\b{_NAME}[\"']?\s*(?:=|:)\s*)(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s,;}}\]]+)", re.IGNORECASE
)
_PHRASE = re.compile(
    r"(?P<head>(?:mnemonic|seed[ _-]?phrase)\W{1,4})(?P<value>(?:[a-z]{3,8}[ \t]+){11,23}[a-z]{3,8})", re.IGNORECASE
)
_SHAPES = tuple(
    re.compile(pattern)
    for pattern in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}",  # JSON web tokens
        r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}",
        r"\bglpat-[\w-]{16,}",
        r"\bhf_[A-Za-z0-9]{20,}",
        r"\bxox[abposr]-[\w-]{10,}",
        r"\bsk-[A-Za-z0-9_-]{20,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\bAIza[\w-]{30,}",
        r"\bdckr_pat_[\w-]{16,}|\bnvapi-[\w-]{20,}|\btskey-[\w-]{10,}",
        r"\b5[HJK][1-9A-HJ-NP-Za-km-z]{49,50}\b",  # private keys of wallets, in their own base 58
    )
)
_AFTER = (
    re.compile(r"(?P<head>://)(?P<value>[^\s/@\"'<>?#,;]+)(?=@)"),
    re.compile(r"(?P<head>\bauthorization:\s*(?:basic|bearer|token)\s+)(?P<value>[^\s\"']+)", re.IGNORECASE),
    re.compile(r"(?P<head>\bbearer\s+)(?P<value>[\w.~+/=-]{16,})", re.IGNORECASE),
    re.compile(r"(?P<head>\blogin\s+\S+\s+password\s+)(?P<value>\S+)", re.IGNORECASE),
    re.compile(r"(?P<head>\"auth\"\s*:\s*\")(?P<value>[A-Za-z0-9+/=]{8,})"),
    re.compile(r"(?P<head>--(?:password|token|api-?key|secret|auth-?key)[= ])(?P<value>[^\s\"']+)", re.IGNORECASE),
    re.compile(
        r"(?P<head>\s-p\s?)(?P<value>[^\s\"'-][^\s\"']{5,})(?=.*\b(?:docker login|mysql|sshpass)\b)", re.IGNORECASE
    ),
)


def scrub(capture: Capture) -> tuple[Capture, int]:
    """The capture without what looks like a secret, and how many places were cut."""
    cut = 0
    changed = list(capture.redacted)

    def clean(text: str) -> str:
        nonlocal cut
        cleaned, count = without_secrets(text)
        cut += count
        return cleaned

    files: dict[str, str | None] = {}
    for path, text in capture.files.items():
        files[path] = None if text is None else clean(text)
        if files[path] != text and path not in changed:
            changed.append(path)
    commands = {
        clean(line): CommandOutput(rc=answer.rc, stdout=clean(answer.stdout), stderr=clean(answer.stderr))
        for line, answer in capture.commands.items()
    }
    nvml = _plain(capture.nvml, clean) if capture.nvml is not None else None
    update = {"files": files, "commands": commands, "nvml": nvml, "redacted": tuple(changed)}
    return capture.model_copy(update=update), cut


def without_secrets(text: str) -> tuple[str, int]:
    """`API_KEY=abc` becomes `API_KEY=***`; how many were taken out."""
    count = 0
    for shape in _SHAPES:
        flags = shape.flags | (re.DOTALL if "BEGIN" in shape.pattern else 0)
        text, number = re.subn(shape.pattern, REMOVED, text, flags=flags & ~re.UNICODE)
        count += number
    for pattern in (*_AFTER, _PHRASE, _BY_NAME):

        def cut(match: re.Match[str]) -> str:
            nonlocal count
            value = match["value"].strip("\"'")
            if not value or set(value) == {"*"}:
                return match[0]
            count += 1
            quote = match["value"][0] if match["value"][0] in "\"'" else ""
            return f"{match['head']}{quote}{REMOVED}{quote}"

        text = pattern.sub(cut, text)
    return text, count


def _plain(value: Any, clean: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {key: _plain(item, clean) for key, item in value.items()}
    return [_plain(item, clean) for item in value] if isinstance(value, list) else value
