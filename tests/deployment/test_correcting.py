"""``recbole-e2urec correct``: rows with another rating, label or user, on a model in use."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import write
from in_use import WITH_CONTROL, forget_users, make_model, opened
from test_erasing import make
from test_kills import in_child
from test_queue import tree

from recbole_e2urec import cli
from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.deployment import correct as correcting
from recbole_e2urec.deployment import forget as forgetting
from recbole_e2urec.deployment.certificate import salted
from recbole_e2urec.deployment.correct import CorrectOptions, correct
from recbole_e2urec.deployment.evidence import Reference
from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.deployment.served_model import ServedModel
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import Experiment
from recbole_e2urec.methods import METHODS
from recbole_e2urec.trainer.llmrec_trainer import LLMRecTrainer

pytestmark = pytest.mark.usefixtures("short_relearning", "in_use")
METHOD = "NegGrad"  # needs no control users
# TokenReset forgets users who leave as a whole.
ON_FOLDERS = [
    name for name, kind in METHODS.items() if kind.has_only_original and name != "TokenReset"
]
QUICK = {"show_progress": False, "joint_epochs": 1}


def rows_of(run: ServedModel, user: str, part: str = "train") -> list[int]:
    rows = getattr(run.parts.splits, part)
    return rows[run.dataset.rows.user[rows] == run.dataset.ids.users[user]].tolist()


def item_of(run: ServedModel, row: int) -> str:
    items = {inner: token for token, inner in run.dataset.ids.items.items()}
    return items[int(run.dataset.rows.item[row])]


def flipped(run: ServedModel, row: int) -> int:
    """A rating on the other side of the threshold, 4."""
    return 1 if run.dataset.rows.rating[row] >= 4 else 5


def lines_for(run: ServedModel, user: str, rows: Sequence[int]) -> list[str]:
    """Lines that turn what a user likes into what the user does not, and the reverse."""
    return [f"{user},{item_of(run, row)},{flipped(run, row)}" for row in rows]


def given(lines: Sequence[str], header: str = "user_id,item_id,new_rating") -> str:
    return write(Path("fix.csv"), "\n".join([header, *lines]) + "\n")


def corrected(file: str, model: str | None = METHOD, **settings: Any) -> str:
    return correct(CorrectOptions("model", file), model, {**QUICK, **settings})


def verified(capsys: Any) -> list[str]:
    """What verify says of all certificates, none of which fails."""
    capsys.readouterr()
    paths = sorted(Path("model/certificates").glob("*.json"))
    assert [cli.main(["verify", str(path)]) for path in paths] == [0] * len(paths)
    return capsys.readouterr().out.splitlines()


def loss_of(run: ServedModel, rows: Sequence[int]) -> float:
    return run.loss(np.array(rows), run.history(run.forgotten))


def test_a_new_rating_reaches_labels_histories_training_and_the_model(capsys):
    run = opened()
    rows = rows_of(run, "u1")
    file = given(lines_for(run, "u1", rows))
    told = corrected(file)
    assert "corrected 10 rows: another label in 10, another user in 0" in told
    after = opened()
    table, before = after.dataset.rows, run.dataset.rows
    assert (table.label[rows] == 1 - before.label[rows]).all()
    assert table.rating[rows].tolist() == [flipped(run, row) for row in rows]
    others = np.setdiff1d(np.arange(len(before)), rows)
    assert (table.label[others] == before.label[others]).all()
    assert (after.dataset.file_rows.label == before.label).all()
    train = after.dataset.take(np.array(rows)).inter_feat
    assert (train[after.dataset.label_field].numpy() == table.label[rows]).all()
    assert after.live.tolist() == run.live.tolist()
    entry = after.record["requests"][0]
    assert entry["kind"] == "correction"
    measures = entry["evidence"]["measures"]
    learned = [measures[side]["learned"]["loss"] for side in ("before", "after")]
    assert learned[1] < learned[0] - 0.1
    assert loss_of(after, rows) == pytest.approx(learned[1], abs=1e-4)
    assert entry["forget_loss"][1] > entry["forget_loss"][0]
    lines = verified(capsys)
    assert any("loss of corrected answers after" in line for line in lines)


def test_new_answers_are_learned_no_further_than_the_training_went(monkeypatch):
    """Further steps in its direction would reach a loss that it did not, at others' cost."""
    known = correcting.known_loss
    monkeypatch.setattr(correcting, "known_loss", lambda *task: known(*task)._replace(loss=1e-6))
    run = opened()
    corrected(given(lines_for(run, "u1", rows_of(run, "u1"))))
    assert opened().record["requests"][0]["evidence"]["method"]["found"]["learned_scale"] == 1


def test_prompts_show_the_corrected_rating():
    run = opened()
    row = rows_of(run, "u1")[0]
    shown = np.flatnonzero((run.history(run.forgotten) == row).any(axis=1))
    corrected(given(lines_for(run, "u1", [row])))
    texts = [
        [each.model.table.with_history(each.history(each.forgotten)).text(int(r)) for r in shown]
        for each in (run, opened())
    ]
    assert all(old != new for old, new in zip(*texts, strict=True))
    assert load_recommender("model").recommend("u1", 3)


def test_another_rating_of_the_same_label_changes_no_weight(in_use: Path):
    run = opened()
    row = next(row for row in rows_of(run, "u1") if run.dataset.rows.rating[row] == 5)
    told = corrected(given([f"u1,{item_of(run, row)},4"]))
    assert "another label in 0" in told
    after = opened()
    weights = "weights.safetensors"
    assert after.record["files"][weights] == run.record["files"][weights]
    assert after.dataset.rows.rating[row] == 4


def test_rows_outside_of_training_change_the_data_alone(capsys):
    run = opened()
    row = rows_of(run, "u1", "test")[0]
    told = corrected(given(lines_for(run, "u1", [row])))
    assert "of 0 training rows the old answer is forgotten, of 0 the new one learned" in told
    after = opened()
    assert after.dataset.rows.label[row] != run.dataset.rows.label[row]
    assert after.drift() == pytest.approx(0, abs=1e-9)
    verified(capsys)


def test_a_moved_row_is_its_right_users(capsys):
    run = opened()
    moved = rows_of(run, "u1")[:2]
    lines = [f"u1,{item_of(run, row)},u2" for row in moved]
    told = corrected(given(lines, "user_id,item_id,new_user_id"))
    assert "another user in 2" in told
    after = opened()
    assert set(moved) < set(rows_of(after, "u2"))
    assert not set(moved) & set(rows_of(after, "u1"))
    assert not np.isin(after.history(after.forgotten)[rows_of(after, "u1")], moved).any()
    users = after.dataset.ids.users
    assert not np.isin(after.dataset.rows.user[after.sample.rows], [users["u1"], users["u2"]]).any()
    said = json.loads(next(Path("model/certificates").glob("*.json")).read_text())
    hashes, salt = said["identifiers"]["rows"], said["identifiers"]["salt"]
    item = item_of(run, moved[0])
    assert {salted(salt, "row", user, item) for user in ("u1", "u2")} < set(hashes)
    verified(capsys)
    forget_users("u2", model=METHOD)
    assert set(moved) < set(opened().forgotten.tolist())
    forget_users("u1", model=METHOD)
    assert not set(moved) & set(rows_of(opened(), "u1"))
    verified(capsys)


def test_a_later_deletion_of_the_wrong_user_leaves_a_moved_row():
    run = opened()
    (row,) = rows_of(run, "u1")[:1]
    corrected(given([f"u1,{item_of(run, row)},u2"], "user_id,item_id,new_user_id"))
    forget_users("u1", model=METHOD)
    after = opened()
    assert row in after.live
    assert after.gone.tolist() == [after.dataset.ids.users["u1"]]


def test_the_second_time_nothing_is_done_however_the_file_is_written(in_use: Path):
    run = opened()
    rows = rows_of(run, "u1")[:2]
    file = given(lines_for(run, "u1", rows))
    assert "is carried out" in corrected(file)
    before = tree(in_use)
    assert corrected(file).endswith("was carried out before; nothing to do")
    objects = [
        {"new_rating": flipped(run, row), "item_id": item_of(run, row), "user_id": "u1"}
        for row in reversed(rows)
    ]
    again = write(Path("fix.jsonl"), "\n".join(map(json.dumps, objects)))
    assert corrected(again).endswith("was carried out before; nothing to do")
    assert corrected(again, dry_run=True).endswith("was carried out before; nothing to do")
    assert tree(in_use) == before


def test_moved_rows_stay_moved_when_the_same_file_is_given_again(in_use: Path, capsys):
    run = opened()
    first, second = rows_of(run, "u1"), rows_of(run, "u2")
    shared = np.intersect1d(*(run.dataset.rows.item[rows] for rows in (first, second)))[0]
    mine, theirs = (
        next(row for row in rows if run.dataset.rows.item[row] == shared)
        for rows in (first, second)
    )
    item, alone = item_of(run, mine), next(row for row in first if row != mine)
    lines = [f"u1,{item},u2", f"u2,{item},u1", f"u1,{item_of(run, alone)},u3"]
    file = given(lines, "user_id,item_id,new_user_id")
    corrected(file)
    before = tree(in_use)
    for dry_run in (False, True):
        assert corrected(file, dry_run=dry_run).endswith("carried out before; nothing to do")
    assert tree(in_use) == before
    assert opened().dataset.rows.user[mine] == run.dataset.ids.users["u2"]
    assert opened().dataset.rows.user[theirs] == run.dataset.ids.users["u1"]
    forget_users("u1", "u2", model=METHOD)
    assert corrected(file).endswith("carried out before; nothing to do")
    verified(capsys)


def test_what_is_corrected_is_done_when_it_is_given_again_after_a_deletion():
    run = opened()
    file = given(lines_for(run, "u1", rows_of(run, "u1")))
    corrected(file)
    forget_users("u1", model=METHOD)
    assert corrected(file).endswith("carried out before; nothing to do")


def test_a_row_may_be_corrected_back_and_forth():
    run = opened()
    row = rows_of(run, "u1")[0]
    old, new = int(run.dataset.rows.rating[row]), flipped(run, row)
    for count, rating in enumerate((new, old, new), start=1):
        file = given([f"u1,{item_of(run, row)},{rating}"])
        assert f"the {count}. of this model" in corrected(file)
        assert opened().dataset.rows.rating[row] == rating
        assert "was carried out before" in corrected(file)
    assert len({entry["digest"] for entry in opened().record["requests"]}) == 3


def test_a_deletion_stays_done_after_a_correction():
    run = opened()
    forget_users("u1", model=METHOD, request_id="A-1")
    row = rows_of(run, "u2")[0]
    corrected(given([f"u2,{item_of(run, row)},u3"], "user_id,item_id,new_user_id"))
    assert "request A-1 was carried out before" in forget_users("u1", request_id="A-1")


def test_a_dry_run_writes_nothing(in_use: Path):
    run = opened()
    rows = rows_of(run, "u1")
    before = tree(in_use)
    told = corrected(given(lines_for(run, "u1", rows)), dry_run=True)
    assert "would correct 10 rows" in told
    assert told.endswith("dry run: nothing was trained, nothing was written")
    assert tree(in_use) == before


@pytest.mark.parametrize(
    ("line", "header", "message"),
    [
        ("u1,i99,1", "new_rating", "line 2: the data have no such row"),
        ("secret,ITEM,1", "new_rating", "line 2: the data have no such row"),
        ("u1,ITEM,high", "new_rating", "line 2: new_rating is no number"),
        ("u1,ITEM,nan", "new_rating", "line 2: new_rating is no number"),
        ("u1,ITEM,50", "new_rating", "line 2: new_rating is not between 1 and 5"),
        ("u1,ITEM,SAME", "new_rating", "line 2: the data say so already"),
        ("u1,ITEM,", "new_rating", "line 2: nothing new"),
        ("u1,ITEM,1", "rating", "columns do not fit a correction; give user_id, item_id"),
        ("u1,ITEM,1", "new_label", "line 2: labels follow from rating here"),
        ("u1,ITEM,2", "new_label", "line 2: new_label is neither 0 nor 1"),
        ("u1,ITEM,secret", "new_user_id", "nothing is known about the user in new_user_id"),
        ("u1,ITEM,u7", "new_user_id", "nothing is known about the user in new_user_id"),
        ("u1,ITEM,u1", "new_user_id", "line 2: the data say so already"),
        ("u1,ITEM,NEW\nu1,ITEM,SAME", "new_rating", "lines 2 and 3: the same row"),
        ("u7,SEVEN,1", "new_rating", "line 2: the row was forgotten"),
        ("u1,ITEM,NEW,12", "new_rating,timestamp", "line 2: the data have no such row"),
        (",ITEM,1", "new_rating", "line 2: the user is empty"),
    ],
)
def test_what_cannot_be_corrected_is_one_line(line, header, message, in_use: Path, capsys):
    forget_users("u7", model=METHOD)
    run = opened()
    row = rows_of(run, "u1")[0]
    seven = np.flatnonzero(run.dataset.rows.user == run.dataset.ids.users["u7"])[0]
    for word, value in (
        ("ITEM", item_of(run, row)),
        ("SAME", int(run.dataset.rows.rating[row])),
        ("NEW", flipped(run, row)),
        ("SEVEN", item_of(run, seven)),
    ):
        line = line.replace(word, str(value))
    file = given([line], f"user_id,item_id,{header}")
    before = tree(in_use)
    assert cli.main(["correct", "--checkpoint=model", f"--request={file}"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said
    assert "secret" not in said
    assert tree(in_use) == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "correct: in which model? write --checkpoint=DIR"),
        (["--checkpoint=model"], "correct: what? write --request=FILE"),
        (["--checkpoint=model", "--request=no.csv"], "no.csv"),
        (["--checkpoint=model", "--request=r.csv", "--model=SISA"], "forgets by one of"),
        (["--checkpoint=model", "--request=r.csv", "--forget_where=x"], "forget_where means"),
        (["--checkpoint=model", "--request=r.csv", "--noise_floor"], "add --with_retrain"),
        (["--checkpoint=model", "--request=u1.csv", "--model=TokenReset"], "TokenReset: other"),
    ],
)
def test_a_command_that_cannot_work_is_one_line(argv, message, capsys):
    write(Path("r.csv"), "user_id,item_id,new_rating\nu1,i1,1\n")
    run = opened()
    lines = lines_for(run, "u1", rows_of(run, "u1")[:1])
    write(Path("u1.csv"), "\n".join(["user_id,item_id,new_rating", *lines]) + "\n")
    assert cli.main(["correct", *argv]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said


def test_a_file_of_corrections_forgets_nothing(in_use: Path):
    file = given(["u1,i1,1"])
    before = tree(in_use)
    with pytest.raises(InputError, match="give the file to recbole-e2urec correct"):
        forget(QueueOptions("model", file), METHOD, QUICK)
    assert tree(in_use) == before


def test_a_moved_row_that_is_given_again_is_known():
    run = opened()
    row = rows_of(run, "u1")[0]
    file = given([f"u1,{item_of(run, row)},u2"], "user_id,item_id,new_user_id")
    shutil.copytree("model", "spare")
    assert "is carried out" in corrected(file)
    assert corrected(file).endswith("was carried out before; nothing to do")
    assert corrected(file, dry_run=True).endswith("was carried out before; nothing to do")
    other = given([f"u1,{item_of(run, row)},u3"], "user_id,item_id,new_user_id")
    with pytest.raises(InputError, match="the data have no such row"):
        corrected(other)
    shutil.rmtree("model")
    shutil.move("spare", "model")
    file = given([f"u1,{item_of(run, row)},u2"], "user_id,item_id,new_user_id")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            corrected(file)
    told = corrected(file)
    assert "corrected 1 rows" in told
    assert told.endswith("was carried out before; nothing to do")


def test_moved_rows_of_which_one_was_moved_back_are_not_taken_for_done():
    run = opened()
    lines = [f"u1,{item_of(run, row)},u2" for row in rows_of(run, "u1")[:2]]
    corrected(given(lines, "user_id,item_id,new_user_id"))
    back = f"u2,{item_of(run, rows_of(run, 'u1')[0])},u1"
    corrected(given([back], "user_id,item_id,new_user_id"))
    with pytest.raises(InputError, match="line 3: the data have no such row"):
        corrected(given(lines, "user_id,item_id,new_user_id"))


DUE = {"retrain_when_due": True, "drift_budget": 1e-9}


def counted_epochs(monkeypatch: Any) -> list[int]:
    """A list that grows by one with every epoch of a training."""
    epochs: list[int] = []
    once = LLMRecTrainer._train_epoch

    def counted(self: Any, *given: Any, **more: Any) -> Any:
        epochs.append(1)
        return once(self, *given, **more)

    monkeypatch.setattr(LLMRecTrainer, "_train_epoch", counted)
    return epochs


def test_a_new_training_that_is_killed_goes_on_with_the_same_corrections(monkeypatch):
    run = opened()
    file = given(lines_for(run, "u1", rows_of(run, "u1")))
    epochs, train = counted_epochs(monkeypatch), Reference.train

    def killed_at_its_end(*given: Any) -> None:
        train(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reference, "train", killed_at_its_end)
        with pytest.raises(KeyboardInterrupt):
            correct(CorrectOptions("model", file, **DUE), METHOD, QUICK)
    told = correct(CorrectOptions("model", file, **DUE), METHOD, QUICK)
    assert "was carried out before" in told
    assert told.endswith("drift begins at 0")
    assert len(epochs) == 40  # SETTINGS has as many
    assert len(opened().record["trainings"]) == 1
    assert not Path("model/work").exists()
    assert corrected(file).endswith("nothing to do")


def test_a_retrain_that_measured_a_correction_is_not_trained_again(monkeypatch):
    run = opened()
    file = given(lines_for(run, "u1", rows_of(run, "u1")))
    epochs = counted_epochs(monkeypatch)
    told = correct(CorrectOptions("model", file, **DUE, with_retrain=True), METHOD, QUICK)
    assert told.endswith("drift begins at 0")
    assert len(epochs) == 40


def interrupted(*given: Any) -> None:
    raise KeyboardInterrupt


def test_another_request_reports_a_killed_one_by_its_kind(monkeypatch):
    run = opened()
    file = given(lines_for(run, "u1", rows_of(run, "u1")))
    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            corrected(file)
    first, *others = forget_users("u2", model=METHOD).splitlines()
    assert "corrected 10 rows: another label in 10" in first
    assert others[1].startswith("loss of the old answers: ")
    assert others[2].startswith("loss of the new answers: ")
    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            forget_users("u5", model=METHOD)
    first, *others = corrected(given(lines_for(run, "u3", rows_of(run, "u3")))).splitlines()
    assert "10 training rows of 12 rows asked for" in first
    assert others[1].startswith("their loss: ")


def killed_in(module: Any, name: str, file: str) -> None:
    """Correct until a function is called; run this in a process of its own."""
    setattr(module, name, lambda *given, **more: os.kill(os.getpid(), signal.SIGKILL))
    corrected(file)


def test_killed_in_between_a_correction_is_done_once(in_use: Path):
    run = opened()
    moved, *rows = rows_of(run, "u1")
    lines = [f"{line}," for line in lines_for(run, "u1", rows)]
    lines.append(f"u1,{item_of(run, moved)},,u2")
    file = given(lines, "user_id,item_id,new_rating,new_user_id")
    shutil.copytree("model", "spare")
    corrected(file)
    wanted = ModelFolder("model").read().record["files"]
    done = []
    places = [(correcting, name) for name in ("learn", "merge", "measure_last")]
    for module, name in (*places, (forgetting, "certify")):
        shutil.rmtree("model")
        shutil.copytree("spare", "model")
        body = partial(killed_in, module, name, file)
        assert in_child(body) == -signal.SIGKILL
        done.append(len(ModelFolder("model").read().record["requests"]))
        assert ("was carried out before" in corrected(file)) == bool(done[-1])
        assert "was carried out before" in corrected(file)
        record = ModelFolder("model").read().record
        assert (record["files"], len(record["requests"])) == (wanted, 1)
        assert not Path("model/work").exists()
        assert len(list(Path("model/certificates").iterdir())) == 2
    assert done == [0, 0, 1, 1]


def test_the_certificate_says_what_was_corrected_and_names_nobody():
    run = opened()
    row, moved = rows_of(run, "u1")[:2]
    objects = [
        {"user_id": "u1", "item_id": item_of(run, row), "new_rating": flipped(run, row)},
        {"user_id": "u1", "item_id": item_of(run, moved), "new_user_id": "u2"},
    ]
    file = write(Path("fix.jsonl"), "\n".join(map(json.dumps, objects)))
    corrected(file, request_id="C-1")
    said = json.loads(next(Path("model/certificates").glob("*.json")).read_text())
    page = next(Path("model/certificates").glob("*.html")).read_text()
    found = said["in_words"]["found"]
    assert found[0].startswith("2 rows were corrected: the answer of 1, the user of 1. The data")
    assert said["in_words"]["asked"][0].startswith("To correct 2 rows of the data, each about one")
    assert "learned the right ones to 2" in said["in_words"]["done"][0]
    assert "By the right answers it errs by" in said["in_words"]["sure"][0]
    assert "The data files still have the old values." in said["in_words"]["left"][0]
    assert "forgotten" not in " ".join(said["in_words"]["asked"] + said["in_words"]["sure"])
    assert found[1].startswith("NegGrad was to make the model forget the old answers of 2 training")
    assert found[2].startswith("Then it learned the new answers of 2 training rows. Their loss: ")
    assert said["kind"] == "correction"
    assert opened().record["format"] == 3  # which 0.9.0 refuses
    assert said["asked"]["corrected"] == {"labels": 1, "users": 1, "learned": 2}
    assert "Request C-1: what was corrected" in page
    assert "loss, corrected answers" in page
    record = json.dumps(ModelFolder("model").read().record["requests"])
    for text in (json.dumps(said), page, record):
        assert not any(f"{quote}{name}{quote}" in text for name in ("u1", "u2") for quote in "\"'>")


def test_the_model_is_nearer_to_a_retrain_on_the_corrected_data():
    run = opened()
    file = given(lines_for(run, "u1", rows_of(run, "u1")))
    options = CorrectOptions("model", file, with_retrain=True)
    told = correct(options, None, {"show_progress": False})
    retrain = opened().record["requests"][0]["evidence"]["retrain"]
    after = retrain["distances"]["after"]
    assert after["jsd"] < retrain["distances"]["before"]["jsd"]
    assert after["learned_residual"] < 0.8
    assert "under a Retrain on the corrected data (closed " in told


def labelled(data: Path) -> None:
    """The data say what is liked, and no rating; a row stands there twice, at two times."""
    head, *rows = [line.split("\t") for line in (data / "small.inter").read_text().splitlines()]
    rows = [[user, item, str(int(int(rating) > 3)), time] for user, item, rating, time in rows]
    rows.append([*next(row for row in rows if row[0] == "u1")[:3], "1600000001"])
    table = [[*head[:2], "label:float", head[3]], *rows]
    write(data / "small.inter", "".join("\t".join(cells) + "\n" for cells in table))


@pytest.mark.thorough
def test_labels_of_the_data_are_corrected_and_times_tell_rows_apart(tmp_path: Path, monkeypatch):
    folder = tmp_path / "labelled"
    make(folder, labelled)
    monkeypatch.chdir(folder)
    run = opened()
    table, (early,) = run.dataset.rows, np.flatnonzero(run.dataset.rows.time == 1600000001)
    item, label = item_of(run, early), int(1 - table.label[early])
    header = "user_id,item_id,new_label"
    with pytest.raises(InputError, match="add a column timestamp that tells them apart"):
        corrected(given([f"u1,{item},{label}"], header))
    with pytest.raises(InputError, match="the data have no column rating; give new_label"):
        corrected(given([f"u1,{item},3,1600000001"], "user_id,item_id,new_rating,timestamp"))
    assert "another label in 1" in corrected(
        given([f"u1,{item},{label},1600000001"], f"{header},timestamp")
    )
    after = opened().dataset.rows
    assert np.flatnonzero(after.label != table.label).tolist() == [early]


@pytest.mark.thorough
@pytest.mark.parametrize("method", ON_FOLDERS)
def test_every_method_of_a_folder_corrects(method, capsys):
    run = opened()
    rows = rows_of(run, "u1")
    lines = [f"u1,{item_of(run, row)},{flipped(run, row)}," for row in rows[:4]]
    lines.append(f"u1,{item_of(run, rows[5])},,u2")
    settings = {"show_progress": False}
    file = given(lines, "user_id,item_id,new_rating,new_user_id")
    correct(CorrectOptions("model", file), method, settings)
    assert opened().record["requests"][0]["training_rows"] == 5
    verified(capsys)


@pytest.mark.thorough
def test_rows_of_control_users_are_not_trained_on(tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path / "control"
    make_model(folder, tuning="lora", **WITH_CONTROL)
    monkeypatch.chdir(folder)
    run = opened()
    users = {inner: token for token, inner in run.dataset.ids.users.items()}
    control = users[int(run.dataset.rows.user[run.parts.control[0]])]
    trained = users[int(run.dataset.rows.user[run.live[0]])]
    to_control, to_trained = run.live[0], run.parts.control[0]
    lines = [
        f"{trained},{item_of(run, to_control)},{control}",
        f"{control},{item_of(run, to_trained)},{trained}",
    ]
    told = corrected(given(lines, "user_id,item_id,new_user_id"))
    assert "of 1 training rows the old answer is forgotten, of 1 the new one learned" in told
    after = opened()
    assert to_control not in after.live
    assert to_trained in after.live
    assert not np.isin([to_control, to_trained], after.parts.control).any()
    verified(capsys)


@pytest.mark.thorough
def test_retrains_data_are_those_of_corrected_files(tmp_path: Path, monkeypatch):
    folder = tmp_path / "retrained"
    monkeypatch.chdir(make_model(folder).parent)
    run = opened()
    rows = rows_of(run, "u1")
    corrected(given(lines_for(run, "u1", rows)))
    after = opened()
    lines = Path("data/small/small.inter").read_text().splitlines()
    for row in rows:
        cells = lines[1 + row].split("\t")
        lines[1 + row] = "\t".join([*cells[:2], str(flipped(run, row)), cells[3]])
    write(Path("data/small/small.inter"), "\n".join(lines) + "\n")
    with pytest.raises(InputError, match="corrected rows must stay as they were"):
        opened()
    config = Config("LLMRec", "small", None, dict(after.record["settings"]))
    fresh = Experiment(config, load_dataset(config, examine=False))
    assert (fresh.dataset.rows.label == after.dataset.rows.label).all()
    assert all(map(np.array_equal, fresh.parts.splits, after.parts.splits))
    nothing = np.empty(0, np.int64)
    tables = [each.model.table.with_history(each.history(nothing)) for each in (fresh, after)]
    everything = np.arange(len(after.dataset.rows))
    assert torch.equal(*(table.batch(everything).input_ids for table in tables))


@pytest.mark.thorough
def test_what_was_erased_before_is_no_obstacle(tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path / "erased"
    make(folder)
    monkeypatch.chdir(folder)
    forget_users("u1", model=METHOD)
    assert cli.main(["erase", "--checkpoint=model", "--shared_data"]) == 0
    run = opened()
    row = rows_of(run, "u2")[0]
    corrected(given(lines_for(run, "u2", [row])))
    assert opened().dataset.rows.label[row] != run.dataset.rows.label[row]
    verified(capsys)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rows", 10**6, "rows of corrections"),
        ("request", 2, "request of corrections"),
        ("user", 0, "order, ratings or users of corrections"),
        ("label", 7, "label of corrections"),
        ("rating", float("inf"), "order, ratings or users of corrections"),
    ],
)
def test_corrections_that_do_not_fit_are_damage(column, value, message):
    run = opened()
    corrected(given(lines_for(run, "u1", rows_of(run, "u1")[:1])))
    after = opened()
    tensors = after.tensors
    tensors["corrections"][column][0] = value
    with ModelFolder("model").locked():
        ModelFolder("model").write(after.record, tensors)
    with pytest.raises(InputError, match=message):
        opened()


@pytest.mark.thorough
def test_a_new_training_and_a_loaded_recommender_go_on_from_corrected_rows(capsys):
    run = opened()
    rows = rows_of(run, "u1")
    file = given(lines_for(run, "u1", rows))
    options = CorrectOptions("model", file, drift_budget=1e-9, retrain_when_due=True)
    told = correct(options, METHOD, QUICK)
    assert told.endswith("trained anew on what is left; drift begins at 0")
    assert (opened().dataset.rows.label[rows] != run.dataset.rows.label[rows]).all()
    verified(capsys)
    recommender = load_recommender("model")
    recommender.forget(write(Path("u2.csv"), "user_id\nu2\n"), method=METHOD, **QUICK)
    assert recommender.recommend("u1", 3)
    after = opened()
    assert (after.dataset.rows.label[rows] != run.dataset.rows.label[rows]).all()
    assert after.gone.tolist() == [after.dataset.ids.users["u2"]]
    verified(capsys)
