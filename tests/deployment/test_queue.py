"""``recbole-e2urec forget``: requests on a model in use, one after the other."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from atomic_files import small_interactions
from command_line import write
from in_use import QUICK, STRONG, forget_users, make_model, opened

from recbole_e2urec import cli
from recbole_e2urec.deployment import forget as forget_module
from recbole_e2urec.deployment.evidence import Reference, delta_of
from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.errors import InputError
from recbole_e2urec.report.tables import NOISE
from recbole_e2urec.trainer.llmrec_trainer import LLMRecTrainer
from recbole_e2urec.utils import io

KNOWN = {"history_length": 0, "epochs": 24, "eval_step": 24}  # only a name tells what is liked
pytestmark = pytest.mark.usefixtures("short_relearning", "in_use")


def tree(folder: Path) -> dict[str, int]:
    """Files below, with their times of change; a lock may be touched."""
    files = (path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path): os.stat(path).st_mtime_ns for path in files}


def rows_of(run, *users):
    inner = [run.dataset.ids.users[user] for user in users]
    return np.flatnonzero(np.isin(run.dataset.rows.user, inner))


def test_what_was_forgotten_first_stays_forgotten_after_the_second_request(tmp_path, monkeypatch):
    monkeypatch.chdir(make_model(tmp_path / "known", by_user=True, **KNOWN).parent)
    first = opened()
    rows = np.intersect1d(rows_of(first, "u1", "u2"), first.live)
    shown = first.history(np.empty(0, np.int64))
    others = np.setdiff1d(first.live, rows_of(first, "u1", "u2", "u5"))
    forget_users("u1", "u2", model="NPO", **STRONG)
    second = opened()
    forget_users("u5", model="NPO", **STRONG)
    third = opened()
    loss = [run.loss(rows, shown) for run in (first, second, third)]
    assert loss[1] > loss[0] + 0.5
    assert loss[2] > loss[0] + 0.8 * (loss[1] - loss[0])
    kept = [run.loss(others, shown) for run in (first, third)]
    assert kept[1] - kept[0] < 0.5 * (loss[2] - loss[0])


def interrupted(*given):
    raise KeyboardInterrupt


def killed_while_measuring(monkeypatch, *users):
    """Carry out a request whose process is killed once the new model is in place."""
    with monkeypatch.context() as patch:
        patch.setattr(forget_module, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            forget_users(*users, model="NegGrad")


def generations():
    return sorted(path.name for path in Path("model/generations").iterdir())


def test_the_new_model_serves_before_it_is_measured(monkeypatch, capsys):
    shutil.copytree("model", "other")
    killed_while_measuring(monkeypatch, "u1")
    with pytest.raises(InputError, match="nothing is known"):
        load_recommender("model").recommend("u1")
    assert generations() == ["000001", "000002"]  # the one before is still to be measured
    assert not Path("model/certificates").exists()
    for command in ("purge", "erase"):
        assert cli.main([command, "--checkpoint=model"]) == 2
        assert (
            "killed before it was measured and certified; give it once" in capsys.readouterr().err
        )
    told = forget_users("u1", model="NegGrad")
    assert "is carried out, the 1. of this model" in told
    assert "carried out before; nothing to do" in told
    assert generations() == ["000003"]
    shutil.move("model", "killed")
    shutil.move("other", "model")
    forget_users("u1", model="NegGrad")
    alone, killed = (ModelFolder(name).read().record["requests"][0] for name in ("model", "killed"))
    assert alone["evidence"]["measures"] == killed["evidence"]["measures"]
    assert alone["forget_loss"] == killed["forget_loss"]
    assert alone["drift"] == killed["drift"]


def test_another_request_measures_the_killed_one_first(monkeypatch, capsys):
    forget_users("u2", model="NegGrad")
    (earlier,) = Path("model/certificates").glob("*.json")
    killed_while_measuring(monkeypatch, "u1")
    assert cli.main(["verify", str(earlier)]) == 0
    assert "request 2 is not measured yet" in capsys.readouterr().out
    told = forget_users("u3", model="NegGrad")
    assert "the 2. of this model" in told
    assert "the 3. of this model" in told
    assert len(list(Path("model/certificates").glob("*.json"))) == 3
    assert all("measures" in entry["evidence"] for entry in opened().record["requests"])


def test_a_killed_request_is_measured_as_it_was_asked_for(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(forget_module, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            asked("u1", drift_budget=1e-9, with_retrain=True, noise_floor=True)
    assert "is above drift_budget (1e-09): retraining is due" in asked("u2", drift_budget=9.0)
    first, second = (entry["evidence"]["retrain"] for entry in opened().record["requests"])
    assert set(first["distances"]) == {"before", "after", NOISE}
    assert second is None
    assert "measuring" not in opened().record["requests"][0]


def test_a_killed_request_given_again_is_measured_as_it_is_asked_for_now(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(forget_module, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            asked("u1", drift_budget=1e-9, with_retrain=True)
    assert "retraining is due" not in asked("u1", drift_budget=9.0)
    assert opened().record["requests"][0]["evidence"]["retrain"] is None


def test_a_killed_request_says_that_retraining_is_due_to_one_that_does_not_retrain(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(forget_module, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            asked("u1", **DUE)
    assert "is above drift_budget (1e-09): retraining is due" in asked("u2", drift_budget=9.0)


def test_a_killed_request_whose_measuring_is_damaged_is_one_line(monkeypatch, capsys):
    killed_while_measuring(monkeypatch, "u1")
    run = opened()
    run.record["requests"][-1]["measuring"] = {"drift_budget": "much"}
    with ModelFolder("model").locked(unmeasured=True):
        ModelFolder("model").write(run.record, run.tensors)
    with pytest.raises(InputError, match="is damaged"):
        asked("u2")


def test_forgotten_rows_are_in_no_later_training_and_in_no_history():
    before = opened()
    u1, u5 = (rows_of(before, user) for user in ("u1", "u5"))
    told = forget_users("u1")
    assert "10 training rows of 12 rows asked for" in told
    forget_users("u5", model="BadT")  # which asks the model as it was before it was trained
    run = opened()
    assert run.forgotten.tolist() == sorted([*u1, *u5])
    assert len(run.live) == len(before.live) - 20
    assert not np.isin(run.live, run.forgotten).any()
    assert not np.isin(run.history(run.forgotten), run.forgotten).any()
    assert run.gone.tolist() == sorted(run.dataset.ids.users[user] for user in ("u1", "u5"))
    assert not np.isin(run.dataset.rows.user[run.sample.rows], run.gone).any()
    entries = run.record["requests"]
    assert [entry["training_rows"] for entry in entries] == [10, 10]
    assert all("u1" not in str(entry) for entry in entries)


def test_rows_of_a_user_who_stays_leave_the_histories():
    run = opened()
    user, item, *_ = small_interactions()[0]
    told = forget(
        QueueOptions("model"), "NegGrad",
        {"forget_where": f"user_id == '{user}' and item_id == '{item}'", "show_progress": False},
    )  # fmt: skip
    assert "of 1 row asked for" in told
    (row,) = opened().forgotten
    assert (run.history(run.forgotten) == row).any()
    assert not (opened().history(opened().forgotten) == row).any()
    assert len(opened().gone) == 0


def test_a_request_again_in_another_format_does_nothing(in_use: Path):
    forget_users("u1", "u2", request_id="A-1")
    before = tree(in_use)
    again = write(Path("again.jsonl"), '{"user_id": "u2"}\n{"user_id": "u1"}\n{"user_id": "u2"}\n')
    told = forget(QueueOptions("model", again), None, {})
    assert told.endswith("request A-1 was carried out before; nothing to do")
    told = forget_users("u2")
    assert told.endswith("all that it names is forgotten already; nothing to do")
    assert tree(in_use) == before
    with pytest.raises(InputError, match="request_id A-1 was another request's"):
        forget_users("u3", request_id="A-1")
    assert tree(in_use) == before


def test_a_dry_run_writes_nothing_and_counts_what_is_left(in_use: Path):
    forget_users("u1", model="NegGrad")
    before = {**tree(in_use), "lock": os.stat(in_use / ".lock").st_mtime_ns}
    told = forget_users("u1", "u5", dry_run=True)
    assert "would forget 10 of 230 training rows" in told
    assert "was carried out before" in forget_users("u1", dry_run=True)
    assert {**tree(in_use), "lock": os.stat(in_use / ".lock").st_mtime_ns} == before


@pytest.mark.parametrize(
    "argv",
    [
        ["--dry_run"],
        ["--dry_run=True"],
        ["--dry_run=true"],
        ["--dry_run=TRUE"],
        ["--config_files=dry.yaml"],
        ["--config_files=wet.yaml", "--dry_run=TRUE"],
    ],
)
def test_a_dry_run_is_dry_however_it_is_asked_for(argv, in_use: Path, capsys):
    write(Path("dry.yaml"), "dry_run: True\n")
    write(Path("wet.yaml"), "dry_run: False\n")
    write(Path("r.csv"), "user_id\nu1\n")
    before = tree(in_use)
    assert cli.main(["forget", "--checkpoint=model", "--request=r.csv", *argv]) == 0
    assert "would forget 10 of 240 training rows" in capsys.readouterr().out
    assert tree(in_use) == before


def test_switches_and_the_request_may_stand_in_a_file(in_use: Path, capsys):
    write(Path("f.yaml"), "forget_where: user_id == 'u1'\npurge: True\ndry_run: True\n")
    assert cli.main(["forget", "--checkpoint=model", "--config_files=f.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "would forget 10 of 240 training rows" in shown
    assert "would purge" in shown
    argv = ["forget", "--checkpoint=model", "--config_files=f.yaml", "--purge=False"]
    assert cli.main(argv) == 0
    assert "would purge" not in capsys.readouterr().out


def test_rows_that_nobody_learned_from_are_forgotten_without_training(in_use: Path):
    run = opened()
    row = run.parts.splits.test[0]
    user, item = run.dataset.rows.user[row], run.dataset.rows.item[row]
    names = [
        next(token for token, inner in ids.items() if inner == wanted)
        for ids, wanted in ((run.dataset.ids.users, user), (run.dataset.ids.items, item))
    ]
    file = write(Path("r.csv"), f"user_id,item_id\n{names[0]},{names[1]}\n")
    told = forget(QueueOptions("model", file), None, {"show_progress": False})
    assert "0 training rows of 1 row asked for" in told
    after = opened()
    assert after.forgotten.tolist() == [row]
    assert after.drift() == pytest.approx(0, abs=1e-9)
    assert (
        after.record["files"]["weights.safetensors"] == run.record["files"]["weights.safetensors"]
    )


def test_drift_above_the_budget_asks_for_retraining():
    file = write(Path("r.csv"), "user_id\nu1\n")
    told = forget(QueueOptions("model", file, drift_budget=1e-9), "NegGrad", {})
    assert told.endswith("is above drift_budget (1e-09): retraining is due")
    assert opened().record["requests"][0]["drift"] == pytest.approx(opened().drift(), abs=1e-6)


DUE = {"retrain_when_due": True, "drift_budget": 1e-9}


def asked(*users, **options):
    file = write(Path("r.csv"), "\n".join(["user_id", *users]) + "\n")
    return forget(QueueOptions("model", file, **options), "NegGrad", QUICK)


def verified(capsys):
    capsys.readouterr()
    for certificate in Path("model/certificates").glob("*.json"):
        assert cli.main(["verify", str(certificate)]) == 0
    return capsys.readouterr().out


def test_when_it_is_due_the_model_is_trained_anew_on_what_is_left(capsys):
    trained = opened()
    told = asked("u1", **DUE)
    assert told.endswith("trained anew on what is left; drift begins at 0")
    assert "retraining is due" not in told
    run = opened()
    assert run.drift() == pytest.approx(0, abs=1e-9)
    assert not np.isin(run.sample.rows, rows_of(run, "u1")).any()
    (training,) = run.record["trainings"]
    assert (training["after"], training["rows"]) == (1, len(trained.live) - 10)
    delta = delta_of(run, run.forgotten, run.forgotten)
    reference = Reference(run, Path("elsewhere"), run.config["seed"])
    reference.train(delta)
    with reference.model.using_history(delta.after):
        wanted = reference.model.answer(run.live, None)
    assert torch.equal(run.yes(run.live, delta.after), wanted)
    assert "the model was trained anew since" in verified(capsys)
    told = asked("u1", **DUE)
    assert told.endswith("nothing to do")  # and nothing is trained a second time
    asked("u2")
    assert "failed" not in verified(capsys).replace("nothing failed", "")
    assert [entry["drift"] > 0 for entry in opened().record["requests"]] == [True, True]
    assert asked("u5", **DUE).endswith("drift begins at 0")
    assert [training["after"] for training in opened().record["trainings"]] == [1, 3]
    verified(capsys)


def test_a_retrain_that_measured_the_request_is_not_trained_again(monkeypatch):
    epochs = []
    once = LLMRecTrainer._train_epoch

    def counted(self, *given, **more):
        epochs.append(1)
        return once(self, *given, **more)

    monkeypatch.setattr(LLMRecTrainer, "_train_epoch", counted)
    assert asked("u1", **DUE, with_retrain=True).endswith("drift begins at 0")
    assert len(epochs) == 40  # SETTINGS has as many
    assert not Path("model/work").exists()


def test_a_new_training_that_is_killed_goes_on_with_the_same_request(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(Reference, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            asked("u1", **DUE)
    with pytest.raises(InputError, match="nothing is known"):
        load_recommender("model").recommend("u1")
    assert "failed" not in verified(capsys).replace("nothing failed", "")
    assert asked("u1", **DUE).endswith("drift begins at 0")
    assert len(opened().record["requests"]) == len(opened().record["trainings"]) == 1


def test_the_folder_holds_one_model_and_nothing_of_the_way_to_it(in_use: Path):
    forget_users("u1")
    names = {str(path.relative_to(in_use)) for path in in_use.rglob("*") if path.is_file()}
    tensors = ["weights", "forgotten", "sample", "answers"]
    files = ["model.json", *(f"{kind}.safetensors" for kind in tensors)]
    pages = {name for name in names if name.startswith("certificates/")}
    assert len(pages) == 2
    assert names - pages == {
        ".lock", "current.json", *(f"generations/000003/{name}" for name in files)
    }  # fmt: skip


@pytest.mark.parametrize("links", [True, False])
def test_a_request_writes_the_weights_once(links, monkeypatch):
    def refuse(*given):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    written, save = [], io.save_file

    def counted(tensors, path, *more):
        written.append(str(path))
        save(tensors, path, *more)

    monkeypatch.setattr(io, "save_file", counted)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    asked("u1")
    assert sum("generations" in path for path in written) == 3  # weights, forgotten, sample
    (weights,) = Path("model").rglob("weights.safetensors")
    assert weights.parent.name == "000003"
    assert weights.stat().st_nlink == 1  # nothing is left of the generation before
    assert not list(Path("model").rglob("*.part"))
    opened()


@pytest.mark.thorough
def test_a_tuned_adapter_is_replaced_by_its_successor(tmp_path: Path, monkeypatch):
    folder = tmp_path / "lora"
    make_model(folder, tuning="lora", epochs=2, eval_step=1)
    monkeypatch.chdir(folder)
    first = opened()
    rows = rows_of(first, "u1")
    forget_users("u1", **STRONG)
    second = opened()
    assert set(second.model.bank.names) == {"original"}
    assert second.record["requests"][0]["forget_loss"][1] == pytest.approx(
        second.loss(np.intersect1d(rows, first.live), first.history(first.forgotten)), abs=1e-5
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "in which model? write --checkpoint=DIR"),
        (["--checkpoint=model"], "what? write --request=FILE"),
        (["--checkpoint=model", "--request=r.csv", "--model=SISA"], "forgets by one of E2URec"),
        (["--checkpoint=model", "--request=r.csv", "--dataset=x"], "has its own; drop it"),
        (["--checkpoint=model", "--request=r.csv", "--history_length=9"], "history_length: model"),
        (["--checkpoint=model", "--request=r.csv", "--drift_budget=0"], "drift_budget is 0"),
        (["--checkpoint=model", "--request=r.csv", "--beta=2"], "beta is 2"),
        (["--checkpoint=model", "--request=r.csv", "--calibration=c.json"], "calibration in the"),
        (["--checkpoint=model", "--request=r.csv"], "line 2"),
        (["--checkpoint=elsewhere", "--request=r.csv"], "elsewhere is no model folder"),
        (["--checkpoint=model", "--request=all.csv"], "leaves no training row"),
        *(
            (["--checkpoint=model", "--request=u1.csv", f"--{key}={value}"], f"{key}: {value!r}")
            for key in ("dry_run", "purge", "with_retrain", "noise_floor")
            for value in ("maybe", "yes", "1x")
        ),
        (["--checkpoint=model", "--request=u1.csv", "--config_files=odd.yaml"], "dry_run: 'maybe'"),
    ],
)
def test_what_cannot_be_done_is_one_line(argv, message, in_use: Path, capsys):
    write(Path("r.csv"), "user_id\nsecret\n")
    write(Path("u1.csv"), "user_id\nu1\n")
    write(Path("odd.yaml"), "dry_run: maybe\n")
    write(Path("all.csv"), "\n".join(["user_id", *(f"u{user}" for user in range(24))]))
    before = tree(in_use)
    assert cli.main(["forget", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert "secret" not in line
    assert tree(in_use) == before
    assert not Path("elsewhere").exists()
    assert ModelFolder("model").has_model
