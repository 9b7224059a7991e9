"""Forgetting with RecBole's own models, by retraining or by shards.

``DeepFM-Retrain`` is DeepFM trained on the retain set alone. ``DeepFM-SISA`` is a mean over shards;
a request retrains only the shards that it touches.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.utils import init_seed
from torch import Tensor, nn

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import with_forget_method
from recbole_e2urec.config.yaml import properties
from recbole_e2urec.data.dataset import ROW_ID, load_dataset
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.data.rows import Splits
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.experiment.run import parts_of, request_of
from recbole_e2urec.trainer.recbole_trainer import (
    ClassicFit,
    fit_classic,
    make_trainer,
    plain_values,
    ready_trainer,
)
from recbole_e2urec.trainer.shards import ShardOptions, random_shards, train_shards

Rows = NDArray[np.int64]
EPOCHS = 20  # of BPR, without validation: embeddings of taste need not rank best
# Settings of a language model's training, which do not apply to BPR.
_TRAINING = {
    "epochs", "train_batch_size", "learning_rate", "learner", "weight_decay", "eval_step",
    "stopping_step", "clip_grad_norm", "train_neg_sample_args", "eval_mode", "metrics",
    "valid_metric", "model",
}  # fmt: skip


def user_embeddings(
    config: Config, splits: Splits, train: NDArray[np.int64]
) -> NDArray[np.float32]:  # [rows] -> [users, d]
    """Train BPR on these rows, and return its embeddings by inner user id.

    Args:
        config: settings of the run whose data are used.
        splits: splits of that run.
        train: row ids to train on.
    """
    foreign = (
        _TRAINING | set(properties("model", "LLMRec")) | set(properties("model", config.model))
    )
    settings = {
        key: value
        for key, value in config.external_config_dict.items()
        if key not in foreign and not key.startswith("backbone_")
    }
    fixed: dict[str, Any] = {"epochs": EPOCHS, "show_progress": False}
    bpr = Config("BPR", config.dataset, None, {**settings, **fixed})
    init_seed(bpr["seed"], bpr["reproducibility"])
    loaders = make_loaders(bpr, load_dataset(bpr, examine=False), splits, train)
    trainer = make_trainer(bpr, loaders)
    trainer.fit(loaders.train, None, verbose=False, saved=False, show_progress=False)
    return trainer.model.user_embedding.weight.detach().cpu().numpy().astype(np.float32)


class ClassicForgetting:
    """A model of RecBole with the same rows, split and request as language models."""

    def __init__(self, config: Config, dataset: Any) -> None:
        self.config, self.dataset = config, dataset
        self.ranked = config.ranked()
        parts = parts_of(config, dataset)
        self.splits = parts.splits
        self.forget_request = request_of(config, dataset, parts)
        self.split = self.forget_request.split

    def run(self) -> list[dict[str, Any]]:
        """Return the rows of the model on all rows, its Retrain, and its forget method."""
        return [
            self.row(way) for way in dict.fromkeys((None, "Retrain", self.config.forget_method))
        ]

    def row(self, way: str | None) -> dict[str, Any]:
        """Train, forget by this method, and measure; None: train on all rows.

        As for all models of a comparison, ``test`` is measured by labels, for sequential models by
        the score of the target item. ``ranking`` holds RecBole's metrics if items were ranked.
        """
        if way == "SISA":
            model, results = self._sharded()
        else:
            fit = self._fit(None if way is None else self.split.retain)
            model, results = fit.trainer.model, fit.results
        user, test = self.dataset.rows.user, self.splits.test
        forgotten = np.isin(user[test], user[self.split.forget])
        groups = {
            "test": test,
            "forget": self.split.forget,
            "heldout_forget_users": test[forgotten],
            "heldout_other_users": test[~forgotten],
        }
        measured = {group: self._measured(model, rows) for group, rows in groups.items()}
        cost = ("seconds", "prior_seconds", "trained_parameters", "steps")
        ranks = self.config.plan.kind == "ranking"
        ranking = results["test"] if ranks else self._ranking(model)
        return {
            "model": with_forget_method(self.config.model, way),
            "request_id": self.forget_request.request_id,
            "request_digest": self.forget_request.digest,
            **{part: results[part] for part in ("test", "valid") if part in results},
            **{group: metrics for group, metrics in measured.items() if metrics},
            **({"ranking": ranking} if ranking else {}),
            "cost": {part: results[part] for part in cost if part in results},
            "settings": self.config.settings(),
        }

    def _fit(self, rows: Rows | None) -> ClassicFit:
        """Train on these rows, and validate on their users only; None: all rows and users."""
        splits, user = self.splits, self.dataset.rows.user
        if rows is not None:
            validation = splits.valid[np.isin(user[splits.valid], user[rows])]
            splits = splits._replace(valid=validation)
        return fit_classic(self.config, make_loaders(self.config, self.dataset, splits, rows))

    def _sharded(self) -> tuple[nn.Module, dict[str, Any]]:
        """Train all shards, then retrain those that the request touches."""
        shards = self.config.final_config_dict.get("shards")
        options = ShardOptions(shards or properties("model", "SISA")["shards"])
        user, train = self.dataset.rows.user, self.splits.train
        parts = [train, self.split.retain]
        before, after, again = train_shards(
            [user[rows] for rows in parts],
            parts,
            random_shards(user[train], self.config["seed"], options.shards),
            lambda number, rows, again: self._fit(rows),
        )
        trainer = after[0].trainer
        trainer.model = Averaged([fit.trainer.model for fit in after])
        test = make_loaders(self.config, self.dataset, self.splits).test
        sums = {
            part: sum(fit.results[part] for fit in again)
            for part in ("seconds", "steps", "trained_parameters")
        }
        prior = sum(fit.results["seconds"] for fit in before)
        metrics = plain_values(trainer.evaluate(test, load_best_model=False, show_progress=False))
        return trainer.model, {"test": metrics, "prior_seconds": prior, **sums}

    def _ranking(self, model: nn.Module) -> dict[str, float]:
        """Return metrics of ranked test items; empty unless ``ranking_pass`` asks for them."""
        if self.ranked is None:
            return {}
        loaders = make_loaders(self.ranked, self.dataset, self.splits)
        trainer = ready_trainer(self.ranked, model, loaders)
        return plain_values(
            trainer.evaluate(loaders.test, load_best_model=False, show_progress=False)
        )

    def _measured(self, model: nn.Module, rows: Rows) -> dict[str, Any]:
        """Return AUC of these rows, and ACC and LogLoss if scores are probabilities."""
        label = self.dataset.rows.label
        if label is None or not hasattr(model, "predict"):
            return {}
        known, scores = score_rows(model, self.config, self.dataset, rows)
        metrics = labelled_metrics(self.config, scores, label[known])
        if not self.config.learns_labels:
            return {"auc": metrics["auc"], "rows": metrics["rows"]}
        return metrics


class Averaged(nn.Module):
    """Several models of RecBole whose scores are averaged."""

    def __init__(self, members: list[Any]) -> None:
        super().__init__()
        self.members: Any = nn.ModuleList(members)

    def predict(self, interaction: Any) -> Tensor:
        """Mean score of each row."""
        return torch.stack([member.predict(interaction) for member in self.members]).mean(dim=0)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Mean score of each item for each user."""
        scores = [member.full_sort_predict(interaction) for member in self.members]
        return torch.stack([score.view(-1) for score in scores]).mean(dim=0)


@torch.no_grad()
def score_rows(
    model: Any, config: Config, dataset: Any, rows: Rows
) -> tuple[Rows, NDArray[np.float64]]:  # [n] -> [m], [m]
    """Score rows by a model of RecBole; sequential models leave out rows without a history.

    Returns:
        The row ids that were scored, and their scores.
    """
    part = dataset.take(rows)
    if len(part) == 0:
        return rows[:0], np.zeros(0)
    model.eval()
    size = int(config["eval_batch_size"])
    scores = []
    for start in range(0, len(part), size):
        batch = part[torch.arange(start, min(start + size, len(part)))].to(config["device"])
        scores.append(model.predict(batch).view(-1).double().cpu())
    return part.inter_feat[ROW_ID].numpy(), torch.cat(scores).numpy()
