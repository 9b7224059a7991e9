"""A model folder opened on its data: the model that answers, and the rows that it has forgotten.

A row has the number of its request, counted from 1; 0 stands for what was forgotten before the
folder had a ledger, and -1 for what is not forgotten.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import check_keys
from recbole_e2urec.config.yaml import properties, read_yaml
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.deployment.model_folder import (
    RUN_ONLY_KEYS,
    Generation,
    ModelFolder,
    data_digest,
    fingerprint,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.attacks import answer_losses
from recbole_e2urec.experiment.base import Experiment, Rows
from recbole_e2urec.methods import METHODS
from recbole_e2urec.model.losses import kl_divergence
from recbole_e2urec.utils import recbole_compat

KEPT, FIRST = -1, 1


class Numbered(NamedTuple):
    """Who was named by which request.

    Attributes:
        dataset: the data.
        number: of the request of each row, [rows].
    """

    dataset: Any
    number: Rows


def numbers_of(tensors: Mapping[str, Tensor], rows: int, requests: int) -> Rows:  # -> [rows]
    """Numbers of all rows, from a file.

    Args:
        tensors: ``rows``, ids, and ``request``, their numbers; int64 [m] each.
        rows: of the data.
        requests: that were carried out.

    Raises:
        ValueError, KeyError: they are something else.
    """
    forgotten, request = row_ids(tensors["rows"], rows), _integers(tensors["request"])
    if request.shape != forgotten.shape:
        raise ValueError("requests of forgotten rows")
    if len(request) and not 0 <= request.min() <= request.max() <= requests:
        raise ValueError("requests that are not in model.json")
    numbers: Rows = np.full(rows, KEPT)
    numbers[forgotten] = request
    return numbers


def tensors_of(numbers: Rows) -> dict[str, Tensor]:
    """What :func:`numbers_of` reads."""
    rows = until(numbers, int(numbers.max(initial=0)))
    return {"rows": torch.from_numpy(rows), "request": torch.from_numpy(numbers[rows])}


def until(numbers: Rows, request: int) -> Rows:
    """Ids of rows that were forgotten when this request was carried out, sorted."""
    rows: Rows = np.flatnonzero((numbers > KEPT) & (numbers <= request))
    return rows


def row_ids(ids: Tensor, count: int) -> Rows:
    """Row ids of a file, if they are some, in ascending order.

    Raises:
        ValueError: they are none.
    """
    rows = _integers(ids)
    if len(rows) and not (rows[0] >= 0 and rows[-1] < count and (np.diff(rows) > 0).all()):
        raise ValueError("rows")
    return rows


def _integers(tensor: Tensor) -> Rows:  # [m] -> [m]
    if tensor.dtype != torch.int64 or tensor.ndim != 1:
        raise ValueError("no list of whole numbers")
    integers: Rows = tensor.numpy()
    return integers


SAMPLE = 2000  # validation rows, at most, on which drift is measured


def fully_forgotten_users(run: Experiment, forgotten: Rows) -> Rows:
    """Inner ids of users of whom nothing is left: no training row, if there was one, or no row."""
    user, train = run.dataset.rows.user, run.parts.splits.train
    touched = np.unique(user[forgotten])
    trained = np.isin(touched, user[train])
    kept = np.where(
        trained,
        np.isin(touched, user[np.setdiff1d(train, forgotten)]),
        np.isin(touched, user[np.setdiff1d(np.arange(len(user)), forgotten)]),
    )
    gone: Rows = touched[~kept]
    return gone


def with_orphaned_rows(run: Experiment, forgotten: Rows) -> Rows:
    """Forgotten rows, and all rows of users of whom nothing is left."""
    rows = np.flatnonzero(np.isin(run.dataset.rows.user, fully_forgotten_users(run, forgotten)))
    every: Rows = np.union1d(forgotten, rows).astype(np.int64)
    return every


def sample_of(run: Experiment, forgotten: Rows) -> Rows:
    """Validation rows of users whom no request touched, a fixed draw of at most SAMPLE."""
    valid, user = run.parts.splits.valid, run.dataset.rows.user
    valid = valid[~np.isin(user[valid], user[forgotten])]
    return drawn(valid, run.config["seed"], SAMPLE)


def drawn(rows: Rows, seed: int, most: int) -> Rows:
    """A fixed draw of at most so many rows, sorted."""
    found: Rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    return found


# What may be told anew of a model in use: where things are, and how it computes.
OVERRIDABLE_KEYS = {
    "data_path",
    "use_gpu",
    "gpu_id",
    "show_progress",
    "score_batch_size",
    "tokens_at_once",
}
_REQUEST = {  # and, where it is to forget, the request
    "forget_file", "forget_by", "forget_unknown", "forget_where", "request_id", "dry_run",
    "retrain_share",
}  # fmt: skip


class Measured(NamedTuple):
    """Rows that are asked again and again, and P(yes) by the first model, [n] each."""

    rows: Rows
    yes: Tensor


class ServedModel(Experiment):
    """A model in use.

    Args:
        config: of the folder, see :func:`open_folder`.
        dataset: its rows.
        found: the generation that counts.
        source: the folder's name, for messages.

    Attributes:
        record: what the folder says about the model.
        state: files and hashes of the generation.
        number: by row id, which request asked for it, see :mod:`forgotten`.
        forgotten: ids of forgotten rows, sorted: in no later training and in no history.
        live: training rows that are left, sorted.
        gone: inner ids of users of whom nothing is known any more.
        sample: where drift is measured.

    Raises:
        InputError: the data is not what the model was made with, or the weights do not fit.
    """

    number: Rows
    forgotten: Rows
    live: Rows
    gone: Rows

    def __init__(self, config: Config, dataset: Any, found: Generation, source: Path) -> None:
        self.record, self.state = found.record, found.state
        told = self.record["fingerprint"]
        if data_digest(dataset) != told.get("data"):
            raise InputError(
                f"{source}: users, items or rows of {config['dataset']} in {config['data_path']} "
                "are not those that the model was made with; put these files back (data_path says "
                "where they are), or train and export anew"
            )
        super().__init__(config, dataset)
        if fingerprint(self) != told:
            raise InputError(
                f"{source}: titles, features, wording or parts of {config['dataset']} are not "
                "those that the model was made with; put its files back, or train and export anew"
            )
        try:
            self._take(found.tensors)
        except (ValueError, KeyError) as error:
            raise InputError(f"{source} is damaged: its tensors do not fit ({error})") from error

    def _take(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        bank, adapter = self.model.bank, self.model.adapter
        if not all(torch.isfinite(weight).all() for weight in tensors["weights"].values()):
            raise ValueError("weights that are no numbers")
        if adapter is None:
            bank.part(tensors["weights"])
            self.start = bank.state(None)
        bank.load(adapter, tensors["weights"])
        sample = tensors["sample"]
        self.sample = Measured(row_ids(sample["rows"], len(self.dataset.rows)), sample["yes"])
        yes = sample["yes"]
        if yes.shape != self.sample.rows.shape or not ((yes >= 0) & (yes <= 1)).all():
            raise ValueError("answers of the sample")
        requests = len(self.record["requests"])
        self.number = numbers_of(tensors["forgotten"], len(self.dataset.rows), requests)
        self._leave_out()

    def yes(self, rows: Rows, history: Rows) -> Tensor:  # [n] -> [n]
        """P(yes) of the model for these rows under these histories, float32 on the CPU."""
        with self.model.using_history(history):
            return self.model.answer(rows, None).cpu()

    def loss(self, rows: Rows, history: Rows) -> float:
        """Mean cross-entropy of the true answers, in nats."""
        label = self.model.labels
        assert label is not None  # the model was trained on them
        yes = self.yes(rows, history).double().numpy()
        return float(answer_losses(yes, label[rows]).mean())

    def drift(self) -> float | None:
        """Mean KL(first model || this one) of yes and no on the sample, in nats.

        It can be seen without a Retrain, and is no distance from one: a model that forgot
        perfectly has moved as well, and two Retrains are apart too. None: the sample is empty.
        """
        if len(self.sample.rows) == 0:
            return None
        now = self.yes(self.sample.rows, self.history(self.forgotten))
        return drift_between(self.sample.yes, now)

    def forget(self, forgotten: Rows) -> None:
        """Have these rows forgotten, those of before among them; the weights stay."""
        self.number[np.setdiff1d(forgotten, self.forgotten)] = len(self.record["requests"]) + 1
        self._leave_out()

    def _leave_out(self) -> None:
        """Have no forgotten row in what is trained and measured on."""
        forgotten = until(self.number, len(self.record["requests"]) + 1)
        user, sample = self.dataset.rows.user, self.sample
        untouched = ~np.isin(user[sample.rows], user[forgotten])
        self.sample = Measured(sample.rows[untouched], sample.yes[torch.from_numpy(untouched)])
        self.forgotten = forgotten
        self.live = np.setdiff1d(self.parts.splits.train, forgotten)
        self.gone = fully_forgotten_users(self, forgotten)

    @property
    def named(self) -> Numbered:
        """Who was named by which request."""
        return Numbered(self.dataset, self.number)

    @property
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a generation of the model as it is now has in its files."""
        return {
            "weights": self.model.bank.state(self.model.adapter),
            "forgotten": tensors_of(self.number),
            "sample": {"rows": torch.from_numpy(self.sample.rows), "yes": self.sample.yes},
        }


def open_folder(
    folder: ModelFolder,
    overrides: Mapping[str, Any] | None = None,
    model: str | None = None,
    config_files: Sequence[str] = (),
) -> ServedModel:
    """Open a model folder on its data.

    Args:
        folder: which.
        overrides: settings as text: some of :data:`OVERRIDABLE_KEYS`, and for a method its options
            and a request.
        model: the method that is to forget; None: nobody is asked to.
        config_files: yaml files with such settings.

    Raises:
        InputError: no such folder, damaged, its data changed, or a setting that it fixes.
    """
    recbole_compat.apply()
    found = folder.read()
    record, own = found.record, _own_keys(model)
    free = OVERRIDABLE_KEYS if model is None else OVERRIDABLE_KEYS | own | _REQUEST
    settings = {key: value for key, value in record["settings"].items() if key not in RUN_ONLY_KEYS}
    given: dict[str, Any] = {}
    for file in config_files:
        given.update(read_yaml(Path(file)))
    given.update(overrides or {})
    if model != record["model"]:  # begins at the defaults
        settings = {key: value for key, value in settings.items() if key not in own}
    check_keys(given, "the settings")
    for key in given:
        if key not in free:
            raise InputError(f"{key}: {folder.path} has its own; make another by export")
    settings.update(seed=record["seed"], log_wandb=False)
    config = Config(model or "LLMRec", record["dataset"], None, settings, given)
    init_seed(config["seed"], config["reproducibility"])
    return ServedModel(config, load_dataset(config), found, folder.path)


def _own_keys(model: str | None) -> set[str]:
    """Options of a method that the recommender does not have."""
    names = METHODS if model is None else {model}
    keys = {key for name in names for key in properties("model", name)}
    return keys - set(properties("model", "LLMRec"))


def drift_between(first: Tensor, other: Tensor) -> float:  # P(yes) [n] each -> number
    """Mean KL(first || other) of yes and no, in nats."""
    return float(kl_divergence(_two(first), _two(other)).mean())


def _two(yes: Tensor) -> Tensor:  # [n] -> [n, 2]
    """Log-probabilities of no and yes; float32 may have rounded them to 0 and 1."""
    yes = yes.double().clamp(1e-8, 1 - 1e-8)
    return torch.stack([torch.log1p(-yes), torch.log(yes)], dim=1)
