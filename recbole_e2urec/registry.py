"""Classes by name, as ``"module:Class"``: settings are read without importing them."""

from importlib import import_module
from typing import Any

LANGUAGE_MODEL = "LLMRec"
_MODELS = {LANGUAGE_MODEL: "recbole_e2urec.model.llmrec:LLMRec"}
DEFAULT_MODELS = "E2URec,NegatedE2URec"  # where none is named: the paper's, and the best of ours
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
# The option classes whose defaults a yaml file of properties has, beside those of methods.
_EMBEDDED = ("recbole_e2urec.model.backbones.tiny:EmbeddedOptions",)
OPTIONS = {
    "overall": (
        "recbole_e2urec.experiment.launch:Launch",
        "recbole_e2urec.data.rows:TargetOptions",
        "recbole_e2urec.data.sharded:ShardOptions",
        "recbole_e2urec.data.request.selection:ForgetOptions",
        "recbole_e2urec.experiment.preview:PreviewOptions",
        "recbole_e2urec.deployment.export:FinalizeOptions",
        "recbole_e2urec.evaluator.attacks:RelearnOptions",
        "recbole_e2urec.model.backbones.loading:BackboneOptions",
        "recbole_e2urec.model.llmrec:LLMRecOptions",
        "recbole_e2urec.model.prompting:PromptOptions",
        "recbole_e2urec.experiment.inspect_prompts:ShowOptions",
    ),
    f"model/{LANGUAGE_MODEL}": (
        "recbole_e2urec.model.llmrec:LLMRecOptions",
        "recbole_e2urec.model.backbones.lora:LoraOptions",
    ),
    "backbone/tiny-t5": _EMBEDDED,
    "backbone/tiny-llama": _EMBEDDED,
    "command/init": ("recbole_e2urec.data.convert.csv_files:InitOptions",),
    "command/check": ("recbole_e2urec.experiment.preview:CheckOptions",),
    "command/hyper": ("recbole_e2urec.experiment.search:SearchOptions",),
    "command/case": ("recbole_e2urec.experiment.inspect_user:CaseOptions",),
    "command/export": ("recbole_e2urec.deployment.export:ExportOptions",),
    "command/forget": ("recbole_e2urec.deployment.forget:QueueOptions",),
    "command/correct": ("recbole_e2urec.deployment.correct:CorrectOptions",),
    "command/erase": ("recbole_e2urec.deployment.erase:EraseOptions",),
    "command/purge": ("recbole_e2urec.deployment.purge:PurgeOptions",),
    "command/recommend": ("recbole_e2urec.deployment.recommend:RecommendOptions",),
    "command/verify": ("recbole_e2urec.deployment.verify:VerifyOptions",),
}


def load_class(name: str) -> Any:
    """Import the class of a method, or of the language model, by its name.

    Raises:
        KeyError: there is none of this name.
    """
    return _load({**_MODELS, **METHODS}[name])


def option_classes(file: str) -> list[type]:
    """Import the option classes of a yaml file, such as ``overall`` or ``model/E2URec``."""
    folder, _, name = file.rpartition("/")
    if folder == "model" and name in METHODS:
        return [load_class(name).options_class]
    return [_load(place) for place in OPTIONS.get(file, ())]


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
