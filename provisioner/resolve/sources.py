"""Which package sources a host is to have: the wish, filled in from the matrix, with a key that has the fingerprint."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from provisioner.errors import BadInput
from provisioner.matrix.entries import Repository
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts, OsRelease
from provisioner.model.intent import Intent, SourceWish
from provisioner.model.manager import manager_of
from provisioner.model.openpgp import fingerprints
from provisioner.model.source import LockedSource, same_place


@dataclass(frozen=True)
class Place:
    """A source with all that is known of it, but for the key itself; `key` says where that is to be read."""

    id: str
    uri: str
    suite: str
    components: tuple[str, ...]
    key: str
    fingerprint: str


def places(intent: Intent, os: OsRelease, matrix: Matrix) -> tuple[Place, ...]:
    """Return the sources that a request names, for this release. Raises BadInput for one that cannot be filled in."""
    if intent.policy.sources and manager_of(os.id) == "dnf":
        raise BadInput(
            "source-not-for-dnf",
            f"provision_policy.sources: writing package sources on {os.id} is not supported yet",
            context=["only sources of apt are written; what dnf's own repositories offer is read"],
            hint="put the vendor's .repo file on the host, leave provision_policy.sources out, and resolve again",
        )
    return tuple(_place(wish, os, matrix) for wish in intent.policy.sources)


def _place(wish: SourceWish, os: OsRelease, matrix: Matrix) -> Place:
    known = _repository(wish, os, matrix)
    uri = wish.uri or (known.uri if known else "")
    suite = wish.suite or (known.suite if known else "/")
    components = wish.components if wish.components is not None else known.components if known else ()
    key = wish.key or (known.key if known and not wish.uri else None)
    # A mirror of a vendor's packages carries the vendor's signature, unless the request says otherwise.
    fingerprint = wish.fingerprint or (known.fingerprint if known and known.confidence != "low" else None)
    key = key or (known.key if known else None)
    if not key or not fingerprint:
        missing = " and ".join(word for word, value in (("key", key), ("fingerprint", fingerprint)) if not value)
        raise BadInput(
            "source-key-unknown",
            f"provision_policy.sources: {wish.id}: no {missing} is known for {os.id}",
            context=["a source is only trusted with a key of a stated fingerprint; a short key id is not enough"],
            hint=f"state it: {{id: {wish.id}, {missing.replace(' and ', ': …, ')}: …}}, as the vendor prints it",
        )
    return Place(
        wish.id,
        same_place(uri, os.architecture or "amd64"),
        os.codename if suite == "codename" else suite,
        components,
        key,
        fingerprint,
    )


def _repository(wish: SourceWish, os: OsRelease, matrix: Matrix) -> Repository | None:
    entry = matrix.sources.get(wish.id)
    if entry is None:
        if wish.uri is not None:
            return None
        close = difflib.get_close_matches(wish.id, matrix.sources, 2, 0.4)
        raise BadInput(
            "unknown-source",
            f"there is no package source '{wish.id}' in the matrix",
            context=[f"known: {', '.join(matrix.sources)}"],
            hint=f"did you mean {close[0]}?" if close else "give it a uri, a key and a fingerprint of its own",
        )
    found = next((repository for repository in entry.repositories if os.id in repository.os), None)
    if found is None and wish.uri is None:
        raise BadInput(
            "source-not-for-os",
            f"{entry.title} is not known to have packages for {os.id}",
            context=[f"known: {', '.join(release for r in entry.repositories for release in r.os)}"],
            hint="give it a uri of your own when it has",
        )
    return found


def with_keys(
    wanted: tuple[Place, ...], read: Callable[[str], str], known: Mapping[str, LockedSource]
) -> tuple[LockedSource, ...]:
    """Return the sources with their keys, each checked; a key that the former lock holds is not read again.

    Raises BadInput `source-key-differs` when a key has another fingerprint than the one stated.
    """
    found = []
    for place in wanted:
        before = known.get(place.id)
        text = before.key if before is not None and before.fingerprint == place.fingerprint else read(place.key)
        _check(place, text)
        found.append(
            LockedSource(
                id=place.id,
                uri=place.uri,
                suite=place.suite,
                components=place.components,
                fingerprint=place.fingerprint,
                key=text,
            )
        )
    return tuple(found)


def _check(place: Place, text: str) -> None:
    try:
        has = fingerprints(text)
    except ValueError as problem:
        raise BadInput("key-not-readable", f"{place.key}: {problem}") from problem
    if has != (place.fingerprint,):
        raise BadInput(
            "source-key-differs",
            f"the key at {place.key} is not the one that {place.id} is signed with",
            context=[f"stated: {place.fingerprint}", f"found:  {', '.join(has)}"],
            hint="ask the vendor's page which one is right; nothing was written",
        )


def on_the_host(source: LockedSource, facts: HostFacts) -> bool:
    """Whether the host reads this source already, from whichever file; then apt knows what it offers."""
    if facts.sources is UNKNOWN:
        return False
    return any(same_place(entry.uri) == source.uri and entry.suite == source.suite for entry in facts.sources)
