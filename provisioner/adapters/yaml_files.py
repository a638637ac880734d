"""Reads small YAML files of the operator; a file that cannot be used becomes an error with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from provisioner.errors import BadInput

LARGEST = 1 << 20  # bytes; a file of intent is a few hundred


def read_yaml(path: Path) -> Any:
    """Return what the file holds. Raises BadInput naming file and line."""
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput("file-too-large", f"{path} is larger than {LARGEST} bytes")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BadInput("yaml-not-valid", f"{where}: {getattr(problem, 'problem', None) or problem}") from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput("file-not-readable", f"{path}: {problem}") from problem
