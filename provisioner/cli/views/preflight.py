"""How a preflight reads: host by host what would go wrong, the line that shows it, and the first step against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from provisioner.actions.plan import Planned
from provisioner.cli.views.plan import ahead_word, cost, headline
from provisioner.cli.words import next_command, paint, safe
from provisioner.model.plan import Ahead, HostPlan


def preflight_text(planned: Planned, seconds: float, mechanisms: int, inventory: Sequence[str] = ()) -> str:
    """The whole screen."""
    plans = planned.plan.hosts
    width = max((len(name) for name in [*plans, *planned.failed]), default=0)
    count = len(planned.seen)
    lines = [
        f"{count} host{'' if count == 1 else 's'} observed in {seconds:.1f} s · {mechanisms} mechanisms of failure",
        "",
    ]
    for plan in plans.values():
        lines += _host(plan, width)
    for name, problem in planned.failed.items():
        lines.append(f"{safe(name).ljust(width)}  {safe(problem.message)}   [{problem.reference}]")
    stopped = [plan.host for plan in plans.values() if plan.blocked]
    if any(plan.changes for plan in plans.values()):
        words = next_command("plan", inventory) if stopped else next_command("apply", inventory)
        lines += ["", f"Next: {words}"]
    return "\n".join(lines)


def _host(plan: HostPlan, width: int) -> Iterator[str]:
    name = paint(safe(plan.host).ljust(width), "bold")
    if plan.up_to_date:
        yield f"{name}  nothing would change, so nothing would go wrong; what is wrong now: provision doctor"
        return
    yield f"{name}  {headline(plan)}   {cost(plan)}"
    told = {f"{item.title}: {item.costs}" for item in plan.ahead if item.stops}
    for line in plan.blocked:
        if line not in told:
            yield f"  {paint('stop', 'red')}    {safe(line)}"
    for item in sorted(plan.ahead, key=lambda item: (not item.stops, not item.new)):
        yield from _item(item)
    if not plan.ahead and not plan.blocked:
        yield "  ahead   nothing that is known would go wrong; what only the run shows, apply watches and takes back"


def _item(item: Ahead) -> Iterator[str]:
    colour = "red" if item.stops else "yellow"
    yield f"  {paint(ahead_word(item).ljust(6), colour)}  {safe(item.title)}: {safe(item.costs)}"
    for line in item.evidence:
        yield f"          {safe(line)}"
    yield f"          mend: {safe(item.mend)}   docs/failures/{item.mechanism}.md"
