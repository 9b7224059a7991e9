"""A model folder opened on its data: the model that answers, and the rows that it has forgotten."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec import compat
from recbole_e2urec.config import Config
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.deployment.folder import Generation, ModelFolder
from recbole_e2urec.deployment.forgotten import Numbered, numbers_of, row_ids, tensors_of, until
from recbole_e2urec.deployment.record import OF_RUNS, data_digest, fingerprint
from recbole_e2urec.deployment.remains import gone_users
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.membership import answer_losses
from recbole_e2urec.experiment import Experiment, Rows
from recbole_e2urec.keys import check_keys
from recbole_e2urec.methods import METHODS
from recbole_e2urec.model.losses import kl_divergence
from recbole_e2urec.yamlfiles import properties, read_yaml

# What may be told anew of a model in use: where things are, and how it computes.
FREE = {"data_path", "use_gpu", "gpu_id", "show_progress", "score_batch_size", "tokens_at_once"}
_REQUEST = {  # and, where it is to forget, the request
    "forget_file", "forget_by", "forget_unknown", "forget_where", "request_id", "dry_run",
    "retrain_share",
}  # fmt: skip


class Measured(NamedTuple):
    """Rows that are asked again and again, and P(yes) by the first model, [n] each."""

    rows: Rows
    yes: Tensor


class Deployed(Experiment):
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
        with self.model.shown(history):
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
        self.gone = gone_users(self, forgotten)

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
) -> Deployed:
    """Open a model folder on its data.

    Args:
        folder: which.
        overrides: settings as text: some of :data:`FREE`, and for a method its options and a
            request.
        model: the method that is to forget; None: nobody is asked to.
        config_files: yaml files with such settings.

    Raises:
        InputError: no such folder, damaged, its data changed, or a setting that it fixes.
    """
    compat.apply()
    found = folder.read()
    record, own = found.record, _own_keys(model)
    free = FREE if model is None else FREE | own | _REQUEST
    settings = {key: value for key, value in record["settings"].items() if key not in OF_RUNS}
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
    return Deployed(config, load_dataset(config), found, folder.path)


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
