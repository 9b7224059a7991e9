"""A request on a model in use, set by a rehearsal."""

from pathlib import Path

import pytest
from in_use import forget_users, opened

from recbole_e2urec.calibration import Calibration, Remembered, ratio_of
from recbole_e2urec.deployment.certificate import certificate_of
from recbole_e2urec.errors import InputError

pytestmark = pytest.mark.usefixtures("in_use")


def calibration(fingerprint: str, method: str = "NegGrad") -> str:
    Calibration(
        method=method, settings={"forget_weight": 0.01, "unlearn_learning_rate": 0.003},
        strength="forget_weight", power=1.0, remembered={"gap": 0.2, "rows": 50},
        fingerprint=fingerprint, matched={"badness": 0.1}, curve=[], request={"rows": 30},
        cost={"seconds": 1.0},
    ).write(Path("c.json"))  # fmt: skip
    return "c.json"


def test_its_settings_are_taken_and_told() -> None:
    file = calibration(opened().record["trained_as"])
    forget_users("u1", "u2", model="NegGrad", calibration=file)
    run = opened()
    (entry,) = run.record["requests"]
    method = entry["evidence"]["method"]
    assert method["options"]["unlearn_learning_rate"] == 0.003
    seen = method["calibration"]["remembered"]
    user, valid = run.dataset.rows.user, run.parts.splits.valid
    (u1, u2) = (run.dataset.ids.users[name] for name in ("u1", "u2"))
    assert seen["rows"] == sum(user[row] in (u1, u2) for row in valid)
    wanted = 0.01 * ratio_of(Remembered(**seen), Remembered(0.2, 50))
    assert method["options"]["forget_weight"] == pytest.approx(wanted)
    made = certificate_of(run.named, run.record, run.state, 1)
    assert "calibration.remembered.gap" in made.page


def test_another_model_s_is_refused_and_what_it_sets_is_not_set_besides() -> None:
    with pytest.raises(InputError, match="calibration: it was made for another model"):
        forget_users("u1", model="NegGrad", calibration=calibration("0" * 16))
    file = calibration(opened().record["trained_as"])
    with pytest.raises(InputError, match="calibration: it was made for NegGrad, not for NPO"):
        forget_users("u1", model="NPO", calibration=file)
    with pytest.raises(InputError, match="forget_weight is both calibrated and set"):
        forget_users("u1", model="NegGrad", calibration=file, forget_weight="0.1")
    assert opened().record["requests"] == []


def test_a_model_that_a_method_made_forgets_again_by_its_calibration() -> None:
    """What the method was set to is in the folder, and gives way."""
    forget_users("u1", model="NegGrad", forget_weight="0.02")
    file = calibration(opened().record["trained_as"])
    forget_users("u2", model="NegGrad", calibration=file)
    weights = [
        entry["evidence"]["method"]["options"]["forget_weight"]
        for entry in opened().record["requests"]
    ]
    assert weights[0] == 0.02
    assert 0.005 <= weights[1] <= 0.02
    assert opened().record["requests"][0]["evidence"]["method"]["calibration"] is None
