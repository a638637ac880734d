"""Fills the templates in templates/; undefined names are errors, and the marks leave Ansible's own braces alone."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from provisioner.model.paths import data_dir

_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_./+:=~@%^-]*\Z")
_WIDTH = 100
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n", "~"}


def yaml_scalar(value: str) -> str:
    """Return a word as YAML: plain where YAML reads the same text back, quoted where not."""
    if _PLAIN.match(value) and value.lower() not in _WORDS and not value.endswith(":"):
        return value
    return json.dumps(value)


def yaml_list(values: Sequence[str], indent: int) -> str:
    """Return a YAML sequence, one item a line, to stand after `key:`."""
    return "".join(f"\n{' ' * indent}- {yaml_scalar(value)}" for value in values)


def shell_words(words: Sequence[str], indent: int) -> str:
    """Return a command for sh over several lines, each of which a person can read."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) > _WIDTH:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return (" \\\n" + " " * indent).join(lines)


def yaml_bool(value: bool) -> str:
    return "true" if value else "false"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(data_dir("templates")),
        undefined=StrictUndefined,
        autoescape=False,  # the text is YAML, and every inserted word goes through a filter or is a checked name
        trim_blocks=True,
        lstrip_blocks=True,
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
    )
    environment.filters |= {
        "yaml_list": yaml_list,
        "yaml_bool": yaml_bool,
        "yaml": yaml_scalar,
        "shell": shell_words,
        "quote": shlex.quote,
    }
    return environment


def fill(name: str, **values: Any) -> str:
    """Return the template `name` filled in, without outer blank lines. Raises UndefinedError for a missing name."""
    return _environment().get_template(name).render(**values).strip("\n")
