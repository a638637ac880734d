"""`provision charts akash`: the files of the network's cluster, from lock, settings and matrix; asks no host."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioner.cli import options
from provisioner.errors import BadInput, Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", choices=["akash"], metavar="NETWORK", help="akash is the one that Kubernetes runs")
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="the hosts of the cluster; default all that serve it")
    parser.add_argument(
        "--settings", type=Path, required=True, metavar="FILE", help="what only you know: address, domain, prices"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 2 when the folder is not as it would be"
    )
    options.lock(parser)


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.charts import charts, settings_of
    from provisioner.adapters.yaml_files import read_yaml
    from provisioner.matrix.reader import load

    settings = settings_of(str(args.settings), read_yaml(args.settings))
    texts = charts(options.read_lock_in_use(args.lock), args.hosts, load(), settings)
    differing = [name for name, text in texts.items() if _read(args.output / name) != text]
    if not differing:
        print(f"{args.output}: {len(texts)} files, as they should be")
        return Exit.OK
    if args.check:
        print(f"{args.output}: {', '.join(differing)} would be written")
        return Exit.DIFFERS
    try:
        for name in differing:
            path = args.output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[name], encoding="utf-8")
    except OSError as problem:
        raise BadInput("charts-not-written", f"{problem.filename}: {problem.strerror}") from problem
    print(f"{args.output}: wrote {', '.join(differing)}")
    print(f"Next: what stands in {args.output / 'README.md'}, from top to bottom")
    return Exit.OK


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
