"""A rehearsal draws users who stay, and a later request takes what was found."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import as_arguments

from recbole_e2urec import cli
from recbole_e2urec.calibration import Calibration, Remembered
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.data.rehearsed import RehearseOptions, rehearsed_request
from recbole_e2urec.data.request.drawing import draw_others
from recbole_e2urec.errors import Diverged, InputError
from recbole_e2urec.experiment import parts_of, request_of
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.matching import Point
from recbole_e2urec.methods.e2urec import E2URec
from recbole_e2urec.rehearsal import MARKS, Rehearsal, rehearse

GIVEN: dict[str, Any] = {
    "epochs": 2, "learning_rate": 0.02, "train_batch_size": 32, "unlearn_batch_size": 16,
    "joint_epochs": 1, "control_users": 0,
    "alpha": None,  # E2URec's strength is teacher_divergence then
}  # fmt: skip


def drawn(config: Any, **own: Any) -> tuple[Any, Any, Any]:
    """The data, the real request and the rehearsed one."""
    dataset = load_dataset(config)
    parts = parts_of(config, dataset)
    real = request_of(config, dataset, parts)
    asked = rehearsed_request(RehearseOptions(**own), dataset, parts.splits.train, real)
    return dataset, real, asked


@pytest.mark.parametrize("kind", ["users", "heavy", "items"])
@pytest.mark.parametrize("by", ["user", "item"])
def test_no_row_of_the_real_request_is_rehearsed(
    toy_config: Callable[..., Any], kind: str, by: str
) -> None:
    dataset, real, asked = drawn(toy_config("E2URec", forget_by=by), kind=kind, count=5)
    assert not np.isin(asked.rows, real.rows).any()
    assert len(asked.split.forget) > 0
    both = np.concatenate([asked.split.forget, asked.split.retain])
    assert sorted(both) == sorted(np.concatenate([real.split.forget, real.split.retain]))
    unit = dataset.rows.item if kind == "items" else dataset.rows.user
    assert len(np.unique(unit[asked.split.forget])) == 5
    if kind != "items":
        assert np.isin(unit[asked.split.forget], unit[real.split.retain]).all()  # they stay


def test_a_rehearsal_is_as_large_as_it_is_told_and_drawn_by_its_seed(
    toy_config: Callable[..., Any],
) -> None:
    config = toy_config("E2URec", control_users=0)
    users = [
        set(dataset.rows.user[asked.split.forget].tolist())
        for own in ({}, {"share": 0.2}, {"share": 0.1, "draw_seed": 2}, {"draw_seed": 2})
        for dataset, _, asked in [drawn(config, **own)]
    ]
    assert [len(one) for one in users] == [8, 8, 4, 8]  # of 40; the real one has a fifth
    assert users[0] == users[1] != users[3]


def test_heavy_users_are_drawn_in_proportion_to_their_rows() -> None:
    user = np.repeat(np.arange(1, 22), [80, *[1] * 20])  # the first has 80 of 100 rows
    tokens = {f"u{one}": one for one in range(1, 22)}
    drawn = {
        by_rows: np.mean([1 in draw_others(user, tokens, 1, seed, by_rows) for seed in range(400)])
        for by_rows in (True, False)
    }
    assert drawn[True] == pytest.approx(0.8, abs=0.06)
    assert drawn[False] == pytest.approx(1 / 21, abs=0.04)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"share": 0.2, "count": 3}, "keep one"),
        ({"share": 1.0}, "share is 1.0"),
        ({"count": 0}, "count is 0"),
        ({"trials": 0}, "trials is 0"),
        ({"draw_seed": -1}, "draw_seed is -1"),
    ],
)
def test_options_that_do_not_do_are_refused(own: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RehearseOptions(**own)


def test_too_many_are_refused(toy_config: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="40 of 32 users"):
        drawn(toy_config("E2URec", control_users=0), count=40)


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rehearsal") / "saved"


@pytest.fixture
def toy(toy_config: Callable[..., Any], stages: Path) -> Callable[..., Any]:
    """Make configs on ``toy``; Original and both requests' Retrains are trained for all tests."""

    def make(model: str = "E2URec", **more: Any) -> Any:
        return toy_config(model, **{**GIVEN, **more})

    if stages.exists():
        shutil.copytree(stages, "saved")
    else:
        config = make()
        dataset = load_dataset(config)
        Forgetting(config, dataset).train()
        Rehearsal(config, dataset, RehearseOptions())
        shutil.copytree("saved", stages)
    return make


@pytest.mark.slow
def test_a_rehearsal_uses_the_runs_original_and_its_points_are_those_of_later_runs(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy()
    dataset = load_dataset(config)
    tests = set(parts_of(config, dataset).splits.test.tolist())
    asked: set[int] = set()
    frozen = type(Rehearsal(config, dataset, RehearseOptions()).run.model).hidden
    monkeypatch.setattr(
        "recbole_e2urec.model.llmrec.LLMRec.hidden",
        lambda model, rows, items=None: asked.update(rows.tolist()) or frozen(model, rows, items),
    )
    rehearsal = Rehearsal(config, dataset, RehearseOptions())
    early, *_, last = rehearsal.points({"teacher_divergence": 0.3, "unlearn_learning_rate": 0.01})
    assert (early.stop, last.stop) == (MARKS[0], 1.0)
    assert early.closed_loss != last.closed_loss
    assert not asked & tests
    real = Forgetting(config, dataset)
    real.train()
    assert real.original.stage == rehearsal.run.original.stage
    assert real.fingerprint == rehearsal.run.fingerprint
    again = Rehearsal(toy(unlearn_stop=MARKS[0]), dataset, RehearseOptions())
    (stopped,) = again.points(early.settings)
    assert stopped == early


class Known(Rehearsal):
    """A rehearsal whose trials cost nothing; so little data is hardly remembered."""

    gaps = (0.1, 0.05)

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.gaps = type(self).gaps

    def points(self, settings: Any) -> list[Point]:
        ends = [(stop, stop * settings["teacher_divergence"] / 0.3) for stop in (0.5, 1.0)]
        return [Point(dict(settings), stop, way, way, 0.0, 0.9, {}) for stop, way in ends]


@pytest.fixture
def calibrated(toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A calibration of toy's E2URec, whose best strength is 0.3, or 0.6 where it stops half way."""
    monkeypatch.setattr("recbole_e2urec.rehearsal.Rehearsal", Known)
    config = toy()
    found, path = rehearse(RehearseOptions(), config, load_dataset(config))
    assert path == Path("saved/calibration.json")
    stop = found.settings.get("unlearn_stop", 1.0)
    assert stop * found.settings["teacher_divergence"] == pytest.approx(0.3, rel=0.03)
    assert found == Calibration.read(path)
    return path


@pytest.mark.thorough
def test_a_later_request_is_set_by_the_calibration_and_says_so(
    toy: Callable[..., Any], calibrated: Path
) -> None:
    config = toy(calibration=str(calibrated))
    run = Forgetting(config, load_dataset(config))
    row = run.run()[0][-1]
    found = Calibration.read(calibrated)
    expected = found.adapted(run.remembered())
    assert row["settings"].items() >= expected.items()
    assert row["found"]["teacher_divergence"] == expected["teacher_divergence"]
    assert row["calibration"]["remembered"] == run.remembered()._asdict()
    assert row["cost"]["prior_seconds"] == found.cost["seconds"]
    assert json.loads(json.dumps(row)) == row
    given = toy(**expected)
    assert run.unlearned_row(given)["stage"] == row["stage"]  # nothing else was changed


@pytest.mark.thorough
def test_models_of_a_part_of_the_users_count_beside_the_rehearsal(
    toy: Callable[..., Any], tmp_path: Path
) -> None:
    config, path = toy("CrossFit", epochs=1), tmp_path / "c.json"
    run = Forgetting(config, load_dataset(config))
    run.train()
    key, none = "unlearn_learning_rate", {"gap": 0.0, "rows": 0}
    Calibration(
        "CrossFit", {key: 0.01}, key, 1.0, none, run.fingerprint, {"badness": 0.1}, [], {},
        {"seconds": 30.0},
    ).write(path)  # fmt: skip
    rows = (run.unlearned_row(one) for one in (config, toy("CrossFit", epochs=1, calibration=path)))
    free, rehearsed = (row["cost"]["prior_seconds"] for row in rows)
    assert rehearsed == pytest.approx(free + 30)
    assert free > 0


def test_memorisation_is_the_loss_of_validation_rows_above_that_of_forget_rows(
    toy: Callable[..., Any],
) -> None:
    config = toy()
    run = Forgetting(config, load_dataset(config))
    run.train()
    user, label = run.dataset.rows.user, run.dataset.rows.label
    losses = []
    users = np.unique(user[run.split.forget])
    valid = run.parts.splits.valid
    for rows in (valid[np.isin(user[valid], users)], run.split.forget):
        with run.model.bank.frozen(None), run.model.shown(run.before):
            logits = run.model.language_model.head(run.model.hidden(rows))
        two = logits[:, list(run.model.language_model.answer_ids)]
        truth = torch.from_numpy(label[rows]).long()
        losses.append(float(torch.nn.functional.cross_entropy(two, truth)))
    seen = run.remembered()
    assert seen.gap == pytest.approx(losses[0] - losses[1], abs=1e-5)
    assert seen.rows == int(np.isin(user[valid], users).sum())


def test_the_strength_grows_with_the_square_of_what_is_remembered(calibrated: Path) -> None:
    found = replace(Calibration.read(calibrated), remembered={"gap": 0.1, "rows": 9})
    more = found.adapted(Remembered(0.12, 1000))  # 1.1 times as much
    assert more["teacher_divergence"] == pytest.approx(1.21 * found.settings["teacher_divergence"])
    assert {**more, "teacher_divergence": 0} == {**found.settings, "teacher_divergence": 0}


def test_a_calibration_of_another_model_method_or_setting_is_refused(
    toy: Callable[..., Any], calibrated: Path
) -> None:
    file = {"calibration": str(calibrated)}

    def refused(config: Any) -> str:
        with pytest.raises(InputError) as error:
            Forgetting(config, load_dataset(config)).run()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "another model" in refused(toy(learning_rate=0.01, **file))
    assert "made for E2URec, not for NPO" in refused(toy("NPO", **file))
    assert "beta is both calibrated and set" in refused(toy(beta=0.3, **file))
    assert "it sets teacher_divergence, which" in refused(toy(alpha=2.0, **file))
    assert "teacher_divergence is both" in refused(toy(teacher_divergence=0.3, **file))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"method": "E2URec"}', '{"settings": {"beta": "x"}}']
)
def test_a_file_that_is_no_calibration_is_refused(
    toy: Callable[..., Any], text: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.json"
    for given in ("missing.json", file):
        file.write_text(text)
        config = toy(calibration=str(given))
        with pytest.raises(InputError, match=r"calibration: .* is no file of recbole-e2urec"):
            Forgetting(config, load_dataset(config)).run()


def test_settings_that_are_no_numbers_are_refused(calibrated: Path) -> None:
    values = json.loads(calibrated.read_text())
    for place, key, value in (
        ("settings", "beta", "import os"),
        ("settings", "beta", True),
        ("settings", "beta", float("nan")),
        ("settings", "seed", 3),
        ("remembered", "rows", "9"),
        ("matched", "badness", "good"),
        ("remembered", "gap", None),
    ):
        changed = {**values, place: {**values[place], key: value}}
        calibrated.write_text(json.dumps(changed))
        with pytest.raises(InputError, match="no file of recbole-e2urec rehearse"):
            Calibration.read(calibrated)


def test_what_has_no_strength_to_find_is_refused(toy: Callable[..., Any]) -> None:
    for config, words in (
        (toy("SISA"), "SISA has no strength"),
        (toy(alpha=2.0), "it finds alpha, which is set"),
        (toy(teacher_divergence=0.3), "it finds teacher_divergence, which is set"),
        (toy("NegGrad", forget_weight=0.1), "it finds forget_weight"),
    ):
        with pytest.raises(InputError, match=words):
            Rehearsal(config, load_dataset(config), RehearseOptions())


def test_a_request_of_which_nothing_is_remembered_is_refused(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Known, "gaps", (-0.1, 0.05))
    config = toy()
    with pytest.raises(InputError, match="nothing to match"):
        Known(config, load_dataset(config), RehearseOptions()).search()
    assert not Path("saved/calibration.json").exists()


@pytest.mark.slow
def test_a_trial_that_diverges_is_passed_over(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(Known):
        def points(self, settings: Any) -> list[Point]:
            if settings["unlearn_learning_rate"] != self.config["unlearn_learning_rate"]:
                monkeypatch.setattr(E2URec, "unlearn", diverging)
                return Rehearsal.points(self, settings)
            return super().points(settings)

    def diverging(*given: Any) -> Any:
        raise Diverged("the loss became NaN")

    config = toy()
    found = Fragile(config, load_dataset(config), RehearseOptions()).search()
    rates = {point["settings"]["unlearn_learning_rate"] for point in found.curve}
    assert rates == {config["unlearn_learning_rate"]}
    monkeypatch.setattr(Known, "points", Rehearsal.points)
    with pytest.raises(InputError, match="no trial came to an end"):
        Known(config, load_dataset(config), RehearseOptions()).search()


def test_the_command_rehearses_and_the_file_it_names_works(
    toy_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_e2urec.rehearsal.Rehearsal", Known)
    given = as_arguments(GIVEN)
    given += ["--model=E2URec", "--dataset=toy", f"--data_path={toy_data}", "--show_progress=False"]
    assert cli.main(["rehearse", "--trials=1", "--kind=heavy", *given]) == 0
    shown = capsys.readouterr().out
    assert "rows of heavy rehearsed" in shown
    assert sum(line.startswith("best") for line in shown.splitlines()) == 1
    assert cli.main([*given, "--calibration=saved/calibration.json"]) == 0
    assert "teacher_divergence, found" in capsys.readouterr().out
