"""User embeddings of RecBole's own BPR, for methods that group users by taste."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.utils import init_seed

from recbole_e2urec.config import Config
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.data.rows import Splits
from recbole_e2urec.trainer.classic import make_trainer
from recbole_e2urec.yamlfiles import properties

EPOCHS = 20  # a fixed number, without validation: taste is wanted here, not the best ranking
# What a run says about a language model's training does not hold for BPR.
_TRAINING = {
    "epochs", "train_batch_size", "learning_rate", "learner", "weight_decay", "eval_step",
    "stopping_step", "clip_grad_norm", "train_neg_sample_args", "eval_mode", "metrics",
    "valid_metric", "model",
}  # fmt: skip


def user_embeddings(
    config: Config, splits: Splits, train: NDArray[np.int64]
) -> NDArray[np.float32]:  # [rows] -> [users, d]
    """Train BPR on these rows, and give its embeddings by inner user id.

    Args:
        config: of the run whose data it is.
        splits: of that run.
        train: row ids.
    """
    foreign = (
        _TRAINING | set(properties("model", "LLMRec")) | set(properties("model", config.model))
    )
    given = {
        key: value
        for key, value in config.external_config_dict.items()
        if key not in foreign and not key.startswith("backbone_")
    }
    fixed: dict[str, Any] = {"epochs": EPOCHS, "show_progress": False}
    own = Config("BPR", config.dataset, None, {**given, **fixed})
    init_seed(own["seed"], own["reproducibility"])
    loaders = make_loaders(own, load_dataset(own), splits, train)
    trainer = make_trainer(own, loaders)
    trainer.fit(loaders.train, None, verbose=False, saved=False, show_progress=False)
    return trainer.model.user_embedding.weight.detach().cpu().numpy().astype(np.float32)
