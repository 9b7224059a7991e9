"""``recbole-e2urec correct``: carry out corrections on a served model.

A correction says that a row has another rating or label, or belongs to another user. The model
forgets the old answers, by the same methods as a deletion, and then learns the new ones. The data
files stay as they are until ``erase`` corrects them: the folder keeps what is right, see
:class:`Corrections`.

The new answers are learned by an adapter, beside the answers to rows that stay as they are. It is
then scaled until the model knows the corrected rows as well as it knows the rows that it was
trained on, see :func:`known_loss`. No Retrain is needed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.config.yaml import read_switch
from recbole_e2urec.data.request.file import (
    CorrectionFile,
    CorrectionLine,
    check_seconds,
    lines_of,
    location,
    read_corrections,
)
from recbole_e2urec.data.request.selection import ForgetOptions, request_digest
from recbole_e2urec.data.rows import NO_CORRECTIONS, UNCHANGED, Corrections
from recbole_e2urec.deployment.certificate import salted
from recbole_e2urec.deployment.certificate_words import CORRECTION, corrected_rows
from recbole_e2urec.deployment.evidence import RequestDelta, check_reference, counts_of, state_of
from recbole_e2urec.deployment.forget import (
    CHECKED_ROWS,
    DEFAULT_METHOD,
    RequestOptions,
    change_model,
    check_method,
    default_method,
    done_before,
    given_before,
    ledger_entry,
    measure_if_killed,
    measure_last,
    merge,
    merge_settings,
    missing_certificate,
    put_in_place,
    task_of,
    train_if_due,
    unlearn_rows,
)
from recbole_e2urec.deployment.model_folder import ModelFolder, hash_of_file
from recbole_e2urec.deployment.served_model import (
    ServedModel,
    fully_forgotten_users,
    open_folder,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import Rows
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.methods.unlearner import total
from recbole_e2urec.model.backbones.lora import interpolated
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.losses import e2urec_loss
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.strength import (
    ImpersonalModel,
    RowFacts,
    TargetLoss,
    loss_of,
    some_of,
    strength_for,
)
from recbole_e2urec.trainer.student import ORIGINAL, ForgetRetainBatch, Student

LEARNED = "Corrected"  # adapter and stage
EPOCHS = 2  # passes over the corrected rows
MOST_SCALE = 1.0  # of what was learned: further, the teacher did not watch over others' answers
_MEANINGLESS = ("forget_file", "forget_where", "forget_by", "forget_unknown", "retrain_share")


@option_class()
class CorrectOptions(RequestOptions):
    """Corrections on a model folder."""

    request: str | None = option(
        "The corrections, a file of rows with what is right: docs/how-to/correct-data.md.",
        default=None,
        text=True,
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.checkpoint:
            raise InputError("correct: in which model? write --checkpoint=DIR")
        if self.request is None:
            raise InputError("correct: what? write --request=FILE")
        self.measuring()


class _Request(NamedTuple):
    """Corrections that were asked for.

    Attributes:
        corrections: what is right.
        digest: hash of what is asked for, on which data.
        request_id: name of the request.
        executed: what to report about a request that was carried out before; None: it was not.
        warnings: for people.
    """

    corrections: Corrections
    digest: str
    request_id: str
    executed: str | None
    warnings: list[str]


def correct(
    options: CorrectOptions,
    model: str | None,
    settings: Mapping[str, Any],
    config_files: Sequence[str] = (),
) -> str:
    """Carry out corrections, or say what they would change.

    Args:
        options: the folder and the corrections.
        model: the method that forgets the old answers; None: the one that made the model, or
            NegatedE2URec.
        settings: options of the method, ``request_id`` and ``dry_run``. Text is read as on the
            command line.
        config_files: yaml files with such settings.

    Returns:
        A report for people. It names no user and no item.

    Raises:
        InputError: the folder, the file or the method cannot be used.
    """
    folder, merged = ModelFolder(options.checkpoint), merge_settings(settings, config_files)
    for key in _MEANINGLESS:
        if key in merged:
            raise InputError(f"correct: {key} means nothing here; drop it")
    method = model or default_method(folder)
    check_method(method)
    if read_switch(merged.get("dry_run", False), "dry_run"):
        return "\n".join(_preview(open_folder(folder, merged, method), options))
    folder.read(with_tensors=False)  # refuses other folders before a lock is made in them
    with folder.locked(unmeasured=True):
        folder.tidy()
        run = open_folder(folder, merged, method)
        method_of(run.config)  # refuses bad settings before the file is read
        lines = _execute(run, folder, options, _read_request(run, options))
        return "\n".join([*lines, *train_if_due(run, folder, options)[1]])


def _preview(run: ServedModel, options: CorrectOptions) -> list[str]:
    """Return what would be corrected; nothing is changed."""
    request = _read_request(run, options)
    if request.executed is not None:
        return [*request.warnings, request.executed]
    run.correct(request.corrections)
    with state_of(run, len(run.record["requests"]) + 1) as delta:
        counts = counts_of(run, delta)
    return [
        *request.warnings,
        f"request {request.request_id} on {run.dataset.dataset_name}",
        f"would correct {corrected_rows(counts)}",
        "dry run: nothing was trained, nothing was written",
    ]


def _execute(
    run: ServedModel, folder: ModelFolder, options: CorrectOptions, request: _Request
) -> list[str]:
    """Forget and learn what the request asks for, put the new model in place, and measure it."""
    lines = [*request.warnings, *measure_if_killed(run, folder, options, request.digest)]
    if request.executed is not None:
        return [*lines, request.executed, *missing_certificate(run, folder, request.digest)]
    check_reference(run, options.noise_floor)
    run.correct(request.corrections)
    with state_of(run, len(run.record["requests"]) + 1) as delta:
        changed = change_model(run, delta, lambda: answer_anew(run, folder, delta))
        made = ledger_entry(run, request.request_id, request.digest, changed)
    run.use_corrections()
    wording = _wording(str(options.request), made["evidence"]["salt"])
    put_in_place(run, folder, options, {**made, "kind": CORRECTION, "wording": wording})
    return [*lines, *measure_last(run, folder, options)]


# --- What is asked for


def _read_request(run: ServedModel, options: CorrectOptions) -> _Request:
    """Read the file, and find the rows that it names.

    Raises:
        InputError: one line that says what is wrong, and where.
    """
    path, ids = str(options.request), run.dataset.ids
    done = _done_in_same_words(run, path)
    if done is not None:
        name = str(done["request_id"])
        return _Request(NO_CORRECTIONS, str(done["digest"]), name, done_before(done), [])
    try:
        file = read_corrections(path, {"user": ids.users, "item": ids.items})
        corrections = _corrections_of(run, path, file.lines)
        return _identified(run, path, file, corrections)
    except InputError as error:
        raise InputError(str(error).replace("forget file", "request file")) from error


def _done_in_same_words(run: ServedModel, path: str) -> Mapping[str, Any] | None:
    """Return the entry of the same file, unless rows of it were corrected again since.

    A row that it moved is no longer where it looks for it, and perhaps another one is.
    """

    def holds(entry: Mapping[str, Any]) -> bool:
        number, known = run.record["requests"].index(entry) + 1, run.corrections
        again = np.isin(known.of(number).rows, known.rows[known.request > number])
        return entry.get("kind") == CORRECTION and not again.any()

    return given_before(run, lambda salt: _wording(path, salt), holds)


def _wording(path: str, salt: str) -> str:
    """Return a salted hash of a file of corrections."""
    return salted(salt, CORRECTION, hash_of_file(Path(path)))


def _corrections_of(run: ServedModel, path: str, lines: Sequence[CorrectionLine]) -> Corrections:
    """Return what is right, a row a line of the file."""
    rows = [_row_of(run, path, line) for line in lines]
    numbers: dict[int, list[int]] = {}
    for row, line in zip(rows, lines, strict=True):
        numbers.setdefault(row, []).append(line.number)
    for of_row in numbers.values():
        if len(of_row) > 1:
            raise InputError(
                f"forget file {path}, {lines_of(of_row)}: the same row is corrected twice; keep one"
            )
    forgotten = fully_forgotten_users(run, run.forgotten)
    values = [_right(run, path, line, forgotten) for line in lines]
    user, label, rating = (np.array(column) for column in zip(*values, strict=True))
    number = np.full(len(rows), len(run.record["requests"]) + 1)
    return Corrections(
        np.array(rows), number, user.astype(np.int64), label.astype(np.int64), rating.astype(float)
    )


def _row_of(run: ServedModel, path: str, line: CorrectionLine) -> int:
    """Return the id of the row that a line names.

    Raises:
        InputError: there is none, there are several, or it was forgotten.
    """
    where, table, ids = location(path, line.number), run.dataset.rows, run.dataset.ids
    user, item = ids.users.get(line.user, 0), ids.items.get(line.item, 0)
    rows = np.flatnonzero((table.user == user) & (table.item == item))
    if line.time is not None:
        if not table.has_time:
            raise InputError(f"{where}: a timestamp, but the data has no times; leave it out")
        if line.time.is_iso:
            check_seconds(float(table.time.max(initial=0)), where)
        rows = rows[(table.time[rows] >= line.time.first) & (table.time[rows] <= line.time.last)]
    left = np.setdiff1d(rows, run.forgotten)
    if len(rows) and not len(left):
        raise InputError(f"{where}: the row was forgotten; nothing is left to correct")
    if not len(left):
        raise InputError(f"{where}: the data have no such row; look for a typing error")
    if len(left) > 1:
        raise InputError(
            f"{where}: {len(left)} rows of this user and item; add a column timestamp that tells "
            "them apart"
        )
    return int(left[0])


def _right(
    run: ServedModel, path: str, line: CorrectionLine, forgotten: Rows
) -> tuple[int, int, float]:
    """Return the right user, label and rating that a line gives.

    Args:
        run: the model, opened on its data.
        path: the file, for messages.
        line: the line.
        forgotten: inner ids of forgotten users.

    Raises:
        InputError: the data cannot have it.
    """
    where, table, config = location(path, line.number), run.dataset.rows, run.config
    threshold, field = config["threshold"] or {}, config["RATING_FIELD"]
    user, label = UNCHANGED, UNCHANGED if line.label is None else line.label
    if line.new_user is not None:
        user = run.dataset.ids.users.get(line.new_user, 0)
        if not user or user in forgotten:
            raise InputError(f"{where}: nothing is known about the user in new_user_id")
    if line.label is not None and threshold:
        raise InputError(f"{where}: labels follow from {next(iter(threshold))} here; not new_label")
    if line.rating is None:
        return user, label, np.nan
    if table.rating is None:
        raise InputError(f"{where}: the data have no column {field}; give new_label")
    low, high = np.nanmin(table.rating), np.nanmax(table.rating)
    if not low <= line.rating <= high:
        raise InputError(f"{where}: new_rating is not between {low:g} and {high:g}, as all others")
    if field in threshold:
        label = int(line.rating >= threshold[field])
    return user, label, line.rating


def _identified(
    run: ServedModel, path: str, file: CorrectionFile, corrections: Corrections
) -> _Request:
    """Give the request its name and digest, and look whether it was carried out before."""
    changes = _changes(run, corrections)
    entries = {entry["digest"]: entry for entry in run.record["requests"]}
    digest = _digest(run, corrections)
    entry = None
    while digest in entries:  # also where the rows were corrected otherwise in between
        entry, repeated = entries[digest], digest
        digest = hashlib.sha256(digest.encode()).hexdigest()[:16]
    given = run.config.options(ForgetOptions).request_id
    if given is not None and file.request_id not in (None, str(given)):
        raise InputError(
            f"forget file {path} has another request_id than the settings; give one of them"
        )
    warnings = []
    if file.ignored_columns:
        warnings = [f"warning: columns or keys that mean nothing here: {file.ignored_columns}"]
    name = str(given or file.request_id or digest)
    if not changes.any() and entry is not None:
        return _Request(corrections, repeated, name, done_before(entry), warnings)
    unchanged = [line.number for line, new in zip(file.lines, changes, strict=True) if not new]
    if unchanged:
        raise InputError(
            f"forget file {path}, {lines_of(unchanged)}: the data say so already, nothing would "
            "change; remove what is right"
        )
    if any(other["request_id"] == name for other in run.record["requests"]):
        raise InputError(f"request_id {name} was another request's; give a new one")
    return _Request(corrections, digest, name, None, warnings)


def _changes(run: ServedModel, corrections: Corrections) -> Any:  # [m]
    """Tell which corrections change a row."""
    rows, chosen = run.dataset.rows, corrections.rows
    right = corrections.applied(rows)
    pairs = [(getattr(rows, name), getattr(right, name)) for name in ("user", "label", "rating")]
    return np.logical_or.reduce(
        [old[chosen] != new[chosen] for old, new in pairs if old is not None]
    )


def _digest(run: ServedModel, corrections: Corrections) -> str:
    """Hash what is asked for on which data, however the file was written."""
    table, ids = run.dataset.file_rows, run.dataset.ids
    users, items = ({inner: token for token, inner in of.items()} for of in (ids.users, ids.items))
    chosen = np.zeros(len(table), dtype=bool)
    chosen[corrections.rows] = True
    texts = [
        repr((
            users[int(table.user[row])], items[int(table.item[row])], float(table.time[row]),
            users.get(user), label, rating,
        ))
        for row, user, label, rating in zip(
            *(column.tolist() for column in (
                corrections.rows, corrections.user, corrections.label, corrections.rating
            )),
            strict=True,
        )
    ]  # fmt: skip
    digest = request_digest(run.dataset.dataset_name, table, ids, chosen)
    return hashlib.sha256("\n".join([digest, *sorted(texts)]).encode()).hexdigest()[:16]


# --- What the model answers instead


def answer_anew(run: ServedModel, folder: ModelFolder, delta: RequestDelta) -> dict[str, Any]:
    """Forget the old answers and learn the new ones, in memory; return the cost.

    Args:
        run: the model; its data are in the state of the request.
        folder: the model's folder, which keeps what is needed to resume after a kill.
        delta: the request.

    Raises:
        InputError: the merged model does not answer as the student did.
    """
    costs: list[dict[str, Any]] = []
    if len(delta.forget):
        costs.append(unlearn_rows(run, folder, delta))
    if len(delta.learn):
        costs += learn(run, folder, delta)
    if not costs:
        return {}
    found = {name: value for cost in costs for name, value in cost.pop("found").items()}
    return {**costs[0], **total(costs), "found": found}


def learn(run: ServedModel, folder: ModelFolder, delta: RequestDelta) -> list[dict[str, Any]]:
    """Learn the new answers of corrected rows; return the cost, if anything had to be learned."""
    model, method = run.model, method_of(run.config)
    task = task_of(run, folder, delta, delta.learn, delta.after).apart(
        method=[str(run.config["model"]), asdict(method.options)]
    )
    with model.using_history(delta.after):
        target = known_loss(model, task)
        if target.loss >= target.original:
            return []
        options = _learning_options(run, len(delta.learn))
        student = Student(model, task, LEARNED, options)
        student.teach(ORIGINAL, Adapted(model.adapter), retain=True)
        model.fresh_adapter(LEARNED, task.seed)
        start = model.bank.state(LEARNED)
        cost = student.train(_loss(options.beta))
        scale = _scale(model, start, target)
        checked = np.concatenate([delta.learn[:CHECKED_ROWS], run.sample.rows[:CHECKED_ROWS]])
        merge(model, Adapted(LEARNED), checked)
    found = {"learned_target": target.loss, "learned_from": target.original, "learned_scale": scale}
    return [{**cost, "found": found}]


def known_loss(model: LLMRec, task: UnlearningTask) -> TargetLoss:
    """Predict the loss of corrected rows once they are known as rows of the training are.

    :class:`ImpersonalModel` says how hard the rows are. What the model loses less than that on rows
    that stay, it should lose less on corrected rows:

        mean impersonal(corrected) + mean over retain rows of (model - impersonal).

    Args:
        model: the model, which shows the histories of the task.
        task: the rows to learn, in the place of rows to forget.
    """
    labels = model.labels
    assert labels is not None  # the model was trained on them
    impersonal = ImpersonalModel(RowFacts(task.item, labels, task.forget_history), task.retain)
    rows, retain = (some_of(rows, task.seed) for rows in (task.forget, task.retain))
    now, of_retain = (loss_of(model, Adapted(model.adapter), part) for part in (rows, retain))
    beyond = of_retain - impersonal.losses(retain, fitted=True)
    goal = float(impersonal.losses(rows).mean() + beyond.mean())
    return TargetLoss(rows, goal, 0.0, now)


def _learning_options(run: ServedModel, rows: int) -> Any:
    """Return how new answers are learned: NegatedE2URec's steps and rates, on all of the rows."""
    options: Any = method_of(run.config).options
    if not isinstance(options, METHODS[DEFAULT_METHOD].options_class):
        own = {*vars(options)} - {"seed"}
        given = run.config.external_config_dict.items()
        settings = {key: value for key, value in given if key not in own}
        config = Config(DEFAULT_METHOD, run.config.dataset, None, settings)
        options = method_of(config).options
    return replace(
        options,
        joint_epochs=EPOCHS,
        warmup_epochs=0,
        unlearn_share=1.0,
        unlearn_batch_size=options.batch_size(rows),
        scale_to_target=False,
    )


def _loss(beta: float) -> Any:
    """Return the loss of learning: true answers of corrected rows, earlier ones of all others."""

    def loss(batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        learned, remember = batch.forget.answer_loss(), batch.retain.distance_to(ORIGINAL)
        joined = e2urec_loss(learned, remember, beta)
        return {"loss": joined, "learned": learned, "remember": remember}

    return loss


def _scale(model: LLMRec, start: Mapping[str, Tensor], target: TargetLoss) -> float:
    """Scale the trained adapter until corrected rows are known, and return the factor."""
    trained = model.bank.state(LEARNED)

    def scorer(factor: float) -> Scorer:
        return Stored(LEARNED, lambda: interpolated(start, trained, factor))

    def gain(factor: float) -> float:
        return -float(loss_of(model, scorer(factor), target.rows).mean())

    rising = target._replace(loss=-target.loss, losses=-target.losses)
    factor = strength_for(gain, rising, MOST_SCALE)
    model.bank.load(LEARNED, interpolated(start, trained, factor))
    return factor
