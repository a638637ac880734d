"""Which kernel GRUB boots by default, and the name of a kernel's entry: grub.cfg and grubenv as GRUB reads them.

Theory: the configuration is a tree of menu entries, named by place, title or id; `a>b` goes down a submenu.
`next_entry` (set by grub-reboot, for one boot) wins over `set default`, which may say `${saved_entry}`. GRUB writes
its environment block in place, so it can forget `next_entry` only where the file's blocks are plain blocks of a disk.
Pure, for the controller and for Python 3.6 on a host.
"""

import re
import shlex

# File systems whose blocks GRUB can overwrite; on btrfs, ZFS, LVM and RAID it can not (GRUB manual, `save_env`).
WRITABLE = frozenset(("ext2", "ext3", "ext4", "xfs", "vfat"))


class Entry:
    """A menu entry or a submenu."""

    def __init__(self, title: str, id_: str) -> None:
        self.title = title
        self.id = id_
        self.kernel = None  # type: str | None
        self.below = []  # type: list[Entry]


def default_kernel(config: str, environment: str) -> "str | None":
    """`6.1.0-50-amd64`; None when the default leads to no Linux kernel."""
    saved = variables(environment)
    top = tree(config)
    choice = saved.get("next_entry") or default(config).replace("${saved_entry}", saved.get("saved_entry", ""))
    entry = find(top, choice or "0") or find(top, "0")  # GRUB takes the first when the name leads nowhere
    while entry is not None and entry.kernel is None and entry.below:
        entry = entry.below[0]
    return entry.kernel if entry else None


def path_of(config: str, kernel: str) -> "str | None":
    """The name by which grub-reboot and grub-set-default know a kernel's entry, ids all the way; None: it has none."""

    def below(entries: "list[Entry]", above: str) -> "str | None":
        for entry in entries:
            name = above + (entry.id or entry.title)
            found = name if entry.kernel == kernel else below(entry.below, name + ">")
            if found is not None and "recovery" not in found:
                return found
        return None

    # The first entry of all is the newest kernel whatever its name: one of a submenu stays what it is.
    top = tree(config)
    return below([entry for entry in top if entry.below], "") or below(top, "")


def variables(environment: str) -> "dict[str, str]":
    """What the environment block holds."""
    lines = environment.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def forgets(mounts: str) -> bool:
    """Whether GRUB can write its environment where /boot/grub lies, and so take an entry once, from /proc/mounts."""
    best = ("", "", "")
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        device, place, kind = words[:3]
        inside = place == "/" or ("/boot/grub" + "/").startswith(place + "/")
        if inside and len(place) >= len(best[1]):
            best = (device, place, kind)
    return best[2] in WRITABLE and not re.match(r"/dev/(mapper/|dm-|md)", best[0])


def default(config: str) -> str:
    """The last plain `set default=`; the one with `${next_entry}` stands before it."""
    found = re.findall(r'^\s*set default="?([^"\n]*)"?\s*$', config, re.MULTILINE)
    return next((word for word in reversed(found) if "next_entry" not in word), "0")


def tree(config: str) -> "list[Entry]":
    """The entries at the top, each with what is below it."""
    top = []  # type: list[Entry]
    open_entries = []  # type: list[Entry | None]  # None: a brace that is no entry
    for raw in config.splitlines():
        line = raw.strip()
        if line.startswith(("menuentry ", "submenu ")):
            entry = named(line)
            parent = next((item for item in reversed(open_entries) if item is not None), None)
            (parent.below if parent else top).append(entry)
            open_entries.append(entry)
        elif line.endswith("{") and not line.startswith("#"):
            open_entries.append(None)
        elif line == "}" and open_entries:
            open_entries.pop()
        elif open_entries:
            kernel = re.match(r"linux(?:16|efi)?\s+\S*/vmlinuz-(\S+)", line)
            innermost = open_entries[-1]
            if kernel and innermost is not None:
                innermost.kernel = kernel.group(1)
    return top


def named(line: str) -> Entry:
    """The entry that a `menuentry` or `submenu` line opens."""
    try:
        words = shlex.split(line.rstrip("{ "))
    except ValueError:
        words = line.split()
    place = next((i for i, word in enumerate(words) if word in ("--id", "$menuentry_id_option")), None)
    name = words[place + 1] if place is not None and place + 1 < len(words) else ""
    return Entry(words[1] if len(words) > 1 else "", name)


def find(entries: "list[Entry]", choice: str) -> "Entry | None":
    """The entry that a name, a title or a place leads to."""
    head, _, rest = choice.partition(">")
    if head.isdecimal():
        found = entries[int(head)] if int(head) < len(entries) else None
    else:
        found = next((entry for entry in entries if head in (entry.title, entry.id)), None)
    return find(found.below, rest) if found is not None and rest else found
