"""How a run reads: one line per host while it goes on, plain lines when not a terminal, then what came of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from provisioner.actions.apply import Applied
from provisioner.cli.words import coloured, duration, paint, safe
from provisioner.model.run import HostResult, RunEvent, Spent

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_STILL_S = 60


class Progress:
    """Follows RunEvents; a context manager, so that the terminal is whole again whatever happens."""

    def __init__(self, hosts: Sequence[str], out: TextIO) -> None:
        self._out = out
        self._now: dict[str, RunEvent] = {}
        self._since: dict[str, float] = {}
        self._hosts = list(hosts)
        self._width = max(map(len, hosts), default=0)
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if not self._hosts:
            return self
        print(file=self._out)
        if coloured(self._out):
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(file=self._out), get_renderable=self._table, refresh_per_second=4, transient=True
            )
            self._live.start()
        else:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()
        if self._ticker is not None:
            self._ticker.join()

    def on_event(self, event: RunEvent) -> None:
        """Take one event; called from the threads that run the playbooks."""
        with self._lock:
            before = self._now.get(event.host)
            self._now[event.host] = event
            if event.kind == "start" or before is None or before.task != event.task:
                self._since[event.host] = time.monotonic()
            if self._live is None and (event.kind != "ok" or event.phase == "enrol"):
                self._line(event)

    def _line(self, event: RunEvent) -> None:
        words = {"start": "", "ok": "", "failed": "FAILED: ", "unreachable": "UNREACHABLE: "}[event.kind]
        stamp = time.strftime("%H:%M:%S")
        print(
            f"{stamp}  {event.host.ljust(self._width)}  {event.phase.ljust(6)}  {words}{safe(event.task)}",
            file=self._out,
            flush=True,
        )

    def _tick(self) -> None:
        """A build of minutes prints nothing; say now and then that it is still going on."""
        while not self._ended.wait(_STILL_S):
            with self._lock:
                for host, event in self._now.items():
                    seconds = time.monotonic() - self._since[host]
                    if event.kind == "start" and seconds >= _STILL_S:
                        words = f"still: {safe(event.task)}, for {duration(seconds)}"
                        print(
                            f"{time.strftime('%H:%M:%S')}  {host.ljust(self._width)}  {event.phase.ljust(6)}  {words}",
                            file=self._out,
                            flush=True,
                        )

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        with self._lock:
            for host in self._hosts:
                event = self._now.get(host)
                if event is None:
                    grid.add_row(host, "waiting", "", "")
                    continue
                seconds = time.monotonic() - self._since[host]
                style = "red" if event.kind in ("failed", "unreachable") else ""
                grid.add_row(host, event.phase, duration(seconds), Text(safe(event.task), style=style))
        return grid


_STATES = {
    "enrolled": "green",
    "restored": "green",
    "unchanged": "dim",
    "failed": "red",
    "out": "red",
    "rolled-back": "yellow",
}
_WORDS = {
    "unchanged": "up to date, enrolled",
    "restored": "as it was, not enrolled then",
    "rolled-back": "rolled back",
}


def applied_text(applied: Applied, following: str = "provision status") -> str:
    """Return what came of it, host by host; what failed is told in full. `following` is what to type next."""
    width = max(map(len, applied.results), default=0)
    lines = [""]
    for result in applied.results.values():
        words = _WORDS.get(result.state, result.state)
        line = f"{result.host.ljust(width)}  {paint(words, _STATES[result.state])}"
        spent = times(applied, result.host)
        lines.append(line + (f"   {spent}" if spent else ""))
        lines += _why(result, width)
    bad = sum(not result.good for result in applied.results.values())
    if applied.folder is not None:
        lines += ["", f"The run, to read or to repeat by hand: {applied.folder}"]
    if applied.taken_back is not None and applied.taken_back.folder is not None:
        lines += [f"The way back: {applied.taken_back.folder}"]
    if bad:
        lines += [f"{bad} of {len(applied.results)} hosts failed; the others went on."]
    elif following:
        lines += ["", f"Next: {following}"]
    return "\n".join(lines)


def times(applied: Applied, host: str) -> str:
    """Return `staged 20 s · not serving 4 min (reboot 9 s)` from what was measured."""
    spent = applied.spent.get(host)
    if spent is None:
        return ""
    parts = []
    if "stage" in spent.phases:
        parts.append(f"staged {duration(spent.phases['stage'])}")
    if spent.not_serving:
        reboot = f" (reboot {duration(spent.rebooting)})" if spent.rebooting else ""
        parts.append(f"not serving {duration(spent.not_serving)}{reboot}")
    elif "change" in spent.phases:
        parts.append("serving all along")
    if not spent.not_serving and "verify" in spent.phases:
        parts.append(f"verified in {duration(spent.phases['verify'])}")
    if "guard" in spent.phases:
        parts.append(f"switched and confirmed in {duration(spent.phases['guard'])}")
    return " · ".join(parts)


def _why(result: HostResult, width: int) -> list[str]:
    if result.good:
        return []
    pad = " " * (width + 2)
    lines = [f"{pad}{safe(result.reason)}   [{result.reference}]"]
    lines += [f"{pad}  {safe(line)}" for line in result.context]
    if result.hint:
        lines.append(f"{pad}{safe(result.hint)}")
    return lines


def applied_json(applied: Applied) -> str:
    """Return the documented shape (docs/reference/plan.md), format 1."""
    hosts = {name: {**asdict(result), **_seconds(applied, name)} for name, result in applied.results.items()}
    back = applied.taken_back
    return json.dumps(
        {
            "format": 1,
            "run": applied.run,
            "folder": str(applied.folder) if applied.folder else None,
            "taken_back_in": str(back.folder) if back is not None and back.folder is not None else None,
            "hosts": hosts,
        },
        indent=2,
    )


def _seconds(applied: Applied, host: str) -> dict[str, object]:
    spent = applied.spent.get(host, Spent())
    return {
        "seconds": spent.phases,
        "staged_s": spent.phases.get("stage", 0.0),
        "not_serving_s": spent.not_serving,
        "rebooting_s": spent.rebooting,
    }
