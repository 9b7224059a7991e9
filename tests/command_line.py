"""What tests type: settings as arguments, and files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they are typed."""
    return [f"--{key}={value}" for key, value in settings.items()]


def write(path: Path, text: str) -> str:
    """Write a file; gives its name."""
    path.write_text(text, encoding="utf-8")
    return str(path)
