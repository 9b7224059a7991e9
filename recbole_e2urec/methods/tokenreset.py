"""TokenReset: tokens that only forget rows show are as if no training prompt had shown them."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.errors import InputError
from recbole_e2urec.methods.unlearner import NOT_REACHED, Unlearned, Unlearner, total
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, Stored
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.batches import TokenCoverage, forget_token_coverage
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.strength import strength_reaching, target_loss
from recbole_e2urec.trainer.teachers import token_reset_scorer
from recbole_e2urec.trainer.training_log import memory_used

MOST_WAY = 8.0  # times the way to where no training would leave a token


@option_class()
class TokenResetOptions:
    """What is refused, and how far tokens are moved."""

    partial: bool = option(
        "Carry out a request even if some of its rows show no token of their own; the answers to "
        "those rows hardly change. False = refuse it."
    )
    overshoot: float | None = option(
        "Move each token further by this share of the way, away from where Original has it; ~ = "
        "as far as forget rows are to lose by what control users predict: "
        "docs/reference/methods.md.",
        ge=0,
        allow_inf_nan=False,
    )


class TokenReset(Unlearner):
    """Put the embeddings of forget-only tokens where training leaves words it never shows.

    Forget-only tokens are those that prompts of forget rows show and no prompt of a retain row
    does, such as the numbers of users who leave. To a model whose prompts name users by such
    tokens, this is what deleting a row of the user embeddings is to a matrix factorisation. Nothing
    is trained, and nobody else's P(yes) changes.

    No prompt of Retrain's training shows these tokens either. Where head and embeddings are one
    matrix, each softmax still pushes them, as it pushes every word. So Retrain has them at about
    their start values plus the mean drift of words that no training prompt shows. Here they get
    their start values plus that drift in Original, see :func:`reset_forget_tokens`. That drift is
    somewhat longer than Retrain's, since Original takes more steps, and differs if the two were
    kept after different epochs. What other weights learned from the forget rows stays.
    ``overshoot`` makes up for some of it: it moves the tokens further, to where no Retrain has
    them.

    TokenReset cannot forget single rows of users who stay. Nor can it forget users whom prompts do
    not name, or name by a word that others' prompts show as well, such as an age. Requests with
    such rows are refused, unless ``partial`` allows them; ``found`` then says how many rows were
    not reached. A pretrained model got its words' embeddings elsewhere.
    """

    options_class = TokenResetOptions
    has_only_original = True

    def refuse(self, original: LLMRec, request: UnlearningTask) -> None:
        """See :meth:`Unlearner.refuse`."""
        if len(request.forget):
            self._check(original, request, forget_token_coverage(request, original.table))

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`; raises what :meth:`reset` does."""
        return self.reset(original, request, lambda: forget_token_coverage(request, original.table))

    def reset(
        self, original: LLMRec, request: UnlearningTask, coverage: Callable[[], TokenCoverage]
    ) -> Unlearned:
        """Reset the request's tokens.

        Args:
            original: see :meth:`Unlearner.unlearn`.
            request: what to forget.
            coverage: gives the tokens; not called if the outcome is in its stage already.

        Raises:
            InputError: no token is the request's own, a row shows none and all are to be reached,
                or Original's training does not reach the embeddings.
        """
        if len(request.forget) == 0:
            return Unlearned(Adapted(original.adapter), total([]), [], "original")
        stage = request.stage(type(self).__name__, asdict(self.options))
        with stage.open():
            if not stage.finished:
                self._reset(original, request, stage, coverage())
        cost = stage.summary()
        findings = {NOT_REACHED: cost.pop(NOT_REACHED), **cost.pop("found")}
        scorer = Stored(original.adapter, stage.weights)
        return Unlearned(scorer, cost, [], stage.digest, findings=findings)

    def _check(self, original: LLMRec, request: UnlearningTask, coverage: TokenCoverage) -> None:
        """Refuse a request whose rows these tokens do not name; raises what :meth:`reset` does."""
        missed = int((~coverage.covered).sum())
        if len(coverage.tokens) == 0:
            raise InputError(
                "TokenReset: other prompts show every token of the request's; it forgets users who "
                "leave wholly and whom prompts name, as by prompt: numbered; choose another model, "
                "such as E2URec"
            )
        if missed and not self.options.partial:
            raise InputError(
                f"TokenReset: {missed:,} of {len(request.forget):,} forget rows show no token that "
                "is theirs alone; partial: True forgets the others, and other models all of them"
            )
        if original.adapter is not None and not original.bank.reaches_words(original.lora):
            raise InputError(
                "TokenReset: tuning: lora did not reach the embeddings; choose another model, or "
                "adapt them (lora_target_modules)"
            )

    def _reset(
        self, original: LLMRec, request: UnlearningTask, stage: Stage, coverage: TokenCoverage
    ) -> None:
        started = time.perf_counter() - coverage.seconds
        self._check(original, request, coverage)
        tokens, covered, _ = coverage
        missed = int((~covered).sum())
        scorer = token_reset_scorer(original, request, tokens)
        overshoot = self.options.overshoot
        findings: dict[str, float] = {}
        if overshoot is None:
            covered_task = replace(request, forget=request.forget[covered])
            overshoot, findings = _overshoot_for(original, covered_task, scorer)
        weights = scorer(overshoot).read()
        spent = {"seconds": time.perf_counter() - started, "steps": 0, "trained_parameters": 0}
        stage.finish(weights, {**spent, **memory_used(), NOT_REACHED: missed, "found": findings})


def _overshoot_for(
    model: LLMRec, request: UnlearningTask, scorer: Callable[[float], Stored]
) -> tuple[float, dict[str, float]]:
    """The overshoot at which a request whose rows all show the tokens loses what it is to lose."""
    target = target_loss(model, request)
    share = strength_reaching(model, request, target, lambda share: scorer(share - 1), MOST_WAY)
    overshoot = max(0.0, share - 1)
    return overshoot, {"overshoot": overshoot, **target.findings}
