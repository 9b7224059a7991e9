"""Methods and models by name, as ``"module:Class"``: settings are read without importing them."""

from importlib import import_module
from typing import Any

LANGUAGE_MODEL = "LLMRec"
_MODELS = {LANGUAGE_MODEL: "recbole_e2urec.model.llmrec:LLMRec"}
# The unlearning methods: one file a method, one line here.
METHODS = {
    "E2URec": "recbole_e2urec.methods.e2urec:E2URec",
    "NegatedE2URec": "recbole_e2urec.methods.negatede2urec:NegatedE2URec",
    "E2URecRef": "recbole_e2urec.methods.e2urecref:E2URecRef",
    "CrossFit": "recbole_e2urec.methods.crossfit:CrossFit",
    "NegGrad": "recbole_e2urec.methods.neggrad:NegGrad",
    "NegKL": "recbole_e2urec.methods.negkl:NegKL",
    "BadT": "recbole_e2urec.methods.badt:BadT",
    "FlipLabel": "recbole_e2urec.methods.fliplabel:FlipLabel",
    "GradDiff": "recbole_e2urec.methods.graddiff:GradDiff",
    "NPO": "recbole_e2urec.methods.npo:NPO",
    "SimNPO": "recbole_e2urec.methods.simnpo:SimNPO",
    "TaskVector": "recbole_e2urec.methods.taskvector:TaskVector",
    "TokenReset": "recbole_e2urec.methods.tokenreset:TokenReset",
    "Retrain": "recbole_e2urec.methods.retrain:Retrain",
    "SISA": "recbole_e2urec.methods.sisa:SISA",
    "RecEraser": "recbole_e2urec.methods.receraser:RecEraser",
    "APA": "recbole_e2urec.methods.apa:APA",
}


def load_class(name: str) -> Any:
    """Import the class of a method, or of the language model, by its name.

    Raises:
        KeyError: there is none of this name.
    """
    module, _, attribute = {**_MODELS, **METHODS}[name].partition(":")
    return getattr(import_module(module), attribute)
