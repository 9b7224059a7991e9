"""A model folder opened on its data: the model that answers, and the rows that it has forgotten.

Each row of the data carries a request number. Requests are counted from 1. A row has the number of
the request that named it; 0 if it was forgotten before the folder had a ledger; -1 if it is not
forgotten.

Corrections of rows count as requests, too. The data files keep what they say; when a folder is
opened, the corrections take effect once the files are known to be those of the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import check_keys
from recbole_e2urec.config.yaml import properties, read_yaml
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.prompt_table import prompt_texts
from recbole_e2urec.data.rows import (
    NO_CORRECTIONS,
    UNCHANGED,
    Corrections,
    Remainder,
    RowTable,
    Splits,
    without,
)
from recbole_e2urec.deployment.model_folder import (
    ANSWERS,
    CORRECTIONS,
    READ_ATTEMPTS,
    REMAINDER,
    RUN_ONLY_KEYS,
    Generation,
    ModelFolder,
    data_digest,
    fingerprint,
    unmeasured_of,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import Experiment, Rows, unseen_of
from recbole_e2urec.methods import METHODS
from recbole_e2urec.model.losses import kl_divergence, log_losses
from recbole_e2urec.model.prompting import hiding_more
from recbole_e2urec.trainer.strength import own_yes, some_of
from recbole_e2urec.utils import recbole_compat

NOT_FORGOTTEN, FIRST_REQUEST = -1, 1
MAX_SAMPLE_ROWS = 2000  # validation rows on which drift is measured
_TABLES = ("inter", "user", "item")
_REMAINDER_COLUMNS = (
    "users", "items", "train", "valid", "test", "control_users", "control", "erased_training_rows",
)  # fmt: skip

# Settings of a served model that may be given anew: where things are, and how it computes.
OVERRIDABLE_KEYS = {
    "data_path",
    "use_gpu",
    "gpu_id",
    "show_progress",
    "score_batch_size",
    "tokens_at_once",
}
REQUEST_SETTINGS = {  # these describe a request, and may be given where there is one
    "forget_file", "forget_by", "forget_unknown", "forget_where", "request_id", "dry_run",
    "retrain_share",
}  # fmt: skip


class RequestNumbers(NamedTuple):
    """Which request named which row.

    Attributes:
        dataset: the data.
        number: request number of each row, [rows].
        corrections: what was corrected.
    """

    dataset: Any
    number: Rows
    corrections: Corrections = NO_CORRECTIONS

    def rows_after(self, request: int) -> RowTable:
        """Return the rows of the data as a request left them."""
        return self.corrections.until(request).applied(self.dataset.file_rows)


def numbers_of(tensors: Mapping[str, Tensor], rows: int, requests: int) -> Rows:  # -> [rows]
    """Return the request numbers of all rows, from the tensors of a file.

    Args:
        tensors: ``rows``, the row ids, and ``request``, their request numbers; int64 [m] each.
        rows: how many rows the data has.
        requests: how many requests were carried out.

    Raises:
        ValueError, KeyError: the tensors hold something else.
    """
    forgotten, request = row_ids(tensors["rows"], rows), _integers(tensors["request"])
    if request.shape != forgotten.shape:
        raise ValueError("requests of forgotten rows")
    if len(request) and not 0 <= request.min() <= request.max() <= requests:
        raise ValueError("requests that are not in model.json")
    numbers: Rows = np.full(rows, NOT_FORGOTTEN)
    numbers[forgotten] = request
    return numbers


def tensors_of(numbers: Rows) -> dict[str, Tensor]:
    """Return the tensors that :func:`numbers_of` reads."""
    rows = forgotten_until(numbers, int(numbers.max(initial=0)))
    return {"rows": torch.from_numpy(rows), "request": torch.from_numpy(numbers[rows])}


def forgotten_until(numbers: Rows, request: int) -> Rows:
    """Return the sorted ids of rows that were forgotten once this request was carried out."""
    rows: Rows = np.flatnonzero((numbers > NOT_FORGOTTEN) & (numbers <= request))
    return rows


def row_ids(ids: Tensor, count: int) -> Rows:
    """Return the row ids of a file.

    Args:
        ids: the tensor of the file.
        count: how many rows the data has.

    Raises:
        ValueError: they are not row ids in ascending order.
    """
    rows = _integers(ids)
    if len(rows) and not (rows[0] >= 0 and rows[-1] < count and (np.diff(rows) > 0).all()):
        raise ValueError("rows")
    return rows


def probabilities(yes: Tensor, rows: Rows) -> Tensor:
    """Return the answers of a file to these rows.

    Raises:
        ValueError: they are not one probability a row.
    """
    if yes.shape != rows.shape or not ((yes >= 0) & (yes <= 1)).all():
        raise ValueError("answers")
    return yes


def _integers(tensor: Tensor) -> Rows:  # [m] -> [m]
    if tensor.dtype != torch.int64 or tensor.ndim != 1:
        raise ValueError("no list of whole numbers")
    integers: Rows = tensor.numpy()
    return integers


def remainder_of(tensors: Mapping[str, Tensor]) -> Remainder:
    """Return what stays as it was although rows were erased, from the tensors of a file.

    Raises:
        ValueError, KeyError: the tensors hold something else.
    """
    columns = {name: _integers(tensors[name]) for name in _REMAINDER_COLUMNS}
    sizes = {kind: n for kind, n in zip(_TABLES, tensors["sizes"].tolist(), strict=True) if n >= 0}
    lines = {kind: _line_numbers(tensors[kind], size) for kind, size in sizes.items()}
    if any(column.min(initial=0) < 0 for column in columns.values()):
        raise ValueError("ids below 0")
    for name in ("users", "items"):
        if (np.sort(columns[name]) != np.arange(1, len(columns[name]) + 1)).any():
            raise ValueError(f"the order of {name}")
    words = bytes(tensors["words"].tolist()).decode()
    highest = tensors["highest"].tolist()
    return Remainder(
        lines, sizes, columns["users"], columns["items"],
        Splits(columns["train"], columns["valid"], columns["test"]),
        columns["control_users"], columns["control"],
        int(columns["erased_training_rows"].sum()), highest[0] if highest else None,
        tuple(words.split("\0")) if words else (),
    )  # fmt: skip


def _line_numbers(tensor: Tensor, count: int) -> Rows:
    """Return numbers of different lines of a file, in any order.

    Raises:
        ValueError: they are something else.
    """
    row_ids(tensor.sort().values, count)
    return _integers(tensor)


def remainder_tensors(rest: Remainder) -> dict[str, Tensor]:
    """Return the tensors that :func:`remainder_of` reads."""
    columns = {
        **rest.lines, **rest.parts._asdict(), "users": rest.users, "items": rest.items,
        "control_users": rest.control_users, "control": rest.control,
        "erased_training_rows": np.array([rest.erased_training_rows]),
    }  # fmt: skip
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    tensors["sizes"] = torch.tensor([rest.sizes.get(kind, -1) for kind in _TABLES])
    highest = [] if rest.highest is None else [rest.highest]
    tensors["highest"] = torch.tensor(highest, dtype=torch.float64)
    words = np.frombuffer("\0".join(rest.words).encode(), np.uint8).copy()
    return {**tensors, "words": torch.from_numpy(words)}


def _check_remainder(rest: Remainder, rows: RowTable) -> None:
    """Refuse ids that the data do not have.

    Raises:
        ValueError: there are such ids.
    """
    if max(ids.max(initial=-1) for ids in (*rest.parts, rest.control)) >= len(rows):
        raise ValueError("parts")


def corrections_of(tensors: Mapping[str, Tensor], rows: RowTable, requests: int) -> Corrections:
    """Return what was corrected, from the tensors of a file.

    Args:
        tensors: the columns of :class:`Corrections`, by name.
        rows: the rows of the data files.
        requests: how many requests were carried out.

    Raises:
        ValueError, KeyError: the tensors hold something else.
    """
    integers = [_integers(tensors[name]) for name in Corrections._fields[:4]]
    rating = tensors["rating"]
    lengths = {len(rating), *map(len, integers)}
    if rating.dtype != torch.float64 or rating.ndim != 1 or len(lengths) > 1:
        raise ValueError("columns of corrections")
    corrections = Corrections._make([*integers, rating.numpy()])
    bounds = {"rows": (0, len(rows) - 1), "request": (1, requests), "label": (UNCHANGED, 1)}
    bounds["user"] = (UNCHANGED, int(rows.user.max(initial=0)))
    for name, (low, high) in bounds.items():
        column = getattr(corrections, name)
        if len(column) and not low <= column.min() <= column.max() <= high:
            raise ValueError(f"{name} of corrections")
    is_ordered = (np.diff(corrections.request) >= 0).all()
    if not is_ordered or np.isinf(corrections.rating).any() or (corrections.user == 0).any():
        raise ValueError("order, ratings or users of corrections")
    return corrections


def fully_forgotten_users(run: Experiment, forgotten: Rows) -> Rows:
    """Return the inner ids of users who are forgotten as a whole.

    A user who had training rows has none left. A user who had no training row has no row left.
    """
    user, train = run.dataset.rows.user, run.parts.splits.train
    touched = np.unique(user[forgotten])
    of_touched = np.flatnonzero(np.isin(user, touched))
    trained = of_touched[np.isin(of_touched, train)]
    stays = np.where(
        np.isin(touched, user[trained]),
        np.isin(touched, user[trained[~np.isin(trained, forgotten)]]),
        np.isin(touched, user[of_touched[~np.isin(of_touched, forgotten)]]),
    )
    gone: Rows = touched[~stays]
    return gone


def with_orphaned_rows(run: Experiment, forgotten: Rows) -> Rows:
    """Add all rows of fully forgotten users to the forgotten rows."""
    orphaned = np.flatnonzero(np.isin(run.dataset.rows.user, fully_forgotten_users(run, forgotten)))
    rows: Rows = np.union1d(forgotten, orphaned).astype(np.int64)
    return rows


def sample_of(run: Experiment, forgotten: Rows) -> Rows:
    """Draw at most MAX_SAMPLE_ROWS validation rows of users whom no request touched.

    The draw is always the same.
    """
    valid, user = run.parts.splits.valid, run.dataset.rows.user
    valid = valid[~np.isin(user[valid], user[forgotten])]
    return drawn(valid, run.config["seed"], MAX_SAMPLE_ROWS)


def drawn(rows: Rows, seed: int, most: int) -> Rows:
    """Draw at most ``most`` rows, sorted; the same ones for the same seed."""
    sample: Rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    return sample


def drift_between(first: Tensor, other: Tensor) -> float:  # P(yes) [n] each -> number
    """Return the mean KL(first || other) of yes and no, in nats."""
    return float(kl_divergence(_log_probabilities(first), _log_probabilities(other)).mean())


def _log_probabilities(yes: Tensor) -> Tensor:  # [n] -> [n, 2]
    """Return log-probabilities of no and yes; float32 may have rounded P(yes) to 0 or 1."""
    yes = yes.double().clamp(1e-8, 1 - 1e-8)
    return torch.stack([torch.log1p(-yes), torch.log(yes)], dim=1)


@contextmanager
def as_damage(source: Path) -> Iterator[None]:
    """Refuse a model folder whose tensors turn out not to fit."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{source} is damaged: its tensors do not fit ({error})") from error


class DriftSample(NamedTuple):
    """Rows on which drift is measured again and again, and P(yes) of the first model, [n] each."""

    rows: Rows
    yes: Tensor


class ServedModel(Experiment):
    """A served model, opened on its data.

    Args:
        config: the folder's settings, see :func:`open_folder`.
        dataset: the data.
        generation: the current generation of the folder.
        source: the folder's path, for messages.

    Attributes:
        record: what the folder says about the model.
        state: name and hashes of the generation.
        number: request number of each row, see the module's docstring.
        forgotten: sorted ids of forgotten rows. No later training and no history shows them.
        live: sorted ids of training rows that are left.
        gone: inner ids of fully forgotten users.
        sample: where drift is measured.
        corrections: what was corrected.
        answered: P(yes) of the model as it is now, [rows]; NaN where it was not asked.

    Raises:
        InputError: the data is not what the model was made with, or the weights do not fit.
    """

    number: Rows
    forgotten: Rows
    live: Rows
    gone: Rows
    answered: NDArray[np.float64]
    _shown: tuple[Rows, Rows] | None = None

    def __init__(self, config: Config, dataset: Any, generation: Generation, source: Path) -> None:
        self.record, self.state = generation.record, generation.state
        dataset = dataset.as_published()
        expected = self.record["fingerprint"]
        if data_digest(dataset) != expected.get("data"):
            corrected = CORRECTIONS in generation.tensors
            raise InputError(
                f"{source}: users, items or rows of {config['dataset']} in {config['data_path']} "
                "are not those that the model was made with; put these files back (data_path says "
                "where they are), or train and export anew"
                + corrected
                * "; corrected rows must stay as they were in these files"
            )
        if dataset.remainder is not None:
            with as_damage(source):
                _check_remainder(dataset.remainder, dataset.rows)
                super().__init__(config, dataset)
        else:
            super().__init__(config, dataset)
        self._file_parts = self.parts
        if fingerprint(self) != expected:
            raise InputError(
                f"{source}: titles, features, wording or parts of {config['dataset']} are not "
                "those that the model was made with; put its files back, or train and export anew"
            )
        self._remainder = {
            kind: generation.tensors[kind] for kind in generation.tensors if kind == REMAINDER
        }
        with as_damage(source):
            self._load(generation.tensors)

    def _load(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        bank, adapter = self.model.bank, self.model.adapter
        if not all(torch.isfinite(weight).all() for weight in tensors["weights"].values()):
            raise ValueError("weights that are no numbers")
        if adapter is None:
            bank.part(tensors["weights"])
            self.start = bank.state(None)
        bank.load(adapter, tensors["weights"])
        sample = tensors["sample"]
        rows = row_ids(sample["rows"], len(self.dataset.rows))
        self.sample = DriftSample(rows, probabilities(sample["yes"], rows))
        requests = len(self.record["requests"])
        self.number = numbers_of(tensors["forgotten"], len(self.dataset.rows), requests)
        self.corrections = NO_CORRECTIONS
        if CORRECTIONS in tensors:
            corrected = corrections_of(tensors[CORRECTIONS], self.dataset.rows, requests)
            self.corrections = corrected
            self.use_rows(corrected.applied(self.dataset.file_rows))
        self._leave_out_forgotten()
        if ANSWERS in tensors:
            answers = tensors[ANSWERS]
            rows = row_ids(answers["rows"], len(self.answered))
            self.answered[rows] = probabilities(answers["yes"], rows).numpy()

    def yes(self, rows: Rows, history: Rows) -> Tensor:  # [n] -> [n]
        """Return P(yes) of these rows under these histories, float32 on the CPU."""
        with self.model.using_history(history):
            return self.model.answer(rows, None).cpu()

    def loss(self, rows: Rows, history: Rows) -> float:
        """Return the mean cross-entropy of the true answers, in nats."""
        label = self.model.labels
        assert label is not None  # the model was trained on them
        yes = self.yes(rows, history).double().numpy()
        return float(log_losses(yes, label[rows]).mean())

    def drift(self, history: Rows | None = None) -> float | None:
        """Return the mean KL(first model || this one) of yes and no on the sample, in nats.

        Drift needs no Retrain, and does not measure the distance to one. A model that forgot
        perfectly has drifted too, and so do two Retrains from each other.

        Args:
            history: what prompts show, [n, k]; None: all that is not forgotten.

        Returns:
            The drift; None if the sample is empty.
        """
        if len(self.sample.rows) == 0:
            return None
        shown = self.history(self.forgotten) if history is None else history
        now = self.yes(self.sample.rows, shown)
        return drift_between(self.sample.yes, now)

    def forget(self, forgotten: Rows) -> None:
        """Mark these rows as forgotten, in addition to earlier ones; the weights stay."""
        self.number[without(forgotten, self.forgotten)] = len(self.record["requests"]) + 1
        self._leave_out_forgotten()

    def correct(self, corrections: Corrections) -> None:
        """Note corrections of the next request; the data stay as they are until they are used."""
        self.corrections = self.corrections.joined(corrections)
        self._leave_out_forgotten()

    def use_corrections(self) -> None:
        """Let the data be as all corrections say; the weights stay."""
        self.use_rows(self.corrections.applied(self.dataset.file_rows))
        self._leave_out_forgotten()

    def splits_of(self, user: Rows) -> Splits:
        """Return the parts of the rows where these are their users, by row id."""
        return self._file_parts.whole.without(user, self.control_users)

    @property
    def control_users(self) -> Rows:
        """Inner ids of users who are in no part of the training."""
        published, parts = self.dataset.file_rows.user, self._file_parts
        everybody, others = (
            published[np.concatenate(each)] for each in (parts.whole, parts.splits)
        )
        return np.setdiff1d(everybody, others)

    def use_rows(self, rows: RowTable) -> None:
        """Let the rows of the data, their prompts and labels be others; the weights stay.

        Rows stay in their parts, except that training has no row of a control user.

        Args:
            rows: all rows of the data; further ones may follow, which are in no part.
        """
        self.parts = self.parts._replace(splits=self.splits_of(rows.user))
        self.dataset.replace_rows(rows)
        self.model.labels = rows.label
        self._shown, self.answered = None, np.full(len(rows), np.nan)
        nothing = np.full((len(rows), 0), -1, dtype=np.int64)
        self.model.table = self.model.prompts(rows, nothing, prompt_texts(self.model.wording, rows))

    @contextmanager
    def using_rows(self, rows: RowTable) -> Iterator[None]:
        """Let rows be others inside the block, see :meth:`use_rows`."""
        earlier, labels, table, parts = (
            self.dataset.rows, self.model.labels, self.model.table, self.parts
        )  # fmt: skip
        self.use_rows(rows)
        try:
            yield
        finally:
            self.model.labels, self.model.table, self.parts = labels, table, parts
            self.dataset.replace_rows(earlier)
            self._shown, self.answered = None, np.full(len(earlier), np.nan)

    def _leave_out_forgotten(self) -> None:
        """Keep forgotten rows out of training, histories and the drift sample.

        Control users whom a request touched are no more among those to compare with.
        """
        forgotten = forgotten_until(self.number, len(self.record["requests"]) + 1)
        user, sample, corrected = self.dataset.rows.user, self.sample, self.corrections
        published = self.dataset.file_rows.user
        touched = np.concatenate([user[forgotten], published[corrected.rows], corrected.user])
        untouched = ~np.isin(user[sample.rows], touched)
        self.sample = DriftSample(sample.rows[untouched], sample.yes[torch.from_numpy(untouched)])
        control = self.parts.control
        untouched_control = control[~np.isin(user[control], touched)]
        self.parts = self.parts._replace(control=untouched_control)
        self.forgotten = forgotten
        self.answered = np.full(len(user), np.nan)
        self.live = without(self.parts.splits.train, forgotten)
        moved_away = np.unique(published[~np.isin(published, user)])
        self.gone = np.union1d(fully_forgotten_users(self, forgotten), moved_away)

    def rows_after(self, request: int) -> RowTable:
        """Return the rows of the data as a request left them."""
        return self.request_numbers.rows_after(request)

    def history(self, hidden: Rows) -> Rows:
        """See :meth:`Experiment.history`; the histories that are shown now are kept."""
        if self._shown is not None and np.array_equal(self._shown[0], hidden):
            return self._shown[1]
        history = self._history(hidden)
        if np.array_equal(hidden, self.forgotten):
            self._shown = hidden, history
        return history

    def _history(self, hidden: Rows) -> Rows:
        """Make histories; those of users of whom no more is hidden are as they are shown now."""
        rows = self.dataset.rows
        if self._shown is None or rows.index is not None:
            return super().history(hidden)
        earlier, history = self._shown
        if not np.isin(earlier, hidden).all():
            return super().history(hidden)
        newly = without(hidden, earlier)
        return hiding_more(history, rows, self.parts.whole, hidden, newly)

    def reopened(self, folder: ModelFolder) -> "ServedModel":
        """Open the folder's present generation beside this one, on the same data."""
        return ServedModel(self.config, self.dataset, folder.read(), folder.path)

    def ask_ahead(self) -> None:
        """Ask now about most of the rows that a request will have to ask about."""
        unseen = unseen_of(self.parts, self.dataset.rows.user, self.live)
        unseen = without(unseen, self.forgotten)
        for rows in (self.live, unseen):
            rows = some_of(rows, self.config["seed"])
            rows = rows[np.isnan(self.answered[rows])]
            self.answered[rows] = own_yes(self.model, rows, self.history(self.forgotten))

    @property
    def answers(self) -> dict[str, Tensor]:
        """What has been answered until now, as tensors of a generation."""
        rows = np.flatnonzero(~np.isnan(self.answered))
        return {"rows": torch.from_numpy(rows), "yes": torch.from_numpy(self.answered[rows])}

    @property
    def unmeasured(self) -> Mapping[str, Any] | None:
        """The ledger's entry of a request that is carried out, but not measured yet."""
        return unmeasured_of(self.record)

    @property
    def request_numbers(self) -> RequestNumbers:
        """Which request named which row."""
        return RequestNumbers(self.dataset, self.number, self.corrections)

    @property
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of a generation that holds the model as it is now."""
        columns = self.corrections._asdict().items()
        corrections = {name: torch.from_numpy(column.copy()) for name, column in columns}
        return {
            "weights": self.model.bank.state(self.model.adapter),
            "forgotten": tensors_of(self.number),
            "sample": {"rows": torch.from_numpy(self.sample.rows), "yes": self.sample.yes},
            **self._remainder,
            **({CORRECTIONS: corrections} if len(self.corrections.rows) else {}),
        }


def open_folder(
    folder: ModelFolder,
    overrides: Mapping[str, Any] | None = None,
    model: str | None = None,
    config_files: Sequence[str] = (),
) -> ServedModel:
    """Open a model folder on its data.

    Args:
        folder: the folder.
        overrides: settings as text: those of :data:`OVERRIDABLE_KEYS` and, with a method, its
            options and a request.
        model: the method that is to forget; None: nothing is to be forgotten.
        config_files: yaml files with such settings.

    Raises:
        InputError: there is no such folder, it is damaged, its data changed, or a setting is given
            that the folder fixes.
    """
    recbole_compat.apply()
    for _ in range(READ_ATTEMPTS):
        generation = folder.read()
        try:
            return _opened(folder, generation, overrides, model, config_files)
        except InputError:
            if folder.pointer().name == generation.name:
                raise
    raise InputError(f"{folder.path} changes all the time; try again")


def _opened(
    folder: ModelFolder,
    generation: Generation,
    overrides: Mapping[str, Any] | None,
    model: str | None,
    config_files: Sequence[str],
) -> ServedModel:
    """Open a generation, see :func:`open_folder`."""
    record, method_keys = generation.record, _method_keys(model)
    allowed = (
        OVERRIDABLE_KEYS if model is None else OVERRIDABLE_KEYS | method_keys | REQUEST_SETTINGS
    )
    settings = {key: value for key, value in record["settings"].items() if key not in RUN_ONLY_KEYS}
    overriding: dict[str, Any] = {}
    for file in config_files:
        overriding.update(read_yaml(Path(file)))
    overriding.update(overrides or {})
    if model != record["model"]:  # another method starts from its defaults
        settings = {key: value for key, value in settings.items() if key not in method_keys}
    check_keys(overriding, "the settings")
    for key in overriding:
        if key not in allowed:
            raise InputError(f"{key}: {folder.path} has its own; make another by export")
    settings.update(seed=record["seed"], log_wandb=False)
    config = Config(model or "LLMRec", record["dataset"], None, settings, overriding)
    if REMAINDER in generation.tensors:
        with as_damage(folder.path):
            config.remainder = remainder_of(generation.tensors[REMAINDER])
    init_seed(config["seed"], config["reproducibility"])
    return ServedModel(config, load_dataset(config, examine=False), generation, folder.path)


def _method_keys(model: str | None) -> set[str]:
    """Return the options of a method that the recommender does not have; None: of all methods."""
    names = METHODS if model is None else {model}
    keys = {key for name in names for key in properties("model", name)}
    return keys - set(properties("model", "LLMRec"))
