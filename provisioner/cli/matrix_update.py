"""`provision matrix update`, `use` and `release`: signed releases of the matrix, fetched, chosen and made."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from pathlib import Path

from provisioner.cli.words import paint
from provisioner.errors import BadInput, Exit, ProvisionError

SHIPPED = "shipped"


def update_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", metavar="SOURCE", help="web address or folder; none: the one whose root is on record"
    )
    parser.add_argument(
        "--trust-root", metavar="SHA256", help="record the source's root of trust, which has this print"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--release", metavar="NAME", help="this release, by name or beginning of its digest (default: newest)"
    )
    which.add_argument("--lock", type=Path, metavar="FILE", help="the release that this lock was made with")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def use_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", metavar="WHICH", help="'shipped', or the beginning of a fetched release's digest")


def release_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to serve: metadata/ and targets/ go there")
    parser.add_argument(
        "--keys", type=Path, required=True, metavar="DIR", help="private keys; made with the first release"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--release", metavar="NAME", help="add the matrix as a release of this name, such as 2026.11.25")
    what.add_argument("--refresh", action="store_true", help="only renew the dates of the signatures")
    parser.add_argument("--matrix", type=Path, metavar="DIR", help="the matrix to release (default: the one in use)")


def run_update(args: argparse.Namespace) -> int:
    from provisioner.actions.matrix_update import update
    from provisioner.adapters.matrix_shelf import MatrixShelf
    from provisioner.adapters.matrix_source import MatrixSource, known_sources
    from provisioner.adapters.signing import config_dir
    from provisioner.matrix.files import digest_in_use
    from provisioner.model.paths import FETCHED
    from provisioner.resolve.lock import read_lock

    state = config_dir() / "matrix"
    named = args.source or _only(known_sources(state))
    source = MatrixSource(named, state)
    if args.trust_root:
        source.trust(args.trust_root)
    pinned = read_lock(args.lock).matrix if args.lock else None
    try:
        before = digest_in_use()
    except BadInput:  # the release in use is gone or altered; that is what an update mends
        before = ""
    done = update(source, MatrixShelf(FETCHED), in_use=before, wanted=args.release, pinned=pinned)
    if args.json:
        found = {"format": 1, "release": done.release.name, "matrix": done.release.digest, "before": before or None}
        print(json.dumps(found | {"newest": done.newest, "fetched": done.fetched}))
        return Exit.OK
    print(f"matrix {done.release.name} ({done.release.digest[:12]}) {paint('is in use', 'green')}, signed by {named}")
    if done.release.name != done.newest:
        print(f"{paint('!', 'yellow')} the newest there is {done.newest}")
    if before and before != done.release.digest:
        print(
            f"\nNext: provision matrix diff {_word(before)} {done.release.digest[:12]} -i INVENTORY   (what it moves)"
        )
    return Exit.OK


def run_use(args: argparse.Namespace) -> int:
    from provisioner.adapters.matrix_shelf import MatrixShelf
    from provisioner.model.paths import FETCHED

    shelf = MatrixShelf(FETCHED)
    digest = None if args.which == SHIPPED else fetched(args.which)
    shelf.use(digest)
    print(f"the matrix in use is {'the shipped one' if digest is None else f'release {digest[:12]}'}")
    return Exit.OK


def run_release(args: argparse.Namespace) -> int:
    from provisioner.adapters.matrix_release import ReleaseFolder
    from provisioner.matrix.bundle import RELEASE
    from provisioner.matrix.files import contents_of, matrix_dir
    from provisioner.matrix.lint import lint
    from provisioner.matrix.reader import load

    place = ReleaseFolder(args.folder, args.keys, dt.datetime.now(dt.timezone.utc))
    if args.refresh:
        place.refresh()
        print(f"{args.folder}: signatures renewed")
        return Exit.OK
    if not RELEASE.fullmatch(args.release):
        raise BadInput("matrix-release-name", f"{args.release!r} is no name for a release", hint="such as 2026.11.25")
    folder = args.matrix or matrix_dir()
    errors = [finding for finding in lint(folder, dt.date.today()) if finding.level == "error"]
    if errors:
        raise ProvisionError(
            "matrix-not-fit",
            "this matrix is not released: it has errors",
            context=[str(error) for error in errors[:10]],
        )
    digest = load(folder).digest
    root = place.publish(args.release, digest, contents_of(folder))
    print(f"released {args.release} ({digest[:12]}) in {args.folder}\nroot of trust {root}\n")
    print(f"Fetch it: provision matrix update {args.folder} --trust-root {root}")
    return Exit.OK


def fetched(beginning: str) -> str:
    """The digest of the one release on the shelf that begins so."""
    from provisioner.adapters.matrix_shelf import MatrixShelf
    from provisioner.model.paths import FETCHED

    shelf = MatrixShelf(FETCHED)
    found = shelf.named(beginning) if len(beginning) >= 6 else ()
    if len(found) == 1:
        return found[0]
    known = ", ".join(digest[:12] for digest in shelf.named("")) or "none"
    raise BadInput(
        "matrix-not-found",
        f"there is no matrix at {beginning}, and no fetched release begins so",
        hint=f"a folder, '{SHIPPED}', or six letters or more of a fetched release: {known}",
    )


def _only(sources: tuple[str, ...]) -> str:
    if len(sources) == 1:
        return sources[0]
    known = f"known: {', '.join(sources)}" if sources else "none is on record yet"
    raise BadInput(
        "matrix-no-source", "name the source of the releases", hint=f"provision matrix update SOURCE ({known})"
    )


def _word(digest: str) -> str:
    from provisioner.matrix.files import digest_in_use
    from provisioner.model.paths import data_dir

    return SHIPPED if digest == digest_in_use(data_dir("matrix")) else digest[:12]
