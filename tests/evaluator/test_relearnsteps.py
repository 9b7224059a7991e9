"""Relearning in few steps: the halves, the order of rows, and weights that come back."""

import numpy as np
import pytest
import torch

from recbole_e2urec.evaluator.attacks import CURVE_BATCH_SIZE, CURVE_STEPS, halves, step_curve


def parted(count: int, most: int | None = None) -> tuple[list[int], list[int]]:
    shown, rest = halves(np.arange(count), 7, most)
    return shown.tolist(), rest.tolist()


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [(0, None, (0, 0)), (1, None, (0, 1)), (5, None, (2, 3)), (9, 4, (2, 2)), (3, 8, (1, 2))],
)
def test_halves_are_as_large_as_they_can_be(count, most, sizes):
    shown, rest = parted(count, most)
    assert (len(shown), len(rest)) == sizes
    assert not set(shown) & set(rest)
    assert set(shown) | set(rest) <= set(range(count))
    assert [shown, rest] == [sorted(shown), sorted(rest)]
    assert parted(count, most) == (shown, rest)  # the same whenever it is asked


def run_of(small_config, **settings):
    from recbole_e2urec.data.dataset import load_dataset
    from recbole_e2urec.experiment.run import Experiment

    config = small_config("LLMRec", title_field="movie_title", history_length=2, **settings)
    return Experiment(config, load_dataset(config))


def test_a_curve_leaves_the_weights_as_they_were_and_shows_one_half_alone(small_config):
    run = run_of(small_config)
    rows, history = np.arange(10, 37), run.history(np.empty(0, np.int64))
    before, seen = run.model.bank.state(None), []
    losses = run.model.answer_losses

    def watching(part, items=None):
        seen.append(part.tolist())
        return losses(part, items)

    run.model.answer_losses = watching
    curve = step_curve(run.model, rows, history, seed=3)
    after = run.model.bank.state(None)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert curve is not None
    shown, rest = halves(rows, 3)
    assert (curve.shown, curve.asked) == (13, 14)
    assert len(seen) == CURVE_STEPS[-1] == 16
    assert {len(part) for part in seen} == {
        13
    }  # fewer than CURVE_BATCH_SIZE: all of them in every step
    assert CURVE_BATCH_SIZE == 16
    assert all(sorted(part) == shown.tolist() for part in seen)
    assert not {row for part in seen for row in part} & set(rest.tolist())
    with run.model.using_history(history):
        yes = run.model.answer(rest, None).double().numpy()
    label = run.dataset.rows.label[rest]
    wanted = -np.log(np.where(label == 1, yes, 1 - yes)).mean()
    assert curve.loss[0] == pytest.approx(wanted, abs=1e-6)
    assert curve.loss[-1] < curve.loss[0]  # an untrained model learns how often people like things
    assert step_curve(run.model, rows, history, seed=3) == curve


def test_there_is_no_curve_of_a_single_row(small_config):
    run = run_of(small_config)
    history = run.history(np.empty(0, np.int64))
    assert step_curve(run.model, np.array([4]), history, seed=3) is None
    assert step_curve(run.model, np.empty(0, np.int64), history, seed=3) is None
