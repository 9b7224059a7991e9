"""Several processes on one run: the numbers of one, one writer, and an end when one dies."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from atomic_files import INTER, small_interactions, write_table
from command_line import as_arguments
from torch.distributed.tensor import DTensor

from recbole_e2urec import cli
from recbole_e2urec.data.dataset import _loaded, load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import launch
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.experiment.launch import Launch
from recbole_e2urec.experiment.run import Experiment
from recbole_e2urec.model.backbones.lora import backbone_weights
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.loop import SummedGradients, seed_dropout
from recbole_e2urec.utils import distributed

CHECKOUT = Path(__file__).parents[2]
SETTINGS = {
    "dataset": "small",
    "epochs": 2,
    "backbone_init": 1.0,  # answers far apart from the start: a rounding error moves no rank
    "learning_rate": 0.005,
    "augmented_learning_rate": 0.005,
    "augmented_epochs": 2,
    "history_length": 3,
    "train_batch_size": 32,
    "unlearn_batch_size": 16,
    "title_field": "movie_title",
    "lora_dropout": 0.0,
    "average_decay": 0.0,
    "show_progress": False,
}
CLOCKED = (
    "seconds", "prior_seconds", "amortised_seconds", "relative_to_retrain", "peak_memory_mb",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes begin as copies of this one: they need not import all of it again."""
    monkeypatch.setattr(launch, "START", "fork")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small``, whose interactions and titles are those of ``small_data``; gives data_path."""
    folder = tmp_path_factory.mktemp("data") / "small"
    write_table(folder / "small.inter", INTER, small_interactions())
    films = [[f"i{item}", f"Film {item}"] for item in range(20)]
    write_table(folder / "small.item", "item_id:token movie_title:token_seq", films)
    return folder.parent


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The folder of a run in one process, with what it printed in ``out``."""
    folder = tmp_path_factory.mktemp("one")
    with redirect_stdout(StringIO()) as out:
        assert main(folder, data) == 0
    (folder / "out").write_text(out.getvalue(), encoding="utf-8")
    return folder


def main(folder: Path, data: Path, *arguments: str, **settings: Any) -> int:
    """Run the command line in a folder; gives its exit code."""
    folder.mkdir(exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        return cli.main([*arguments, *as_arguments({"data_path": data, **SETTINGS, **settings})])
    finally:
        os.chdir(before)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The table without what a clock or a memory gauge says, and who was there."""
    lines = (folder / "saved/results.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    for row in found:
        for name in ("processes", "data_path", "use_gpu"):
            row["settings"].pop(name, None)
        for name in CLOCKED:
            row["cost"].pop(name, None)
    return found


def curves(folder: Path) -> dict[str, list[Any]]:
    """Loss terms by epoch, by stage."""
    found = {}
    for path in sorted(folder.glob("saved/*/stages/*/stage.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))["summary"]
        found[path.parent.name] = summary.get("train_loss") or summary["losses"]
    return found


def assert_close(one: Any, other: Any, within: float = 1e-4) -> None:
    """Two trees of numbers are the same to 1e-4, and else the same."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key], within)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for mine, yours in zip(one, other, strict=True):
            assert_close(mine, yours, within)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=within, abs=within)
    else:
        assert one == other


def files(folder: Path) -> dict[str, int]:
    """How many files there are, by their kind."""
    found: dict[str, int] = {}
    for path in folder.rglob("[!o]*"):
        if path.is_file():
            name = re.sub(r"\d{2,}.*", "", path.name) if "log" in str(path) else path.name
            found[name] = found.get(name, 0) + 1
    return found


# the same numbers


def recommend(config: Any) -> dict[str, Any]:
    """Train the recommender; gives its row, and the most rows that a pass learned from."""
    run = Experiment(config, load_dataset(config))
    seen: list[int] = []

    def note(_: Any, given: Any) -> None:
        if torch.is_grad_enabled():
            seen.append(len(given[0]))

    run.model.language_model.register_forward_pre_hook(note)
    (row,) = run.recommend()[0]
    return {"row": row, "seen": max(seen)}


def configured(make: Callable[..., Any], model: str, settings: Any) -> dict[str, Any]:
    return recommend(make(model, **settings))


@pytest.mark.parametrize("more", [{}, {"backbone": "tiny-llama", "tuning": "lora"}], ids=str)
def test_two_processes_have_the_loss_curve_of_one_with_twice_the_batch(
    small_config: Callable[..., Any], more: dict[str, Any]
) -> None:
    settings = {**SETTINGS, **more, "checkpoint_dir": "one"}
    settings.pop("dataset")
    alone = configured(small_config, "LLMRec", settings)
    two = Launch.of([{"nproc": 2}]).run(
        configured,
        {
            "make": small_config,
            "model": "LLMRec",
            "settings": {**settings, "checkpoint_dir": "two"},
        },
    )
    assert (alone["seen"], two["seen"]) == (32, 16)
    losses = alone["row"]["train_loss"]
    assert max(losses) - min(losses) > 1e-3  # it learns
    for name in ("train_loss", "valid", "test"):
        assert_close(json.loads(json.dumps(alone["row"][name])), two["row"][name])
    assert alone["row"]["stage"] == two["row"]["stage"]
    assert two["row"]["settings"]["processes"] == 2


def test_methods_in_two_processes_are_those_of_one(
    data: Path, one: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path / "two", data, "--nproc=2") == 0
    assert_close(rows(one), rows(tmp_path / "two"))
    assert len(curves(one)) == 6
    assert_close(curves(one), curves(tmp_path / "two"))
    assert files(one) == files(tmp_path / "two")
    told, timed = capfd.readouterr(), r"(?m)^(seconds.*|peak memory.*)$"
    alone = (one / "out").read_text(encoding="utf-8")
    assert re.sub(timed, "", told.out) == re.sub(timed, "", alone)  # the table, once


@pytest.mark.thorough
def test_steps_of_fewer_rows_than_processes(data: Path, tmp_path: Path) -> None:
    more = {"train_batch_size": 14, "unlearn_batch_size": 2, "epochs": 1, "forget_ratio": 0.1}
    more |= {"augmented_epochs": 1, "warmup_epochs": 0, "joint_epochs": 1}
    assert main(tmp_path / "one", data, **more) == 0
    assert main(tmp_path / "three", data, "--nproc=3", **more) == 0
    assert_close(rows(tmp_path / "one"), rows(tmp_path / "three"))
    assert_close(curves(tmp_path / "one"), curves(tmp_path / "three"))


def accelerate_config(folder: Path, **settings: Any) -> str:
    """Write a config file of accelerate for two processes on CPUs; gives its name."""
    told = {"distributed_type": "NO", "num_processes": 2, "use_cpu": True, **settings}
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(told))
    return str(path)


def started(by: Sequence[str], folder: Path, data: Path, **more: Any) -> str:
    """Run the command line in a folder, started by another program; gives what was printed."""
    folder.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", *by, str(CHECKOUT / "run_recbole_e2urec.py")),
            *as_arguments({"data_path": data, **SETTINGS, **more}),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TORCHRUN = ("torch.distributed.run", "--nproc_per_node=2", "--standalone")
ACCELERATE = ("accelerate.commands.launch",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "by", [TORCHRUN, (*ACCELERATE, "--num_processes=2", "--cpu")], ids=" ".join
)
def test_processes_of_other_launchers_make_the_table_of_one(
    data: Path, one: Path, tmp_path: Path, by: tuple[str, ...]
) -> None:
    assert started(by, tmp_path / "two", data).count("\ntest AUC") == 1
    assert_close(rows(one), rows(tmp_path / "two"))
    assert files(one) == without_log(files(tmp_path / "two"))


def without_log(counts: dict[str, int]) -> dict[str, int]:
    """Leave out the run's log, which a program of its own writes, once."""
    logs = {name: count for name, count in counts.items() if name.startswith("LLMRec-small-")}
    assert list(logs.values()) == [1]
    return {name: count for name, count in counts.items() if name not in logs}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"mixed_precision": "bf16"}, id="one-is-started"),
        pytest.param({"distributed_type": "MULTI_GPU", "main_process_port": 0}, id="two-are"),
    ],
)
def test_a_config_file_of_accelerate_is_honoured(
    data: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    file = f"--config_file={accelerate_config(tmp_path, **more)}"
    started((*ACCELERATE, file), tmp_path / "two", data, model="LLMRec", epochs=1)
    (line,) = (tmp_path / "two/saved/results.jsonl").read_text().splitlines()
    settings = json.loads(line)["settings"]
    assert settings["processes"] == 2
    assert settings["enable_amp"] == ("mixed_precision" in more)


@pytest.mark.thorough
def test_two_machines_make_the_table_of_one_process_and_the_first_has_it(
    data: Path, one: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = {"nproc": 1, "world_size": 2, "ip": "127.0.0.1", "port": launch._free_port()}
    other = os.fork()
    if other == 0:
        os._exit(main(tmp_path / "second", data, **flags, group_offset=1))
    assert main(tmp_path / "first", data, **flags) == 0
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0
    assert_close(rows(one), rows(tmp_path / "first"))
    assert files(tmp_path / "first") == files(one)
    assert files(tmp_path / "second") == {}
    assert capfd.readouterr().out.count("\ntest AUC") == 1


@pytest.mark.slow
def test_a_comparison_in_two_processes_is_one_in_one(data: Path, tmp_path: Path) -> None:
    more = {"model_list": "LLMRec,NPO,SISA,RecEraser,APA,FM", "seeds": "1,2", "tune": 2}
    more |= {"relearn_epochs": 1, "ranking_pass": "uni5", "topk": 5}
    assert main(tmp_path / "one", data, **more) == 0
    assert main(tmp_path / "two", data, "--nproc=2", **more) == 0
    # two of 15,000 pairs of rows with nearly equal answers may change places
    assert_close(rows(tmp_path / "one"), rows(tmp_path / "two"), within=3e-4)
    assert_close(curves(tmp_path / "one"), curves(tmp_path / "two"))


# an end, and a new beginning


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.thorough)])
def test_a_killed_process_ends_the_run_in_one_line_and_the_run_resumes(
    data: Path,
    one: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    victim: int,
) -> None:
    folder, write = tmp_path / "two", Stage.save_progress

    def die(stage: Stage, *given: Any) -> None:
        write(stage, *given)
        if distributed.rank() == victim and stage.name == "Original":
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "save_progress", die)
        assert main(folder, data, "--nproc=2") == 2
    assert capfd.readouterr().err.splitlines() == [
        f"recbole-e2urec: error: nproc: process {victim} of 2 was killed by SIGKILL; "
        "the same command goes on"
    ]
    assert not (folder / "saved/results.jsonl").exists()

    def note(stage: Stage, tensors: Any, state: Any) -> None:
        write(stage, tensors, state)
        with (tmp_path / f"seen{distributed.rank()}").open("a") as file:
            print(stage.name, state["epoch"], file=file)

    monkeypatch.setattr(Stage, "save_progress", note)
    assert main(folder, data, "--nproc=2") == 0
    assert_close(rows(one), rows(folder))
    for process in (0, 1):  # Retrain was finished, and Original's first epoch was written down
        assert (tmp_path / f"seen{process}").read_text().splitlines()[0] == "Original 2"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("--beta=2", "beta is 2.0"), ("--forget_file=no.csv", "cannot read no.csv")],
)
def test_a_mistake_is_one_line_whatever_process_sees_it(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], wrong: str, message: str
) -> None:
    assert main(tmp_path, data, "--nproc=2", wrong) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def fail(where: int, kind: str) -> None:
    distributed.join(torch.device("cpu"), 1)
    if distributed.rank() == where:
        raise {"input": InputError("so"), "disk": OSError(28, "full", "f"), "bug": KeyError("k")}[
            kind
        ]
    distributed.all_gather(1)


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [("input", InputError, "^so$"), ("disk", OSError, "full"), ("bug", RuntimeError, "KeyError")],
)
def test_the_cause_is_told_and_not_that_others_waited(
    where: int, kind: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Launch.of([{"nproc": 2}]).run(fail, {"where": where, "kind": kind})


def die_beside_a_sleeper() -> None:
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    sleep(60)


def die_in_a_pass() -> None:
    distributed.join(torch.device("cpu"), 1)
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.all_reduce(torch.zeros(1))  # as a sharded layer does


def test_who_dies_is_named_and_not_the_pass_that_failed() -> None:
    with pytest.raises(InputError, match="process 1 of 2 was killed by SIGKILL"):
        Launch.of([{"nproc": 2}]).run(die_in_a_pass, {})


def test_who_dies_is_named_and_not_who_was_ended_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.2)
    with pytest.raises(InputError, match="process 1 of 2 was killed by SIGKILL"):
        Launch.of([{"nproc": 2}]).run(die_beside_a_sleeper, {})


def alone_in(make: Callable[..., Any]) -> None:
    config = make("LLMRec", seed=2020 + distributed.rank())
    Experiment(config, load_dataset(config)).recommend()


def test_processes_with_other_settings_are_refused(small_config: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="LLMRec: process 1 has other settings than process 0"):
        Launch.of([{"nproc": 2}]).run(alone_in, {"make": small_config})


# the parts


def parts() -> dict[str, Any]:
    """What each of two processes sees, told by the first."""
    distributed.join(torch.device("cpu"), 1)
    place = distributed.rank()
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    gradients = SummedGradients(weights)
    for _ in range(2):
        for weight in weights:
            weight.grad = None
        for _ in range(1 + place):
            gradients.add(weights[0].sum())
        if place == 1:
            gradients.add(weights[1].sum())
        gradients.exchange()
    filled = torch.zeros(3, dtype=torch.bfloat16)
    filled[place::2] = place + 1.5
    tensors = {"a": torch.tensor([1.5]), "b": torch.tensor(2, dtype=torch.int64)}
    read = distributed.tensors_from_main_process(lambda: (tensors, "more") if place == 0 else 1 / 0)
    try:
        distributed.on_main_process(lambda: 1 / 0)
    except (ZeroDivisionError, InputError) as error:
        failure = type(error).__name__
    return {
        "gradients": [None if w.grad is None else w.grad.tolist() for w in weights],
        "filled": distributed.summed(filled).tolist(),
        "added": distributed.added({"x": 1.0} if place else {"x": 2.0, "y": 0.5}),
        "total": distributed.total(place + 0.25),
        "agreed": distributed.broadcast(f"of {place}"),
        "counts": distributed.all_gather(distributed.on_main_process(distributed.count)),
        "share": distributed.all_gather(distributed.share(np.arange(5)).tolist()),
        "read": [read[0]["a"].tolist(), read[0]["b"].item(), read[1]],
        "failures": distributed.all_gather(failure),
    }


def test_what_processes_tell_each_other() -> None:
    assert Launch.of([{"nproc": 2}]).run(parts, {}) == {
        "gradients": [[3.0, 3.0], [1.0, 1.0], None],
        "filled": [1.5, 2.5, 1.5],
        "added": {"x": 3.0, "y": 0.5},
        "total": 1.5,
        "agreed": "of 0",
        "counts": [1, 1],
        "share": [[0, 2, 4], [1, 3]],
        "read": [[1.5], 2, "more"],
        "failures": ["ZeroDivisionError", "RemoteError"],
    }


def fetched(folder: Path) -> list[list[int]]:
    """Load what is not there yet: in each process, who has fetched it, by rank."""
    distributed.join(torch.device("cpu"), 1)

    def load(config: dict[str, Path]) -> list[int]:
        if not config["data_path"].is_dir():
            config["data_path"].mkdir()
            sleep(0.2)
            (config["data_path"] / str(distributed.rank())).touch()
        return sorted(int(path.name) for path in config["data_path"].iterdir())

    return distributed.all_gather(_loaded(load, {"data_path": folder}))


def test_the_first_process_fetches_a_data_set_before_the_others_look(tmp_path: Path) -> None:
    given = {"folder": tmp_path / "data"}
    assert Launch.of([{"nproc": 2}]).run(fetched, given) == [[0], [0]]


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Launch.of([{"nproc": 2}]).environment(1, 5678)
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def dropped() -> list[float]:
    with torch.random.fork_rng(devices=[]):
        seed_dropout(7, 3)
        return torch.rand(4).tolist()


def test_each_process_drops_other_activations(request: pytest.FixtureRequest) -> None:
    first = dropped()
    request.getfixturevalue("second_of_two")
    assert dropped() == dropped() != first


@pytest.mark.usefixtures("second_of_two")
def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"gpu_id: 2 processes need a GPU each, 1 are visible"):
        distributed.join(torch.device("cuda"), 1)


@pytest.mark.usefixtures("second_of_two")
def test_a_block_in_a_single_process_ends_with_the_outermost() -> None:
    with distributed.single_process():
        with distributed.single_process():
            assert distributed.count() == 1
        assert distributed.count() == 1
    assert distributed.count() == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nproc": 0}, "nproc: 0 does not do"),
        ({"nproc": "two"}, "nproc: 'two' does not do; a whole number"),
        ({"nproc": "2", "world_size": "1"}, "group_offset is 0: of 1 processes"),
        ({"nproc": 2, "world_size": 4, "group_offset": 3}, "group_offset is 3"),
        ({"world_size": 4, "ip": "10.0.0.1"}, "world_size: 4 processes on several machines"),
        ({"world_size": 4, "port": 5678}, "write --ip="),
        ({"process_timeout": 0}, "process_timeout is 0"),
    ],
)
def test_flags_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Launch.of([settings])


@pytest.mark.usefixtures("second_of_two")
def test_flags_beside_torchrun_must_agree() -> None:
    assert not Launch.of([{"nproc": 2}]).is_needed
    assert not Launch.of([{}]).is_needed
    with pytest.raises(InputError, match="nproc is 3, but 2 processes were started"):
        Launch.of([{"nproc": 3}])


def test_flags_of_a_second_machine_are_those_of_recbole() -> None:
    flags = {"nproc": 2, "world_size": 6, "group_offset": 4, "ip": "10.0.0.1", "port": "5678"}
    made = Launch.of([{"nproc": 1}, flags])
    assert made.is_needed
    assert made.environment(1, 5678) == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "6",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "5678",
    }


@pytest.fixture
def by_accelerate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let this process be the one that ``accelerate launch`` has started, by these arguments."""

    def launch_by(*arguments: str) -> None:
        words = ["python", "/bin/accelerate", "launch", *arguments, "run.py", "--model=E2URec"]
        monkeypatch.setattr("psutil.Process.cmdline", lambda _: words)
        told = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
        for name, value in told.items():
            monkeypatch.setenv(name, value)

    return launch_by


def test_processes_that_accelerate_does_not_start_are_started(
    by_accelerate: Callable[..., None], tmp_path: Path
) -> None:
    by_accelerate("--cpu", "--num_processes=2")
    assert Launch.of([{}]) == Launch.of([{"nproc": "2"}])
    assert Launch.of([{}]).is_needed
    with pytest.raises(InputError, match="nproc is 3, but accelerate launch says 2; leave it out"):
        Launch.of([{"nproc": 3}])
    machine = {"num_machines": 2, "machine_rank": 1, "num_processes": 6}
    place = {"main_process_ip": "10.0.0.1", "main_process_port": 5678}
    by_accelerate(f"--config_file={accelerate_config(tmp_path, **machine, **place)}")
    assert (Launch.of([{}]).environment(1, 5678)["RANK"], Launch.of([{}]).total) == ("4", 6)
    assert (Launch.of([{}]).ip, Launch.of([{}]).port) == ("10.0.0.1", 5678)
    by_accelerate("--unknown", "--num_processes=two")
    with pytest.raises(InputError, match="asks for several processes, but started one"):
        Launch.of([{}])


@pytest.mark.parametrize(
    ("name", "value", "settings", "message"),
    [
        (
            "ACCELERATE_MIXED_PRECISION",
            "fp16",
            {},
            "ACCELERATE_MIXED_PRECISION is fp16; write --mi",
        ),
        (
            "ACCELERATE_MIXED_PRECISION",
            "bf16",
            {"enable_amp": False},
            "enable_amp is False, but acc",
        ),
        ("ACCELERATE_USE_CPU", "True", {"use_gpu": True}, "use_gpu is True, but accelerate launch"),
        ("ACCELERATE_USE_DEEPSPEED", "true", {}, "deepspeed is not used; leave it out"),
        ("FSDP_VERSION", "1", {}, "FSDP_VERSION is 1; write fsdp_version: 2"),
        (
            "ACCELERATE_USE_FSDP",
            "true",
            {"backbone_fsdp": False},
            "backbone_fsdp is False, but acc",
        ),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", {}, "write --backbone_compile=True"),
    ],
)
def test_what_accelerate_says_and_what_the_settings_say_must_agree(
    small_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        small_config("LLMRec", **settings)


def test_what_runs_in_one_process_is_refused_in_two(data: Path) -> None:
    given = {"data_path": str(data), "nproc": 2}
    with pytest.raises(InputError, match="nproc: BPR is RecBole's and runs in one process"):
        run_recbole_e2urec("BPR", "small", config_dict=given)
    more = {"model_list": "E2URec", "nproc_rows": 2}
    with pytest.raises(InputError, match="nproc_rows and nproc"):
        run_comparison("small", config_dict={**given, **more})


# a sharded backbone

SHARDED = {
    "backbone": "tiny-llama",
    "backbone_layers": 2,
    "tuning": "lora",
    "tokens_at_once": 300,  # several passes a step, and not as many in each process
}


def assert_as_whole(one: Path, two: Path) -> None:
    """A run of a sharded backbone has the numbers of one in a single process."""
    sharded = rows(two)
    for row in sharded:
        assert row["settings"].pop("backbone_fsdp")
        row["settings"]["backbone_fsdp"] = False
    assert_close(rows(one), sharded)
    assert_close(curves(one), curves(two))


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"model": "NPO", "epochs": 1, "joint_epochs": 1}, id="NPO"),
        pytest.param(
            {"model_list": "E2URec,NegatedE2URec,NPO,GradDiff,APA", "relearn_epochs": 1},
            id="methods",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            {"backbone": "tiny-t5", "backbone_decoder_layers": 2, "model": "NPO"},
            id="tiny-t5",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            {"backbone_gradient_checkpointing": True, "model": "GradDiff", "epochs": 1},
            id="checkpointing",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            {"model": "E2URec", "unlearn_batch_size": 1, "forget_ratio": 0.1, "epochs": 1},
            id="fewer-rows-than-processes",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_a_sharded_backbone_learns_and_forgets_as_a_whole_one(
    data: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    settings = {**SHARDED, **more}
    assert main(tmp_path / "one", data, **settings) == 0
    assert main(tmp_path / "two", data, "--nproc=2", backbone_fsdp=True, **settings) == 0
    assert_as_whole(tmp_path / "one", tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def local_size(weight: torch.Tensor) -> int:
    """How many numbers of a weight this process holds."""
    return (weight.to_local() if isinstance(weight, DTensor) else weight).numel()


def held(make: Callable[..., Any], settings: Any) -> list[Any]:
    """Train a recommender; gives what part of the layers' weights each process holds then."""
    config = make("LLMRec", **settings)
    run = Experiment(config, load_dataset(config))
    run.recommend()
    lm = run.model.language_model
    vocabulary = {lm.model.get_input_embeddings().weight}
    named = backbone_weights(lm.model).values()
    layers = [weight for weight in named if weight not in vocabulary]
    here = [local_size(weight) for weight in layers]
    adapter = run.model.bank.parameters(run.model.adapter)
    assert not any(isinstance(weight, DTensor) for weight in adapter)
    return distributed.all_gather([sum(here), sum(weight.numel() for weight in layers)])


def test_each_process_holds_half_of_the_layers(small_config: Callable[..., Any]) -> None:
    settings = {**SETTINGS, **SHARDED, "backbone_fsdp": True, "epochs": 1}
    settings.pop("dataset")
    shares = Launch.of([{"nproc": 2}]).run(held, {"make": small_config, "settings": settings})
    (first, whole), (second, _) = shares
    assert first + second == whole
    assert first == pytest.approx(whole / 2, rel=0.01)


@pytest.mark.parametrize("sharded_first", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_a_checkpoint_is_read_by_another_number_of_processes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharded_first: bool
) -> None:
    write, settings = Stage.save_progress, {**SHARDED, "model": "LLMRec"}
    assert main(tmp_path / "whole", data, **settings) == 0
    ways: list[Any] = [("--nproc=2", {"backbone_fsdp": True}), ("--nproc=1", {})]
    first, second = ways if sharded_first else ways[::-1]

    def stop(stage: Stage, *given: Any) -> None:
        write(stage, *given)
        raise InputError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "save_progress", stop)
        assert main(tmp_path / "run", data, first[0], **settings, **first[1]) == 2
    assert main(tmp_path / "run", data, second[0], **settings, **second[1]) == 0
    assert_close(curves(tmp_path / "whole"), curves(tmp_path / "run"))
    assert_close(rows(tmp_path / "whole")[0]["test"], rows(tmp_path / "run")[0]["test"])
    monkeypatch.setattr(Stage, "finish", stop)  # Its outcome, too, is read by the others.
    assert main(tmp_path / "run", data, first[0], **settings, **first[1]) == 0
    assert_close(rows(tmp_path / "whole")[0]["test"], rows(tmp_path / "run")[0]["test"])


@pytest.mark.thorough
def test_accelerate_shards_by_its_config_file(data: Path, tmp_path: Path) -> None:
    sharding = {"fsdp_version": 2, "fsdp_reshard_after_forward": True}
    more = {"distributed_type": "FSDP", "fsdp_config": sharding, "main_process_port": 0}
    file = f"--config_file={accelerate_config(tmp_path, **more)}"
    settings = {**SHARDED, "model": "LLMRec"}
    started((*ACCELERATE, file), tmp_path / "two", data, **settings)
    assert main(tmp_path / "one", data, **settings) == 0
    assert_as_whole(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tuning": "full"}, "backbone_fsdp: sharded weights stay frozen; choose tuning: lora"),
        ({"backbone_compile": True}, "backbone_fsdp and backbone_compile exclude each other"),
        ({"backbone_device_map": "auto"}, "backbone_fsdp and backbone_device_map exclude"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    small_config: Callable[..., Any], settings: dict[str, Any], message: str
) -> None:
    config = small_config("LLMRec", **{"tuning": "lora", **settings, "backbone_fsdp": True})
    with pytest.raises(InputError, match=message):
        Experiment(config, load_dataset(config))
