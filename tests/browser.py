"""A headless browser, for tests of pages."""

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
needs_browser = pytest.mark.skipif(not BROWSER, reason="neither Chromium nor Chrome is installed")


def shown(page: Path, profile: Path, *options: str) -> str:
    """Open a page, and give its document once its scripts have run."""
    headless = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    command = [BROWSER, *headless, f"--user-data-dir={profile}", *options, "--dump-dom"]
    return subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
