"""Runs the command line as `python -m provisioner.cli`."""

from provisioner.cli.main import entry

entry()
