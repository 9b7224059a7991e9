"""Which rows stand in one table: never beside a Retrain that they were not measured against."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recbole.utils import init_seed
from safetensors.torch import load_file

from recbole_e2urec import cli
from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report import report
from recbole_e2urec.report.comparisons import Comparison, comparisons
from recbole_e2urec.report.results import ForgetAnswers, load_rows, save_answers
from recbole_e2urec.report.tables import NOISE

HERE = Path("saved")
RANDOM = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user"}


def row(model: str, seed: int = 1, auc: float = 0.5, **more: Any) -> dict[str, Any]:
    """A row of a run; ``of`` names its comparison, which its Retrain's stage begins with."""
    of = more.pop("of", "a")
    settings = {"tuning": "full", "epochs": 3, "seed": seed, **more.pop("settings", {})}
    retrain = f"{of}{seed}"
    return {
        "model": model, "dataset": "d", "seed": seed, "backbone": "tiny-t5",
        "stage": retrain if model == "Retrain" else f"{model}-{of}{seed}", "request": retrain,
        "request_digest": "q", "request_id": "q", "comparison": of,
        "test": {"auc": auc}, "forget": {"auc": auc, "rows": 9},
        "to_retrain": {"jsd": 0.01, "residual": 0.5}, "settings": settings, **more,
    }  # fmt: skip


def run(*seeds: int, **more: Any) -> list[dict[str, Any]]:
    return [row(model, seed, **more) for seed in seeds for model in ("Original", "Retrain", "NPO")]


def classic(model: str = "FM", **more: Any) -> dict[str, Any]:
    return {"model": model, "dataset": "d", "seed": 1, "test": {"auc": 0.4}, **more}


def named(found: list[Comparison]) -> dict[str, list[tuple[str, int]]]:
    return {one.title: [(own["model"], own["seed"]) for own in one.rows] for one in found}


def apart(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    """Titles of two runs in one file; no row may stand beside another run's, and none be lost."""
    found = comparisons([*first, *second], HERE)
    assert [[own["stage"] for own in one.rows] for one in found] == [
        [own["stage"] for own in rows] for rows in (first, second)
    ]
    return [one.title for one in found]


def test_seeds_of_one_comparison_share_a_table() -> None:
    assert named(comparisons(run(1, 2), HERE)) == {
        "d, tiny-t5, 9 forget rows, seeds 1, 2": [
            ("Original", 1), ("Original", 2), ("Retrain", 1), ("Retrain", 2), ("NPO", 1), ("NPO", 2)
        ]
    }  # fmt: skip


def test_another_backbone_is_another_table() -> None:
    assert apart(run(1), run(1, of="b", backbone="tiny-llama")) == [
        "d, tiny-t5, 9 forget rows, seed 1",
        "d, tiny-llama, 9 forget rows, seed 1",
    ]


def test_another_data_set_of_the_same_rows_is_another_table() -> None:
    assert apart(run(1), run(1, dataset="e")) == [
        "d, tiny-t5, 9 forget rows, seed 1",
        "e, tiny-t5, 9 forget rows, seed 1",
    ]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"settings": {"epochs": 5}}, ("epochs 3", "epochs 5")),
        ({"settings": {"threshold": {"rating": 5}}}, None),
        ({"request_digest": "z", "request_id": "z"}, ("request q", "request z")),
        ({"request_digest": "z"}, ("request q", "request z")),  # the same id for both
        ({}, ("Retrain a1", "Retrain b1")),
    ],
)
def test_another_retrain_is_another_table_and_the_titles_say_what_differs(
    more: dict[str, Any], told: tuple[str, str] | None
) -> None:
    titles = apart(run(1), run(1, of="b", **more))
    assert len(set(titles)) == 2
    if told:
        assert titles == [f"d, tiny-t5, 9 forget rows, {one}, seed 1" for one in told]


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)])
@pytest.mark.parametrize("key", ["epochs", "threshold", "history_length", "average_decay"])
def test_rows_of_older_versions_are_told_apart_by_their_settings(
    key: str, seeds: tuple[int, int]
) -> None:
    one, other = (
        run(seed, of=of, comparison=None, settings={key: value})
        for seed, of, value in zip(seeds, "ab", (3, 4), strict=True)
    )
    titles = apart(one, other)
    assert [f"{key} 3" in titles[0], f"{key} 4" in titles[1]] == [True, True]


def test_rows_of_older_versions_share_a_table_over_seeds() -> None:
    (found,) = comparisons(run(1, 2, comparison=None), HERE)
    assert len(found.rows) == 6


def test_two_retrains_of_one_seed_never_share_a_table_whatever_the_settings_say() -> None:
    first, second = run(1, comparison="same"), run(1, of="b", comparison="same")
    assert apart(first, second)[0] == "d, tiny-t5, 9 forget rows, Retrain a1, seed 1"


def test_a_row_without_its_retrain_stands_apart() -> None:
    found = named(comparisons([*run(1), row("NPO", 2)], HERE))
    assert list(found.values())[1] == [("NPO", 2)]
    assert list(found)[1] == "d, tiny-t5, 9 forget rows, without its Retrain, seed 2"


def test_rows_of_two_retrains_that_are_gone_stand_apart() -> None:
    first, second = row("NPO", comparison="same"), row("NPO", of="b", comparison="same")
    titles = apart([first], [second])
    assert titles[0] == "d, tiny-t5, 9 forget rows, without its Retrain, Retrain a1, seed 1"


@pytest.mark.parametrize("turned", [False, True])
def test_models_alone_share_a_table_in_whatever_order_they_ran(turned: bool) -> None:
    alone = {**classic("LLMRec"), "backbone": "tiny-t5", "stage": "s", "settings": {"epochs": 3}}
    other = {**alone, "backbone": "tiny-llama", "stage": "t"}
    rows = [classic(settings={"epochs": 300}), alone, other]
    found = comparisons(rows[::-1] if turned else rows, HERE)
    assert sorted([sorted(own["model"] for own in one.rows) for one in found]) == [
        ["FM", "LLMRec"], ["FM", "LLMRec"]
    ]  # fmt: skip


def test_a_mean_over_fewer_seeds_says_so(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in run(1, 2)[:-1]))
    assert report.main([str(file)]) == 0
    assert "NPO: of seed 1 alone" in capsys.readouterr().out


def test_settings_of_a_method_are_lines_of_their_own() -> None:
    def methods(alpha: float, seed: int) -> dict[str, Any]:
        return row("E2URec", seed, stage=f"{alpha}-{seed}", settings={"alpha": alpha})

    rows = [methods(alpha, seed) for alpha in (2.0, 5.0) for seed in (1, 2)]
    (found,) = comparisons([*run(1, 2), *rows], HERE)
    assert [own["model"] for own in found.rows[6:]] == [
        *["E2URec, alpha: 2.0"] * 2, *["E2URec, alpha: 5.0"] * 2
    ]  # fmt: skip


def test_what_cannot_be_told_apart_is_counted_and_kept() -> None:
    (found,) = comparisons([*run(1), row("NPO", stage="again"), row("NPO", stage="third")], HERE)
    assert [own["model"] for own in found.rows[2:]] == ["NPO", "NPO (2)", "NPO (3)"]


def test_noise_of_several_pairs_is_one_line() -> None:
    noise = [row(NOISE, 1, stage=stage) for stage in ("a2", "a3")]
    (found,) = comparisons([*run(1), *noise], HERE)
    assert [own["model"] for own in found.rows] == ["Original", "Retrain", NOISE, NOISE, "NPO"]


def test_classic_models_stand_in_each_comparison_of_their_data_and_request() -> None:
    other = run(1, of="b", backbone="tiny-llama")
    third = run(1, of="c", request_digest="z", request_id="z")
    asked = classic(request_digest="q", forget={"auc": 0.4, "rows": 9})
    found = comparisons([*run(1), *other, *third, asked, classic("BPR")], HERE)
    assert [[own["model"] for own in one.rows[3:]] for one in found] == [
        ["FM", "BPR"], ["FM", "BPR"], ["BPR"]
    ]  # fmt: skip


def test_a_classic_model_of_other_data_has_a_table_of_its_own() -> None:
    rows = [*run(1, settings={"threshold": {"rating": 4}})]
    other = classic(settings={"threshold": {"rating": 5}, "epochs": 300})
    found = named(comparisons([*rows, other], HERE))
    assert list(found.values())[1] == [("FM", 1)]
    same = classic(settings={"threshold": {"rating": 4}, "epochs": 300})
    assert len(comparisons([*rows, same], HERE)) == 1


def test_a_recommender_alone_stands_beside_its_own_backbone_and_training() -> None:
    alone = {**classic("LLMRec"), "backbone": "tiny-t5", "stage": "s"}
    assert len(comparisons([*run(1), {**alone, "settings": {"epochs": 3}}], HERE)) == 1
    assert len(comparisons([*run(1), {**alone, "settings": {"epochs": 5}}], HERE)) == 2
    assert len(comparisons([*run(1), {**alone, "backbone": "tiny-llama"}], HERE)) == 2


@pytest.mark.parametrize("kind", report.FORMATS)
def test_each_format_has_a_title_a_table_and_no_mixed_gap(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def two(of: str, backbone: str, retrained: float, unlearned: float) -> list[dict[str, Any]]:
        more = {"of": of, "backbone": backbone}
        return [row("Retrain", auc=retrained, **more), row("NPO", auc=unlearned, **more)]

    rows = [*two("a", "tiny-t5", 0.5, 0.75), *two("b", "tiny-llama", 0.625, 0.6875)]
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert report.main([str(file), f"--format={kind}"]) == 0
    shown = capsys.readouterr().out
    for backbone in ("tiny-t5", "tiny-llama"):
        assert f"d, {backbone}, 9 forget rows, seed 1" in shown
    for gap in ("0.2500", "0.0625"):  # .75 - .5 and .6875 - .625
        assert gap in shown
    assert "0.1250" not in shown
    assert shown.count("residual: not shown; it needs a second Retrain") == 2


class TestBias:
    """Bias over seeds, in floors, from answers beside the results."""

    YES: dict[str, dict[int, list[float]]] = {  # noqa: RUF012 - as worked in test_over_seeds.py
        "Retrain": {1: [0.2, 0.5], 2: [0.4, 0.5]},
        "NPO": {1: [0.6, 0.5], 2: [0.6, 0.7]},
    }

    def keep(self, rows: list[dict[str, Any]], alike: str = "x") -> None:
        for one in rows:
            if one["model"] in self.YES:
                yes = np.array(self.YES[one["model"]][one["seed"]])
                save_answers(HERE, one, ForgetAnswers(yes, alike))

    def found(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        (one,) = comparisons(rows, HERE)
        return {own["model"]: own["bias"] for own in one.rows if "bias" in own}

    def test_it_is_what_is_off_under_every_seed(self) -> None:
        rows = run(1, 2)
        self.keep(rows)
        assert self.found(rows) == pytest.approx({"Retrain": 0, "NPO": (0.04 / 0.02) ** 0.5})
        for original in rows:
            if original["model"] == "Original":
                original["forget"] = {**original["forget"], "auc": 1.0}  # a gap beyond noise
        (one,) = comparisons(rows, HERE)
        cells = report.tables_of(one.rows)[0]
        place = cells.header.index("bias, floors")
        assert [line[place] for line in cells.lines] == ["-", "0.00", "1.41"]
        assert cells.header[place + 1] == "scatter, floors"
        assert [line[place + 1] for line in cells.lines] == ["-", "0.00", "1.00"]
        assert "residual" not in cells.header

    def test_there_is_none_without_answers_or_on_other_rows(self) -> None:
        rows = run(1, 2)
        assert self.found(rows) == {}
        self.keep(rows[:3])
        self.keep(rows[3:], "y")
        assert self.found(rows) == {}
        self.keep(rows)
        for file in HERE.glob("*/answers/*"):
            file.write_bytes(b"damaged")
        assert self.found(rows) == {}

    def test_who_is_nearer_to_retrain_stands_beside_it(self) -> None:
        rows, places = run(1, 2, 3), {"Original": 0.8, "Retrain": 0.4, "NPO": 0.45}
        users = np.arange(40, dtype=np.int32) // 4

        def found(users: Any, key_of_seed_3: str = "x") -> list[str]:
            draws = np.random.default_rng(1).normal(0, 0.02, (len(rows), 40))
            for one, draw in zip(rows, draws, strict=True):
                key = key_of_seed_3 if one["seed"] == 3 else "x"
                save_answers(HERE, one, ForgetAnswers(places[one["model"]] + draw, key, users))
            (one,) = comparisons(rows, HERE)
            for original in one.rows[:3]:
                original["forget"] = {**original["forget"], "auc": 1.0}  # a gap beyond noise
            cells = report.tables_of(one.rows)[0]
            if "nearer to Retrain" not in cells.header:
                return []
            place = cells.header.index("nearer to Retrain")
            return [line[place].split(",")[0] for line in cells.lines]

        assert found(users) == ["no", "yes", "yes"]
        assert found(None) == []  # files of older versions have no users
        assert found(users, "y") == []  # seeds that split the rows differently

    def test_answers_that_version_0_7_wrote_are_read(self) -> None:
        rows = run(1, 2)
        self.keep(rows)
        found = self.found(rows)
        (folder,) = HERE.glob("*/answers")
        folder.rename(HERE / "answers")
        assert self.found(rows) == found != {}

    def test_seeds_that_ran_one_by_one_share_a_table_and_other_runs_do_not(
        self, small_data: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = {"data_path": str(small_data), "show_progress": False, "joint_epochs": 1}
        for seed, epochs in ((1, 1), (2, 1), (1, 2)):
            run_recbole_e2urec(
                "NegGrad", "small", config_dict={**given, "seed": seed, "epochs": epochs}
            )
        capsys.readouterr()
        assert report.main(["saved/results.jsonl"]) == 0
        shown = capsys.readouterr().out.splitlines()
        titles = [line for line in shown if line.startswith("small, ")]
        assert titles == [
            "small, tiny-t5, 40 forget rows, epochs 1, seeds 1, 2",
            "small, tiny-t5, 40 forget rows, epochs 2, seed 1",
        ]
        assert sum("bias, floors" in line for line in shown) == 1
        assert sum("residual: not shown; it needs" in line for line in shown) == 1
        files = list(HERE.glob("*/answers/*"))
        assert len(files) == len(load_rows(HERE / "results.jsonl")) == 9
        of_users = load_file(files[0])["users"].numpy()
        assert sorted(set(of_users)) == list(range(max(of_users) + 1))  # no user's identifier
        told = HERE / "results.jsonl"
        assert not re.search(r'"[ui]\d+"', told.read_text())
        assert cli.main(["purge", "--checkpoint_dir=saved"]) == 0
        assert "answers: 9, " in capsys.readouterr().out
        assert not [path for path in HERE.glob("*") if path.is_dir()]
        assert report.main([str(told)]) == 0  # without answers there is no bias
        assert "bias, floors" not in capsys.readouterr().out

    @pytest.mark.parametrize("more", [{"tuning": "lora"}, {"eval_args": RANDOM}])
    def test_other_splits_or_backbones_are_not_compared_row_by_row(
        self, more: dict[str, Any], small_data: Path
    ) -> None:
        given = {"data_path": str(small_data), "show_progress": False, "epochs": 1, **more}
        runs = []
        for seed in (1, 2):
            config = Config("NegGrad", "small", config_dict={**given, "seed": seed})
            init_seed(seed, True)
            runs.append(Forgetting(config, load_dataset(config)))
        one, other = runs
        assert one.comparison == other.comparison
        assert one.alike != other.alike

    def test_one_seed_has_none(self) -> None:
        rows = run(1)
        self.keep(rows)
        assert self.found(rows) == {}
