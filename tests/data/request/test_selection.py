import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splits import choose_forget

from recbole_e2urec.data.request.selection import ForgetOptions, choose_control_users
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError

#               row  0  1  2  3  4  5  6
USER = np.array([1, 1, 2, 2, 3, 3, 4])
ITEM = np.array([1, 2, 1, 3, 2, 3, 1])
IDS = IdMap(users={"ann": 1, "ben": 2, "cai": 3, "dan": 4}, items={"i1": 1, "i2": 2, "i3": 3})
TABLE = RowTable(USER, ITEM, np.arange(7.0), None, None)
TRAIN = np.array([5, 4, 3, 2, 1, 0])  # dan's only row is held out


@st.composite
def datasets(draw):
    n = draw(st.integers(4, 30))
    user = draw(st.lists(st.integers(1, 6), min_size=n, max_size=n).filter(lambda x: len({*x}) > 1))
    item = draw(st.lists(st.integers(1, 6), min_size=n, max_size=n).filter(lambda x: len({*x}) > 1))
    table = RowTable(np.array(user), np.array(item), np.arange(float(n)), None, None)
    tokens = {f"t{number}": number for number in range(1, 7)}
    return table, IdMap(tokens, tokens)


BYS = st.sampled_from(["user", "item", "interaction"])


@settings(deadline=None)
@given(datasets(), BYS, st.floats(0.01, 0.99), st.integers(0, 99))
def test_choose_forget_parts_are_disjoint_sorted_and_complete(data, by, ratio, seed):
    table, ids = data
    train = np.arange(len(table.user))
    retain, forget = choose_forget(ForgetOptions(by, ratio, seed=seed), train, table, ids)
    assert sorted([*retain, *forget]) == train.tolist()
    assert retain.tolist() == sorted(retain)
    assert forget.tolist() == sorted(forget)
    assert len(retain) > 0
    assert len(forget) > 0


@settings(deadline=None)
@given(datasets(), BYS, st.integers(0, 99), st.randoms(use_true_random=False))
def test_choose_forget_does_not_depend_on_the_order_of_file_or_rows(data, by, seed, random):
    table, ids = data
    n = len(table.user)
    order = np.array(random.sample(range(n), n))
    inner = np.array([0, *random.sample(range(1, 7), 6)])  # another numbering of the same tokens
    moved = RowTable(
        inner[table.user[order]], inner[table.item[order]], table.time[order], None, None
    )
    tokens = {token: int(inner[number]) for token, number in ids.users.items()}
    options = ForgetOptions(by, 0.4, seed=seed)
    forget = choose_forget(options, np.arange(n), table, ids).forget
    again = choose_forget(options, np.flip(np.arange(n)), moved, IdMap(tokens, tokens)).forget
    assert sorted(order[again]) == forget.tolist()


@given(st.floats(0.01, 0.98), st.integers(0, 99))
def test_choose_forget_of_a_larger_ratio_only_adds(ratio, seed):
    small, large = (
        choose_forget(ForgetOptions("interaction", share, seed=seed), TRAIN, TABLE, IDS).forget
        for share in (ratio, 0.99)
    )
    assert set(small) <= set(large)


def test_choose_forget_takes_whole_users():
    forget = choose_forget(ForgetOptions("user", 0.34), TRAIN, TABLE, IDS).forget
    assert forget.tolist() in [[0, 1], [2, 3], [4, 5]]


def test_choose_forget_takes_whole_items():
    forget = choose_forget(ForgetOptions("item", 0.34), TRAIN, TABLE, IDS).forget
    assert forget.tolist() in [[0, 2], [1, 4], [3, 5]]


def test_choose_forget_takes_a_share_of_rows():
    assert len(choose_forget(ForgetOptions("interaction", 0.5), TRAIN, TABLE, IDS).forget) == 3


def test_choose_forget_changes_with_the_seed():
    drawn = {
        tuple(choose_forget(ForgetOptions("user", 0.34, seed=s), TRAIN, TABLE, IDS).forget)
        for s in range(20)
    }
    assert len(drawn) == 3


def test_choose_forget_leaves_the_global_generator_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    choose_forget(ForgetOptions("user", 0.34), TRAIN, TABLE, IDS)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_choose_forget_refuses_one_user():
    with pytest.raises(InputError, match="1 users; forgetting needs at least 2"):
        choose_forget(ForgetOptions("user", 0.5), np.array([0, 1]), TABLE, IDS)


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan"), None, "0.2"])
def test_forget_options_refuse_a_ratio_outside_zero_and_one(ratio):
    with pytest.raises(InputError, match="forget_ratio"):
        ForgetOptions(ratio=ratio)


def test_forget_options_name_the_nearest_kind():
    with pytest.raises(InputError, match="did you mean 'user'"):
        ForgetOptions(by="users")


def test_forget_options_refuse_a_negative_seed():
    with pytest.raises(InputError, match="seed"):
        ForgetOptions(seed=-1)


def test_control_users_are_a_seeded_sorted_share():
    users = np.repeat(np.arange(1, 101), 3)
    control = choose_control_users(users, 0.1, 7)
    assert len(control) == 10
    assert control.tolist() == sorted(set(control))
    assert control.tolist() == choose_control_users(users[::-1], 0.1, 7).tolist()
    assert control.tolist() != choose_control_users(users, 0.1, 8).tolist()


def test_control_users_may_be_nobody():
    assert choose_control_users(np.arange(5), 0, 1).tolist() == []


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_control_users_refuse_a_share_of_everyone(share):
    with pytest.raises(InputError, match="control users"):
        choose_control_users(np.arange(5), share, 1)
