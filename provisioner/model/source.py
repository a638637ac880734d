"""A package source as the lock holds it: the two files it takes on a host, and apt asked as if they were there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

PARTS = "/etc/apt/sources.list.d"
KEYRINGS = "/etc/apt/keyrings"


class LockedSource(BaseModel):
    """A package source with the key that must sign it, armored; `fingerprint` is that of the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    uri: str
    suite: str
    components: tuple[str, ...] = ()
    fingerprint: str
    key: str

    @property
    def path(self) -> str:
        return f"{PARTS}/provision-{self.id}.sources"

    @property
    def key_path(self) -> str:
        return f"{KEYRINGS}/provision-{self.id}.asc"

    @property
    def text(self) -> str:
        """The file in apt's deb822 format, which apt 1.1 and newer read."""
        return self._text(self.key_path)

    def _text(self, key: str) -> str:
        lines = [
            "# Written by provision from provision.lock; the next plan puts it back when it is changed.",
            f"# The key's fingerprint is {self.fingerprint}.",
            "Types: deb",
            f"URIs: {self.uri}",
            f"Suites: {self.suite}",
            *([f"Components: {' '.join(self.components)}"] if self.components else []),
            f"Signed-By: {key}",
        ]
        return "\n".join(lines) + "\n"

    def beside(self, folder: str) -> str:
        """The same file where the key lies in another folder, which a shell names."""
        return self._text(f"{folder}/{self.id}.asc")


def same_place(uri: str, architecture: str = "amd64") -> str:
    """One spelling of an address: `http://a/b/` is `http://a/b`, and apt's `$(ARCH)` is filled in."""
    return uri.replace("$(ARCH)", architecture).rstrip("/")


def preview(sources: Iterable[LockedSource], replaced: Iterable[str] = ()) -> list[str]:
    """Return shell lines after which `$@` holds apt's options to look as if `sources` were already on the host.

    Everything lies in `$d`, a folder of its own that goes when the shell ends; the host's indexes are linked into it,
    so only the new ones are fetched, with their signatures checked against the locked key alone. `replaced` are files
    that the sources take the place of. The shell ends with 90 when a source cannot be read.
    """
    gone = " ".join(f'"$d/parts/{path.rpartition("/")[2]}"' for path in replaced if path.startswith(f"{PARTS}/"))
    lines = [
        "d=$(mktemp -d) || exit 1; trap 'rm -rf \"$d\"' EXIT",
        'mkdir -p "$d/lists/partial" "$d/parts" "$d/new"',
        f'cp -p {PARTS}/* "$d/parts/" 2>/dev/null',
        'ln -s /var/lib/apt/lists/*_* "$d/lists/" 2>/dev/null',
    ]
    if gone:
        lines.append(f"rm -f {gone}")
    for source in sources:
        name = source.path.rpartition("/")[2]
        lines += [
            f'printf %s {shlex.quote(source.key)} >"$d/{source.id}.asc"',
            f'printf %s {shlex.quote(source.beside("@"))} | sed "s|^Signed-By: @|Signed-By: $d|" >"$d/new/{name}"',
            f'rm -f "$d/parts/{name}"; cp "$d/new/{name}" "$d/parts/"',
        ]
    lines += [
        'set -- -o Dir::State::Lists="$d/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache='
        " -o APT::Sandbox::User=root -o Debug::NoLocking=true",
        # apt-get ends with 0 when a source does not answer, and says so in a warning.
        'LC_ALL=C apt-get -q "$@" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$d/new"'
        " -o APT::Get::List-Cleanup=false -o Acquire::Retries=1 -o Acquire::http::Timeout=20"
        ' -o Acquire::https::Timeout=20 update >"$d/said" 2>&1',
        'if test $? -ne 0 || grep -q "^[EW]: " "$d/said"; then grep -E "^([EW]: |Err)" "$d/said" >&2; exit 90; fi',
        'set -- "$@" -o Dir::Etc::SourceParts="$d/parts"',
    ]
    return lines
