"""Asks dnf on a host which versions of which packages its repositories offer; runs there, with dnf's own Python.

Words are patterns of package names. Prints a line of JSON for each offer, and for each repository that is switched on.
What version locks hide is told too: they hold what is installed, and say nothing about what a plan may choose.
"""

import fnmatch
import json
import os
import sys


def main(patterns):
    # type: (list[str]) -> None
    try:
        import dnf  # type: ignore[import-not-found,unused-ignore]
    except ImportError as problem:
        sys.stderr.write(str(problem) + "\n")
        sys.exit(127)

    base = dnf.Base()
    base.conf.read()
    base.conf.substitutions.update_from_etc("/")
    if os.geteuid() != 0:  # dnf's own cache is root's
        base.conf.cachedir = "/var/tmp/provision-dnf-" + str(os.geteuid())
    base.read_all_repos()
    for repo in base.repos.iter_enabled():
        repo.load_metadata_other = False
        sys.stdout.write(
            json.dumps(
                {"repo": repo.id, "url": list(repo.baseurl) or [repo.metalink or repo.mirrorlist or ""]}, sort_keys=True
            )
            + "\n"
        )
    base.fill_sack(load_system_repo=False)
    for package in sorted(base.sack.query().available().run(), key=lambda p: (p.name, p.evr, p.arch, p.reponame)):
        if package.arch == "src" or not any(fnmatch.fnmatchcase(package.name, pattern) for pattern in patterns):
            continue
        kind, digest = package.returnIdSum() or ("", "")
        offer = {
            "name": package.name,
            "evr": package.evr,
            "arch": package.arch,
            "source": package.source_name or package.name,
            "repo": package.reponame,
            "sha256": digest if kind == "sha256" else "",
            "size": package.downloadsize,
            "requires": [str(one) for one in package.requires if not str(one).startswith(("rpmlib(", "/"))],
        }
        sys.stdout.write(json.dumps(offer, sort_keys=True) + "\n")


main(sys.argv[1:])
