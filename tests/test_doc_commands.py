"""The command lines of README and docs run, on small data and in the order of their page.

Lines of ``pip`` are left out: tests use no network. The README's two run in ``.ci/run``.
"""

import argparse
import json
import re
import runpy
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from atomic_files import INTER, write_table
from gguf_files import small_llama, write_gguf
from raw_files import write_ml_1m
from small_tokenizers import byte_level
from test_docs import CHECKOUT, FENCE, PAGES, commands_of, name_of, text_of

from recbole_e2urec import cli
from recbole_e2urec.config.keys import check_keys
from recbole_e2urec.data.convert import movielens
from recbole_e2urec.experiment.launch import Launch
from recbole_e2urec.report import report

USERS, ITEMS = [*range(1, 25), 186, 196], [*range(1, 22), 50, 181]
SMOLLM2 = "benchmarks/smollm2-ml-1m.yaml"
ELSEWHERE = ("--world_size", "--protocol=", f"--config_files={SMOLLM2}")  # in the tests below
BENCHMARK = re.compile(r"^(?:OMP_NUM_THREADS=1 )?python -m (benchmarks\.\w+)(.*)$")
FAST = ["--epochs=1", "--augmented_epochs=1", "--show_progress=False"]
# Pages whose commands go on from what other pages made.
BEFORE = {
    "docs/how-to/correct-data.md": ["--model=LLMRec", "export --output=shop"],
    "docs/how-to/erase-data.md": ["--model=LLMRec", "export --output=shop"],
    "docs/how-to/forget-data.md": ["--model=LLMRec", "export --output=shop"],
    "docs/how-to/share-a-model.md": ["--model=LLMRec", "export --output=shop"],
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
    lines = Path("data/ml-100k/ml-100k.inter").read_text().splitlines()
    user, item, rating, _ = next(line for line in lines if line.startswith("196\t")).split("\t")
    right = 1 if int(rating) > 3 else 5
    Path("fix.csv").write_text(f"user_id,item_id,new_rating\n{user},{item},{right}\n")
    Path("ratings.csv").write_text("user,item,rating\n" + "1,50,4\n1,181,2\n2,50,5\n")
    Path("movies.csv").write_text("item,title\n50,Film 50\n181,Film 181\n")
    Path("users.csv").write_text("user,age\n1,24\n2,53\n")
    Path("users.txt").write_text("196\n186\n")
    Path("mine.test").write_text("learning_rate choice [0.01,0.02]\n")
    tokenizer = byte_level()
    write_gguf(Path("model.gguf"), small_llama(len(tokenizer)), tokenizer)


def as_run_here(words: list[str]) -> list[str]:
    """The words of a command with the small data, and with the files that there are."""
    command = words[0] if words and words[0] in cli.COMMANDS else None
    here = {"=docs/": f"={CHECKOUT}/docs/", "=/models/": "=", "--nproc=4": "--nproc=2"}
    for there, path in here.items():
        words = [word.replace(there, path) for word in words]
    if command == "verify":
        folder = Path(words[-1]).parent
        return [*words[:-1], str(sorted(folder.glob("*.json"))[-1])]
    of_folder = command == "export" and any(word.startswith("--checkpoint=") for word in words)
    if of_folder or command in ("forget", "correct", "erase", "recommend", "purge", "init"):
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


def convert(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command that converts small files of MovieLens 1M, which it makes."""
    write_ml_1m(Path("FOLDER"))
    counts = {"ratings.dat": 90, "users.dat": 12, "movies.dat": 11}
    monkeypatch.setattr(movielens, "PUBLISHED", counts)
    module, *rest = words.split()
    monkeypatch.setattr(sys, "argv", [module, *rest])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(module, run_name="__main__")


FEW_ROWS = ["--backbone=tiny-t5", "--min_history=2", "--last_rows=60", *FAST]


@pytest.mark.thorough
def test_the_command_of_the_papers_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    page = text_of(CHECKOUT / "docs" / "how-to" / "reproduce-the-paper.md")
    first, second = re.search(r"^python -m (\S+ .*) && recbole-e2urec (.*)$", page, re.M).groups()
    convert(first, monkeypatch)
    assert cli.main([*second.split(), *FEW_ROWS]) == 0


@pytest.mark.thorough
def test_the_commands_of_the_pretrained_model_on_the_papers_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = CHECKOUT / "docs" / "explanation" / "smollm2.md"
    convert(re.search(r"^python -m (\S+ .*)$", text_of(page), re.M)[1], monkeypatch)
    there, here = f"--config_files={SMOLLM2}", f"--config_files={CHECKOUT / SMOLLM2}"
    commands = [words for words in commands_of(page) if there in words]
    assert commands
    for words in commands:
        words = [here if word == there else word for word in words]
        assert cli.main([*words, *FEW_ROWS]) == 0
        assert "Original" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [words for page in PAGES for words in commands_of(page) if "--world_size=8" in words]
)
def test_commands_for_several_machines_describe_their_processes(words: list[str]) -> None:
    launch = Launch.of([cli.parse(words).settings])
    assert launch.is_needed
    assert (launch.total, launch.nproc) == (8, 4)


def benchmark_commands() -> list[tuple[str, list[str]]]:
    commands = []
    for page in PAGES:
        for _, block in FENCE.findall(text_of(page)):
            for line in block.replace("\\\n", " ").splitlines():
                match = BENCHMARK.match(line)
                if match:
                    commands.append((match[1], shlex.split(match[2], comments=True)))
    return commands


class Parsed(Exception):
    """Ends a benchmark when it has read its arguments."""


@pytest.mark.parametrize(("module", "words"), benchmark_commands())
def test_commands_of_benchmarks_are_understood(
    module: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_known_args

    def parse_only(self: argparse.ArgumentParser, *args: object) -> None:
        rest = parse(self, *args)[1]
        monkeypatch.undo()
        check_keys(cli.parse(rest).settings, shlex.join(words))
        raise Parsed

    monkeypatch.chdir(CHECKOUT)  # files to write are there
    monkeypatch.syspath_prepend(str(CHECKOUT))
    monkeypatch.setattr(sys, "argv", [module, *words])
    if module == "benchmarks.gpu":  # which has settings alone, and needs a GPU
        check_keys(cli.parse(words).settings, shlex.join(words))
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_only)
    with pytest.raises(Parsed):
        runpy.run_module(module, run_name="__main__")
