"""The unlearning methods: one file a method."""

from typing import Any

from recbole_e2urec import registry
from recbole_e2urec.methods.unlearner import Unlearner
from recbole_e2urec.trainer.student import check_student

METHODS: dict[str, type[Unlearner]] = {name: registry.load_class(name) for name in registry.METHODS}


def method_of(config: Any) -> Unlearner:
    """Make the method that the settings name.

    Raises:
        InputError: an option of it does not do, alone or with what the backbone is to learn.
    """
    kind = METHODS[str(config.model)]
    options: Any = config.options(kind.options_class)
    check_student(options, config["tuning"] == "lora")
    return kind(options)
