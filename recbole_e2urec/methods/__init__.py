"""The unlearning methods by name: one file a method, one line here."""

from typing import Any

from recbole_e2urec.methods.apa import APA
from recbole_e2urec.methods.badt import BadT
from recbole_e2urec.methods.base import Unlearner
from recbole_e2urec.methods.crossfit import CrossFit
from recbole_e2urec.methods.e2urec import E2URec
from recbole_e2urec.methods.e2urecref import E2URecRef
from recbole_e2urec.methods.fliplabel import FlipLabel
from recbole_e2urec.methods.graddiff import GradDiff
from recbole_e2urec.methods.negatede2urec import NegatedE2URec
from recbole_e2urec.methods.neggrad import NegGrad
from recbole_e2urec.methods.negkl import NegKL
from recbole_e2urec.methods.npo import NPO
from recbole_e2urec.methods.receraser import RecEraser
from recbole_e2urec.methods.retrain import Retrain
from recbole_e2urec.methods.simnpo import SimNPO
from recbole_e2urec.methods.sisa import SISA
from recbole_e2urec.methods.taskvector import TaskVector
from recbole_e2urec.methods.tokenreset import TokenReset

METHODS: dict[str, type[Unlearner]] = {
    "E2URec": E2URec,
    "NegatedE2URec": NegatedE2URec,
    "E2URecRef": E2URecRef,
    "CrossFit": CrossFit,
    "NegGrad": NegGrad,
    "NegKL": NegKL,
    "BadT": BadT,
    "FlipLabel": FlipLabel,
    "GradDiff": GradDiff,
    "NPO": NPO,
    "SimNPO": SimNPO,
    "TaskVector": TaskVector,
    "TokenReset": TokenReset,
    "Retrain": Retrain,
    "SISA": SISA,
    "RecEraser": RecEraser,
    "APA": APA,
}


def method_of(config: Any) -> Unlearner:
    """Make the method that the settings name.

    Raises:
        InputError: an option of it does not do.
    """
    kind = METHODS[str(config.model)]
    options: Any = config.options(kind.options_class)
    return kind(options)
