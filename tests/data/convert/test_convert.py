"""The command: files in, atomic files out or none, and a run on them."""

from pathlib import Path

import pytest
from raw_files import CLEAN_TITLE, PAIRS, WRITERS, write_goodreads_csv, write_ml_1m

from recbole_e2urec.config.config import Config
from recbole_e2urec.data.convert import movielens
from recbole_e2urec.data.convert.__main__ import main
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import parts_of
from recbole_e2urec.model.llmrec import LLMRec

FIRST_HEADER = {
    "ml-1m": "user_id:token\titem_id:token\trating:float\ttimestamp:float",
    "book-crossing": "user_id:token\titem_id:token\trating:float",
}
# Rows that a run loads, and what a prompt says of the second item.
LOADED = {
    "ml-1m": (len(PAIRS), "Café No. 2, The"),
    "goodreads": (len(PAIRS) - 8, "Verse 2"),  # user 1 rated none of 8
    "amazon": (len(PAIRS), CLEAN_TITLE),
    "book-crossing": (len(PAIRS) - 8, CLEAN_TITLE),
}


def converted(name: str, tmp_path: Path) -> Path:
    folder = WRITERS[name](tmp_path / "raw")
    assert main([name, str(folder), "--output", "out"]) == 0
    return Path("out") / name


@pytest.mark.parametrize("name", WRITERS)
def test_converted_data_set_runs_by_its_name(name: str, tmp_path: Path) -> None:
    folder = converted(name, tmp_path)
    header = (folder / f"{name}.inter").read_text(encoding="utf-8").splitlines()[0]
    assert header == FIRST_HEADER.get(name, FIRST_HEADER["ml-1m"])
    config = Config("LLMRec", name, config_dict={"data_path": "out", "history_length": 20})
    dataset = load_dataset(config)
    rows, title = LOADED[name]
    assert len(dataset.rows) == rows
    assert {0.0, 1.0} == set(dataset.rows.label)
    parts = parts_of(config, dataset)
    assert len(parts.splits.train) > len(parts.splits.test) > 0
    model = LLMRec(config, dataset)
    texts = [model.table.text(row) for row in range(rows)]
    assert any(title in text for text in texts)
    assert not any("None" in text or "nan" in text for text in texts)


def test_goodreads_without_times_runs_by_its_name(tmp_path: Path) -> None:
    folder = write_goodreads_csv(tmp_path / "raw")
    assert main(["goodreads", str(folder), "--output", "out"]) == 0
    config = Config("LLMRec", "goodreads", config_dict={"data_path": "out"})
    dataset = load_dataset(config)
    splits = parts_of(config, dataset).splits
    assert config["eval_args"]["order"] == "RO"
    assert len(dataset.rows) == len(PAIRS) - 8
    assert len(splits.train) > len(splits.test) > 0
    asked = {"data_path": "out", "eval_args": {"order": "TO"}}
    config = Config("LLMRec", "goodreads", config_dict=asked)
    with pytest.raises(InputError, match="no column 'timestamp' to order by"):
        parts_of(config, load_dataset(config))


def test_prompt_of_converted_ml_1m_knows_user_and_title(tmp_path: Path) -> None:
    converted("ml-1m", tmp_path)
    config = Config("LLMRec", "ml-1m", config_dict={"data_path": "out", "prompt": "plain"})
    text = LLMRec(config, load_dataset(config)).table.text(0)
    assert "age 25-34" in text
    assert "occupation academic/educator" in text
    assert "Will the user like Café No. 1, The?" in text


def test_classic_model_loads_every_column_of_a_converted_data_set(tmp_path: Path) -> None:
    for name in WRITERS:
        converted(name, tmp_path / name)
        columns = {"inter": "*", "item": "*", "user": "*"}
        config = Config("FM", name, config_dict={"data_path": "out", "load_col": columns})
        assert len(load_dataset(config).rows) == LOADED[name][0]


def test_counts_that_differ_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    converted("ml-1m", tmp_path)
    shown = capsys.readouterr()
    assert "warning:" in shown.err
    assert "ratings.dat: 90 rows where 1,000,209 were published" in shown.err
    assert "90 interactions" in shown.out
    assert "recbole-e2urec --dataset=ml-1m --data_path=out" in shown.out


def test_counts_that_differ_are_an_error_when_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_ml_1m(tmp_path / "raw")
    assert main(["ml-1m", str(folder), "--output", "out", "--strict"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(Path("out").rglob("*"))


def test_counts_as_published_pass_when_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    counts = {"ratings.dat": 90, "users.dat": 12, "movies.dat": 11}
    monkeypatch.setattr(movielens, "PUBLISHED", counts)
    folder = write_ml_1m(tmp_path / "raw")
    assert main(["ml-1m", str(folder), "--output", "out", "--strict"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("as published") == 3
    assert shown.err == ""


def test_bad_line_leaves_earlier_files_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = converted("ml-1m", tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    path = tmp_path / "raw" / "ratings.dat"
    path.write_text(path.read_text() + "1::2::3\n")
    assert main(["ml-1m", str(tmp_path / "raw"), "--output", "out"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{path}, line 91: 3 cells between '::' where 4 are published" in message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_parts_of_a_killed_conversion_are_removed(tmp_path: Path) -> None:
    Path("out/ml-1m").mkdir(parents=True)
    Path("out/ml-1m/.ml-1m.inter.x.part").write_text("half")
    folder = converted("ml-1m", tmp_path)
    assert sorted(path.suffix for path in folder.iterdir()) == [".inter", ".item", ".user"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ml-1m"], "RAW_DIR"),
        (["netflix", "."], "netflix"),
        (["ml-1m", "nowhere"], "nowhere is not a folder"),
        (["ml-1m", "."], "has no movies.dat; put it there as published"),
        (["ml-1m", ".", "--strict=maybe"], "strict: 'maybe' does not do; True or False is needed"),
        (["amazon", "."], "has no meta_<Category>.jsonl"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_output_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_ml_1m(tmp_path / "raw")
    Path("taken").write_text("a file")
    assert main(["ml-1m", str(folder), "--output", "taken"]) == 2
    assert "cannot write to taken" in capsys.readouterr().err
