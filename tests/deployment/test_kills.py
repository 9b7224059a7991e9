"""A request that is killed leaves the old model or the new one, and is neither lost nor done twice.

The child kills itself as kill -9 does, before its n-th step that a disk can see: a flush, a rename
or a removal. Between two of these the disk stays as it is.
"""

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_use import forget_users, opened

from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.errors import InputError

pytestmark = pytest.mark.usefixtures("in_use")
FORK = multiprocessing.get_context("fork")
STEPS = [(os, "fsync"), (os, "replace"), (shutil, "rmtree")]


def request() -> str:
    return forget_users("u1", model="NegGrad", joint_epochs=2)


def in_child(body: Callable[[], Any]) -> int | None:
    """Run in a process of its own; gives its exit code, -9 where it was killed."""
    child = FORK.Process(target=body)
    child.start()
    child.join(300)
    return child.exitcode


def killed_before(step: int) -> None:
    """Carry out the request until the n-th step, counted from 1."""
    left = step

    def counted(function: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **more)

        return call

    for module, name in STEPS:
        setattr(module, name, counted(getattr(module, name)))
    request()


def steps(wanted: dict[str, Any]) -> int:
    """How many steps the request has; keeps what it makes, uninterrupted, in ``wanted``.

    Another request was carried out before. ``placing`` is the step that puts the new model in
    place; afterwards, it is measured and certified.
    """
    forget_users("u2", model="NegGrad")
    wanted["earlier"] = ModelFolder("model").read().record["requests"]
    assert len(wanted["earlier"]) == 1
    shutil.copytree("model", "spare")
    counter, placing = FORK.Value("i", 0), FORK.Value("i", 0)

    def body() -> None:
        def counted(function: Any) -> Any:
            def call(*given: Any, **more: Any) -> Any:
                counter.value += 1
                if not placing.value and Path(str(given[-1])).name == "current.json":
                    placing.value = counter.value
                return function(*given, **more)

            return call

        for module, name in STEPS:
            setattr(module, name, counted(getattr(module, name)))
        request()

    assert in_child(body) == 0
    wanted["new"] = ModelFolder("model").read().record["files"]
    wanted["placing"] = placing.value
    shutil.rmtree("model")
    shutil.copytree("spare", "model")
    wanted["old"] = ModelFolder("model").read().record["files"]
    return counter.value


def check_whole(wanted: dict[str, Any]) -> bool:
    """The old model or the new one is there and answers; says whether it is the new one."""
    record = ModelFolder("model").read().record
    new = len(record["requests"]) == 2
    assert record["files"] == wanted["new" if new else "old"]
    assert record["requests"][:1] == wanted["earlier"]
    recommender = load_recommender("model")
    with pytest.raises(InputError, match="nothing is known"):
        recommender.recommend("u2")
    if new:
        with pytest.raises(InputError, match="nothing is known"):
            recommender.recommend("u1")
    else:
        recommender.recommend("u1")
    return new


def check_goes_on(wanted: dict[str, Any]) -> None:
    """The same request again comes to its end, once."""
    request()
    assert check_whole(wanted)
    assert "carried out before" in request()
    names = sorted(path.name for path in Path("model").iterdir())
    assert names == [".lock", "certificates", "current.json", "generations"]
    number = sorted(path.suffix for path in Path("model/certificates").iterdir())
    assert number == [".html", ".html", ".json", ".json"]
    assert len(list(Path("model/generations").iterdir())) == 1
    assert len(opened().record["requests"]) == 2  # none is lost, none was done twice


def trial(step: int, wanted: dict[str, Any]) -> bool:
    shutil.rmtree("model")
    shutil.copytree("spare", "model")
    assert in_child(lambda: killed_before(step)) == -signal.SIGKILL
    new = check_whole(wanted)
    check_goes_on(wanted)
    return new


@pytest.mark.thorough
def test_killed_at_five_steps() -> None:
    wanted: dict[str, Any] = {}
    count = steps(wanted)
    placing = wanted["placing"]
    drawn = random.Random(7).sample(range(1, placing - 5), 1)
    later = [placing, placing + 1, (placing + count) // 2, count - 3]
    states = [trial(step, wanted) for step in [*drawn, *later]]
    assert states == [False, False, True, True, True]


@pytest.mark.slow
def test_killed_at_every_step() -> None:
    wanted: dict[str, Any] = {}
    states = [trial(step, wanted) for step in range(1, steps(wanted) + 1)]
    assert states == sorted(states)
    assert len(set(states)) == 2


@pytest.mark.slow
def test_killed_at_a_hundred_moments() -> None:
    wanted: dict[str, Any] = {}
    steps(wanted)
    started = time.perf_counter()
    assert in_child(request) == 0
    seconds = time.perf_counter() - started
    generator = random.Random(11)
    for _ in range(100):
        shutil.rmtree("model")
        shutil.copytree("spare", "model")
        child = FORK.Process(target=request)
        child.start()
        child.join(generator.uniform(0, 1.1 * seconds))
        child.kill()
        child.join()
        check_whole(wanted)
        check_goes_on(wanted)


def test_two_requests_at_once_wait_for_each_other() -> None:
    children = [
        FORK.Process(target=lambda users=users: forget_users(*users, model="NegGrad"))
        for users in (["u1"], ["u2"], ["u1", "u1"])
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0, 0, 0]
    run = opened()
    assert len(run.record["requests"]) == 2  # u1's is done once
    assert len(run.gone) == 2
