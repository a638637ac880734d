"""What a host showed in one round trip, raw: files and command outputs, nothing interpreted (format 1)."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Unknown(Enum):
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNKNOWN"


Unknown = Literal[_Unknown.UNKNOWN]
UNKNOWN: Final = _Unknown.UNKNOWN
"""Not looked for, or could not be seen; never the same as absent (None) or False."""


class CommandOutput(BaseModel):
    """What a command gave; rc 127: the host has no such command, 124: it was stopped by the time limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rc: int
    stdout: str = ""
    stderr: str = ""

    @property
    def found(self) -> bool:
        return self.rc != 127


class Capture(BaseModel):
    """One host, seen once. Keys of `files` are absolute paths, keys of `commands` are what a shell would print."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    host: str
    taken_at: datetime
    probe: str
    files: dict[str, str | None] = Field(default_factory=dict)
    commands: dict[str, CommandOutput] = Field(default_factory=dict)
    nvml: dict[str, Any] | None = None
    redacted: tuple[str, ...] = Field(
        default=(), description="files whose text lost a secret on the host; never write such text back"
    )

    def file(self, path: str) -> str | Unknown | None:
        """Return the text of `path`, None when it was looked for and absent, UNKNOWN when not looked for."""
        return self.files.get(path, UNKNOWN)

    def command(self, line: str) -> CommandOutput | Unknown:
        """Return what the command line gave, UNKNOWN when it was not run."""
        return self.commands.get(line, UNKNOWN)
