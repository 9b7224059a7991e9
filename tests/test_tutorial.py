"""The tutorial, as it is written: its script and its commands, on fewer users."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from recbole_e2urec import cli

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = "recbole-e2urec"
USERS = 40  # instead of 200


def blocks() -> list[tuple[str, str]]:
    """Language and text of the fenced blocks from the user's own data on."""
    text = PAGE.read_text(encoding="utf-8").split("\n## 3. ")[1]
    return BLOCK.findall(text)


def commands() -> Iterator[list[str]]:
    """The arguments of each command."""
    for language, block in blocks():
        lines = block.splitlines() if language == "" else []
        for line in lines:
            command = line.removeprefix("$ ")
            if command.startswith(f"{PROGRAM} "):
                yield shlex.split(command)[1:]


def write_files() -> None:
    """Run the script, and write the request."""
    (script,) = (block for language, block in blocks() if language == "python")
    assert "<= 200" in script
    exec(script.replace("<= 200", f"<= {USERS}"), {})
    (request,) = (block for _, block in blocks() if block.startswith("user_id\n"))
    Path("monday.csv").write_text(request, encoding="utf-8")


def test_files_become_a_data_set_and_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    write_files()
    init, check = list(commands())[:2]
    assert (init[0], check[0]) == ("init", "check")
    assert cli.main(init) == 0
    assert cli.main([*check, "--seconds=0.1"]) == 0
    told = capsys.readouterr().out
    assert "user = user, item = item, rating = stars, time = time" in told
    assert "100% of the items have a title (title)" in told


@pytest.mark.thorough
def test_every_command_does_what_the_tutorial_says(capsys: pytest.CaptureFixture[str]) -> None:
    write_files()
    asked = []
    for words in commands():
        if words[0] == "verify":  # its name has a digest of the data
            words[1] = str(next(Path("model/certificates").glob("000001-*.json")))
        code = cli.main(words)
        shown = capsys.readouterr()
        if words[0] == "recommend" and "--user=13" in words:
            asked.append(code)
            assert code == 0 or "nothing is known" in shown.err
        else:
            assert code == 0, (words, shown.err)
        if words[0] == "verify":
            assert "nothing failed" in shown.out
    assert asked == [0, 2]  # before the request, and after it
