"""The unlearning methods by name: one file a method, one line here."""

from recbole_e2urec.methods.base import Unlearner
from recbole_e2urec.methods.e2urec import E2URec

METHODS: dict[str, type[Unlearner]] = {"E2URec": E2URec}
