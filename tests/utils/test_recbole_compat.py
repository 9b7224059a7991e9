import inspect
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from atomic_files import write_table
from packaging.requirements import Requirement

from recbole_e2urec.errors import InputError
from recbole_e2urec.utils import recbole_compat
from recbole_e2urec.utils.recbole_compat import LateWriter


def test_apply_lets_recboles_own_config_work() -> None:
    from recbole.config import Config

    recbole_compat.apply()
    assert Config("FM", "ml-100k")["model"] == "FM"


def test_apply_twice_wraps_the_collector_once() -> None:
    from recbole.evaluator.collector import Collector

    recbole_compat.apply()
    once = Collector.get_data_struct
    recbole_compat.apply()
    assert Collector.get_data_struct is once


@pytest.mark.thorough
def test_importing_the_recbole_side_imports_neither_ray_nor_quick_start() -> None:
    code = (
        "import sys, recbole_e2urec.config.config, recbole_e2urec.trainer.recbole_trainer as c, "
        "recbole_e2urec.data.dataset\n"
        "recbole_e2urec.utils.recbole_compat.apply()\n"
        "print([name for name in sys.modules if name in ('ray', 'recbole.quick_start')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def symptoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, bool]]:
    """Whether each symptom appears without its workaround, and with it."""
    folder, here = tmp_path_factory.mktemp("symptoms"), Path(__file__).parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here.parent))),
    }
    command = [sys.executable, str(here / "symptoms.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", recbole_compat.WORKAROUNDS)
def test_a_workaround_is_needed_with_the_versions_it_names(
    name: str, symptoms: dict[str, tuple[bool, bool]]
) -> None:
    versions = Requirement(recbole_compat.WORKAROUNDS[name])
    without, used = symptoms[name]
    assert without == versions.specifier.contains(version(versions.name), prereleases=True)
    assert not used


def test_every_change_to_recbole_is_applied() -> None:
    changes = {
        name
        for name in recbole_compat.WORKAROUNDS
        if not inspect.signature(getattr(recbole_compat, name)).parameters
    }
    assert changes <= set(recbole_compat.apply.__wrapped__.__code__.co_names)


@pytest.mark.parametrize("version", ["1.2.0", "1.2.1"])
def test_check_versions_accepts_the_recbole_it_is_made_for(version: str) -> None:
    recbole_compat.check_versions(version, "2.3.3")


def test_check_versions_refuses_another_recbole_and_says_which_is_needed() -> None:
    with pytest.raises(InputError, match=r"RecBole 1\.1\.1 .* 1\.2\.0 or 1\.2\.1 is needed: pip"):
        recbole_compat.check_versions("1.1.1", "2.3.3")


def test_check_versions_refuses_pandas_3() -> None:
    with pytest.raises(InputError, match=r"pandas 3\.0\.1 is .*: pip install 'pandas<3'"):
        recbole_compat.check_versions("1.2.1", "3.0.1")


def test_numpy_aliases_leave_present_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float", "kept", raising=False)
    recbole_compat.add_numpy_aliases()
    assert np.float == "kept"
    assert np.int is np.int_


def test_dok_update_fills_a_matrix() -> None:
    import scipy.sparse as sp

    recbole_compat.add_dok_update()
    matrix = sp.dok_matrix((2, 3), dtype=np.float32)
    matrix._update({(0, 1): 1.0, (1, 2): 5.0})
    assert matrix.toarray().tolist() == [[0, 1, 0], [0, 0, 5]]


def test_reading_keeps_a_leading_quote_and_the_lines_after_it(small_config) -> None:
    from recbole_e2urec.data.dataset import load_dataset

    config = small_config("FM", load_col={"item": ["item_id", "movie_title"]})
    folder = Path(config["data_path"])
    write_table(
        folder / "small.item",
        "item_id:token movie_title:token_seq",
        [["i0", '"Heat'], ["i1", "Ronin"]],
    )
    config["load_col"] = {**config["load_col"], "inter": ["user_id", "item_id", "rating"]}
    dataset = load_dataset(config)
    words = dataset.field2id_token["movie_title"]
    assert {'"Heat', "Ronin"} <= set(words)


def _collector(metrics: list[str]):
    from recbole.evaluator.collector import Collector

    recbole_compat.apply()
    settings = {
        "metrics": metrics,
        "topk": [1],
        "device": torch.device("cpu"),
        "eval_args": {"mode": {"valid": "full", "test": "full"}},
    }
    return Collector(settings)


def test_collected_counts_survive_being_collected_twice() -> None:
    collector = _collector(["ItemCoverage"])
    collector.data_struct.set("data.num_items", 5)
    for _ in range(2):
        assert collector.get_data_struct().get("data.num_items") == 5


def test_nan_scores_are_refused() -> None:
    collector = _collector(["ItemCoverage"])
    with pytest.raises(InputError, match="scores are NaN"):
        collector.eval_batch_collect(torch.tensor([[0.0, float("nan")]]), None, None, None)


def test_own_checkpoints_load_what_they_wrote(tmp_path: Path) -> None:
    files: set[Path] = set()
    with recbole_compat.own_checkpoints(files):
        torch.save({"config": Path("a")}, tmp_path / "a.pth")
        assert torch.load(tmp_path / "a.pth") == {"config": Path("a")}


def test_own_checkpoints_refuse_a_file_of_another_run(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "b.pth")
    with (
        recbole_compat.own_checkpoints(set()),
        pytest.raises(InputError, match=r"b\.pth was not written by this run"),
    ):
        torch.load(tmp_path / "b.pth")


def test_own_checkpoints_leave_no_torn_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(value, file, **options):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with (
        recbole_compat.own_checkpoints(set()),
        pytest.raises(InputError, match="No space left on device; free some space"),
    ):
        torch.save({}, tmp_path / "c.pth")
    assert list(tmp_path.iterdir()) == []


def test_own_checkpoints_put_torch_back(tmp_path: Path) -> None:
    before = torch.load, torch.save
    with pytest.raises(RuntimeError), recbole_compat.own_checkpoints(set()):
        raise RuntimeError
    assert (torch.load, torch.save) == before


@pytest.mark.thorough
def test_a_sequential_model_leaves_anomaly_detection_off() -> None:
    code = (
        "import torch; from recbole_e2urec.config.keys import find_model\n"
        "find_model('SASRec'); print(torch.is_anomaly_enabled())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


def test_logloss_of_a_single_row() -> None:
    from recbole.config import Config
    from recbole.evaluator.metrics import LogLoss

    recbole_compat.apply()
    measure = LogLoss(Config("FM", "ml-100k"))
    assert measure.metric_info(np.array([0.25]), np.array([1.0])) == pytest.approx(np.log(4))


def test_the_exhaustive_search_draws_from_a_generator_and_numpy_is_left_alone() -> None:
    from recbole.trainer import hyper_tuning

    recbole_compat.apply()
    drawn = hyper_tuning.np.random.RandomState(3).integers(0, 1000, 5)
    assert drawn.tolist() == np.random.default_rng(3).integers(0, 1000, 5).tolist()
    assert hasattr(np.random.RandomState(3), "randint")
    assert hyper_tuning.np.prod([2, 3]) == 6


def test_a_late_writer_is_opened_by_its_first_value_and_again_after_its_end() -> None:
    opened: list[list[str]] = []

    class Writer:
        def __init__(self) -> None:
            opened.append([])

        def add(self, value: str) -> None:
            opened[-1].append(value)

        def close(self) -> None:
            opened[-1].append("closed")

    late = LateWriter(Writer)
    late.close()
    assert opened == []
    for value in "ab":
        late.add(value)
    late.close()
    late.add("c")
    assert opened == [["a", "b", "closed"], ["c"]]
