"""What gradient unlearning has in common: teachers who answered once, and a student who learns."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from recbole_e2urec import processes
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored
from recbole_e2urec.trainer.loop import StepRule
from recbole_e2urec.trainer.owntokens import own_tokens_of
from recbole_e2urec.trainer.pairing import Pairing, Step
from recbole_e2urec.trainer.sides import Batch, Loss, Side, Taught
from recbole_e2urec.trainer.strength import TargetLoss, scale_to_target, target_loss
from recbole_e2urec.trainer.studentoptions import StudentOptions
from recbole_e2urec.trainer.unlearning import Plan, Request, train_adapter

T = TypeVar("T")
# Share of the forget rows that must show an own token before an adapted embedding learns these
# alone: what other rows show could not be unlearned there. Where prompts name users, a few names
# are words of other prompts too, such as an age; on ml-100k .87 to 1 of the rows of 42 users or
# more show one. Where they do not, rare words reach .003 to .03.
LEAST_REACH = 0.8


class Learns(NamedTuple):
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
        request: Request,
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
        self.pairing = Pairing(request, model.table, size, share, options.share_of_all)
        epsilon = {"adam_epsilon": self.rule(0.0).adam_epsilon}  # whoever sets it
        self.stage = request.stage(name, {**asdict(options), **epsilon})
        self.stage.curves.chief = True
        self.asking = 0.0  # seconds in which teachers answered
        self.found: dict[str, float] = {}  # settings found for this request
        self.target: TargetLoss | None = None  # to which its adapter is multiplied in the end
        # May change its weights before the first step.
        self.begin: Callable[[], None] = lambda: None
        self._on_forget: dict[str, Taught] = {}
        self._on_retain: dict[str, Taught] = {}
        labels = model.labels
        assert labels is not None  # Original was trained on them
        self._labels = torch.from_numpy(labels).to(model.device)

    @property
    def scorer(self) -> Scorer:
        """Who answers as the trained student does."""
        return Adapted(self.name) if self._adapter else Stored(None, self.stage.weights)

    def teach(self, name: str, teacher: Scorer, forget: bool = False, retain: bool = False) -> None:
        """Let a teacher answer each row once; nobody is asked for a finished student."""
        if not self.stage.finished:
            _ = self.learns  # before retain rows are asked about: it may leave few to be shown
            self.timed(lambda: self._ask(name, teacher, forget, retain))

    def aim(self) -> None:
        """Foretell what forget rows are to lose; the adapter is scaled to it after training."""
        if not self.stage.finished:
            self.target = self.timed(lambda: target_loss(self.model, self.request))
            self.found |= self.target.found

    def _ask(self, name: str, teacher: Scorer, forget: bool, retain: bool) -> None:
        request = self.request
        if forget:
            with self.model.shown(request.forget_history):
                rows = self.pairing.forget
                self._on_forget[name] = Taught(rows, teacher.ask(self.model, rows))
        if retain:
            with self.model.shown(request.retain_history):
                rows = self.pairing.retain_rows_of(self.warmup, self.epochs)
                self._on_retain[name] = Taught(rows, teacher.ask(self.model, rows))

    def timed(self, prepare: Callable[[], T]) -> T:
        """Do what comes before training; the time counts as the student's."""
        started = time.perf_counter()
        made = prepare()
        self.asking += time.perf_counter() - started
        return made

    def train(self, loss: Loss) -> dict[str, Any]:
        """Train the student; see :func:`train_adapter` for what comes back."""
        tokens, alone = self.learns
        plan = Plan(
            self.epochs,
            self.rule(self.options.unlearn_learning_rate),
            self.request.seed,
            lambda epoch: self.pairing.steps(epoch, joint=epoch >= self.warmup),
            lambda step: map(loss, self.batches(step)),
            self.request.show,
            spent=self.asking,
            tokens=tokens,
            alone=alone,
            dropout=self.options.unlearn_dropout,
            stop=self.options.unlearn_stop,
            begin=self.begin,
            end=self._end,
            found=self.found,
        )
        with self._place():
            return train_adapter(self.model, self._adapter, self.stage, plan)

    def rule(self, learning_rate: float) -> StepRule:
        """How a gradient becomes a step of what is trained for this request."""
        return self.options.rule(learning_rate, self.model.options.adam_epsilon)

    def batches(self, step: Step) -> Iterator[Batch]:
        """What the loss sees of a step, piece by piece; the student passes once over all rows.

        Of several processes each sees its share of both kinds of rows.
        """
        lm, device, pairing = self.model.language_model, self.model.device, self.pairing
        forget, retain = map(processes.share, step)
        if len(forget) + len(retain) == 0:  # fewer rows than processes
            return
        whole = pairing.forget_table.joined(forget, pairing.retain_table, retain)
        for part, prompts in whole.pieces(self.model.tokens_at_once):
            place, cut = part.numpy(), int((part < len(forget)).sum())
            parts = Step(forget[place[:cut]], retain[place[cut:] - len(forget)])
            logits = lm(*prompts.to(device))
            taught = self._on_forget, self._on_retain
            yield Batch(
                *(
                    Side(
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

    def _end(self) -> None:
        """Multiply the adapter so that forget rows lose what they are to lose, if that is known."""
        if self.target is None or self._adapter is None:
            return
        factor = scale_to_target(
            self.model, self.request, self.name, self._start, self.target, self.options.factors
        )
        self.found["scale"] = factor

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Make the student's adapter, or lend it the backbone, whose weights come back."""
        if self._adapter is None:
            with self.model.bank.kept(None):
                yield
            return
        self.model.fresh_adapter(self.name, self.request.seed)
        self._start = self.model.bank.state(self.name)
        yield

    @cached_property
    def learns(self) -> Learns:
        """Which tokens an adapted embedding learns, and whether anything else does."""
        if self._adapter is None or not self.options.own_tokens_only or self.stage.finished:
            return Learns(None, False)
        return self.timed(self._learns)

    def _learns(self) -> Learns:
        """See :attr:`learns`; where nothing else does, steps show rows that show these tokens.

        An embedding is limited to own tokens where ``LEAST_REACH`` of the forget rows show one.
        """
        own, most = self.pairing.own_tokens(), self.options.own_tokens_until
        if most > 0 and self.model.bank.reaches_words(self.model.lora):
            small = own_tokens_of(self.pairing.sides, own, most)
            if small is not None:
                self.pairing.beside = small.beside
                return Learns(small.tokens, True)
        enough = len(own) > 0 and self.pairing.reached(own).mean() >= LEAST_REACH
        return Learns(own if enough else None, False)
