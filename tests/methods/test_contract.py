"""What holds for every method, whatever language model it works on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetSplit
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.experiment.unlearning import Forgetting, MeasuredModel
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.model.scorers import Adapted, Ensemble, Mixture

Begin = Callable[..., Forgetting]
# What a method cannot do without: prompts name no users unless told to.
NEEDS: dict[str, dict[str, Any]] = {"TokenReset": {"prompt": "numbered"}}
# Those of which the default run tests most; the golden figures hold for all methods.
MAIN = ("E2URec", "NegatedE2URec", "CrossFit", "TokenReset")
every_method = pytest.mark.parametrize("method", METHODS)
every_tuning = pytest.mark.parametrize(
    ("method", "tuning"),
    [
        pytest.param(
            one, tuning, marks=[pytest.mark.thorough] * (one not in MAIN and tuning == "lora")
        )
        for one in METHODS
        for tuning in ("full", "lora")
    ],
)
mostly_main = pytest.mark.parametrize(
    "method",
    [pytest.param(one, marks=[pytest.mark.thorough] * (one not in MAIN)) for one in METHODS],
)
mostly_t5 = pytest.mark.parametrize(
    "backbone", ["tiny-t5", pytest.param("tiny-llama", marks=pytest.mark.thorough)]
)


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a folder of stages: Original and Retrain are trained once for all methods."""
    return tmp_path_factory.mktemp("stages")


@pytest.fixture
def begin(small_config: Callable[..., Any], stages: Path) -> Begin:
    """Train Original and Retrain on ``small``, or take them; keyword arguments are settings."""

    def make(method: str, backbone: str, **settings: Any) -> Forgetting:
        settings = {"checkpoint_dir": str(stages), **NEEDS.get(method, {}), **settings}
        config = small_config(method, backbone=backbone, **settings)
        run = Forgetting(config, load_dataset(config))
        run.train()
        return run

    return make


def forget_only(run: Forgetting, rows: NDArray[np.int64]) -> Forgetting:
    """Make these training rows the request."""
    run.split = ForgetSplit(np.setdiff1d(run.parts.splits.train, rows), rows)
    return run


def unlearn(run: Forgetting) -> MeasuredModel:
    return run.unlearn(method_of(run.config))


def everything(run: Forgetting) -> list[torch.Tensor]:
    """Weights of the backbone and of Original's adapter, and what Original answers."""
    bank, adapter = run.model.bank, run.model.adapter
    weights = [*bank.state(None).values(), *bank.state(adapter).values()]
    with bank.frozen(adapter):
        return [*weights, run.model.hidden(run.split.forget)]


def asked(made: MeasuredModel) -> NDArray[np.float64]:
    return made.answers.yes[~np.isnan(made.answers.yes)]


@every_tuning
@mostly_t5
def test_original_stays_bit_by_bit_and_the_unlearned_model_differs(
    begin: Begin, method: str, backbone: str, tuning: str
) -> None:
    run = begin(method, backbone, tuning=tuning, relearn_epochs=2)
    before = everything(run)
    unlearned = unlearn(run)
    assert all(map(torch.equal, before, everything(run)))
    row = run.measured(method, unlearned)
    assert 0 <= row["to_retrain"]["jsd"] <= np.log(2)
    rest = unlearned.answers.yes[run.relearning.rest]
    labels = run.dataset.rows.label[run.relearning.rest]
    assert row["relearning"]["auc"][0] == labelled_metrics(run.config, rest, labels)["auc"]
    assert len(set(row["relearning"]["logloss"])) == 3
    assert row["to_retrain"]["residual"] != 1.0
    assert run.measured("Original", run.original)["to_retrain"]["residual"] == 1.0
    assert run.measured("Retrain", run.retrain)["to_retrain"]["residual"] == 0.0


@mostly_main
@mostly_t5
def test_the_same_seed_gives_the_same_answers_and_another_one_others(
    begin: Begin, method: str, backbone: str
) -> None:
    first = asked(unlearn(begin(method, backbone)))
    again = asked(unlearn(begin(method, backbone, checkpoint_dir="saved")))
    other = asked(unlearn(begin(method, backbone, seed=8)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@every_method
@mostly_t5
def test_an_empty_forget_set_changes_nothing(begin: Begin, method: str, backbone: str) -> None:
    run = begin(method, backbone)
    forget_only(run, run.split.forget[:0])
    unlearned = method_of(run.config).unlearn(run.model, run.request)
    before = unlearned.before or Adapted(run.model.adapter)
    rows = run.parts.splits.test
    now, then = (one.ask(run.model, rows).logits() for one in (unlearned.scorer, before))
    assert torch.equal(now, then)
    assert unlearned.cost["steps"] == 0
    together = isinstance(unlearned.scorer, Ensemble | Mixture)
    assert together != METHODS[method].answers_alone


@every_method
@mostly_t5
def test_a_forget_set_of_one_row_works(begin: Begin, method: str, backbone: str) -> None:
    run = begin(method, backbone)
    forget_only(run, run.split.forget[:1])
    if method == "TokenReset":  # it forgets whole users, see test_tokenreset.py
        with pytest.raises(InputError):
            unlearn(run)
        return
    unlearned = asked(unlearn(run))
    assert len(unlearned) == len(asked(run.original))
    assert ((unlearned > 0) & (unlearned < 1)).all()
    assert not np.array_equal(unlearned, asked(run.original))
