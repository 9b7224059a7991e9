"""What a certificate says in words: warnings first, then findings, then what it cannot show.

No sentence claims more than the numbers that it is made from. In the templates, a blank line ends a
paragraph, and other line ends are spaces.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined

from recbole_e2urec.methods.unlearner import NOT_REACHED
from recbole_e2urec.report.tables import NOISE, is_high

# Bounds above or below which something is said first.
MAX_AUC_LOSS = 0.02  # test AUC
MIN_LOSS_RISE = 0.01  # nats, of the forgotten rows
FEW_STEPS = 4  # after which the model knows forgotten rows again

NO_CONTROL = "none: train with control_users"

# Plain text, which the page escapes.
_ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.globals |= {
    "MAX_AUC_LOSS": MAX_AUC_LOSS,
    "MIN_LOSS_RISE": MIN_LOSS_RISE,
    "NO_CONTROL": NO_CONTROL,
}
_ENVIRONMENT.filters |= {"count": "{:,}".format, "fixed": lambda value, n: f"{value:.{n}f}"}

_FIRST = """\
{% set rows = "the old answers" if corrected else "the forgotten rows" %}
{% if asked.training_rows == 0 %}
{% if not corrected or not corrected.learned %}
No model was trained on anything that was asked for: there was nothing to unlearn, and the weights
are unchanged.

{% endif %}
{% else %}
{{ unreached | join }}

{% set before, after = forget_loss %}
{% if after <= before + MIN_LOSS_RISE %}
{% set rises = after > before %}
The loss of {{ rows }} {{ "hardly rose" if rises else "did not rise" }} ({{
before | fixed(4) }} before, {{ after | fixed(4) }} after): by this measure the model has {{
"hardly" if rises else "not" }} forgotten them, unless it had never learned them.

{% endif %}
{% if relearned_at is not none %}
{{ relearned_at }} steps on one half of {{ rows }} are enough for the model to know the
other half as well as before the request: they may only be hidden.

{% endif %}
{% set attack, reference = measures.after.mia, retrain and retrain.measures.mia %}
{% set low, high = attack and attack.interval or (none, 1) %}
{% if high < 0.5 and not corrected %}
The forgotten rows have larger losses than rows of users whom no model saw (MIA AUC {{
attack.auc | fixed(4) }}, 95 % between {{ low | fixed(4) }} and {{ high | fixed(4) }}
{%- if reference %}; Retrain's {{ reference.auc | fixed(4) }}{% endif %}): too much may have
been forgotten, and whoever can query the model may be able to tell who was forgotten.

{% endif %}
{% set residual = retrain and not no_residual and retrain.distances.after.residual or 0 %}
{% if residual > 1 %}
Row by row, the answers to {{ "corrected" if corrected else "the forgotten" }} rows are further from
Retrain's than before (residual {{ residual | fixed(3) }}, 1 = did nothing): they were changed, but
not to what a model answers that {{ "learned the corrected data" if corrected else
"never saw the rows" }}.

{% endif %}
{% endif %}
{% if none not in test_auc and test_auc[0] - test_auc[1] > MAX_AUC_LOSS %}
Users who stay lost {{ (test_auc[0] - test_auc[1]) | fixed(4) }} of test AUC.
{% endif %}
"""

_FOUND = """\
{% macro change(values, otherwise) %}
{% if none in values %}{{ otherwise }}{% else %}{{ values[0] | fixed(4) }} before, {{
values[1] | fixed(4) }} after{% endif %}
{% endmacro %}
{% if corrected %}
{{ asked.rows | count }} rows were corrected: {{ corrected.labels | count }} have another answer
now, and {{ corrected["users"] | count }} belong to another user. The data files still have the old
values.

{% endif %}
{% if asked.training_rows %}
{{ method.name }} was to make the model forget {{ "the old answers of " if corrected }}{{
asked.training_rows | count }} training rows of {{ asked["users"].some | count }} users ({{
"{:.2%}".format(asked.share_of_training) }} of what it was trained on). Their mean loss was {{
forget_loss[0] | fixed(4) }} nats before and is {{ forget_loss[1] | fixed(4) }} after.

{% if corrected and corrected.learned %}
Then it learned the new answers of {{ corrected.learned | count }} training rows. Their loss: {{
change(learned_loss, "none") }}.

{% endif %}
Held-out rows of the same users: {{ change(heldout_loss, "none") }}.

Rows of users whom no model was trained on: {{ change(control_loss, NO_CONTROL) }}.

{% endif %}
Test AUC of users who stay: {{ change(test_auc, "no such rows with both labels") }}.

{% if retrain and corrected %}
A Retrain, which was trained on the corrected data, has a loss of {{
retrain.measures.forget.loss | fixed(4) }} on the old answers{% if corrected.learned %}, and of {{
retrain.measures.learned.loss | fixed(4) }} on the new ones{% endif %}.

{% elif retrain %}
A Retrain, which never saw the rows, has a loss of {{ retrain.measures.forget.loss | fixed(4) }} on
them.

{% endif %}
{% if retrain %}

{% for name, distance in retrain.distances.items() %}
{{ name.capitalize() ~ " the request" if name in ("before", "after") else name }}: JSD {{
distance.jsd | fixed(5) }} nats to Retrain
{%- if not no_residual and distance.residual is not none %}, residual {{
distance.residual | fixed(3) }}{% endif %}.

{% endfor %}
{{ no_residual or "" }}

{% elif method.name != "Retrain" %}
No Retrain was made for this request (--with_retrain makes one). How far the model is from one that
{{ "was trained on the corrected data" if corrected else "never saw the rows" }} is therefore not
known.

{% endif %}
{% if drift.kl is none %}
Drift is unknown: there are no validation rows of users whom no request touched.

{% else %}
The model's answers are {{ drift.kl | fixed(5) }} nats (mean KL) from those of the first model in
its folder, on {{ drift.rows | count }} validation rows of users whom no request touched.

{% endif %}
{% if erased %}
{% for name, file in erased.files.items() %}
{{ file.lines | count }} lines of {{ name }} were erased from the data files{% if
erased.requests > 1 %}, for {{ erased.requests }} requests together{% endif %}.

{% endfor %}
{% endif %}
{% if purged is none %}
Nothing was purged: Original and what was trained on the way may still lie in the run's folder
{%- if not erased %}, and the {{ "old values" if corrected else "rows themselves"
}} in the data files{% endif %}.
{% else %}
{% set removed = purged.removed.values() | list %}
{{ removed | sum("files") | count }} files of {{ removed | sum("bytes") | count }} bytes were
purged; {{ purged.kept | length | count }} were kept.

{% if purged.unknown %}
{{ purged.unknown | length | count }} files that the purge does not know were left: check what they
hold.
{% endif %}
{% endif %}
"""

_CANNOT_SHOW = """\
{% if method.name == "Retrain" %}
The model was trained anew and never saw the rows. That is exact, as long as the data were as
stated. It says nothing about copies elsewhere.
{% else %}
Approximate unlearning is evidence, not a guarantee. Answers were compared, and weights may hold
what answers do not show. The exact methods are Retrain, SISA and APA.
{% endif %}

This is one model and one seed. Another training might show something else.

Rows of control users belong to other people and differ in difficulty. Held-out rows of the same
users are not unseen ones, because a user is remembered as a whole. Only a Retrain shows what the
loss of the forgotten rows should be.

Intervals show how much other users might have changed the result, not how much another training
might have. With few users they are too narrow.

A slow relearning curve is no proof. Another attack may be faster.

Test rows are read for this report and choose nothing.

Because of the salt, hashes cannot be compared between two certificates, or with tables made in
advance. The salt does not protect a name from somebody who has a list of names and tries each. In
the same way, an auditor who knows a name can check it. Whoever has the whole data set can try the
request's hash. {% if erased %}Files that the model does not read, copies and backups of the data
were not looked for.{% else %}The model folder keeps the row numbers of what is {{ "corrected" if
corrected else "forgotten" }}.{% endif %}



Hashes reveal damage and mistakes. They are no signature: whoever can write to the folder can
replace all of them. Keep a copy elsewhere, or sign it.
"""

_SECTIONS = {
    name: _ENVIRONMENT.from_string(source)
    for name, source in (("first", _FIRST), ("found", _FOUND), ("cannot_show", _CANNOT_SHOW))
}


def words_of(certificate: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the sentences for a certificate: ``first``, ``found`` and ``cannot_show``."""
    values = {
        "erased": None,
        **certificate,
        "corrected": certificate["asked"].get("corrected"),
        "learned_loss": _before_and_after(certificate, "learned", "loss"),
        "forget_loss": _before_and_after(certificate, "forget", "loss"),
        "heldout_loss": _before_and_after(certificate, "heldout", "loss"),
        "control_loss": _before_and_after(certificate, "control", "loss"),
        "test_auc": _before_and_after(certificate, "test", "auc"),
        "unreached": unreached(certificate["method"]["found"]),
        "relearned_at": _relearned_at(certificate),
        "no_residual": certificate["retrain"] and no_residual(certificate),
    }
    paragraphs = {name: section.render(values).split("\n\n") for name, section in _SECTIONS.items()}
    return {
        name: [" ".join(part.split()) for part in parts if part.strip()]
        for name, parts in paragraphs.items()
    }


def unreached(findings: Mapping[str, float]) -> list[str]:
    """Return a warning if a method left out some rows; ``findings`` is what it found out."""
    missed = int(findings.get(NOT_REACHED, 0))
    if not missed:
        return []
    return [f"{missed:,} training rows were not reached: the model knows them as well as before."]


def no_residual(certificate: Mapping[str, Any]) -> str | None:
    """Return why a certificate with a Retrain shows no residual; None if it shows one.

    A residual is shown only beside its noise floor, the residual of a second Retrain.
    """
    floor = certificate["retrain"]["distances"].get(NOISE, {}).get("residual")
    if floor is None:
        return "The residual is not shown: it needs a second Retrain (--noise_floor)."
    if is_high(floor):
        return (
            f"The residual is not shown: two Retrains of different seeds are {floor:.2f} apart on "
            "this request."
        )
    return None


def _relearned_at(certificate: Mapping[str, Any]) -> int | None:
    """Return the few steps after which the model knows forgotten rows again; None if more."""
    before, after = _before_and_after(certificate, "relearning", "forget")
    if after is None or not after["loss"][0] > before["loss"][0]:
        return None
    steps = zip(after["steps"], after["loss"], strict=True)
    known = (step for step, loss in steps if step <= FEW_STEPS and loss <= before["loss"][0])
    return next(known, None)


def _before_and_after(certificate: Mapping[str, Any], *path: str) -> tuple[Any, Any]:
    """Return a measure before and after the request; None where it is missing."""
    values = []
    for side in ("before", "after"):
        value: Any = certificate["measures"][side]
        for name in path:
            value = None if value is None else value.get(name)
        values.append(value)
    return values[0], values[1]
