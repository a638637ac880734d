"""Captures as files: JSON as the tool writes them, YAML as people do; what is wrong with one is said in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provisioner.errors import BadInput
from provisioner.model.capture import Capture

MAX_BYTES = 50 << 20
_HINT = "provision facts HOST --save FILE writes one; docs/reference/capture.md describes it"


def load_capture(path: str | Path) -> Capture:
    """Read a capture. Raises BadInput that names the file and what is wrong with it."""
    where = Path(path)
    try:
        if where.is_dir():
            raise _bad(where, "it is a folder")
        if where.stat().st_size > MAX_BYTES:
            raise _bad(where, f"it is larger than {MAX_BYTES >> 20} MB")
        data = where.read_bytes()
    except OSError as error:
        raise _bad(where, error.strerror or str(error)) from error
    if len(data) > MAX_BYTES:
        raise _bad(where, f"it is larger than {MAX_BYTES >> 20} MB")
    return parse_capture(data, str(where))


def parse_capture(data: bytes, where: str) -> Capture:
    """Read the bytes of a capture; `where` names them in messages."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(where, f"it is no text: byte {error.start} is not UTF-8") from error
    value = _from_json(text, where) if text.lstrip()[:1] == "{" else _from_yaml(text, where)
    if not isinstance(value, dict):
        raise _bad(where, "it holds no mapping")
    try:
        return Capture.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _bad(where, f"{place}: {first['msg']}") from error
    except RecursionError as error:
        raise _bad(where, "it is nested too deeply") from error


def dump_capture(capture: Capture) -> str:
    """The JSON text of a capture, readable and with a stable order; control characters are escaped."""
    return json.dumps(capture.model_dump(mode="json"), indent=1, ensure_ascii=True) + "\n"


def _bad(where: Path | str, reason: str) -> BadInput:
    return BadInput("bad-capture", f"{where} cannot be used as a capture: {reason}", hint=_HINT)


def _from_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        try:  # YAML's flow style also begins with a brace
            return _from_yaml(text, where)
        except BadInput:
            raise _bad(where, f"line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise _bad(where, "it is nested too deeply") from error


def _from_yaml(text: str, where: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Without aliases: nine short lines of them can stand for billions of values."""

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases (*name) are not allowed here")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise _bad(where, f"{line}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise _bad(where, str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise _bad(where, "it is nested too deeply") from error
