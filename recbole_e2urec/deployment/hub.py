"""A model as a folder that plain transformers or plain peft loads, with a model card.

Such a folder can be published at a hub, and is a backbone for ``--backbone``. It holds no data and,
unlike a model folder, carries out no requests. The model card gives counts and names no user, no
item and no title.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import torch
import yaml
from jinja2 import Environment, StrictUndefined

from recbole_e2urec.data.rows import without
from recbole_e2urec.deployment.certificate_words import no_residual, things
from recbole_e2urec.deployment.served_model import ServedModel
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.experiment.run import Experiment, Rows
from recbole_e2urec.model.backbones.adapters import BASE_FOLDER
from recbole_e2urec.model.backbones.loading import BackboneOptions, hub_id
from recbole_e2urec.model.backbones.tiny import EMBEDDED, without_words
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.report.results import versions
from recbole_e2urec.utils.io import write_text

Format = Literal["merged", "peft"]
CARD, NO_LICENSE = "README.md", "unknown"  # of which a hub reads the first lines
PARTS = ("user", "history", "entry", "instruction", "question", "tail")  # as in a prompt
MEASURES = {"auc": "AUC", "acc": "ACC", "logloss": "LogLoss"}


class ModelFacts(NamedTuple):
    """What a card tells about a model.

    Attributes:
        name: the method, or what else the results call the model.
        test: its measures on test rows.
        requests: the ledger's entries of the requests that it has carried out.
        forgotten: ids of rows that it has forgotten.
        gone: inner ids of users whom it has forgotten as a whole.
        caution: how to read the measures, if they need a caution.
    """

    name: str
    test: Mapping[str, Any]
    requests: Sequence[Mapping[str, Any]]
    forgotten: Rows
    gone: Rows
    caution: str | None = None


class Example(NamedTuple):
    """A prompt made of placeholders.

    Attributes:
        text: the prompt, as the tokenizer alone reads it.
        adds_special: whether the tokenizer adds its special tokens.
        is_exact: whether the tokenizer then gives the tokens that the model was trained on.
        yes: what the model answers.
    """

    text: str
    adds_special: bool
    is_exact: bool
    yes: float


def facts_of(run: ServedModel) -> ModelFacts:
    """Return what a card tells about a model in use; test rows are asked about."""
    rows = without(run.parts.splits.test, run.forgotten)
    yes = run.yes(rows, run.history(run.forgotten)).double().numpy()
    labels = run.model.labels
    assert labels is not None  # the model was trained on them
    test = labelled_metrics(run.config, yes, labels[rows])
    name, requests = run.record["model"], run.record["requests"]
    return ModelFacts(name, test, requests, run.forgotten, run.gone)


def refuse_no_adapter(tuning: str) -> None:
    """Refuse to write an adapter of a model that is none; ``tuning`` is how it was tuned."""
    if tuning != "lora":
        raise InputError(
            "format: all weights of this model were trained (tuning: full), so that it is no "
            "adapter; write --format=merged"
        )


def publish(
    run: Experiment, facts: ModelFacts, folder: Path, kind: Format, license_name: str = NO_LICENSE
) -> str:
    """Write a new folder with the model that a run has, and its card.

    Args:
        run: the run.
        facts: what the card tells.
        folder: where to; a new folder or an empty one.
        kind: a whole model, or an adapter.
        license_name: the model's licence, as hubs call it.

    Returns:
        What was written, for people.

    Raises:
        InputError: the model is no adapter or cannot be merged, or the folder cannot be written.
    """
    model, tokenizer = run.model, _tokenizer(run, facts.gone)
    if kind == "peft":
        refuse_no_adapter(model.options.tuning)
    base = hub_id(run.config.options(BackboneOptions))
    with _complete(folder) as new:
        if kind == "merged":
            model.bank.save_merged(model.adapter, new, tokenizer)
        else:
            assert model.adapter is not None
            model.bank.save(model.adapter, new, base or BASE_FOLDER)
            tokenizer.save_pretrained(new)
            if base is None:
                model.bank.save_merged(None, new / BASE_FOLDER, tokenizer)
        write_text(new / CARD, model_card(run, facts, kind, license_name))
    lines = [
        f"{facts.name} of {run.config['dataset']} is in {folder}, for plain "
        f"{'transformers' if kind == 'merged' else 'peft'}; {CARD} says how to load it"
    ]
    if _has_user_words(run):
        lines.append(f"its tokenizer has a word for {_users_left(run, facts)}, by their ids")
    return "\n".join(lines)


def model_card(run: Experiment, facts: ModelFacts, kind: Format, license_name: str) -> str:
    """Render the card of a model; it names no user, no item and no title."""
    model, config = run.model, run.config
    language_model = model.language_model
    template = model.wording.template
    base = hub_id(config.options(BackboneOptions))
    front: dict[str, Any] = {
        "library_name": "transformers" if kind == "merged" else "peft",
        "license": license_name,
        "tags": ["recommendation", "recbole", "recbole_e2urec"],
    }
    if facts.requests:
        front["tags"].append("unlearning")
    if base:
        front["base_model"] = base
    ids = language_model.answer_ids
    seq2seq = language_model.model.config.is_encoder_decoder
    return _CARD.render(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        facts=facts,
        kind=kind,
        base=base,
        dtype=str(language_model.model.dtype).removeprefix("torch."),
        base_folder=BASE_FOLDER,
        auto="AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM",
        start=getattr(language_model, "start_id", None),
        example=example_of(model, run.dataset.rows),
        answers=language_model.codec.tokenizer.convert_ids_to_tokens(list(ids)),
        words=[config["answer_no"], config["answer_yes"]],
        backbone=base or (config["backbone"] if config["backbone"] in EMBEDDED else None),
        tuning=model.options.tuning,
        parts=yaml.safe_dump(
            {name: getattr(template, name) for name in PARTS}, sort_keys=False, allow_unicode=True
        ),
        prompt=Path(str(config["prompt"])).name,
        names_users=template.names_users,
        user_words=_users_left(run, facts) if _has_user_words(run) else None,
        embedded=config["backbone"] in EMBEDDED,
        history_length=model.prompt_options.history_length,
        threshold=config["threshold"],
        dataset=config["dataset"],
        counts=_counts(run, facts),
        split=config["eval_args"],
        measures=[
            (MEASURES.get(name, name), value)
            for name, value in facts.test.items()
            if isinstance(value, int | float)
        ],
        requests=[_request(entry) for entry in facts.requests],
        versions=versions(),
    )


def example_of(model: LLMRec, rows: Any) -> Example:
    """Make a prompt of placeholders, and ask the model."""
    language_model, codec = model.language_model, model.language_model.codec
    texts = _placeholders(model, rows.rating is not None, rows.highest_rating)
    tokens = [token for part in language_model.encode(texts) for token in part]
    ids = [*language_model.prefix_ids, *tokens, *language_model.suffix_ids]
    found = codec.one_text(texts, ids)
    text, adds_special = found or (codec.text(ids), False)
    batch = torch.tensor([ids], device=model.device)
    with model.bank.frozen(model.adapter):
        yes = model.yes(language_model.hidden(batch, torch.ones_like(batch)))
    return Example(text, adds_special, found is not None, float(yes[0]))


def _placeholders(model: LLMRec, rated: bool, highest: float | None) -> list[str]:
    """Return the texts of a prompt about nobody."""
    template, length = model.wording.template, model.prompt_options.history_length
    user = {name: name.upper() for name in template.names.users}
    item = {name: name.upper() for name in template.names.items}
    shown = [("Title A", highest), ("Title B", 1.0)][: max(0, length)]
    texts = [
        template.render_user(user, "USER"),
        template.render_history(rated) if shown else "",
        *(
            template.render_entry(title, rating if rated else None, highest, title[-1], item)
            for title, rating in shown
        ),
        template.render_instruction(rated),
        template.render_question("Title C", rated, "C", item),
    ]
    return [text for text in texts if text.strip()]


def _tokenizer(run: Experiment, gone: Rows) -> Any:
    """Return the tokenizer; that of an embedded backbone without words of forgotten users."""
    tokenizer: Any = run.model.language_model.codec.tokenizer
    name = str(run.config["backbone"])
    hidden = run.model.table.own_tokens(gone)
    return without_words(name, tokenizer, hidden) if name in EMBEDDED and len(hidden) else tokenizer


def _has_user_words(run: Experiment) -> bool:
    return run.config["backbone"] in EMBEDDED and run.model.wording.template.names_users


def _users_left(run: Experiment, facts: ModelFacts) -> str:
    left = len(run.dataset.ids.users) - len(facts.gone)
    return f"each of {things(left, 'user')}"


def _counts(run: Experiment, facts: ModelFacts) -> dict[str, int]:
    splits = run.parts.splits
    parts = {"training": splits.train, "validation": splits.valid, "test": splits.test}
    left = {name: without(rows, facts.forgotten) for name, rows in parts.items()}
    return {
        "users": len(run.dataset.ids.users),
        "items": len(run.dataset.ids.items),
        "rows": len(run.dataset.rows),
        **{f"{name} rows, without forgotten ones": len(rows) for name, rows in left.items()},
    }


def _request(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card says of a request, in counts; its id may name somebody."""
    evidence = entry.get("evidence") or {}
    retrain = evidence.get("retrain")
    hidden = no_residual(evidence) if retrain else "A model without these rows was not trained."
    return {
        "date": str(entry.get("date", ""))[:10],
        "method": entry["method"],
        "rows": entry["rows"],
        "training_rows": entry["training_rows"],
        "users": evidence.get("asked", {}).get("users", {}).get("whole"),
        "is_correction": "kind" in entry,
        "loss": entry.get("forget_loss"),
        "retrain_loss": retrain["measures"]["forget"]["loss"] if retrain else None,
        "residual": retrain["distances"]["after"]["residual"] if retrain and not hidden else None,
        "no_residual": hidden,
    }


@contextmanager
def _complete(folder: Path) -> Iterator[Path]:
    """Provide a temporary folder, which becomes ``folder`` once the body has written all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
            new = Path(name) / "new"
            new.mkdir()
            yield new
            if folder.exists():
                folder.rmdir()
            os.replace(new, folder)
    except OSError as error:
        raise InputError(
            f"the model cannot be written to {folder}: {one_line(error)}; free some space, or name "
            "a new folder"
        ) from error


_ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters |= {"count": "{:,}".format, "repr": repr, "things": things}
_CARD = _ENVIRONMENT.from_string("""\
---
{{ front }}---

# {{ facts.name }} on {{ dataset }}

This language model answers whether a user will like an item. It was made by recbole_e2urec, a
plugin for RecBole
{%- if backbone %}, from {{ backbone }}{% endif %}
{%- if tuning == "lora" %}, by tuning an adapter{% else %}, by tuning all weights{% endif %}.

## Load

```python
import torch
{% if kind == "peft" %}
from peft import PeftModel
{% endif %}
from transformers import {{ auto }}, AutoTokenizer

{% if kind == "peft" and not base %}
folder = "."  # this folder; from a hub: huggingface_hub.snapshot_download(NAME)
{% else %}
folder = "."  # this folder, or its name at a hub
{% endif %}
tokenizer = AutoTokenizer.from_pretrained(folder)
{% if kind == "merged" %}
model = {{ auto }}.from_pretrained(folder).eval()
{% else %}
{% if base %}
base = {{ auto }}.from_pretrained({{ base | repr }}, dtype=torch.{{ dtype }})
{% else %}
base = {{ auto }}.from_pretrained(f"{folder}/{{ base_folder }}")
{% endif %}
model = PeftModel.from_pretrained(base, folder).eval()
{% endif %}
```

## Ask

```python
prompt = {{ example.text | repr }}
inputs = tokenizer(prompt, return_tensors="pt"
{%- if not example.adds_special %}, add_special_tokens=False{% endif %})
{% if start is not none %}
inputs["decoder_input_ids"] = torch.tensor([[{{ start }}]])
{% endif %}
no, yes = tokenizer.convert_tokens_to_ids({{ answers | repr }})
with torch.no_grad():
    logits = model(**inputs).logits[0, -1]
print(logits[[no, yes]].float().softmax(0)[1].item())
```

This prints P(yes) = {{ "%.4f" | format(example.yes) }}, the probability of the answer word `{{
words[1] }}` against `{{ words[0] }}`.
`{{ words[1] }}` stands for {% if threshold %}{% for name, value in threshold.items() %}
a {{ name }} of at least {{ value }}{{ ", " if not loop.last }}
{%- endfor %}{% else %}label 1 in the data{% endif %}. Use transformers 5 or newer: embeddings and
head may be matrices of their own, as a warning then says.

{% if not example.is_exact %}
**Tokens differ.** The model was trained on prompts whose parts were tokenised one by one. Its
tokenizer reads a whole prompt as slightly other tokens, so that P(yes) may differ.

{% endif %}
A prompt is what is known about the user, the lead-in of the history, up to {{ history_length }}
earlier items, the instruction, and the question with its tail, one after the other. These are their
Jinja templates. The example has placeholders for what the data say.

````yaml
{{ parts -}}
````

In recbole_e2urec, `--backbone=FOLDER --prompt={{ prompt }}` goes on with this model.
{% if embedded %}

The tokenizer holds the words of the catalogue
{%- if user_words %} and a word for {{ user_words }}, by their ids.
Users who were forgotten as a whole have none{% endif %}.
{% endif %}

## Data

| {{ dataset }} | |
|---|---|
{% for name, count in counts.items() %}
| {{ name }} | {{ count | count }} |
{% endfor %}

The split, in RecBole's words:

```
{{ split }}
```

## Measures

| test rows | |
|---|---|
{% for name, value in measures %}
| {{ name }} | {{ value if value is integer else "%.4f" | format(value) }} |
{% endfor %}
{% if facts.caution %}

{{ facts.caution | wordwrap(100, break_long_words=False) }}
{% endif %}

## What was forgotten

{% if not requests %}
Nothing. The model has carried out no request.
{% endif %}
{% for request in requests %}
{{ loop.index }}. {{ request.date }}, by {{ request.method }}: {{ request.rows | things("row") }} {{
   "corrected" if request.is_correction else "forgotten" }}
{%- if request.users is not none %}, {{ request.users | things("user") }} as a whole{% endif %}.
   The model had learned from {{ request.training_rows | count }} of these rows.
{% if request.loss %}
   Their mean loss was {{ "%.4f" | format(request.loss[0]) }} before and is {{
   "%.4f" | format(request.loss[1]) }} now.
{% endif %}
{% if request.method == "Retrain" %}
   The model was trained anew without them.
{% elif request.retrain_loss is not none %}
   It is {{ "%.4f" | format(request.retrain_loss) }} for a model that never saw them (Retrain).
{% endif %}
{% if request.residual is not none %}
   Residual: {{ "%.3f" | format(request.residual) }} (0 = answers as Retrain does, 1 = as before).
{% elif request.loss and request.method != "Retrain" %}
   {{ request.no_residual }}
{% endif %}
{% endfor %}

{% if requests %}
These measures are evidence, not proof. Answers were compared, and weights may hold what answers do
not show. The rows may still be in the data.
{% endif %}

## Versions

{% for name, version in versions.items() %}
- {{ name }} {{ version }}
{% endfor %}
""")
