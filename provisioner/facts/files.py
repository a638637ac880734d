"""Captures as text: JSON as the tool writes them, YAML as people do; what is wrong with one is said in words."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from provisioner.errors import BadInput
from provisioner.model.capture import Capture

MAX_DEPTH = 50
_HINT = "provision facts HOST --save FILE writes one; docs/reference/capture.md describes it"


def parse_capture(data: bytes, where: str) -> Capture:
    """Read the bytes of a capture; `where` names them in messages."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_capture(where, f"it is no text: byte {error.start} is not UTF-8") from error
    value = _from_json(text, where) if text.lstrip()[:1] == "{" else _from_yaml(text, where)
    if not isinstance(value, dict):
        raise bad_capture(where, "it holds no mapping")
    try:
        return Capture.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise bad_capture(where, f"{place}: {first['msg']}") from error
    except RecursionError as error:
        raise bad_capture(where, "it is nested too deeply") from error


def dump_capture(capture: Capture) -> str:
    """The JSON text of a capture, readable and with a stable order; control characters are escaped."""
    return json.dumps(capture.model_dump(mode="json"), indent=1, ensure_ascii=True) + "\n"


def bad_capture(where: str, reason: str) -> BadInput:
    """The error for a file that is no capture."""
    return BadInput("bad-capture", f"{where} cannot be used as a capture: {reason}", hint=_HINT)


def _from_json(text: str, where: str) -> Any:
    try:
        return _whole(json.loads(text)) if "\\ud" in text.lower() else json.loads(text)
    except json.JSONDecodeError as error:
        try:  # YAML's flow style also begins with a brace
            return _from_yaml(text, where)
        except BadInput:
            raise bad_capture(where, f"line {error.lineno}: {error.msg}") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise bad_capture(where, str(error).partition(";")[0]) from error
    except RecursionError as error:
        raise bad_capture(where, "it is nested too deeply") from error


def _whole(value: Any) -> Any:
    """Halves of characters, which JSON can write (`\\ud800`) and no stream can, become question marks."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-8", "replace"))


def _from_yaml(text: str, where: str) -> Any:
    """Look at the events first: nine short lines of aliases can stand for billions of values, and depth costs stack."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, loader):
            if isinstance(event, yaml.AliasEvent):
                raise bad_capture(where, f"{_line(event.start_mark)}aliases (*name) are not allowed")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise bad_capture(where, f"{_line(event.start_mark)}it is nested too deeply")
        return yaml.load(text, loader)
    except yaml.MarkedYAMLError as error:
        raise bad_capture(where, f"{_line(error.problem_mark)}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise bad_capture(where, str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise bad_capture(where, "it is nested too deeply") from error


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark is not None else ""
