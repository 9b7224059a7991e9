"""Unlearning for language-model recommenders, as a plugin for RecBole."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_e2urec.config.config import Config
    from recbole_e2urec.data.dataset import load_dataset as create_dataset
    from recbole_e2urec.deployment.recommend import load_recommender
    from recbole_e2urec.experiment.run import data_preparation
    from recbole_e2urec.experiment.unlearning import UnlearningTrainer
    from recbole_e2urec.model.llmrec import LLMRec
    from recbole_e2urec.quick_start import run_recbole_e2urec
    from recbole_e2urec.trainer.llmrec_trainer import LLMRecTrainer

__version__ = "0.12.0"
__all__ = [
    "Config",
    "LLMRec",
    "LLMRecTrainer",
    "UnlearningTrainer",
    "__version__",
    "create_dataset",
    "data_preparation",
    "load_recommender",
    "run_recbole_e2urec",
]
_PLACES = {  # of what the package itself offers
    "Config": "config.config:Config",
    "LLMRec": "model.llmrec:LLMRec",
    "LLMRecTrainer": "trainer.llmrec_trainer:LLMRecTrainer",
    "UnlearningTrainer": "experiment.unlearning:UnlearningTrainer",
    "create_dataset": "data.dataset:load_dataset",
    "data_preparation": "experiment.run:data_preparation",
    "load_recommender": "deployment.recommend:load_recommender",
    "run_recbole_e2urec": "quick_start:run_recbole_e2urec",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: ``--help`` needs neither torch nor RecBole.

    Raises:
        AttributeError: any other name.
    """
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)
