"""Output under an ASCII locale: everything that is printed, logged or written is UTF-8."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from atomic_files import TITLES, write_table
from command_line import as_arguments

from recbole_e2urec.utils.distributed import print_utf8

CHECKOUT = Path(__file__).parents[1]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(CHECKOUT)}
ODD = "naïve ± 千と千尋の神隠し 🎬"


def printed(code: str) -> str:
    """What a program prints under an ASCII locale, which must be UTF-8."""
    Path("program.py").write_text(code)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    done = subprocess.run(
        [sys.executable, "program.py"], env={**environment, **ASCII}, capture_output=True
    )
    said = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == 0, said
    assert "Traceback" not in said, said
    assert "Logging error" not in said, said
    return said


def test_titles_and_signs_of_commands(small_data: Path) -> None:
    titles = [*TITLES, *[ODD] * (20 - len(TITLES))]
    write_table(
        small_data / "small" / "small.item",
        "item_id:token movie_title:token_seq",
        [[f"i{item}", title] for item, title in enumerate(titles)],
    )
    given = {"data_path": small_data, "dataset": "small", "title_field": "movie_title", "epochs": 1}
    typed = as_arguments({**given, "show_progress": False})
    said = printed(
        f"""
from recbole_e2urec import cli
from recbole_e2urec.report import report
assert cli.main([*{typed}, "--model=LLMRec", "--show_prompts=3"]) == 0
assert cli.main([*{typed}, "--model=FM", "--seeds=1,2"]) == 0
assert cli.main([*{typed}, "--model={ODD}"]) == 2
assert report.main(["saved/results.jsonl", "--format=html", "--output=page.html"]) == 0
""".encode("ascii", "backslashreplace").decode()
    )
    assert ODD in said
    assert "±" in said
    assert f"unknown model '{ODD}'" in said
    (page,) = Path("saved").rglob("*.html")
    assert ODD in page.read_text(encoding="utf-8")
    assert "±" in Path("page.html").read_text(encoding="utf-8")


def test_texts_of_any_kind_are_printed_logged_and_written() -> None:
    texts = ["±", ODD, "half \ud800", "byte \udcff"]
    said = printed(f"""
import logging
from pathlib import Path
from recbole.utils import logger
from recbole_e2urec.utils import distributed, io, recbole_compat
distributed.print_utf8()
recbole_compat.log_utf8()
handlers = [logger.logging.FileHandler("run.log"), logging.StreamHandler()]
logging.basicConfig(handlers=handlers, format="%(message)s")
for text in {texts!a}:
    logging.warning(text)
    print(text)
io.write_text(Path("written"), "\\n".join({texts!a}) + "\\n")
""")
    shown = [text.encode("utf-8", "backslashreplace").decode("utf-8") for text in texts]
    assert said.split("\n") == [*shown, *shown, ""]
    for name in ("run.log", "written"):
        assert Path(name).read_text(encoding="utf-8").split("\n") == [*shown, ""]


def test_a_stream_that_is_no_text_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", object())
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    print_utf8()
    assert sys.stdout is None
    monkeypatch.setenv("PYTHONIOENCODING", "")  # undone after the test
