"""What tests type: settings as arguments, and files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they are typed."""
    typed = {key: "~" if value is None else value for key, value in settings.items()}
    return [f"--{key}={value}" for key, value in typed.items()]


def write(path: Path, text: str) -> str:
    """Write a file; gives its name."""
    path.write_text(text, encoding="utf-8")
    return str(path)
