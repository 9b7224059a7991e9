"""What gradient unlearning has in common: teachers who answered once, and a student who learns."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.llmrec import LLMRec, Schedule
from recbole_e2urec.model.losses import answer_cross_entropy, kl_divergence
from recbole_e2urec.model.scorers import Adapted, CachedAnswers, Scorer, Stored
from recbole_e2urec.trainer.adapter import AdapterTrainingPlan, UnlearningTask, train_adapter
from recbole_e2urec.trainer.batches import ForgetRetainBatches, Step, forget_only_tokens_of
from recbole_e2urec.trainer.loop import StepRule
from recbole_e2urec.trainer.strength import TargetLoss, scale_to_target, target_loss
from recbole_e2urec.utils import distributed


@dataclass(frozen=True)
class StepOptions:
    """How whatever a method trains takes its steps.

    Attributes:
        unlearn_rate_schedule: whether rates fall to nothing over their training (linear) or stay as
            they are (constant).
        unlearn_clip_norm: largest norm of a gradient, above which it is scaled down; None: none is.
        unlearn_adam_epsilon: AdamW's epsilon; None: that of Original, ``adam_epsilon``.
        unlearn_weight_decay: AdamW's weight decay.
        unlearn_batch_size: forget rows a step, and as many retain rows beside them.
    """

    unlearn_rate_schedule: Schedule
    unlearn_clip_norm: float | None
    unlearn_adam_epsilon: float | None
    unlearn_weight_decay: float
    unlearn_batch_size: int

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        self._check(["unlearn_clip_norm", "unlearn_adam_epsilon"], lambda v: v > 0, "above 0")
        self._check(["unlearn_weight_decay"], lambda v: 0 <= v < inf, "at least 0")
        self._check(["unlearn_batch_size"], lambda size: size >= 1, "at least 1")

    def _check(self, names: list[str], fits: Callable[[float], bool], wanted: str) -> None:
        """Refuse a value that does not fit; None does."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise InputError(f"{name} is {value}; it must be {wanted}")

    def rule(self, learning_rate: float, adam_epsilon: float) -> StepRule:
        """How a gradient becomes a step, at some rate.

        Args:
            learning_rate: at the first step.
            adam_epsilon: of Original, for options without one.
        """
        return StepRule(
            learning_rate,
            self.unlearn_rate_schedule,
            self.unlearn_clip_norm,
            adam_epsilon if self.unlearn_adam_epsilon is None else self.unlearn_adam_epsilon,
            self.unlearn_weight_decay,
        )


@dataclass(frozen=True)
class StudentOptions(StepOptions):
    """How a student learns; each method adds its own.

    Attributes:
        unlearn_learning_rate: AdamW's rate at the first step.
        unlearn_share: share of the forget rows of each user who leaves wholly that are learned
            from, in (0, 1]; of users who stay, and of those whom prompts do not name, all are.
        joint_epochs: passes over these rows, each step beside a batch of retain rows; a fraction
            cuts the last pass.
        student: what learns: a LoRA adapter on Original (lora), or all of its weights (full).
        own_tokens_only: an adapted embedding learns only the tokens that no retain row's prompt
            shows; where fewer than 80 % of the forget rows show one, or if False, all tokens.
        own_tokens_until: share of the training rows, in [0, 1], up to which a request changes
            nothing but such tokens, see :func:`forget_only_tokens_of`; 0 = it always changes more.
        unlearn_dropout: whether the backbone drops activations while the student learns. Teachers
            answer without, so a student does best without too, and saves the time; an adapter's
            own dropout stays.
        unlearn_stop: share of the steps after which learning ends, in (0, 1]; a rate that falls
            does so as if it went on.
        scale_to_target: whether the adapter is multiplied after training so that forget rows lose
            what a model that never saw them would lose, see :func:`target_loss`.
        factors: least and greatest such factor.
        share_of_all: whether ``unlearn_share`` is of every user's forget rows alike.
    """

    share_of_all: ClassVar[bool] = False
    factors: ClassVar[tuple[float, float]] = (0.1, 64.0)

    unlearn_learning_rate: float
    unlearn_share: float
    joint_epochs: float
    student: Literal["lora", "full"]
    own_tokens_only: bool
    own_tokens_until: float
    unlearn_dropout: bool
    unlearn_stop: float
    scale_to_target: bool

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        self._check(["joint_epochs"], lambda epochs: 0 <= epochs < inf, "at least 0")
        self._check(["unlearn_share", "unlearn_stop"], lambda share: 0 < share <= 1, "in (0, 1]")
        self._check(["own_tokens_until"], lambda share: 0 <= share <= 1, "in [0, 1]")
        if self.scale_to_target and self.student == "full":
            raise InputError("scale_to_target multiplies an adapter; choose student: lora")


ORIGINAL = "original"  # the teacher that every student has


class BatchPart(NamedTuple):
    """Forget rows or retain rows of a piece of a step; logits are those at the answer position.

    Attributes:
        logits: the student's, [n, vocab].
        labels: 1 = yes, 0 = no, float32 [n].
        teachers: the teachers' logits, [n, vocab] each, by their names; those that were asked.
        answer_ids: token ids of (no, yes).
        in_step: such rows in the whole step.
    """

    logits: Tensor
    labels: Tensor
    teachers: Mapping[str, Tensor]
    answer_ids: tuple[int, int]
    in_step: int

    def mean(self, values: Tensor) -> Tensor:  # [n] -> []
        """What these rows add to the mean over such rows of the step."""
        return values.sum() / max(1, self.in_step)

    def answer_loss(self) -> Tensor:  # -> []
        """Cross-entropy of the true answers, as :meth:`mean`."""
        return self.mean(answer_cross_entropy(self.logits, self.labels, self.answer_ids))

    def distance_to(self, teacher: str) -> Tensor:  # -> []
        """KL(teacher || student) in nats, as :meth:`mean`."""
        return self.mean(kl_divergence(self.teachers[teacher], self.logits))


class ForgetRetainBatch(NamedTuple):
    """What a loss sees of a piece of a step; a step on forget rows alone has no retain rows."""

    forget: BatchPart
    retain: BatchPart


Loss = Callable[[ForgetRetainBatch], Mapping[str, Tensor]]


class TeacherCache(NamedTuple):
    """A teacher's kept answers to sorted rows."""

    rows: NDArray[np.int64]
    answers: CachedAnswers

    def of(self, rows: NDArray[np.int64]) -> Tensor:  # [b] -> [b, vocab]
        """Logits of some of the rows."""
        return self.answers.logits(torch.from_numpy(np.searchsorted(self.rows, rows)))


@dataclass(frozen=True)
class JointOptions(StudentOptions):
    """How such a student learns, as in E2URec (arXiv 2403.03536).

    Attributes:
        beta: weight of the forgetting loss in joint steps, in [0, 1].
        warmup_epochs: passes over the forget set on the forgetting loss alone, before the joint
            ones.
    """

    beta: float
    warmup_epochs: int

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise InputError(f"beta is {self.beta}; it must be in [0, 1]")
        if self.warmup_epochs < 0:
            raise InputError(f"warmup_epochs is {self.warmup_epochs}; it must be at least 0")


T = TypeVar("T")
# Share of the forget rows that must show an own token before an adapted embedding learns these
# alone: what other rows show could not be unlearned there. Where prompts name users, a few names
# are words of other prompts too, such as an age; on ml-100k .87 to 1 of the rows of 42 users or
# more show one. Where they do not, rare words reach .003 to .03.
LEAST_COVERAGE = 0.8


class TrainableTokens(NamedTuple):
    """What of an adapter learns.

    Attributes:
        tokens: the only ones that an adapted embedding learns, int64 [m]; None: it learns all.
        alone: whether nothing else of the adapter learns.
    """

    tokens: Tensor | None
    alone: bool


class Student:
    """Original's successor in one request: its steps, its teachers and its training.

    Args:
        model: Original.
        request: what to forget.
        name: of the student; also of its adapter and its stage.
        options: how it learns; all of them decide its stage.
        warmup: epochs on forget rows alone, before the joint ones.
    """

    def __init__(
        self,
        model: LLMRec,
        request: UnlearningTask,
        name: str,
        options: StudentOptions,
        warmup: int = 0,
    ) -> None:
        if options.student == "full" and model.adapter is not None:
            raise InputError("student: full needs tuning: full; choose student: lora")
        self.model, self.request, self.options = model, request, options
        self.name, self.warmup = name, warmup
        self.epochs = warmup + options.joint_epochs  # all of its training
        size, share = options.unlearn_batch_size, options.unlearn_share
        self.pairing = ForgetRetainBatches(request, model.table, size, share, options.share_of_all)
        epsilon = {"adam_epsilon": self.rule(0.0).adam_epsilon}  # whoever sets it
        self.stage = request.stage(name, {**asdict(options), **epsilon})
        self.stage.curves.chief = True
        self.asking = 0.0  # seconds in which teachers answered
        self.found: dict[str, float] = {}  # settings found for this request
        self.target: TargetLoss | None = None  # to which its adapter is multiplied in the end
        # May change its weights before the first step.
        self.begin: Callable[[], None] = lambda: None
        self._on_forget: dict[str, TeacherCache] = {}
        self._on_retain: dict[str, TeacherCache] = {}
        labels = model.labels
        assert labels is not None  # Original was trained on them
        self._labels = torch.from_numpy(labels).to(model.device)
        self.learns = self._trainable_tokens()

    @property
    def scorer(self) -> Scorer:
        """Who answers as the trained student does."""
        return Adapted(self.name) if self._adapter else Stored(None, self.stage.weights)

    def teach(self, name: str, teacher: Scorer, forget: bool = False, retain: bool = False) -> None:
        """Let a teacher answer each row once; nobody is asked for a finished student."""
        if not self.stage.finished:
            self.timed(lambda: self._ask(name, teacher, forget, retain))

    def aim(self) -> None:
        """Predict what forget rows should lose; the adapter is scaled to it after training."""
        if not self.stage.finished:
            self.target = self.timed(lambda: target_loss(self.model, self.request))
            self.found |= self.target.found

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
        """Do what comes before training; the time counts as the student's."""
        started = time.perf_counter()
        result = prepare()
        self.asking += time.perf_counter() - started
        return result

    def train(self, loss: Loss) -> dict[str, Any]:
        """Train the student; see :func:`train_adapter` for what comes back."""
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
                found=self.found,
            )
            return train_adapter(self.model, self._adapter, self.stage, plan)

    def rule(self, learning_rate: float) -> StepRule:
        """How a gradient becomes a step of what is trained for this request."""
        return self.options.rule(learning_rate, self.model.options.adam_epsilon)

    def batches(self, step: Step) -> Iterator[ForgetRetainBatch]:
        """What the loss sees of a step, piece by piece; the student passes once over all rows.

        Of several processes each sees its share of both kinds of rows.
        """
        lm, device, pairing = self.model.language_model, self.model.device, self.pairing
        forget, retain = map(distributed.share, step)
        if len(forget) + len(retain) == 0:  # fewer rows than processes
            return
        whole = pairing.forget_table.joined(forget, pairing.retain_table, retain)
        for part, prompts in whole.pieces(self.model.tokens_at_once):
            place, cut = part.numpy(), int((part < len(forget)).sum())
            parts = Step(forget[place[:cut]], retain[place[cut:] - len(forget)])
            logits = lm(*prompts.to(device))
            taught = self._on_forget, self._on_retain
            yield ForgetRetainBatch(
                *(
                    BatchPart(
                        said,
                        self._labels[torch.from_numpy(rows)],
                        {name: teacher.of(rows) for name, teacher in teachers.items()},
                        lm.answer_ids,
                        len(side),
                    )
                    for said, rows, teachers, side in zip(
                        logits.split([*map(len, parts)]), parts, taught, step, strict=True
                    )
                )
            )

    @property
    def _adapter(self) -> str | None:
        return self.name if self.options.student == "lora" else None

    def _scale(self, start: Mapping[str, Tensor]) -> None:
        """Multiply the adapter so that forget rows lose what they are to lose, if that is known."""
        if self.target is None or self._adapter is None:
            return
        self.found["scale"] = scale_to_target(
            self.model, self.request, self.name, start, self.target, self.options.factors
        )

    @contextmanager
    def _trained_weights(self) -> Iterator[Mapping[str, Tensor]]:
        """Make the student's adapter, or lend it the backbone, whose weights come back.

        Gives the weights of the new adapter; nothing for the backbone.
        """
        if self._adapter is None:
            with self.model.bank.restored_after(None):
                yield {}
            return
        self.model.fresh_adapter(self.name, self.request.seed)
        yield self.model.bank.state(self.name)

    def _trainable_tokens(self) -> TrainableTokens:
        """Which tokens an adapted embedding learns, and whether anything else does.

        An embedding is limited to forget-only tokens where ``LEAST_COVERAGE`` of the forget rows
        show one. Where nothing else learns, steps show retain rows that show these tokens.
        """
        if self._adapter is None or not self.options.own_tokens_only or self.stage.finished:
            return TrainableTokens(None, False)
        return self.timed(self._forget_only_tokens)

    def _forget_only_tokens(self) -> TrainableTokens:
        tokens, most = self.pairing.forget_only_tokens(), self.options.own_tokens_until
        if most > 0 and self.model.bank.reaches_words(self.model.lora):
            small = forget_only_tokens_of(self.pairing.sides, tokens, most)
            if small is not None:
                self.pairing.retain_pool = small.retain_pool
                return TrainableTokens(small.tokens, True)
        enough = len(tokens) > 0 and self.pairing.reached(tokens).mean() >= LEAST_COVERAGE
        return TrainableTokens(tokens if enough else None, False)
