"""Reads the looks of many hosts side by side, in threads that start at once, while the caller does other things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from provisioner.adapters.shell import Answer, Shell
from provisioner.errors import HostError

SHELLS_AT_ONCE = 32


class Looking:
    """The answers of hosts that are being read; each host's failure is its own, and raised to whoever asks for it."""

    def __init__(self, shells: Mapping[str, Shell], commands: Sequence[str], at_once: int = SHELLS_AT_ONCE) -> None:
        self._shells = dict(shells)
        self._commands = tuple(dict.fromkeys(commands))
        self._pool = ThreadPoolExecutor(max(1, min(at_once, len(self._shells) or 1)), thread_name_prefix="look")
        self._futures: dict[str, Future[list[Answer]]] = {
            host: self._pool.submit(shell.look, self._commands) for host, shell in self._shells.items()
        }

    def answers(self, host: str) -> dict[str, Answer]:
        """Wait for one host. Raises HostError when it gave no answers."""
        return dict(zip(self._commands, self._futures[host].result(), strict=True))

    def faults(self) -> dict[str, HostError]:
        """Hosts that gave no answers, of those that were waited for."""
        done = {host: future.exception() for host, future in self._futures.items() if future.done()}
        return {host: error for host, error in done.items() if isinstance(error, HostError)}

    def end(self) -> None:
        """End what is still under way, without waiting for hosts that hang, and close the shells."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for host, future in self._futures.items():
            if not future.done():
                self._shells[host].give_up()
        self._pool.shutdown(wait=True)
        for shell in self._shells.values():
            shell.close()
