"""Which kernel GRUB boots by default, read from grub.cfg and grubenv as GRUB itself reads them.

Theory: the configuration is a tree of menu entries, named by place, title or id; `a>b` goes down a submenu.
`next_entry` (set by grub-reboot, for one boot) wins over `set default`, which may say `${saved_entry}`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field


@dataclass
class _Entry:
    title: str
    id: str
    kernel: str | None = None
    below: list[_Entry] = field(default_factory=list)


def default_kernel(config: str, environment: str) -> str | None:
    """`6.1.0-50-amd64`; None when the default leads to no Linux kernel."""
    saved = dict(line.split("=", 1) for line in environment.splitlines() if "=" in line and not line.startswith("#"))
    top = _tree(config)
    choice = saved.get("next_entry") or _default(config).replace("${saved_entry}", saved.get("saved_entry", ""))
    entry = _find(top, choice or "0") or _find(top, "0")  # GRUB takes the first when the name leads nowhere
    while entry is not None and entry.kernel is None and entry.below:
        entry = entry.below[0]
    return entry.kernel if entry else None


def _default(config: str) -> str:
    """The last plain `set default=`; the one with `${next_entry}` stands before it."""
    found = re.findall(r'^\s*set default="?([^"\n]*)"?\s*$', config, re.MULTILINE)
    return next((word for word in reversed(found) if "next_entry" not in word), "0")


def _tree(config: str) -> list[_Entry]:
    top: list[_Entry] = []
    open_entries: list[_Entry | None] = []  # None: a brace that is no entry
    for raw in config.splitlines():
        line = raw.strip()
        if line.startswith(("menuentry ", "submenu ")):
            entry = _entry(line)
            parent = next((item for item in reversed(open_entries) if item is not None), None)
            (parent.below if parent else top).append(entry)
            open_entries.append(entry)
        elif line.endswith("{") and not line.startswith("#"):
            open_entries.append(None)
        elif line == "}" and open_entries:
            open_entries.pop()
        elif open_entries and open_entries[-1] is not None:
            kernel = re.match(r"linux(?:16|efi)?\s+\S*/vmlinuz-(\S+)", line)
            if kernel:
                open_entries[-1].kernel = kernel[1]
    return top


def _entry(line: str) -> _Entry:
    try:
        words = shlex.split(line.rstrip("{ "))
    except ValueError:
        words = line.split()
    place = next((i for i, word in enumerate(words) if word in ("--id", "$menuentry_id_option")), None)
    name = words[place + 1] if place is not None and place + 1 < len(words) else ""
    return _Entry(words[1] if len(words) > 1 else "", name)


def _find(entries: list[_Entry], choice: str) -> _Entry | None:
    head, _, rest = choice.partition(">")
    if head.isdecimal():
        found = entries[int(head)] if int(head) < len(entries) else None
    else:
        found = next((entry for entry in entries if head in (entry.title, entry.id)), None)
    return _find(found.below, rest) if found is not None and rest else found
