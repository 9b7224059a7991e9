"""Forgotten rows leave the data files: whole or not at all, and nothing else changes."""

import hashlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import in_use
import numpy as np
import pytest
import torch
from atomic_files import small_interactions
from command_line import write
from full_disk import room_for
from in_use import CANARY, CANARY_TITLE, QUICK, WITH_CONTROL, make_model, opened
from safetensors.torch import load_file, save_file
from test_kills import FORK, STEPS, in_child

from recbole_e2urec import cli
from recbole_e2urec.deployment.certificate import salted
from recbole_e2urec.deployment.erase import EraseOptions, erase
from recbole_e2urec.deployment.export import ExportOptions, export
from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.errors import InputError
from recbole_e2urec.quick_start import run_recbole_e2urec

pytestmark = pytest.mark.usefixtures("short_relearning")
DATA, INTER = Path("data/small"), Path("data/small/small.inter")
LONELY = "Sólitär"  # a word that only one title has
USERS, OTHERS = "user_id\nu1\nu2\n", "user_id\nu5\nu7\n"
PAIRS = "user_id,item_id\n" + "".join(f"{row[0]},{row[1]}\n" for row in small_interactions()[:40])


def rare(data: Path) -> None:
    """Only the first two users give a 5, and only they have a certain item."""
    rows = [line.split("\t") for line in (data / "small.inter").read_text().splitlines()]
    for row in rows[1:]:
        row[2] = "4" if row[2] == "5" and row[0] not in ("u1", CANARY, "u2") else row[2]
    user = "u1" if any(row[0] == "u1" for row in rows) else CANARY
    rows += [[name, "lonely", "5", "1600000001"] for name in (user, "u2")]
    write(data / "small.inter", "".join("\t".join(row) + "\n" for row in rows))
    with (data / "small.item").open("a") as file:
        file.write(f"lonely\t{LONELY}\n")


def filtered(data: Path) -> None:
    """Some lines are there twice, some users have few, a line is blank, and the last is open."""
    lines = (data / "small.inter").read_text().splitlines()
    lines += [*lines[1:60], *(f"few{user}\ti1\t3\t1600000000" for user in range(3))]
    lines.insert(5, "")
    write(data / "small.inter", "\n".join(lines))


def in_parts(data: Path) -> None:
    """The parts are files of their own, with the line ends of Windows."""
    head, *rows = (data / "small.inter").read_text().splitlines()
    for name, part in (("train", rows[:200]), ("valid", rows[200:244]), ("test", rows[244:])):
        text = "\r\n".join([head, *part]) + "\r\n"
        (data / f"small.{name}.inter").write_bytes(text.encode())
    (data / "small.inter").unlink()


def untimed(data: Path) -> None:
    """There are no times."""
    lines = [line.split("\t") for line in (data / "small.inter").read_text().splitlines()]
    write(data / "small.inter", "".join("\t".join(cells[:3]) + "\n" for cells in lines))


def make(folder: Path, change: Callable[[Path], Any] | None = None, **settings: Any) -> Path:
    """Make data, a run and a model folder in a folder, and go there."""
    original = in_use.write_data

    def write_data(*given: Any) -> Path:
        data = original(*given)
        if change is not None:
            change(data / "small")
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_use, "write_data", write_data)
        make_model(folder, **{**WITH_CONTROL, **settings})
    return folder


def moved(model: str, old: Path, new: Path) -> None:
    """Say in a model folder that a path is another one."""
    pointer = json.loads(Path(model, "current.json").read_text())
    record = Path(model, "generations", pointer["generation"], "model.json")
    write(record, record.read_text().replace(f'"{old}', f'"{new}'))
    pointer["sha256"] = hashlib.sha256(record.read_bytes()).hexdigest()
    write(Path(model, "current.json"), json.dumps(pointer))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the rare things of one user are to be forgotten."""
    folder = tmp_path_factory.mktemp("erasing")
    return make(folder, rare, names={"u1": CANARY, "Film 3": CANARY_TITLE})


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of it in the test's folder."""
    for name in ("data", "model", "saved"):
        shutil.copytree(made / name, tmp_path / name)
    moved("model", made, tmp_path)
    write(DATA / ".e2urec-folders", f"{tmp_path / 'model'}\n")
    return tmp_path


def command(*argv: str) -> int:
    return cli.main(["erase", "--checkpoint=model", *argv])


def request(*more: str, users: Sequence[str] = (CANARY, "u2")) -> int:
    write(Path("r.csv"), "\n".join(["user_id", *users]) + "\n")
    options = ["--model=NegGrad", "--joint_epochs=1", "--show_progress=False", *more]
    return cli.main(["forget", "--checkpoint=model", "--request=r.csv", *options])


def state(*folders: str) -> dict[str, bytes]:
    """What all files hold, except those that say when."""
    files = (path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.name != ".lock"}


def certificates() -> list[Path]:
    return sorted(Path("model/certificates").glob("*.json"))


def verified(capsys: Any, code: int = 0) -> str:
    """What verify says of all certificates."""
    capsys.readouterr()
    assert max(cli.main(["verify", str(path)]) for path in certificates()) == code
    return str(capsys.readouterr().out)


CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "rare things": (rare, USERS, {}),
    "filters, and pairs": (
        filtered,
        PAIRS,
        {
            "rm_dup_inter": "first",
            "user_inter_num_interval": "[9,inf)",
            "item_inter_num_interval": "[5,inf)",
        },
    ),
    "parts": (in_parts, USERS, {"benchmark_filename": ["train", "valid", "test"]}),
    "no times": (untimed, USERS, {}),
    "all at random": (
        None,
        PAIRS,
        {"eval_args": {"order": "RO", "split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "none"}},
    ),
    "few rows at the end": (None, PAIRS, {"min_history": 3, "last_rows": 100}),
    "no control users": (None, USERS, {"control_users": 0}),
    "an adapter": (rare, USERS, {"tuning": "lora"}),
    "tiny-llama": (rare, USERS, {"backbone": "tiny-llama"}),
    "columns that RecBole loads": (
        rare,
        USERS,
        {
            "load_col": {
                "inter": ["user_id", "item_id", "rating", "timestamp"],
                "user": ["user_id", "age"],
                "item": ["item_id", "movie_title"],
            }
        },
    ),
}
QUICKLY = ("rare things",)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c in QUICKLY else pytest.mark.thorough) for c in CASES],
)
def test_the_model_goes_on_as_if_nothing_had_been_erased(case, tmp_path: Path, capsys):
    change, first, settings = CASES[case]
    make(tmp_path, change, **settings)
    write(Path("first.csv"), first)
    forget(QueueOptions("model", "first.csv"), "NegGrad", QUICK)
    shutil.copytree("model", "other")
    shutil.copytree("data", "other_data")
    moved("other", tmp_path / "data", tmp_path / "other_data")
    assert command("--shared_data") == 0
    check_alike()
    write(Path("second.csv"), OTHERS)
    for model in ("model", "other"):
        method = "NPO" if settings.get("control_users") == 0 else "NegatedE2URec"
        forget(QueueOptions(model, "second.csv"), method, QUICK)
    check_alike()
    ours, theirs = (ModelFolder(name).read().record for name in ("model", "other"))
    assert ours["files"]["weights.safetensors"] == theirs["files"]["weights.safetensors"]
    ours, theirs = ours["requests"][1], theirs["requests"][1]
    assert ours["drift"] == theirs["drift"]
    for key in ("asked", "measures", "method"):
        assert ours["evidence"][key] == theirs["evidence"][key]
    assert "nothing failed" in verified(capsys)
    assert command("--shared_data") == 0
    check_alike()
    assert "erased users and items are not in the data" in verified(capsys)


def items_of(user: str) -> dict[str, str]:
    """The items of a user in the files, in their order, with ratings."""
    paths = [INTER] if INTER.exists() else sorted(DATA.glob("small.*.inter"))
    rows = [line.split("\t") for path in paths for line in path.read_text().splitlines()]
    return {row[1]: row[2].strip() for row in rows if row[0] == user}


def fix(*lines: str, model: str = "model") -> int:
    """Correct rows: user, item, right rating, right user."""
    write(Path("fix.csv"), "\n".join(["user_id,item_id,new_rating,new_user_id", *lines]) + "\n")
    options = ["--model=NegGrad", "--joint_epochs=1", "--show_progress=False"]
    return cli.main(["correct", f"--checkpoint={model}", "--request=fix.csv", *options])


def free(user: str, other: str) -> list[str]:
    """Items of a user that another one has not."""
    return [item for item in items_of(user) if item not in items_of(other)]


def corrections() -> list[str]:
    """Other ratings of u6 and of u2, rows of u6 and u8 that are u10's, and all of u9 that u8's."""
    six, moved_away, eight = [*items_of("u6")], free("u6", "u10"), free("u8", "u10")
    two = free("u2", "u6")
    stay = [item for item in six if item not in moved_away[:2]]
    ratings = [f"{user},{item},{1 if int(items_of(user)[item]) >= 4 else 4},"
               for user, item in (("u6", stay[0]), ("u6", stay[1]), ("u2", two[1]))]  # fmt: skip
    moves = [f"u6,{moved_away[0]},,u10", f"u6,{moved_away[1]},3,u10", f"u2,{two[0]},,u6"]
    moves += [f"u8,{item},,u10" for item in eight[:1] if item not in moved_away[:2]]
    return [*ratings, *moves, *(f"u9,{item},,u8" for item in items_of("u9"))]


CORRECTED = ("rare things", "parts", "no times", "all at random", "no control users", "tiny-llama")


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c in QUICKLY else pytest.mark.thorough) for c in CORRECTED],
)
def test_corrected_rows_are_corrected_in_the_files_and_the_model_goes_on(
    case, tmp_path: Path, capsys
):
    change, _, settings = CASES[case]
    make(tmp_path, change, **settings)
    write(Path("first.csv"), "user_id\nu2\n")
    assert fix(*corrections()) == 0
    shutil.copy("fix.csv", "fixed.csv")
    forget(QueueOptions("model", "first.csv"), "NegGrad", QUICK)
    shutil.copytree("model", "other")
    shutil.copytree("data", "other_data")
    moved("other", tmp_path / "data", tmp_path / "other_data")
    six = free("u6", "u10")[:2]
    assert command("--shared_data") == 0
    assert {"u2", "u9"}.isdisjoint(opened().dataset.ids.users)
    assert not set(six) & set(items_of("u6"))
    assert set(six) <= set(items_of("u10"))
    check_alike()
    capsys.readouterr()
    again = ["--request=fixed.csv", "--model=NegGrad"]
    assert cli.main(["correct", "--checkpoint=model", *again]) == 0
    assert "was carried out before; nothing to do" in capsys.readouterr().out
    later = f"u10,{six[0]},{1 if int(items_of('u10')[six[0]]) >= 4 else 4},"
    write(Path("second.csv"), OTHERS)
    for model in ("model", "other"):
        assert fix(later, model=model) == 0
        method = "NPO" if settings.get("control_users") == 0 else "NegatedE2URec"
        forget(QueueOptions(model, "second.csv"), method, QUICK)
    check_alike()
    ours, theirs = (ModelFolder(name).read().record for name in ("model", "other"))
    assert ours["files"]["weights.safetensors"] == theirs["files"]["weights.safetensors"]
    for number in (2, 3):
        one, other = ours["requests"][number], theirs["requests"][number]
        assert one["drift"] == other["drift"]
        for key in ("asked", "measures", "method"):
            assert one["evidence"][key] == other["evidence"][key]
    assert "nothing failed" in verified(capsys)
    assert command("--shared_data") == 0
    check_alike()
    assert "the data have the right values" in verified(capsys)


def test_only_the_cells_that_were_wrong_change(here: Path, capsys):
    old = INTER.read_text().splitlines()
    item, *_ = items_of("u6")
    rating = "1" if int(items_of("u6")[item]) >= 4 else "4"
    assert fix(f"u6,{item},{rating},u10") == 0
    assert command("--shared_data", "--dry_run") == 0
    would = capsys.readouterr().out.splitlines()[-1]
    assert INTER.read_text().splitlines() == old
    assert command("--shared_data") == 0
    (told,) = capsys.readouterr().out.splitlines()
    assert told == would.replace("would correct", "corrected")
    assert told == f"corrected lines: 1 of small.inter ({DATA.resolve()})"
    cells = [line.split("\t") for line in old]
    (place,) = [n for n, row in enumerate(cells) if row[:2] == ["u6", item]]
    cells[place][0], cells[place][2] = "u10", rating
    assert INTER.read_text().splitlines() == ["\t".join(row) for row in cells]
    assert "corrections" not in opened().tensors
    (path,) = certificates()
    certificate = json.loads(path.read_text())
    assert certificate["erased"]["files"]["small.inter"]["corrected"] == 1
    assert "1 line of small.inter was corrected in the data" in str(certificate["in_words"])
    assert "still have the old values" not in str(certificate["in_words"])
    page = path.with_suffix(".html").read_text()
    assert "What was erased from the data files, or corrected there" in page
    assert "nothing failed" in verified(capsys)
    assert command() == 0
    assert "nothing to erase" in capsys.readouterr().out


def test_a_left_out_line_does_not_bring_a_moved_row_back(tmp_path: Path):
    make(tmp_path, filtered, rm_dup_inter="first")
    item = next(item for item in items_of("u1"))
    lines = INTER.read_text().splitlines()
    assert sum(line.startswith(f"u1\t{item}\t") for line in lines) == 2
    assert fix(f"u1,{item},,u10") == 0
    assert command("--shared_data") == 0
    assert item not in items_of("u1")
    assert item in items_of("u10")


def test_labels_are_corrected_in_the_files(tmp_path: Path):
    def labelled(data: Path) -> None:
        head, *rows = [line.split("\t") for line in (data / "small.inter").read_text().split("\n")]
        rows = [[*row[:2], str(int(row[2] > "3")), row[3]] for row in rows if len(row) > 1]
        table = [[*head[:2], "label:float", head[3]], *rows]
        write(data / "small.inter", "\n".join("\t".join(cells) for cells in table))

    make(tmp_path, labelled)
    item, label = next(iter(items_of("u6").items()))
    right = str(1 - int(label))
    write(Path("fix.csv"), f"user_id,item_id,new_label\nu6,{item},{right}\n")
    assert cli.main(["correct", "--checkpoint=model", "--request=fix.csv", "--model=NegGrad"]) == 0
    assert command("--shared_data") == 0
    assert items_of("u6")[item] == right
    before = state("data", "model")
    assert cli.main(["correct", "--checkpoint=model", "--request=fix.csv", "--model=NegGrad"]) == 0
    assert state("data", "model") == before
    run = opened()
    row = np.flatnonzero(run.dataset.rows.user == run.dataset.ids.users["u6"])[0]
    assert run.dataset.rows.label[row] == int(right)


def check_alike() -> None:
    """Users who stay get the same answers, bit for bit, from ``model`` and from ``other``."""
    ours, theirs = opened("model"), opened("other")
    kept = np.setdiff1d(np.arange(len(theirs.dataset.rows)), theirs.forgotten)
    rows = np.setdiff1d(np.arange(len(ours.dataset.rows)), ours.forgotten)
    answers = ours.yes(rows, ours.history(ours.forgotten))
    assert torch.equal(answers, theirs.yes(kept, theirs.history(theirs.forgotten)))
    for one, other in zip(ours.parts.splits, theirs.parts.splits, strict=True):
        assert np.array_equal(kept[np.searchsorted(rows, one[np.isin(one, rows)])],
                              other[np.isin(other, kept)])  # fmt: skip
    mine, their = load_recommender("model"), load_recommender("other")
    for user in [user for user in ours.dataset.ids.users if user not in ("u5", "u7")][:4]:
        best = [each for each in their.recommend(user, 99) if each.item in ours.dataset.ids.items]
        assert mine.recommend(user, 99) == best


def test_lines_of_which_nothing_is_left_go_and_no_others(here: Path, capsys):
    old = {path.name: path.read_text().splitlines() for path in DATA.glob("small.*")}
    INTER.chmod(0o640)
    assert request() == 0
    assert command("--shared_data", "--dry_run") == 0
    would = capsys.readouterr().out.splitlines()[-1]
    assert {path.name: path.read_text().splitlines() for path in DATA.glob("small.*")} == old
    assert command("--shared_data") == 0
    (told,) = capsys.readouterr().out.splitlines()
    assert told == would.replace("would erase", "erased")
    assert "lines: 26 of small.inter, 2 of small.user, 1 of small.item" in told
    for name, column in (("small.inter", 0), ("small.user", 0)):
        wanted = [line for line in old[name] if line.split("\t")[column] not in (CANARY, "u2")]
        assert (DATA / name).read_text().splitlines() == wanted
    assert (DATA / "small.item").read_text().splitlines() == old["small.item"][:-1]
    assert sorted(path.name for path in DATA.iterdir()) == [".e2urec-folders", *sorted(old)]
    assert INTER.stat().st_mode & 0o777 == 0o640
    assert command() == 0
    assert "nothing to erase" in capsys.readouterr().out


@pytest.mark.parametrize("later", [False, True])
def test_no_byte_of_a_forgotten_user_is_left(later, here: Path, capsys):
    old = state("data", "model", "saved")
    if later:
        assert request("--purge") == 0
        assert command() == 0
    else:
        assert request("--erase_data", "--purge") == 0
    Path("r.csv").unlink()
    marks = [CANARY.encode(), b"lonely", LONELY.encode()]
    assert all(any(mark in data for data in old.values()) for mark in marks)
    for path in [path for path in here.rglob("*") if path.is_file()]:
        assert not any(mark in path.read_bytes() for mark in marks), path
    assert not [path for path in here.rglob("*") if CANARY in path.name]
    printed = capsys.readouterr()
    assert not any(mark.decode() in printed.out + printed.err for mark in marks)
    (path,) = certificates()
    certificate = json.loads(path.read_text())
    assert certificate["erased"]["files"]["small.inter"] == {
        "lines": 26, "sha256": hashlib.sha256(INTER.read_bytes()).hexdigest()
    }  # fmt: skip
    assert [len(certificate["identifiers"][kind]) for kind in ("users", "items")] == [2, 0]
    salt = certificate["identifiers"]["salt"]
    assert certificate["erased"]["items"] == [salted(salt, "item", "lonely")]
    assert "26 lines of small.inter were erased" in str(certificate["in_words"]["found"])
    assert "What was erased from the data files" in path.with_suffix(".html").read_text()
    assert "nothing failed" in verified(capsys)


def test_the_same_request_again_is_known_although_the_data_lack_its_users(here: Path, capsys):
    assert request("--erase_data", "--purge") == 0
    before = state("data", "model")
    assert request("--erase_data", "--purge") == 0
    assert request("--dry_run") == 0
    assert capsys.readouterr().out.count("was carried out before; nothing to do") == 2
    assert state("data", "model") == before
    assert request(users=[CANARY]) == 2
    assert "name users that the data does not have" in capsys.readouterr().err


def test_a_new_training_and_a_new_folder_go_on_from_what_is_left(here: Path, capsys):
    assert request("--erase_data", "--purge") == 0
    settings = {**in_use.SETTINGS, **WITH_CONTROL, "data_path": str(here / "data"), "epochs": 1}
    run_recbole_e2urec("LLMRec", "small", config_dict={**settings, "eval_step": 1})
    export(ExportOptions("second"), "LLMRec", in_use.RunSettings())
    ours = opened("second").dataset
    assert len(ours.rows) == len(opened().dataset.rows)
    assert ours.rows.highest_rating == 4
    assert opened().dataset.rows.highest_rating == 5  # as its prompts always said
    assert (DATA / ".e2urec-folders").read_text().splitlines()[1:] == [str(here / "second")]


def test_erased_users_who_come_back_are_found(here: Path, capsys):
    assert request("--erase_data", "--purge") == 0
    with INTER.open("a") as file:
        file.write(f"{CANARY}\ti1\t3\t1600000000\n")
    assert cli.main(["recommend", "--checkpoint=model", "--user=u5"]) == 2
    assert "are not those that the model was made with" in capsys.readouterr().err


# --- Who else uses the files


def refused(capsys: Any, *argv: str) -> str:
    """Erasing is refused in one line, and changes nothing."""
    capsys.readouterr()
    before = state("data", "model")
    assert command(*argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert state("data", "model") == before
    assert not Path("model/erasing").exists()
    return line


def test_other_folders_that_use_the_files_are_noticed(here: Path, capsys):
    assert request() == 0
    runs = str(here / "saved" / "small.e2urec-run")
    assert f"{runs} also use the files" in refused(capsys)
    assert cli.main(["purge", "--checkpoint=model"]) == 0
    shutil.copytree("model", "beside")
    shutil.copytree("model", "far/away")
    assert f"erase: {here / 'beside'} also use" in refused(capsys)
    shutil.rmtree("beside")
    with (DATA / ".e2urec-folders").open("a") as file:
        file.write(f"{here / 'far' / 'away'}\n{here / 'gone'}\n")
    assert f"erase: {here / 'far' / 'away'} also use" in refused(capsys)
    assert command("--shared_data") == 0
    with pytest.raises(InputError, match="not those that the model was made with"):
        opened("far/away")


def test_a_request_is_refused_before_it_begins(here: Path, capsys):
    before = state("data", "model")
    assert request("--erase_data") == 2
    assert "also use the files" in capsys.readouterr().err
    assert request("--erase_data", "--dry_run") == 2
    Path("elsewhere").mkdir()
    assert request("--erase_data", "--purge", "--checkpoint_dir=elsewhere") == 2
    assert "also use the files" in capsys.readouterr().err
    assert request("--erase_data", "--purge", "--checkpoint_dir=saved", "--dry_run") == 0
    assert command("--shared_data", "--dry_run") == 0
    assert "nothing to erase" in capsys.readouterr().out
    assert request("--shared_data") == 2
    assert "write --erase_data as well" in capsys.readouterr().err
    assert state("data", "model") == before


# --- Files that may or can not be rewritten


def link(path: Path) -> None:
    path.rename("elsewhere")
    path.symlink_to(Path("elsewhere").resolve())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: link(INTER), "small.inter is a link; name the folder"),
        (lambda: os.link(DATA / "small.user", "again"), "small.user has another name"),
        (lambda: (DATA / "small.item").chmod(0o444), "small.item is read-only"),
    ],
)
def test_what_may_not_be_rewritten_is_refused(change, message, here: Path, capsys):
    assert request() == 0
    change()
    assert message in refused(capsys, "--shared_data")


def test_the_data_that_come_with_recbole_are_refused(here: Path, capsys, monkeypatch):
    import recbole

    assert request() == 0
    monkeypatch.setattr(recbole, "__file__", str(here / "data" / "__init__.py"))
    line = refused(capsys, "--shared_data")
    assert "came with RecBole and is not yours; copy it" in line


def test_files_that_the_model_does_not_read_are_named(here: Path, capsys):
    write(DATA / "small.kg", "head")
    assert request() == 0
    assert command("--shared_data") == 0
    assert "look what they hold: small.kg" in capsys.readouterr().out
    assert (DATA / "small.kg").read_text() == "head"


def test_rows_that_are_not_lines_are_refused(here: Path, capsys, monkeypatch):
    from recbole_e2urec.deployment import erase as module

    assert request() == 0
    read = module._read

    def shifted(*given: Any) -> Any:
        table = read(*given)
        return table._replace(tokens={k: v[1:] + v[:1] for k, v in table.tokens.items()})

    monkeypatch.setattr(module, "_read", shifted)
    assert "so that its rows are not its lines" in refused(capsys, "--shared_data")


def test_prompts_that_would_change_are_refused(here: Path, capsys, monkeypatch):
    from recbole_e2urec.deployment import erase as module

    assert request() == 0
    monkeypatch.setattr(module, "_same_prompts", lambda *given: False)
    line = refused(capsys, "--shared_data")
    assert "other rows or prompts of users who stay; nothing is erased" in line


# --- Killed, or on a full disk


class Trial:
    """A folder whose model has forgotten, to be erased again and again."""

    def __init__(self, here: Path) -> None:
        assert fix(*corrections()[:5]) == 0
        assert request() == 0
        for name in ("data", "model"):
            shutil.copytree(name, f"spare/{name}")
        self.old = self.seen()
        self.steps = FORK.Value("i", 0)
        assert in_child(self._counting) == 0
        self.new = self.seen()
        assert self.old != self.new

    def seen(self) -> tuple[Any, ...]:
        """Data and model as any command finds them."""
        run = opened()
        names = sorted(path.name for path in Path("model").iterdir())
        assert names == [".lock", "certificates", "current.json", "generations"]
        assert {path.name for path in DATA.iterdir()} == {
            ".e2urec-folders", "small.inter", "small.item", "small.user"
        }  # fmt: skip
        return state("data"), run.record["fingerprint"], len(run.forgotten)

    def again(self) -> None:
        """Go back to before."""
        for name in ("data", "model"):
            shutil.rmtree(name)
            shutil.copytree(f"spare/{name}", name)

    def _steps(self, do: Callable[[], None]) -> None:
        def counted(function: Any) -> Any:
            def call(*given: Any, **more: Any) -> Any:
                do()
                return function(*given, **more)

            return call

        for module, name in STEPS:
            setattr(module, name, counted(getattr(module, name)))
        erase(EraseOptions("model", shared_data=True), {})

    def _counting(self) -> None:
        def count() -> None:
            self.steps.value += 1

        self._steps(count)

    def killed_before(self, step: int) -> bool:
        """Say whether the new state is found after a kill before the n-th step."""
        self.again()
        left = step

        def kill() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(lambda: self._steps(kill)) == -signal.SIGKILL
        return self.is_new()

    def is_new(self) -> bool:
        """Any command finds the old state or the new one, and erasing comes to its end."""
        found = self.seen()
        assert found in (self.old, self.new)
        erase(EraseOptions("model", shared_data=True), {})
        assert self.seen() == self.new
        for path in certificates():
            assert "erased" in json.loads(path.read_text())
            assert "What was erased" in path.with_suffix(".html").read_text()
        return bool(found == self.new)


def test_killed_at_some_steps(here: Path):
    trial = Trial(here)
    count = trial.steps.value
    drawn = sorted(random.Random(5).sample(range(1, count + 1), 5))
    states = [trial.killed_before(step) for step in drawn]
    assert states == sorted(states)


@pytest.mark.thorough
def test_killed_at_every_step(here: Path, capsys):
    trial = Trial(here)
    states = [trial.killed_before(step) for step in range(1, trial.steps.value + 1)]
    assert states == sorted(states)
    assert set(states) == {False, True}
    assert "nothing failed" in verified(capsys)


@pytest.mark.thorough
@pytest.mark.parametrize("every", [1, 9])
def test_a_full_disk_is_one_line_and_the_next_command_goes_on(every, here: Path, capsys):
    trial, states, steps = Trial(here), [], 0
    while True:
        trial.again()
        capsys.readouterr()
        with room_for(steps) as tried:
            code = command("--shared_data")
        if len(tried) <= steps:
            assert code == 0
            break
        assert code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert "No space left on device" in line
        states.append(trial.is_new())
        steps += every
    assert states == sorted(states)
    assert set(states) == {False, True}


def test_a_file_that_was_changed_meanwhile_is_left_as_it_is(here: Path, monkeypatch, capsys):
    assert request() == 0
    decide = ModelFolder.decide_erasure

    def changed(*given: Any) -> None:
        with INTER.open("a") as file:
            file.write("u5\ti1\t3\t1600000000\n")
        decide(*given)

    monkeypatch.setattr(ModelFolder, "decide_erasure", changed)
    assert command("--shared_data") == 2
    assert "was changed meanwhile; nothing was erased" in capsys.readouterr().err
    assert INTER.read_text().endswith("u5\ti1\t3\t1600000000\n")
    assert CANARY in INTER.read_text()
    assert not Path("model/erasing").exists()


@pytest.mark.parametrize("after", ["erase_forgotten", "purge_after_request"])
def test_a_request_that_ends_early_is_completed_by_the_same_command(
    after, here: Path, monkeypatch, capsys
):
    from recbole_e2urec.deployment import forget as module

    def interrupted(*given: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, after, interrupted)
        assert request("--erase_data", "--purge") == 130
    assert request("--erase_data", "--purge") == 0
    assert CANARY not in INTER.read_text()
    assert not Path("saved/small.e2urec-run").exists()
    assert len(opened().record["requests"]) == 1
    certificate = json.loads(certificates()[0].read_text())
    assert certificate["erased"]
    assert certificate["purged"]["removed"]
    assert "nothing failed" in verified(capsys)


def resealed(change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the remainder in ``model``, and write all hashes anew, as an attacker would."""
    pointer = json.loads(Path("model/current.json").read_text())
    folder = Path("model/generations", pointer["generation"])
    tensors = load_file(folder / "remainder.safetensors")
    change(tensors)
    save_file(tensors, folder / "remainder.safetensors")
    record = json.loads((folder / "model.json").read_text())
    digest = hashlib.sha256((folder / "remainder.safetensors").read_bytes()).hexdigest()
    record["files"]["remainder.safetensors"] = digest
    write(folder / "model.json", json.dumps(record))
    pointer["sha256"] = hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    write(Path("model/current.json"), json.dumps(pointer))


@pytest.mark.thorough
def test_a_remainder_that_does_not_fit_is_one_line(here: Path):
    assert request("--erase_data", "--purge") == 0
    shutil.copytree("model", "whole")
    names = list(load_file(next(Path("model").rglob("remainder.safetensors"))))
    odd = [torch.tensor([-1]), torch.tensor([9999]), torch.tensor([0.5]), torch.zeros(2, 2),
           torch.empty(0, dtype=torch.int64), torch.tensor(3), None]  # fmt: skip
    for name in names:
        for value in odd:
            shutil.rmtree("model")
            shutil.copytree("whole", "model")
            new = {} if value is None else {name: value}
            resealed(lambda all_, name=name, new=new: (all_.pop(name), all_.update(new)))
            with suppress(InputError):
                opened()


def test_a_journal_that_leads_elsewhere_is_refused(here: Path):
    Path("model/erasing").mkdir()
    Path("precious").mkdir()
    for staged in (str(here / "precious"), "", str(here / "precious/x.e2urec-erasing/../..")):
        write(Path("model/erasing/journal.json"), json.dumps({"staged": staged, "files": {}}))
        with pytest.raises(InputError, match="it names no folder of an erasure"):
            opened()
    write(Path("secret"), "x")
    Path("d/a.e2urec-erasing/small").mkdir(parents=True)
    staged = str(here / "d/a.e2urec-erasing/small")
    journal = {"staged": staged, "files": {"../../secret": ["", ""]}}
    write(Path("model/erasing/journal.json"), json.dumps(journal))
    with pytest.raises(InputError, match="it names a file elsewhere"):
        opened()
    assert Path("precious").exists()
    assert Path("secret").exists()
