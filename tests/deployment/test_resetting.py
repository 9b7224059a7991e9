"""TokenReset on a model in use: users whom prompts name, and a word about those left out."""

from pathlib import Path
from typing import Any

import pytest
from in_use import make_model, opened

from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.errors import InputError


@pytest.fixture(autouse=True)
def model(tmp_path: Path) -> Path:
    """A model whose prompts name users, one of them by a word of all titles."""
    names = {"u3": "21", "u4": "Film", "u7": "22", "u9": "23"}
    return make_model(tmp_path, names=names, prompt="compact", user_fields=["user_id"])


def told(*users: str, **settings: Any) -> str:
    Path("request.csv").write_text("\n".join(["user_id", *users]) + "\n")
    given = {"show_progress": False, **settings}
    return forget(QueueOptions("model", "request.csv"), "TokenReset", given)


def test_users_are_forgotten_and_who_is_not_is_refused_or_told() -> None:
    with pytest.raises(InputError, match="forget rows show no token that is theirs alone"):
        told("21", "Film")
    assert opened().record["requests"] == []
    said = told("21", "22")
    assert "by TokenReset" in said
    assert "not reached" not in said
    (entry,) = opened().record["requests"]
    assert entry["drift"] == 0  # nobody else's answer moved
    assert entry["training_rows"] > 0
    assert entry["forget_loss"][0] != entry["forget_loss"][1]
    assert "training rows were not reached" in told("23", "Film", partial="True")
    page = max(Path("model/certificates").glob("*.html")).read_text()
    assert "training rows were not reached" in page
