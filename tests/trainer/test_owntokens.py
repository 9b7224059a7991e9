"""By which tokens a small request can be carried out."""

import numpy as np
import pytest
import torch

from recbole_e2urec.trainer.batches import RequestRows, forget_only_tokens_of

NOBODY = torch.zeros(0, dtype=torch.int64)


class Prompts:
    """A table whose prompts are sets of tokens, by row; every user is named."""

    def __init__(self, prompts: list[set[int]], unnamed: tuple[int, ...] = ()) -> None:
        self.prompts, self.unnamed = prompts, unnamed

    def shows(self, rows, tokens):
        return np.array([not self.prompts[row].isdisjoint(tokens.tolist()) for row in rows], bool)

    def tokens(self, rows):
        return np.array(sorted(set().union(*(self.prompts[row] for row in rows))))

    def named(self, users):
        return ~np.isin(users, self.unnamed)


def sides(prompts, user, forget, unnamed=()):
    table, rows = Prompts(prompts, unnamed), np.arange(len(prompts))
    retain = np.setdiff1d(rows, forget)
    return RequestRows(np.array(forget), retain, table, table, np.array(user))


# Token 1 is in every prompt. User 7 is called 70, user 8 is called 80, which is also an age.
PROMPTS = [{1, 70, 5}, {1, 70}, {1, 80, 5}, {1, 80, 6}, {1, 90, 5, 6}, {1, 90, 80}, {1, 90, 6}]
USER = [7, 7, 8, 8, 9, 9, 9]


def test_tokens_of_ones_own_do_and_no_other_row_is_learned_from() -> None:
    found = forget_only_tokens_of(sides(PROMPTS, USER, [0, 1]), torch.tensor([70]), 2 / 7)
    assert found.tokens.tolist() == [70]
    assert found.retain_pool.tolist() == []


def test_a_request_above_the_share_is_not_small() -> None:
    assert (
        forget_only_tokens_of(sides(PROMPTS, USER, [0, 1]), torch.tensor([70]), 0.28) is None
    )  # 2/7


def test_a_user_whose_number_others_show_has_the_rarest_token_of_all_prompts() -> None:
    found = forget_only_tokens_of(sides(PROMPTS, USER, [0, 1, 2, 3]), torch.tensor([70]), 0.6)
    assert found.tokens.tolist() == [70, 80]  # 1 is in all three others, 5 not in both of user 8
    assert found.retain_pool.tolist() == [5]


def test_a_token_that_many_others_show_does_not_do() -> None:
    of = sides(PROMPTS, USER, [2, 3])  # 80 is shown by one of five retain rows
    assert forget_only_tokens_of(of, NOBODY, 0.29).tokens.tolist() == [80]
    crowded = [*PROMPTS[:4], *({1, 80, 90} for _ in range(3))]
    assert forget_only_tokens_of(sides(crowded, USER, [2, 3]), NOBODY, 0.29) is None


def test_a_rare_word_in_some_prompts_of_a_user_is_not_the_users() -> None:
    prompts = [*PROMPTS[:2], {1, 80, 60}, {1, 80, 61}, *PROMPTS[4:]]  # 60 and 61: nobody else's
    found = forget_only_tokens_of(sides(prompts, USER, [2, 3]), torch.tensor([60, 61]), 0.29)
    assert found.tokens.tolist() == [60, 61, 80]
    assert found.retain_pool.tolist() == [5]


@pytest.mark.parametrize(("forget", "unnamed"), [([2], ()), ([2, 3], (8,))])
def test_rows_of_who_stays_or_has_no_name_need_a_token_of_their_own(forget, unnamed) -> None:
    of = sides(PROMPTS, USER, forget, unnamed)
    assert forget_only_tokens_of(of, NOBODY, 1.0) is None
    assert forget_only_tokens_of(of, torch.tensor([80]), 1.0) is not None
