"""The command lines of README and docs run, on small data and in the order of their page."""

import json
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from atomic_files import INTER, write_table
from test_docs import CHECKOUT, PAGES, commands_of, name_of, text_of

from recbole_e2urec import cli
from recbole_e2urec.report import report

USERS, ITEMS = [*range(1, 25), 186, 196], [*range(1, 22), 50, 181]
# Parts of commands that need more than a test has: weights, GPUs, other machines, MovieLens 1M.
ELSEWHERE = ("--backbone=", "--gpu_id", "--world_size", "--protocol=")
FAST = ["--epochs=1", "--augmented_epochs=1", "--show_progress=False"]
# Pages whose commands go on from what other pages made.
BEFORE = {
    "docs/how-to/forget-data.md": ["--model=LLMRec", "export --output=shop"],
    "docs/reference/certificate.md": ["--model=LLMRec", "export --output=shop"],
}
ELSEWHERE_TESTED = ("docs/tutorial.md",)  # by test_tutorial
QUICK = ("docs/how-to/serve-a-model.md",)


def write_data(name: str, title: str) -> None:
    generator = np.random.default_rng(3)
    folder = Path("data") / name
    rows = [
        [user, item, 1 + (user + item) % 5, 880_000_000 + 60 * place]
        for user in USERS
        for place, item in enumerate(generator.permutation(ITEMS)[:14])
    ]
    write_table(folder / f"{name}.inter", INTER, rows)
    films = [[item, f"Film {item}", 1990 + item % 9, "Drama"] for item in ITEMS]
    header = f"item_id:token {title}:token_seq release_year:token class:token_seq"
    write_table(folder / f"{name}.item", header, films)
    people = [[user, 20 + user % 40, "MF"[user % 2], "artist", "12345"] for user in USERS]
    header = "user_id:token age:token gender:token occupation:token zip_code:token"
    write_table(folder / f"{name}.user", header, people)


def write_files() -> None:
    """What the pages tell their readers to have."""
    write_data("ml-100k", "movie_title")
    for name in ("shop", "NAME"):
        write_data(name, "title")
        text = f"dataset: {name}\ntitle_field: title\nuser_fields: []\nthreshold: {{rating: 4}}\n"
        Path(f"{name}.yaml").write_text(text)
    for name, user in (("monday", "13"), ("friday", "18"), ("request", "13")):
        Path(f"{name}.csv").write_text(f"user_id\n{user}\n")
        Path(f"{name}.jsonl").write_text(json.dumps({"user_id": user}) + "\n")
    Path("ratings.csv").write_text("user,item,rating\n" + "1,50,4\n1,181,2\n2,50,5\n")
    Path("movies.csv").write_text("item,title\n50,Film 50\n181,Film 181\n")
    Path("users.csv").write_text("user,age\n1,24\n2,53\n")
    Path("users.txt").write_text("196\n186\n")
    Path("mine.test").write_text("learning_rate choice [0.01,0.02]\n")


def as_run_here(words: list[str]) -> list[str]:
    """The words of a command with the small data, and with the files that there are."""
    command = words[0] if words and words[0] in cli.COMMANDS else None
    words = [word.replace("=docs/", f"={CHECKOUT}/docs/") for word in words]
    if command == "verify":
        folder = Path(words[-1]).parent
        return [*words[:-1], str(sorted(folder.glob("*.json"))[-1])]
    if command in ("forget", "recommend", "purge", "init"):
        return words
    more = [*FAST, *([] if command == "hyper" else ["--joint_epochs=1"])]
    return [*words, "--data_path=data", *more, *(["--max_evals=2"] if command == "hyper" else [])]


def is_run(words: list[str]) -> bool:
    if words and words[0] == "hyper" and find_spec("hyperopt") is None:
        return False
    return not any(word.startswith(part) for word in words for part in ELSEWHERE)


WITH_COMMANDS = [
    page
    for page in PAGES
    if any(map(is_run, commands_of(page))) and name_of(page) not in ELSEWHERE_TESTED
]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=name_of(page), marks=[] if name_of(page) in QUICK else pytest.mark.thorough
        )
        for page in WITH_COMMANDS
    ],
)
def test_the_commands_of_a_page_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files()
    for words in [*map(shlex.split, BEFORE.get(name_of(page), [])), *commands_of(page)]:
        if not is_run(words):
            continue
        if "--config_files=saved/hyper-best.yaml" in words and find_spec("hyperopt") is None:
            Path("saved/hyper-best.yaml").write_text("alpha: 2.0\n")
        code = cli.main(as_run_here(words))
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert code == 0, (words, said.err[-500:])


def test_the_command_that_prints_a_table_again(capsys: pytest.CaptureFixture[str]) -> None:
    write_files()
    assert cli.main(as_run_here(["--model=FM"])) == 0
    words = "saved/results.jsonl --format=markdown"
    assert f"python -m recbole_e2urec.report {words}" in text_of(CHECKOUT / "README.md")
    capsys.readouterr()
    assert report.main(words.split()) == 0
    assert "| FM" in capsys.readouterr().out
