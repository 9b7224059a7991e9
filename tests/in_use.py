"""A model in use, for tests: trained a little too long, so that there is something to forget."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from atomic_files import INTER, small_interactions, write_table

from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.deployment.export import ExportOptions, export
from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.served_model import ServedModel, open_folder
from recbole_e2urec.quick_start import run_recbole_e2urec

SETTINGS = {
    "title_field": "movie_title",
    "prompt": "numbered",
    "user_fields": ["age"],
    "history_length": 3,
    "control_users": 0,
    "epochs": 40,
    "eval_step": 40,  # what is kept is the last epoch
    "average_decay": 0.0,
    "learning_rate": 0.02,
    "train_batch_size": 64,
    "show_progress": False,
}
QUICK = {"show_progress": False, "joint_epochs": 2}
STRONG = {**QUICK, "unlearn_learning_rate": 0.02, "joint_epochs": 6}


CANARY, CANARY_ITEM, CANARY_TITLE = "canary-person", "canary-item", "Canary title"
NAMES = {"u1": CANARY, "i3": CANARY_ITEM, "Film 3": CANARY_TITLE}
WITH_CONTROL = {"control_users": 0.2, "epochs": 10, "eval_step": 10}


def write_data(folder: Path, by_user: bool = False, names: Mapping[str, str] | None = None) -> Path:
    """Write the data set ``small`` below a folder; gives data_path.

    ``by_user``: each user likes nearly everything or nearly nothing, which only the user's name
    tells: something to remember, and to forget. ``names``: what is to be called otherwise.
    """
    called = names or {}
    data = folder / "data" / "small"
    rows = small_interactions()
    if by_user:
        rows = [[u, i, 5 if likes(u) ^ (int(i[1:]) == 3) else 1, time] for u, i, _, time in rows]
    rows = [[called.get(u, u), called.get(i, i), *more] for u, i, *more in rows]
    write_table(data / "small.inter", INTER, rows)
    films = [[f"i{item}", f"Film {item}"] for item in range(20)]
    films = [[called.get(name, name) for name in film] for film in films]
    write_table(data / "small.item", "item_id:token movie_title:token_seq", films)
    people = [[called.get(f"u{user}", f"u{user}"), 20 + user] for user in range(24)]
    write_table(data / "small.user", "user_id:token age:float", people)
    return data.parent


def likes(user: str) -> bool:
    """Whether a user likes what there is, see :func:`write_data`."""
    return int(user[1:]) * 7 % 11 < 5


def make_model(
    folder: Path,
    by_user: bool = False,
    names: Mapping[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Train a recommender on it and export it to ``model`` in the folder."""
    data = write_data(folder, by_user, names)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = {"data_path": str(data), **SETTINGS, **settings}
        run_recbole_e2urec("LLMRec", "small", config_dict=given)
        export(ExportOptions("model"), "LLMRec", RunSettings())
    return folder / "model"


def make_certified(folder: Path) -> Path:
    """A model with control users that has forgotten the canary, by a request; see NAMES."""
    model = make_model(folder, names=NAMES, **WITH_CONTROL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        forget_users(CANARY, "u2", model="NegGrad")
    return model


def opened(folder: Path | str = "model") -> ServedModel:
    return open_folder(ModelFolder(folder))


def forget_users(*users: str, model: str | None = None, **settings: Any) -> str:
    """Forget users in ``model``; gives what is said."""
    file = Path(f"{'-'.join(users)}.csv")
    file.write_text("\n".join(["user_id", *users]) + "\n")
    return forget(QueueOptions("model", str(file)), model, {**QUICK, **settings})
