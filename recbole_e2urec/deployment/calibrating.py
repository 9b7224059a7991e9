"""A rehearsal's settings for a request on a model in use."""

from typing import Any

import numpy as np

from recbole_e2urec.calibration import Asking, Calibration, calibration_of, remembered_of, told
from recbole_e2urec.deployment.change import Change
from recbole_e2urec.deployment.deployed import Deployed
from recbole_e2urec.evaluator.measure import Answers


def calibration_for(run: Deployed) -> Calibration | None:
    """The calibration that the settings name, if it was made for this model; None: they name none.

    Raises:
        InputError: it cannot be read, or is of another model, method or setting.
    """
    found = calibration_of(run.config)
    if found is not None:
        found.check_model(str(run.record.get("trained_as")))
    return found


def calibrate(run: Deployed, change: Change, answers: Answers) -> dict[str, Any] | None:
    """Set the method as a rehearsal says, with the strength for this request.

    Args:
        run: its settings are other ones afterwards.
        change: the request.
        answers: of the model before it.

    Returns:
        What was seen and taken, as results tell it; None: no calibration is named, or there is
        nothing to unlearn.

    Raises:
        InputError: as :func:`calibration_for`.
    """
    found = calibration_for(run)
    if found is None or len(change.forget) == 0:
        return None
    user = run.dataset.rows.user
    valid = np.setdiff1d(run.parts.splits.valid, change.earlier)
    valid = valid[np.isin(user[valid], user[change.forget])]
    asking = Asking(change.forget, answers.yes[change.forget], valid, change.before)
    seen = remembered_of(run.model, asking)
    run.config = run.config.moved(found.adapted(seen))
    return told(found, seen)
