"""The student of gradient unlearning: its options, its training data and its training.

A student is a copy of Original that unlearns a request. Teachers answer each row once, before
training. A method's loss then compares the student's logits with those cached answers.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.prompt_table import PromptTable
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.llmrec import LLMRec, Schedule
from recbole_e2urec.model.losses import answer_cross_entropy, kl_divergence
from recbole_e2urec.model.scorers import Adapted, CachedAnswers, Scorer, Stored
from recbole_e2urec.trainer.adapter import AdapterTrainingPlan, UnlearningTask, train_adapter
from recbole_e2urec.trainer.batches import ForgetRetainBatches, Step, forget_only_tokens_of
from recbole_e2urec.trainer.loop import StepRule
from recbole_e2urec.trainer.strength import TargetLoss, scale_to_target, target_loss
from recbole_e2urec.utils import distributed

T = TypeVar("T")
ORIGINAL = "original"  # name of the teacher that every student has
# Smallest share of forget rows that must show a forget-only token. Below it, an adapted embedding
# learns all tokens, because forget rows without such a token could not be unlearned there. Where
# prompts name users, a few names also occur in other prompts, for example as an age: on ml-100k,
# .87 to 1 of the rows show a forget-only token if 42 or more users are forgotten. Where prompts do
# not name users, only rare words are forget-only tokens, and .003 to .03 of the rows show one.
LEAST_COVERAGE = 0.8


@option_class()
class StepOptions:
    """Optimizer steps of everything that a method trains."""

    unlearn_rate_schedule: Schedule = option(
        "Let learning rates fall to zero over their training (linear) or keep them as they are "
        "(constant)."
    )
    unlearn_clip_norm: float | None = option(
        "Scale a gradient down to this norm if it is larger; ~ = never.", gt=0
    )
    unlearn_adam_epsilon: float | None = option("AdamW's epsilon; ~ = adam_epsilon.", gt=0)
    unlearn_weight_decay: float = option("AdamW's weight decay.", ge=0, allow_inf_nan=False)
    unlearn_batch_size: int = option(
        "Forget rows in a step; joint steps add as many retain rows.", ge=1
    )

    def rule(self, learning_rate: float, adam_epsilon: float) -> StepRule:
        """Make the rule that turns a gradient into a step.

        Args:
            learning_rate: learning rate of the first step.
            adam_epsilon: Original's epsilon; used if these options set none.
        """
        return StepRule(
            learning_rate,
            self.unlearn_rate_schedule,
            self.unlearn_clip_norm,
            adam_epsilon if self.unlearn_adam_epsilon is None else self.unlearn_adam_epsilon,
            self.unlearn_weight_decay,
        )


@option_class()
class StudentOptions(StepOptions):
    """How a student learns. Each method adds its own options.

    Attributes:
        factors: smallest and largest factor of ``scale_to_target``, see :func:`target_loss`.
        share_of_all: whether ``unlearn_share`` applies to the forget rows of all users, not only
            to those of wholly forgotten users.
    """

    share_of_all: ClassVar[bool] = False
    factors: ClassVar[tuple[float, float]] = (0.1, 64.0)

    unlearn_learning_rate: float = option("AdamW's learning rate at the student's first step.")
    unlearn_share: float = option(
        "Share of each wholly forgotten user's rows that the student learns from, but at least "
        "512 rows in all. Users who stay, or whom prompts do not name, give all their forget "
        "rows.",
        gt=0,
        le=1,
    )
    joint_epochs: float = option(
        "Passes over the student's forget rows beside retain rows; a fraction cuts the last pass "
        "short.",
        ge=0,
        allow_inf_nan=False,
    )
    student: Literal["lora", "full"] = option(
        "Train an adapter on Original (lora) or all of its weights (full)."
    )
    forget_tokens_only: bool = option(
        "Let an adapted embedding learn only tokens that no retain row's prompt shows, such as "
        "the forgotten users' words under prompt: numbered. It learns all tokens if fewer than 80 "
        "% of the forget rows show such a token."
    )
    forget_tokens_until: float = option(
        "A request of at most this share of the training rows changes nothing but tokens "
        "that no retain row's prompt shows, if forget_tokens_only is True and each of its prompts "
        "shows one, or one that hardly any other prompt shows; 0 = it always changes more.",
        ge=0,
        le=1,
    )
    unlearn_dropout: bool = option(
        "Let the backbone drop activations while the student learns; teachers never do."
    )
    unlearn_stop: float = option(
        "Stop the student after this share of its steps; a falling learning rate falls as if it "
        "went on.",
        gt=0,
        le=1,
    )
    scale_to_target: bool = option(
        "Multiply the student's adapter after training so that forget rows lose what control "
        "users predict: docs/reference/methods.md."
    )

    def pairing(self, request: UnlearningTask, table: PromptTable) -> ForgetRetainBatches:
        """Divide the rows of a request into the student's steps."""
        size, share = self.unlearn_batch_size, self.unlearn_share
        return ForgetRetainBatches(request, table, size, share, self.share_of_all)

    def __post_init__(self) -> None:
        """Refuse options that exclude each other."""
        if self.scale_to_target and self.student == "full":
            raise InputError("scale_to_target multiplies an adapter; choose student: lora")


def check_student(options: Any, original_is_adapter: bool) -> None:
    """Refuse a student of all weights where Original is an adapter; no student is fine.

    Raises:
        InputError: the message says what to choose.
    """
    if original_is_adapter and getattr(options, "student", None) == "full":
        raise InputError("student: full needs tuning: full; choose student: lora")


class BatchPart(NamedTuple):
    """The forget rows or the retain rows in one piece of a step.

    All logits are those at the answer position.

    Attributes:
        logits: the student's logits, [n, vocab].
        labels: 1 = yes, 0 = no, float32 [n].
        teachers: logits of each teacher that answered these rows, [n, vocab], by its name.
        answer_ids: token ids of (no, yes).
        in_step: number of forget rows, or of retain rows, in the whole step.
    """

    logits: Tensor
    labels: Tensor
    teachers: Mapping[str, Tensor]
    answer_ids: tuple[int, int]
    in_step: int

    def mean(self, values: Tensor) -> Tensor:  # [n] -> []
        """Sum these rows' values, divided by ``in_step``: their part of the mean over the step."""
        return values.sum() / max(1, self.in_step)

    def answer_loss(self) -> Tensor:  # -> []
        """Cross-entropy of the true answers, averaged by :meth:`mean`."""
        return self.mean(answer_cross_entropy(self.logits, self.labels, self.answer_ids))

    def distance_to(self, teacher: str) -> Tensor:  # -> []
        """KL(teacher || student) in nats, averaged by :meth:`mean`."""
        return self.mean(kl_divergence(self.teachers[teacher], self.logits))


class ForgetRetainBatch(NamedTuple):
    """Input of a loss: one piece of a step.

    In a step on forget rows alone, ``retain`` has no rows.
    """

    forget: BatchPart
    retain: BatchPart


Loss = Callable[[ForgetRetainBatch], Mapping[str, Tensor]]


class TeacherCache(NamedTuple):
    """A teacher's cached answers.

    Attributes:
        rows: row ids, sorted.
        answers: the answers to these rows.
    """

    rows: NDArray[np.int64]
    answers: CachedAnswers

    def of(self, rows: NDArray[np.int64]) -> Tensor:  # [b] -> [b, vocab]
        """Look up the logits of some of the rows."""
        return self.answers.logits(torch.from_numpy(np.searchsorted(self.rows, rows)))


@option_class()
class JointOptions(StudentOptions):
    """How a student learns in E2URec's joint steps (arXiv 2403.03536)."""

    beta: float = option("Weight of the forgetting loss in joint steps.", ge=0, le=1)
    warmup_epochs: int = option(
        "Passes over the student's forget rows on the forgetting loss alone, before the joint "
        "ones.",
        ge=0,
    )


class TrainableTokens(NamedTuple):
    """Which parts of an adapter learn.

    Attributes:
        tokens: ids of the only tokens that an adapted embedding learns, int64 [m]; None: it learns
            all tokens.
        alone: whether the rest of the adapter stays as it is.
    """

    tokens: Tensor | None
    alone: bool


class Student:
    """The model that unlearns one request, starting from Original.

    Call :meth:`teach` for each teacher and :meth:`aim` if the method scales the adapter; then call
    :meth:`train`.

    Args:
        model: Original.
        request: what to forget.
        name: name of the student, of its adapter and of its stage.
        options: how it learns; each of them is part of its stage's hash.
        warmup: number of epochs on forget rows alone, before the joint epochs.
    """

    def __init__(
        self,
        model: LLMRec,
        request: UnlearningTask,
        name: str,
        options: StudentOptions,
        warmup: int = 0,
    ) -> None:
        check_student(options, model.adapter is not None)
        self.model, self.request, self.options = model, request, options
        self.name, self.warmup = name, warmup
        self.epochs = warmup + options.joint_epochs  # of the whole training
        self.pairing = options.pairing(request, model.table)
        epsilon = {"adam_epsilon": self.rule(0.0).adam_epsilon}  # from whichever option sets it
        self.stage = request.stage(name, {**asdict(options), **epsilon})
        self.stage.curves.chief = True
        self.asking = 0.0  # seconds of preparation, such as the teachers' answers
        self.findings: dict[str, float] = {}  # settings determined for this request
        self.target: TargetLoss | None = None  # the loss to which the trained adapter is scaled
        # Called before the first step; may change the student's weights.
        self.begin: Callable[[], None] = lambda: None
        self._on_forget: dict[str, TeacherCache] = {}
        self._on_retain: dict[str, TeacherCache] = {}
        labels = model.labels
        assert labels is not None  # Original was trained on them
        self._labels = torch.from_numpy(labels).to(model.device)
        self.learns = self._trainable_tokens()

    @property
    def scorer(self) -> Scorer:
        """Scorer that answers as the trained student does."""
        return Adapted(self.name) if self._adapter else Stored(None, self.stage.weights)

    def teach(self, name: str, teacher: Scorer, forget: bool = False, retain: bool = False) -> None:
        """Cache a teacher's answers to the student's rows; do nothing if the stage is finished.

        Args:
            name: name of the teacher.
            teacher: scorer that answers.
            forget: whether it answers the forget rows.
            retain: whether it answers the retain rows of the joint epochs.
        """
        if not self.stage.finished:
            self.timed(lambda: self._ask(name, teacher, forget, retain))

    def aim(self) -> None:
        """Predict the target loss on the forget rows.

        After training, the adapter is scaled to reach it. Does nothing if the stage is finished.
        """
        if not self.stage.finished:
            self.target = self.timed(lambda: target_loss(self.model, self.request))
            self.findings |= self.target.findings

    def _ask(self, name: str, teacher: Scorer, forget: bool, retain: bool) -> None:
        request = self.request
        if forget:
            with self.model.using_history(request.forget_history):
                rows = self.pairing.forget
                self._on_forget[name] = TeacherCache(rows, teacher.ask(self.model, rows))
        if retain:
            with self.model.using_history(request.retain_history):
                rows = self.pairing.retain_rows_of(self.warmup, self.epochs)
                self._on_retain[name] = TeacherCache(rows, teacher.ask(self.model, rows))

    def timed(self, prepare: Callable[[], T]) -> T:
        """Run a preparation and count its time as part of the student's cost."""
        started = time.perf_counter()
        result = prepare()
        self.asking += time.perf_counter() - started
        return result

    def train(self, loss: Loss) -> dict[str, Any]:
        """Train the student; return the summary of :func:`train_adapter`."""
        with self._trained_weights() as start:
            plan = AdapterTrainingPlan(
                self.epochs,
                self.rule(self.options.unlearn_learning_rate),
                self.request.seed,
                lambda epoch: self.pairing.steps(epoch, joint=epoch >= self.warmup),
                lambda step: map(loss, self.batches(step)),
                self.request.show,
                spent=self.asking,
                tokens=self.learns.tokens,
                alone=self.learns.alone,
                dropout=self.options.unlearn_dropout,
                stop=self.options.unlearn_stop,
                begin=self.begin,
                end=lambda: self._scale(start),
                findings=self.findings,
            )
            return train_adapter(self.model, self._adapter, self.stage, plan)

    def rule(self, learning_rate: float) -> StepRule:
        """Make the step rule of anything that is trained for this request."""
        return self.options.rule(learning_rate, self.model.options.adam_epsilon)

    def batches(self, step: Step) -> Iterator[ForgetRetainBatch]:
        """Yield the loss's input for a step, piece by piece.

        The student's forward pass covers forget rows and retain rows together. With several
        processes, each takes its share of both.
        """
        pairing, words = self.pairing, self.model.language_model.answer_ids
        forget, retain = map(distributed.share, step)
        whole = pairing.forget_table.joined(forget, pairing.retain_table, retain)
        for part, logits in self.model.read_pieces(whole):
            place, cut = part.numpy(), int((part < len(forget)).sum())
            parts = Step(forget[place[:cut]], retain[place[cut:] - len(forget)])
            taught = self._on_forget, self._on_retain
            yield ForgetRetainBatch(
                *(
                    BatchPart(
                        logits_of_side,
                        self._labels[torch.from_numpy(rows)],
                        {name: teacher.of(rows) for name, teacher in teachers.items()},
                        words,
                        len(side),
                    )
                    for logits_of_side, rows, teachers, side in zip(
                        logits.split([*map(len, parts)]), parts, taught, step, strict=True
                    )
                )
            )

    @property
    def _adapter(self) -> str | None:
        return self.name if self.options.student == "lora" else None

    def _scale(self, start: Mapping[str, Tensor]) -> None:
        """Scale the adapter so that the forget rows reach the target loss, if there is one."""
        if self.target is None or self._adapter is None:
            return
        self.findings["scale"] = scale_to_target(
            self.model, self.request, self.name, start, self.target, self.options.factors
        )

    @contextmanager
    def _trained_weights(self) -> Iterator[Mapping[str, Tensor]]:
        """Provide the weights to train: a new adapter, or the backbone's own weights.

        The backbone's weights are restored afterwards.

        Yields:
            The initial weights of the new adapter; an empty mapping for the backbone.
        """
        if self._adapter is None:
            with self.model.bank.restored_after(None):
                yield {}
            return
        self.model.fresh_adapter(self.name, self.request.seed)
        yield self.model.bank.state(self.name)

    def _trainable_tokens(self) -> TrainableTokens:
        """Choose the tokens that an adapted embedding learns, and whether anything else learns.

        An embedding learns forget-only tokens alone if at least ``LEAST_COVERAGE`` of the forget
        rows show one. If nothing else learns, the only retain rows in the steps are those that show
        one of the tokens.
        """
        if self._adapter is None or not self.options.forget_tokens_only or self.stage.finished:
            return TrainableTokens(None, False)
        return self.timed(self._forget_only_tokens)

    def _forget_only_tokens(self) -> TrainableTokens:
        tokens, most = self.pairing.forget_only_tokens(), self.options.forget_tokens_until
        if most > 0 and self.model.bank.reaches_words(self.model.lora):
            small = forget_only_tokens_of(self.pairing.sides, tokens, most)
            if small is not None:
                self.pairing.retain_pool = small.retain_pool
                return TrainableTokens(small.tokens, True)
        enough = len(tokens) > 0 and self.pairing.reached(tokens).mean() >= LEAST_COVERAGE
        return TrainableTokens(tokens if enough else None, False)
