"""E2URec's steps: time of one, and memory of unlearning."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from benchmarks.plain import Models, PlainE2URec, PlainReader
from benchmarks.racing import peak_mb, race, ratio_of, seconds
from benchmarks.settings import Size, forgetting, nudged, reduced, request_of, shaped
from recbole_e2urec.methods import method_of
from recbole_e2urec.model.scorers import Adapted, Stored
from recbole_e2urec.trainer.loop import EpochPosition as Epoch
from recbole_e2urec.trainer.loop import StepRule, adamw, train_epoch
from recbole_e2urec.trainer.student import ORIGINAL, Student
from recbole_e2urec.trainer.teachers import AUGMENTED

ALPHA, RATE, BATCH = 2.0, 1e-3, 16  # of the public scripts
NAME = "E2URec"


class Ours:
    """Our student, whose teachers have answered."""

    def __init__(self, folder: Path, backbone: str, size: Size, **more: Any) -> None:
        given: dict[str, Any] = {
            "backbone": backbone,
            "prompt": "plain",
            "history_length": 10,
            "lora_dropout": 0.0,
            "alpha": ALPHA,
            "unlearn_batch_size": BATCH,
            "unlearn_learning_rate": RATE,
            "unlearn_share": 1.0,
            "warmup_epochs": 0,
            "joint_epochs": 1,
            **more,
        }
        self.run = forgetting(folder, size, **given)
        self.forget, self.retain = reduced(self.run, size.rows)
        self.request = request_of(self.run, self.forget, self.retain)
        self.method = cast(Any, method_of(self.run.config))
        self.model = self.run.model
        self.prepared = seconds(self._prepare)
        self.steps = -(-size.rows // BATCH)  # of an epoch
        self._epoch = 0

    def _prepare(self) -> None:
        """Ask the teachers: all that unlearning does before its first step."""
        self.student: Student = self.method.student(self.model, self.request)
        self.student.teach(ORIGINAL, Adapted(None), forget=True, retain=True)
        self.student.teach(AUGMENTED, Stored(None, self.augmented), forget=True)
        self.model.fresh_adapter(NAME, 1)
        self.optimizer = adamw(self.model.bank.parameters(NAME), StepRule(RATE))

    def augmented(self) -> dict[str, torch.Tensor]:
        """Weights of an augmented model: Original's, a little moved."""
        return nudged(self.model.bank.state(None), seed=2)

    def move(self) -> None:
        """Give the adapter weights that change answers."""
        self.model.bank.load(NAME, nudged(self.model.bank.state(NAME), seed=3))

    def epoch(self) -> None:
        """A joint epoch: a step a batch."""
        steps = self.student.pairing.steps(self._epoch, joint=True)
        clock = Epoch(NAME, 0, 1, show=False)
        dropout = self.method.options.unlearn_dropout
        with self.model.bank.training(NAME, dropout=dropout):
            train_epoch(self.optimizer, steps, self.loss, clock, StepRule(RATE))
        self._epoch += 1

    def loss(self, step: Any) -> Any:
        """The loss of a step, in pieces."""
        return map(self.method.loss, self.student.batches(step))


def plain_of(ours: Ours, backbone: str, adapter: Path | None = None) -> PlainE2URec:
    """The plain reading of the same rows and settings.

    Args:
        ours: gives prompts and labels.
        backbone: of all three models.
        adapter: folder for our student's adapter, with which theirs begins, upon our augmented
            weights; None: it begins with a fresh one, and the augmented model equals Original.
    """
    original, augmented, base = (AutoModelForSeq2SeqLM.from_pretrained(backbone) for _ in range(3))
    if adapter is None:
        student: Any = get_peft_model(
            base, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=["q", "v"])
        )
    else:
        ours.model.bank.save(NAME, adapter)
        student = PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
        augmented.load_state_dict(ours.augmented(), strict=False)
        augmented.tie_weights()
    lm, table = ours.model.language_model, ours.student.pairing.retain_table
    reader = PlainReader(lm.codec.tokenizer, table.text, lm.answer_ids, BATCH)
    models = Models(original.eval(), augmented.eval(), student)
    return PlainE2URec(reader, models, ours.model.labels, ALPHA, ours.method.options.beta, RATE)


def backbone_of(folder: Path, size: Size) -> str:
    """The backbone of the race."""
    return str(shaped(folder, "t5", size))


def check_same_loss(ours: Ours, plain: PlainE2URec) -> float:
    """Difference of the two losses on one batch.

    Raises:
        AssertionError: it is more than 1e-5; the race would not be fair.
    """
    (step, *_) = ours.student.pairing.steps(0, joint=True)
    plain.models.student.eval()
    with torch.no_grad():
        with ours.model.bank.frozen(NAME):
            mine = sum(float(terms["loss"]) for terms in ours.loss(step))
        other = float(plain.loss(step.forget.tolist(), step.retain.tolist()))
    assert abs(mine - other) <= 1e-5 * max(1.0, abs(other)), (mine, other)
    return abs(mine - other)


def step_time(folder: Path, size: Size) -> dict[str, Any]:
    """``step_time_ratio``: of steps alone; ``whole_ratio``: with what our teachers take before."""
    return _raced(folder, size)


def dropout_step_time(folder: Path, size: Size) -> dict[str, Any]:
    """``dropout_step_time_ratio``: of steps in which our student drops activations as theirs."""
    return {
        f"dropout_{key}": value for key, value in _raced(folder, size, unlearn_dropout=True).items()
    }


def compiled_step_time(folder: Path, size: Size) -> dict[str, Any]:
    """``compiled_step_time_ratio``: of steps whose prompts are read by code of torch.compile."""
    if not size.compiled:
        return {}
    return {
        f"compiled_{key}": value
        for key, value in _raced(folder, size, backbone_compile=True).items()
    }


def _raced(folder: Path, size: Size, **given: Any) -> dict[str, Any]:
    backbone = backbone_of(folder, size)
    ours = Ours(folder, backbone, size, **given)
    ours.move()
    plain = plain_of(ours, backbone, folder / "adapter")
    difference = check_same_loss(ours, plain)
    forget, retain = ours.forget, ours.retain
    ours.epoch()  # warms both up
    seeds = iter(range(10**6))
    plain.epoch(forget[:BATCH], retain[:BATCH], next(seeds))
    times: list[float] = []

    def mine() -> None:
        times.append(seconds(ours.epoch))

    ratio = race(lambda: plain.epoch(forget, retain, next(seeds)), mine, size.rounds)
    whole = [ratio.median * t / (t + ours.prepared) for t in times]
    return {
        "step_time_ratio": ratio,
        "whole_ratio": ratio_of(whole),
        "loss_difference": difference,
        "our_step_seconds": float(np.median(times)) / ours.steps,
    }


def memory(folder: Path, size: Size) -> dict[str, Any]:
    """``memory_ratio``: ours / theirs, peak of unlearning, each in a process of its own."""
    backbone = backbone_of(folder, size)
    ours = peak_mb(_unlearn_ours, str(folder), backbone, size)
    theirs = peak_mb(_unlearn_plain, str(folder), backbone, size)
    return {"memory_ratio": ours / theirs, "our_memory_mb": ours, "their_memory_mb": theirs}


def _unlearn_ours(folder: str, backbone: str, size: Size) -> None:
    Ours(Path(folder), backbone, size).epoch()


def _unlearn_plain(folder: str, backbone: str, size: Size) -> None:
    """The plain reading alone: what gives it rows, texts and labels has a tiny backbone."""
    small = Ours(Path(folder), "tiny-t5", size)
    plain_of(small, backbone).epoch(small.forget, small.retain, 0)
