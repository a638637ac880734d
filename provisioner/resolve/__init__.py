"""Chooses exact versions for a host, or says which few facts conflict and what would mend it."""

from provisioner.resolve.conflict import NoSolution
from provisioner.resolve.resolver import solve

__all__ = ["NoSolution", "solve"]
