"""Unlearning for language-model recommenders, as a plugin for RecBole."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_e2urec.quick_start import run_recbole_e2urec

__version__ = "0.10.0"
__all__ = ["__version__", "run_recbole_e2urec"]


def __getattr__(name: str) -> Any:
    """Import ``run_recbole_e2urec`` at its first use: ``--help`` needs neither torch nor RecBole.

    Raises:
        AttributeError: any other name.
    """
    if name != "run_recbole_e2urec":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recbole_e2urec.quick_start import run_recbole_e2urec

    return run_recbole_e2urec
