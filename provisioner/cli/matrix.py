"""`provision matrix`: what is known, entry by entry; lint, schema, pages; what to rehearse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import matrix_combos, matrix_diff, matrix_update
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.matrix.entries import Entry
    from provisioner.matrix.lint import Finding
    from provisioner.matrix.reader import Matrix


def arguments(parser: argparse.ArgumentParser) -> None:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON instead of text")
    common.add_argument("--matrix", type=Path, metavar="DIR", help="read this folder instead of the matrix in use")
    what = parser.add_subparsers(dest="matrix_command", metavar="WHAT", required=True, help="what to do")
    listing = what.add_parser("list", parents=[common], help="every entry, or those of one room")
    listing.add_argument("room", nargs="?", metavar="ROOM", help="drivers, cuda, gpus, os, networks …")
    show = what.add_parser("show", parents=[common], help="one entry with its claims and sources")
    show.add_argument("id", metavar="ID", help="such as rtx-4090, networks/lium, drivers/535")
    why = what.add_parser(
        "why", parents=[common], help="what an entry decides, what uses it, where its claims come from"
    )
    why.add_argument("id", metavar="ID", help="such as rtx-4090, networks/lium, drivers/535")
    why.add_argument("field", nargs="?", metavar="FIELD", help="one claim of it, such as driver, security, native_cuda")
    what.add_parser("lint", parents=[common], help="what the schema cannot check; exit 1 on an error")
    combos = what.add_parser(
        "combos", parents=[common], help="combinations to rehearse: a fleet's, or a covering array"
    )
    matrix_combos.arguments(combos)
    page = what.add_parser("html", parents=[common], help="a page to explore what fits; one file, needs no network")
    page.add_argument("out", type=Path, metavar="OUT", help="the file to write, such as matrix.html")
    diff = what.add_parser("diff", help="which claims differ between two matrices, which hosts would move, and why")
    diff.add_argument("--json", action="store_true", help="print JSON instead of text")
    matrix_diff.arguments(diff)
    matrix_update.update_arguments(what.add_parser("update", help="fetch a signed release, verify it, and use it"))
    matrix_update.use_arguments(what.add_parser("use", help="go to another fetched release, or to the shipped matrix"))
    matrix_update.release_arguments(what.add_parser("release", help="make a signed release, in a folder to serve"))
    failures = what.add_parser("failures", parents=[common], help="the mechanisms of failure that doctor knows")
    failures.add_argument("--pages", type=Path, metavar="DIR", help="write a page for each into this folder")
    failures.add_argument("--language", action="store_true", help="print the reference of their language")
    schema = what.add_parser("schema", parents=[common], help="JSON schema of the entries, for editors")
    schema.add_argument("room", nargs="?", metavar="ROOM", help="of one room alone")
    reference = what.add_parser("reference", parents=[common], help="pages with every entry, as in docs/reference")
    reference.add_argument("folder", type=Path, metavar="DIR", help="the folder to write to, such as docs/reference")


def run(args: argparse.Namespace) -> int:
    from provisioner.cli.views import matrix as view

    if args.matrix_command == "schema":
        print(view.schema_text(_room(args.room) if args.room else None))
        return Exit.OK
    if args.matrix_command == "lint":
        return _lint(args)
    own = {
        "diff": matrix_diff.run,
        "update": matrix_update.run_update,
        "use": matrix_update.run_use,
        "release": matrix_update.run_release,
    }
    if args.matrix_command in own:
        return own[args.matrix_command](args)
    if args.matrix_command == "failures":
        return _failures(args)
    from provisioner.matrix.reader import load

    matrix = load(args.matrix)
    if args.matrix_command == "combos":
        return matrix_combos.run(args, matrix)
    if args.matrix_command == "html":
        return _html(args, matrix)
    if args.matrix_command == "reference":
        return _reference(args, matrix)
    if args.matrix_command == "why":
        return _why(args, matrix)
    if args.matrix_command == "show":
        room, entry = _find(matrix, args.id)
        print(view.entry_json(room, entry) if args.json else view.entry_text(room, entry))
        return Exit.OK
    rooms = [_room(args.room)] if args.room else list(view.ROOM_ORDER)
    print(view.list_json(matrix, rooms) if args.json else view.list_text(matrix, rooms))
    return Exit.OK


def _lint(args: argparse.Namespace) -> int:
    import datetime as dt

    from provisioner.cli.views import matrix as view
    from provisioner.matrix.files import matrix_dir
    from provisioner.matrix.lint import lint

    folder = args.matrix or matrix_dir()
    findings = [*lint(folder, dt.date.today()), *_failure_findings(folder)]
    print(view.findings_json(findings) if args.json else view.findings_text(findings))
    return Exit.FAILED if any(f.level == "error" for f in findings) else Exit.OK


def _why(args: argparse.Namespace, matrix: Matrix) -> int:
    from provisioner.cli.views.matrix_why import why_json, why_text
    from provisioner.matrix.files import matrix_dir
    from provisioner.matrix.origins import origins

    room, entry = _find(matrix, args.id)
    found = origins(args.matrix or matrix_dir(), matrix, room, entry)
    print((why_json if args.json else why_text)(room, entry, found, args.field))
    return Exit.OK


def _failure_findings(folder: Path) -> list[Finding]:
    """Complaints about the mechanisms of failure, whose proofs are run; their room is doctor's and no other's."""
    from provisioner.doctor.proofs import lint as lint_failures
    from provisioner.matrix.lint import Finding
    from provisioner.matrix.reader import load

    try:
        matrix = load(folder)
    except BadInput:
        matrix = None  # said already
    found = []
    for document, complaint in lint_failures(folder, matrix):
        where = tuple(int(part) if part.isdecimal() else part for part in complaint.field.split("."))
        path = document.path if document is not None else f"failures/{complaint.id}"
        line = document.line(where) if document is not None else 1
        found.append(Finding("error", path, line, complaint.field, complaint.message))
    return found


def _failures(args: argparse.Namespace) -> int:
    import json

    from provisioner.cli.views.failure_pages import language_page, pages
    from provisioner.cli.words import table
    from provisioner.doctor.reader import load

    if args.language:
        print(language_page(), end="")
        return Exit.OK
    mechanisms = load(args.matrix)
    if args.pages is not None:
        try:
            args.pages.mkdir(parents=True, exist_ok=True)
            for name, text in pages(mechanisms).items():
                (args.pages / name).write_text(text, encoding="utf-8")
        except OSError as problem:
            raise BadInput("page-not-written", f"no page can be written to {args.pages}: {problem}") from problem
        print(f"wrote {len(mechanisms)} pages to {args.pages}")
    elif args.json:
        print(json.dumps({name: mechanism.title for name, mechanism in sorted(mechanisms.items())}, indent=1))
    else:
        print(table([(name, mechanism.title) for name, mechanism in sorted(mechanisms.items())]))
    return Exit.OK


def _html(args: argparse.Namespace, matrix: Matrix) -> int:
    import json

    from provisioner.cli.views.matrix_html import page
    from provisioner.resolve.explore import page_data

    if not args.out.absolute().parent.is_dir():  # said before seconds of work, not after
        raise BadInput("page-not-written", f"the page cannot be written to {args.out}: there is no such folder")
    text = page(page_data(matrix))
    try:
        args.out.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise BadInput("page-not-written", f"the page cannot be written to {args.out}: {problem}") from problem
    size = len(text.encode())
    if args.json:
        print(json.dumps({"format": 1, "file": str(args.out), "bytes": size, "digest": matrix.digest}))
    else:
        print(f"wrote {args.out}: {size / 1000:.0f} kB, matrix {matrix.digest[:12]}\n\nOpen it in any browser.")
    return Exit.OK


def _reference(args: argparse.Namespace, matrix: Matrix) -> int:
    import json

    from provisioner.cli.views.matrix_pages import pages

    if not args.folder.is_dir():
        raise BadInput("page-not-written", f"no page can be written to {args.folder}: there is no such folder")
    texts = pages(matrix)
    try:
        for name, text in texts.items():
            (args.folder / name).parent.mkdir(exist_ok=True)
            (args.folder / name).write_text(text, encoding="utf-8")
    except OSError as problem:
        raise BadInput("page-not-written", f"the pages cannot be written to {args.folder}: {problem}") from problem
    if args.json:
        print(json.dumps({"format": 1, "files": sorted(texts), "digest": matrix.digest}))
    else:
        size = sum(len(text.encode()) for text in texts.values())
        print(f"wrote {len(texts)} pages to {args.folder}: {size / 1000:.0f} kB, matrix {matrix.digest[:12]}")
    return Exit.OK


def _room(name: str) -> str:
    from provisioner.matrix.entries import ROOMS

    if name not in ROOMS:
        raise BadInput("matrix-unknown-room", f"the matrix has no room '{name}'", hint=f"Rooms: {', '.join(ROOMS)}")
    return name


def _find(matrix: Matrix, text: str) -> tuple[str, Entry]:
    """`drivers/535` is exact; a bare id is looked for in every room and may be of one alone."""
    from provisioner.matrix.entries import ROOMS

    room, slash, entry_id = text.rpartition("/")
    wanted = [_room(room)] if slash else list(ROOMS)
    found = [(name, matrix.room(name)[entry_id]) for name in wanted if entry_id in matrix.room(name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{name}/{entry_id}" for name, _ in found)
        raise BadInput("matrix-ambiguous-id", f"'{entry_id}' is in several rooms", hint=f"Say which: {names}")
    import difflib

    every = [f"{name}/{known}" for name in wanted for known in matrix.room(name)]
    near = difflib.get_close_matches(entry_id, [item.partition("/")[2] for item in every], n=3, cutoff=0.5)
    meant = [item for item in every if item.partition("/")[2] in near][:3]
    raise BadInput(
        "matrix-unknown-id",
        f"the matrix has no entry '{text}'",
        hint=f"Near it: {', '.join(meant)}" if meant else "All of them: provision matrix list",
    )
