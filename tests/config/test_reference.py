"""Yaml comments, ``--help`` and the reference page say of options what their classes say."""

from pathlib import Path

import pytest

from recbole_e2urec import cli
from recbole_e2urec.config import reference
from recbole_e2urec.config.yaml import documented, properties_folder, read_yaml

FILES = [file for file in reference.yaml_files() if reference.options_in(file)]
MADE = reference.files()
OF_RECBOLE = {"seed"}  # whose default is RecBole's own
WRITE = "run python -m recbole_e2urec.config.reference --write"


@pytest.mark.parametrize(("path", "text"), MADE.items(), ids=[path.stem for path in MADE])
def test_a_file_repeats_what_the_option_classes_say(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, WRITE


def test_the_page_says_what_the_option_classes_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "options.md"
    assert page.read_text(encoding="utf-8") == reference.reference(), WRITE


def test_every_option_is_documented_with_a_default_in_a_yaml_file() -> None:
    options = {key for file in FILES for key in reference.options_in(file)}
    texts = {file: (properties_folder() / f"{file}.yaml").read_text() for file in FILES}
    told = {found.key for text in texts.values() for found in documented(text)}
    assert options - told == OF_RECBOLE


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_a_method_or_a_command_has_all_of_its_options(file: str) -> None:
    keys = [found.key for found in documented((properties_folder() / f"{file}.yaml").read_text())]
    assert len(keys) == len(set(keys))
    assert set(keys) <= set(read_yaml(properties_folder() / f"{file}.yaml"))
    if file not in ("overall", "model/LLMRec"):  # which share the options of LLMRec
        assert set(reference.options_in(file)) <= set(keys)


@pytest.mark.parametrize("file", FILES)
def test_meanings_are_sentences(file: str) -> None:
    for option in reference.options_in(file).values():
        meaning = option.info.description or ""
        assert meaning[0].isalnum(), option.key
        assert meaning[0] == meaning[0].upper() or meaning.startswith("w in "), option.key
        assert meaning.endswith("."), option.key
        assert "  " not in meaning, option.key


def test_a_comment_is_replaced_and_the_published_value_and_all_else_stay() -> None:
    options = reference.options_in("model/NegGrad")
    meaning = options["forget_weight"].info.description
    for line in (
        "forget_weight: 0.2              # (str) [5] Something else.\n",
        "forget_weight: 0.2 # (float, above 0) [5]\n",
    ):
        made = reference._recommented(line, options)
        assert made == f"forget_weight: 0.2              # (float) [5] {meaning}\n"
    made = reference._recommented("forget_weight: 0.2\n", options)
    assert made == f"forget_weight: 0.2              # (float) {meaning}\n"
    for line in ("# forget_weight: 3\n", "epochs: 3  # (int) RecBole's.\n", "\n"):
        assert reference._recommented(line, options) == line


def test_help_says_what_an_option_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = "".join(capsys.readouterr().out.split())  # argparse breaks lines at hyphens, too
    for option in reference.options_in("overall").values():
        if option.key in read_yaml(properties_folder() / "overall.yaml"):
            assert "".join((option.info.description or "").split()) in shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_commands_help_says_what_its_arguments_mean(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = reference.options_in(f"command/{name}")
    assert set(cli.COMMANDS[name].arguments) == set(options)
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    shown = "".join(capsys.readouterr().out.split())
    for option in options.values():
        assert "".join((option.info.description or "").split()) in shown
