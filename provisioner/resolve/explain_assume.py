"""The wording of what-if: what was assumed, so that nobody takes the answer for what is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provisioner.resolve.assume import Assumption
from provisioner.resolve.explain import wrapped

_SENTENCES: dict[tuple[str, str], Callable[[str], str]] = {
    ("os", "="): lambda v: f"the host runs {v}, freshly installed, with its archive as the matrix lists it",
    ("components", "+="): lambda v: f"component {v} is enabled in the package sources",
    ("gpu", "+="): lambda v: f"there is one {v} more",
    ("gpu", "-="): lambda v: f"GPU {v} is taken out",
    ("runtime", "="): lambda v: f"the request asks for {v}, and it is offered",
    ("toolkit", "="): lambda v: f"the request demands container toolkit {v}, and it is offered",
    ("cdi", "="): lambda v: f"the request asks for CDI specs {v}",
    ("network", "+="): lambda v: f"the request names {v} too",
    ("network", "-="): lambda v: f"the request does not name {v}",
    ("client", "="): lambda v: f"the request names {v.partition('@')[0]} with client {v.partition('@')[2]}",
    ("driver", "="): lambda v: f"the request asks for driver {v}, and those that the matrix knows are offered",
    ("cuda", "="): lambda v: f"the request asks for CUDA {v} or higher",
    ("modules", "="): lambda v: f"the request asks for {v} kernel modules",
}


def heading(assumptions: Sequence[Assumption]) -> list[str]:
    """What stands above everything else."""
    lines = ["WHAT IF, and it is not so:"]
    for one in assumptions:
        lines += wrapped("   · ", _SENTENCES[one.kind, one.sign](one.value))
    return [*lines, ""]


def ending(would: int, total: int) -> str:
    return f"Assumed: {would} of {total} hosts would have a stack. No lock was written."
