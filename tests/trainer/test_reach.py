"""Which of an adapted embedding's tokens a student learns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from atomic_files import rewrite, small_interactions

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetSplit
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.trainer.batches import ForgetRetainBatches
from recbole_e2urec.trainer.student import LEAST_COVERAGE, Student

RARE = "i19"  # its title has a word that no other prompt shows


def nameless(config: Any) -> Forgetting:
    """A request of four users whom prompts do not name; one of them alone has seen ``RARE``."""
    seen = [row for row in small_interactions() if row[1] != RARE or row[0] == "u2"]
    run = Forgetting(config, load_dataset(rewrite(config, seen)))
    train, user = run.parts.splits.train, run.dataset.rows.user
    leave = [run.dataset.ids.users[f"u{number}"] for number in range(0, 8, 2)]
    forget = train[np.isin(user[train], leave)]
    run.split = ForgetSplit(np.setdiff1d(train, forget), forget)
    run.train()
    return run


def student_of(run: Forgetting) -> Student:
    return Student(run.model, run.request, "E2URec", method_of(run.config).options)


def test_a_rare_word_of_a_few_rows_leaves_the_embedding_free_to_learn_all_tokens(
    small_config: Callable[..., Any],
) -> None:
    run = nameless(small_config("E2URec", forget_tokens_only=True, user_fields=[], control_users=0))
    student = student_of(run)
    own = student.pairing.forget_only_tokens()
    shown = student.pairing.forget_table.shows(run.split.forget, own.numpy())
    assert 0 < shown.sum() < len(shown) / 2
    assert student.learns == (None, False)


@pytest.mark.parametrize(
    ("reached", "limited"), [(LEAST_COVERAGE, True), (LEAST_COVERAGE - 0.1, False)]
)
def test_own_tokens_alone_learn_where_nearly_every_forget_row_shows_one(
    small_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    reached: float,
    limited: bool,
) -> None:
    config = small_config("E2URec", forget_tokens_only=True, prompt="numbered")
    run = Forgetting(config, load_dataset(config))
    run.train()
    rows = len(run.split.forget)
    shows = np.arange(rows) < np.ceil(reached * rows)
    monkeypatch.setattr(ForgetRetainBatches, "reached", lambda pairing, tokens: shows)
    student = student_of(run)
    own = student.pairing.forget_only_tokens().tolist()
    assert len(own) > 0
    tokens, alone = student.learns
    assert not alone
    assert (None if tokens is None else tokens.tolist()) == (own if limited else None)
