"""Runs the unit level on every Python from 3.10 to 3.13 that is on this machine, each in an environment of its own."""

import sys

import nox

nox.options.default_venv_backend = "venv"
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
WORKERS = ["-n", "auto", "--dist", "worksteal"]  # neighbours stay on one worker, with their fixtures
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@nox.session(python=[version for version in PYTHONS if version != HERE], reuse_venv=True)
def unit(session: nox.Session) -> None:
    """The unit level; a Python that is not here is said so and left out, never counted as passed."""
    session.install("-q", "-e", ".[test]")
    # The costly laws on a quarter of their examples (tests/examples.py): all of them are tried on the Python at hand.
    few = {"PROVISION_EXAMPLES": "quarter"}
    session.run("pytest", "-q", *WORKERS, "-m", "not lab and not tools", *session.posargs, env=few)
