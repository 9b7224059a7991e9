"""What a model in use recommends, from Python and by ``recbole-e2urec recommend``."""

import gc
import json
import re
import shutil
import threading
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from atomic_files import small_interactions
from command_line import write
from in_use import forget_users, opened, write_data

from recbole_e2urec import cli
from recbole_e2urec.deployment import forget
from recbole_e2urec.deployment.recommend import Snapshot, load_recommender
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.llmrec import LLMRec

pytestmark = pytest.mark.usefixtures("in_use")


def own_rows(user):
    """(item, rating) of a user, oldest first."""
    rows = sorted((time, item, rating) for one, item, rating, time in small_interactions()
                  if one == user)  # fmt: skip
    return [(item, rating) for _, item, rating in rows]


def prompt(recommender, visitor, item):
    table, asking = recommender._table([visitor])
    return table.text(int(asking[0]), item)


def test_the_prompt_of_a_user_shows_the_newest_rows():
    run = opened()
    recommender, user = Snapshot(run), run.dataset.ids.users["u3"]
    own = np.flatnonzero(run.dataset.rows.user == user)
    own = own[np.argsort(run.dataset.rows.time[own])]
    history = np.full((len(run.dataset.rows), 3), -1)
    history[own[0]] = own[-3:]
    unseen = int(np.setdiff1d(np.arange(1, 21), run.dataset.rows.item[own])[0])
    wanted = run.model.table.with_history(history).text(int(own[0]), unseen)
    assert prompt(recommender, recommender._known("u3", 1, 1), unseen) == wanted
    with run.model.using_history(history):
        score = float(run.model.answer(own[:1], np.array([unseen]))[0])
    token = next(token for token, inner in run.dataset.ids.items.items() if inner == unseen)
    found = {one.item: one.score for one in recommender.recommend_many(["u3"], 20, False)[0]}
    assert found[token] == pytest.approx(score, abs=1e-6)


def test_unseen_items_come_best_first():
    recommender = load_recommender("model")
    seen = {item for item, _ in own_rows("u3")}
    every = recommender.recommend("u3", 99)
    assert {one.item for one in every} == {f"i{item}" for item in range(20)} - seen
    assert [one.score for one in every] == sorted((one.score for one in every), reverse=True)
    assert all(one.title == f"Film {one.item[1:]}" for one in every)
    assert recommender.recommend("u3", 2) == every[:2]
    assert len(recommender.recommend("u3", 99, seen=True)) == 20


def test_many_users_are_answered_as_each_alone(monkeypatch: pytest.MonkeyPatch):
    recommender = load_recommender("model")
    users = [f"u{user}" for user in range(6)]
    alone = [recommender.recommend(user, 3) for user in users]
    for most in (2**17, 40):
        monkeypatch.setattr("recbole_e2urec.deployment.recommend.ASKED_AT_ONCE", most)
        for one, other in zip(recommender.recommend_many(users, 3), alone, strict=True):
            assert [item.item for item in one] == [item.item for item in other]
            scores = [[item.score for item in items] for items in (one, other)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert recommender.recommend_many([]) == []


def test_somebody_new_is_answered_by_a_history_alone():
    recommender, shown = load_recommender("model"), Snapshot(opened())
    history = own_rows("u3")
    known = shown._known("u3", 1, 1)
    item = int(known.items[0])
    wanted = prompt(shown, known._replace(features={}, user=""), item)
    assert prompt(shown, shown._new_user(history), item) == wanted
    assert "u3" not in wanted
    assert "u3" in prompt(shown, known, item)
    unrated = prompt(shown, shown._new_user([one for one, _ in history]), item)
    assert "Film" in unrated
    assert unrated != wanted
    found = recommender.recommend_new([history, []], 20)
    assert {one.item for one in found[0]}.isdisjoint({one for one, _ in history})
    assert len(found[1]) == 20
    with pytest.raises(InputError, match="entry 2: 'i99' is no item of the data"):
        recommender.recommend_new([["i1", "i99"]])
    with pytest.raises(InputError, match="entry 1: 'many' is no rating"):
        recommender.recommend_new([[("i1", "many")]])


def test_a_forgotten_user_is_like_one_whom_the_data_never_had():
    before = load_recommender("model")
    forget_users("u3", model="NegGrad")
    after = load_recommender("model")
    with pytest.raises(InputError) as never:
        after.recommend("nobody")
    with pytest.raises(InputError) as forgotten:
        after.recommend("u3")
    assert str(forgotten.value) == str(never.value)
    assert "u3" not in str(forgotten.value)
    with pytest.raises(InputError, match="user 2 of 2"):
        after.recommend_many(["u1", "u3"])
    assert len(after.recommend_new([own_rows("u3")], 3)[0]) == 3
    assert len(before.recommend("u3", 3)) == 3  # one that was loaded before does not change


def test_rows_that_were_forgotten_are_not_served_of_a_user_who_stays(tmp_path: Path):
    from recbole_e2urec.deployment.forget import QueueOptions, forget

    item, _ = own_rows("u3")[-1]
    file = write(tmp_path / "pair.csv", f"user_id,item_id\nu3,{item}\n")
    forget(QueueOptions("model", file), None, {"show_progress": False})
    run = opened()
    visitor = Snapshot(run)._known("u3", 1, 1)
    inner = run.dataset.ids.items[item]
    assert inner not in visitor.items
    assert inner not in visitor.seen
    assert len(visitor.items) == 11


def test_the_command_answers_as_text_and_as_json(capsys):
    wanted = load_recommender("model").recommend("u3", 2)
    assert cli.main(["recommend", "--checkpoint=model", "--user", "u3", "--topk", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == [one.item for one in wanted]
    write(Path("users.txt"), "u3\nu4\n")
    more = ["--users_file=users.txt", "--output=json", "--topk=2"]
    assert cli.main(["recommend", "--checkpoint=model", *more]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["user"] for one in found] == ["u3", "u4"]
    assert [one["item"] for one in found[0]["items"]] == [one.item for one in wanted]
    assert cli.main(["recommend", "--checkpoint=model", '--history=["i1", ["i2", 4]]']) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_data_that_changed_is_refused_and_moved_data_is_found(tmp_path: Path, capsys):
    data = write_data(tmp_path / "moved")
    arguments = ["recommend", "--checkpoint=model", "--user=u3", f"--data_path={data}"]
    assert cli.main(arguments) == 0
    capsys.readouterr()
    path = data / "small" / "small.inter"
    path.write_text(path.read_text().rsplit("\n", 2)[0] + "\n")
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "users, items or rows of small" in line
    assert "are not those that the model was made with" in line
    shutil.rmtree(tmp_path / "moved")
    data = write_data(tmp_path / "moved")
    path = data / "small" / "small.item"
    path.write_text(path.read_text().replace("Film 7", "Movie 7"))
    assert cli.main(arguments) == 2
    assert "titles, features, wording or parts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--user=u3"], "which model? write --checkpoint=DIR"),
        (["--checkpoint=model"], "to whom? write --user"),
        (["--checkpoint=model", "--user=u3", "--history=[]"], "to whom? write --user"),
        (
            ["--checkpoint=model", "--user=nobody"],
            "nothing is known about this user, and that is all",
        ),
        (["--checkpoint=model", "--user=u3", "--topk=0"], "topk is 0"),
        (["--checkpoint=model", "--user=u3", "--seen=x"], "seen: 'x' does not do"),
        (["--checkpoint=model", "--history=[i1"], "history: no JSON"),
        (["--checkpoint=model", '--history=[["i1", true]]'], "history, entry 1: no item"),
        (["--checkpoint=model", '--history=["i77"]'], "'i77' is no item of the data"),
        (["--checkpoint=model", "--history=none.json"], "cannot read none.json"),
        (["--checkpoint=model", "--users_file=none.txt"], "cannot read none.txt"),
        (["--checkpoint=data", "--user=u3"], "data is no model folder"),
        (["--checkpoint=model", "--user=u3", "--model=NPO"], "has its own; drop it"),
        (["--checkpoint=model", "--user=u3", "--prompt=plain"], "prompt: model has its own"),
    ],
)
def test_what_cannot_be_answered_is_one_line(argv, message, capsys):
    assert cli.main(["recommend", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


# --- Forgetting from Python


def requested(*users):
    return write(Path(f"{'-'.join(users)}.csv"), "\n".join(["user_id", *users]) + "\n")


def test_a_recommender_forgets_as_the_command_does(short_relearning):
    shutil.copytree("model", "other")
    recommender = load_recommender("model")
    for user in ("u1", "u2"):
        report = recommender.forget(requested(user), method="NegGrad", joint_epochs=2)
        assert "is carried out" in report.text
        assert report.seconds > 0
        with pytest.raises(InputError, match="nothing is known"):
            recommender.recommend(user)
    shutil.move("model", "here")
    shutil.move("other", "model")
    for user in ("u1", "u2"):
        forget_users(user, model="NegGrad")
    ours, theirs = load_recommender("here"), load_recommender("model")
    assert ours.recommend("u3") == theirs.recommend("u3") == recommender.recommend("u3")
    certificates = [sorted(Path(name, "certificates").iterdir()) for name in ("here", "model")]
    assert [path.name for path in certificates[0]] == [path.name for path in certificates[1]]
    assert cli.main(["verify", str(certificates[0][1])]) == 0


def test_others_are_answered_by_the_old_model_and_then_by_the_new_one(short_relearning):
    recommender = load_recommender("model")
    before, answers, done = recommender.recommend("u3"), [], threading.Event()

    def ask():
        while not done.is_set():
            answers.append(recommender.recommend("u3"))

    thread = threading.Thread(target=ask)
    thread.start()
    recommender.forget(requested("u1"), method="NegGrad", joint_epochs=4)
    done.set()
    thread.join()
    after = recommender.recommend("u3")
    assert before != after
    assert answers[0] == before
    assert answers[-1] == after
    assert [answer in (before, after) for answer in answers] == [True] * len(answers)
    assert sum(one != other for one, other in pairwise(answers)) == 1


def test_what_python_asks_for_wrongly_is_refused_and_changes_nothing(short_relearning):
    recommender = load_recommender("model")
    for wrong, message in (
        ({}, "forget: what?"),
        ({"request": "r.csv", "where": "rating < 3"}, "forget: what?"),
        ({"request": requested("nobody")}, "does not have"),
        ({"request": "r.csv", "dry_run": True}, "recbole-e2urec forget --dry_run"),
        ({"request": "nowhere.csv"}, "nowhere.csv"),
        ({"request": requested("u1"), "method": "SISA"}, "a model in use forgets by"),
        ({"request": requested("u1"), "joint_epoch": 1}, "joint_epoch"),
        ({"request": requested("u1"), "forget_unknown": "perhaps"}, "forget_unknown"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            recommender.forget(**wrong)
    assert opened().record["requests"] == []
    told = recommender.forget(where="user_id == 'u1'", method="NegGrad", joint_epochs=1)
    assert told.seconds is not None
    again = recommender.forget(where="user_id == 'u1'", method="NegGrad", joint_epochs=1)
    assert again.seconds is None
    assert "carried out before" in again.text


def test_what_another_process_forgot_is_forgotten_with_the_next_request(short_relearning):
    recommender = load_recommender("model")
    forget_users("u1", model="NegGrad")
    recommender.recommend("u1")  # the model that was loaded
    assert recommender.forget(requested("u1"), method="NegGrad").seconds is None
    with pytest.raises(InputError, match="nothing is known"):
        recommender.recommend("u1")
    forget_users("u2", model="NegGrad")
    recommender.forget(requested("u5"), method="NegGrad", joint_epochs=1)
    for user in ("u1", "u2", "u5"):
        with pytest.raises(InputError, match="nothing is known"):
            recommender.recommend(user)
    assert len(opened().record["requests"]) == 3


def test_a_recommender_that_fails_half_way_goes_on(monkeypatch, short_relearning):
    recommender = load_recommender("model")
    before = recommender.recommend("u3")

    def fail(*given):
        raise RuntimeError("half-way")

    with monkeypatch.context() as patch:
        patch.setattr(forget, "merge", fail)
        with pytest.raises(RuntimeError, match="half-way"):
            recommender.forget(requested("u1"), method="NegGrad", joint_epochs=1)
    assert recommender.recommend("u3") == before
    assert recommender.forget(requested("u1"), method="NegGrad", joint_epochs=1).seconds
    with pytest.raises(InputError, match="nothing is known"):
        recommender.recommend("u1")


def test_settings_of_a_request_are_not_those_of_the_next(short_relearning):
    recommender, quick = load_recommender("model"), {"method": "NegGrad", "joint_epochs": 1}
    recommender.forget(requested("u1"), request_id="monday", **quick)
    recommender.forget(where="user_id == 'u2'", **quick)
    recommender.forget(requested("u5"), forget_unknown="skip", **quick)
    with pytest.raises(InputError, match="does not have"):
        recommender.forget(requested("nobody"), **quick)
    names = [entry["request_id"] for entry in opened().record["requests"]]
    assert names[0] == "monday"
    assert len(set(names)) == 3


def test_a_recommender_forgets_corrected_rows(short_relearning):
    item, rating = own_rows("u3")[0]
    write(Path("fix.csv"), f"user_id,item_id,new_rating\nu3,{item},{5 if rating < 4 else 1}\n")
    argv = ["correct", "--checkpoint=model", "--request=fix.csv", "--model=NegGrad"]
    assert cli.main([*argv, "--joint_epochs=1", "--show_progress=False"]) == 0
    recommender = load_recommender("model")
    for user in ("u1", "u3"):
        assert recommender.forget(requested(user), method="NegGrad", joint_epochs=1).seconds
    again = load_recommender("model")
    assert recommender.recommend("u5") == again.recommend("u5")
    for certificate in Path("model/certificates").glob("*.json"):
        assert cli.main(["verify", str(certificate)]) == 0


def test_no_model_of_an_earlier_request_stays_in_memory():
    models = weakref.WeakSet()
    made = LLMRec.__init__

    def noted(self, *given):
        made(self, *given)
        models.add(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LLMRec, "__init__", noted)
        gc.disable()  # large models cannot wait for it
        try:
            recommender = load_recommender("model")
            for user in ("u1", "u2", "u5"):
                recommender.forget(requested(user), method="NegGrad", joint_epochs=1)
            assert len(models) == 2  # the one that answers, and the one that forgets next
        finally:
            gc.enable()
