"""What a certificate says in words.

Warnings come first. Four short parts for readers who are no engineers follow: what was asked, what
was done, how sure it is, what is left. Findings with their numbers, and what the certificate cannot
show, are below. No sentence claims more than the numbers that it is made from. In the templates, a
blank line ends a paragraph, and other line ends are spaces.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined

from recbole_e2urec.methods.unlearner import NOT_REACHED
from recbole_e2urec.report.tables import CHANCE, NOISE, is_high

# Bounds above or below which something is said first.
MAX_AUC_LOSS = 0.02  # test AUC
MIN_LOSS_RISE = 0.01  # nats, of the forgotten rows
FEW_STEPS = 4  # after which the model knows forgotten rows again

CORRECTION = "correction"  # kind of a request in the ledger
MISSED = 0.01  # nats above the loss that was wanted, from which on it is said
NO_CONTROL = "none: train with control_users"


def things(count: int, noun: str) -> str:
    """Return a number and its noun: 1 user, 2 users."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float, decimals: int = 0) -> str:
    """Return a share as text."""
    return f"{100 * share:.{decimals}f} %"


def was(count: int) -> str:
    """Return the verb for so many things."""
    return "was" if count == 1 else "were"


# Plain text, which the page escapes.
_ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.globals |= {
    "MAX_AUC_LOSS": MAX_AUC_LOSS,
    "MIN_LOSS_RISE": MIN_LOSS_RISE,
    "NO_CONTROL": NO_CONTROL,
    "was": was,
}
_ENVIRONMENT.filters |= {
    "count": "{:,}".format,
    "fixed": lambda value, n: f"{value:.{n}f}",
    "percent": percent,
    "things": things,
}

_ASKED = """\
{% set whole = [
    [identifiers["users"] | length, "user", "with all their rows"],
    [identifiers["items"] | length, "item", "with all their rows"],
    [identifiers["rows"] | length, "single row", ""],
] %}
{% if corrected %}
To correct {{ asked.rows | things("row") }} of the data, each about one user and one item: the
answer of {{ corrected.labels | count }}, the user of {{ corrected["users"] | count }}.
{% else %}
To forget {{ asked.rows | things("row") }} of the data, each about one user and one item
{%- for count, noun, how in whole if count %}
{{ ": " if loop.first else ", " }}{{ count | things(noun) }}{{ " " ~ how if how }}{% endfor %}.
{% endif %}

{% if asked.training_rows %}
The model had learned from {{ asked.training_rows | count }} of them, {{
asked.share_of_training | percent(2) }} of all that it had learned from.
{% else %}
The model had learned from none of them.
{% endif %}
"""

_DONE = """\
{% if corrected %}
{% if asked.training_rows or corrected.learned %}
The method {{ method.name }} changed the model: it was to forget the old answers to {{
asked.training_rows | things("row") }}, and learned the right ones to {{ corrected.learned | count
}}. The changed model replaced the old one.
{% else %}
There was nothing to unlearn: the model is as it was.
{% endif %}

Every prompt, and every later training, takes these rows as they were corrected.
{% else %}
{% if not asked.training_rows %}
There was nothing to unlearn: the model is as it was.
{% elif method.name == "Retrain" %}
The model was trained anew without these rows. The new model replaced the old one.
{% else %}
The method {{ method.name }} changed the model, to make it answer like one that never saw these
rows. The changed model replaced the old one.
{% endif %}

No prompt shows these rows any more, and this model is never trained on them again.
{% endif %}
"""

_SURE = """\
{% if asked.training_rows %}
{% set before, after = forget_loss %}
{% set rise = after - before %}
{{ "By the old answers to the corrected rows" if corrected else "On the forgotten rows" }} the model
errs {{ "more than" if rise > MIN_LOSS_RISE else "less than" if rise < -MIN_LOSS_RISE
else "about as much as" }} before: by {{ before | fixed(2) }} before, by {{ after | fixed(2) }} now
(0 = always right, 0.69 = a coin toss).
{%- if corrected and corrected.learned %} By the right answers it errs by {{
learned_loss[0] | fixed(2) }} before, by {{ learned_loss[1] | fixed(2) }} now.{% endif %}
{%- if control_loss[1] is not none %} On rows of people whom it never saw it errs by {{
control_loss[1] | fixed(2) }}.{% endif %}
{%- if retrain %} A model trained {{ "on the corrected data" if corrected else
"without the forgotten rows" }} errs by {{ retrain.measures.forget.loss | fixed(2) }} {{
"by the old answers" if corrected else "on them" }}.{% endif %}


{% set attack, reference = measures.after.mia, retrain and retrain.measures.mia %}
{% if attack and attack.interval and not corrected %}
{% set low, high = attack.interval %}
Shown a forgotten row and one of a person whom no model saw, somebody who looks at the model's
answers picks the forgotten one {{ attack.auc | percent }} of the time
{%- if reference %}, and {{ reference.auc | percent }} with a model trained without the rows
{%- endif %}. {% if low <= 0.5 <= high %}With so few people, this cannot be told from a coin toss
(50 %).{% else %}A coin toss is right 50 % of the time.{% endif %}


{% endif %}
{% endif %}
{% if method.name == "Retrain" %}
Forgetting is exact, as long as the data were as stated.
{% elif asked.training_rows %}
This is evidence, not proof.
{%- if not retrain %} How a model answers that was trained {{ "on the corrected data" if corrected
else "without the rows" }} was not measured.
{%- endif %}
{% endif %}
"""

_LEFT = """\
{% set in_files = "The data files still have the old values." if corrected
else "The rows are still in the data files." %}
{% if purged is none %}
The old model, and what was trained on the way, may still lie where the model was trained.
{%- if not erased %} {{ in_files }}{% endif %}
{% elif purged.unknown %}
The purge left {{ purged.unknown | length | things("file") }} that it does not know.
{%- if not erased %} {{ in_files }}{% endif %}
{% elif not erased %}
{{ in_files }}
{% endif %}


{% if asked.training_rows %}
{% if returned_bits and method.name != "Retrain" %}
{% set bits = returned_bits[0] %}
{% set other = of_retrain and of_retrain.rounding[bits] %}
Rounding the model's weights to {{ bits }} bits, as for smaller machines, brings back {{
attacks.rounding[bits].back | percent }} of what was forgotten
{%- if other %} ({{ other.back | percent }} with a model trained {{
"on the corrected data" if corrected else "without the rows" }}){% endif %}.

{% endif %}
The old model still has what it knew of {{
"the old answers" if corrected else "the forgotten rows" }}. Delete every copy that you can, and
never give out both models
{%- if told and not corrected %}: shown a forgotten user and one who stays, somebody who sees the
answers of both picks the forgotten one {{ told.auc | percent }} of the time{% endif %}.
{% endif %}
"""

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
{{ relearned_at | things("step") }} on one half of {{ rows }} {{
"is" if relearned_at == 1 else "are" }} enough for the model to know the
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
{{ asked.rows | things("row") }} {{ was(asked.rows) }} corrected: the answer of {{
corrected.labels | count }}, the user of {{ corrected["users"] | count }}.
{%- if not erased %} The data files still have the old values.{% endif %}


{% endif %}
{% if asked.training_rows %}
{{ method.name }} was to make the model forget {{ "the old answers of " if corrected }}{{
asked.training_rows | things("training row") }} of {{ asked["users"].some | things("user") }} ({{
"{:.2%}".format(asked.share_of_training) }} of what it was trained on). Their mean loss was {{
forget_loss[0] | fixed(4) }} nats before and is {{ forget_loss[1] | fixed(4) }} after.

{% if corrected and corrected.learned %}
Then it learned the new answers of {{ corrected.learned | things("training row") }}. Their loss: {{
change(learned_loss, "none") }}.

{% endif %}
Held-out rows of the same users: {{ change(heldout_loss, "none") }}.

Rows of users whom no model was trained on: {{ change(control_loss, NO_CONTROL) }}.

{% for bits, found in (attacks or {"rounding": {}}).rounding.items() %}
{% set other = of_retrain and of_retrain.rounding[bits] %}
With weights rounded to {{ bits }} bits, {% if found %}{{ found.back | percent }} of the way back to
the model before is taken (95 % between {{ found.interval[0] | percent }} and {{
found.interval[1] | percent }}){% elif measures.after.control.rows %}nothing
can be said: the gap to the rounded model before is within noise{% else %}{{
NO_CONTROL }}{% endif %}
{%- if other %}; by Retrain {{ other.back | percent }}{% endif %}.

{% endfor %}
{% if attacks %}
{% macro told_by(some) %}
{% set found = some.forgotten_from_stay %}
{% if found.change %}
{{ found.change.auc | fixed(4) }} by the size of the change, {{ found.rise.auc | fixed(4) }} by the
rise of the loss
{%- else %}
none
{%- endif %}
{% endmacro %}
Whoever sees the answers of the models before and after tells forgotten users from users who stay
with an AUC of {{ told_by(attacks.both_models) }}
{%- if of_retrain %}; with Retrain in the place of this model {{
told_by(of_retrain.both_models) }}{% endif %}.

{% set staying = attacks.both_models.staying %}
{% if staying %}
Rows of users who stay are told from rows of users whom no model saw with an AUC of {{
staying.after.auc | fixed(4) }} by the model after alone, {{ staying.both.auc | fixed(4) }} by both.

{% endif %}
{% endif %}
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
its folder, on {{ drift.rows | things("validation row") }} of users whom no request touched.

{% endif %}
{% if erased %}
{% set together = ", for %d requests together" | format(erased.requests) %}
{% for name, file in erased.files.items() %}
{% for key, verb in (("lines", "erased from"), ("corrected", "corrected in")) if file.get(key) %}
{% set count = file[key] %}
{{ count | things("line") }} of {{ name }} {{ was(count) }} {{ verb }} the data files
{{- together if erased.requests > 1 }}.

{% endfor %}
{% endfor %}
{% endif %}
{% if purged is none %}
Nothing was purged: Original and what was trained on the way may still lie in the run's folder
{%- if not erased %}, and the {{ "old values" if corrected else "rows themselves"
}} in the data files{% endif %}.
{% else %}
{% set removed = purged.removed.values() | list %}
{% set files = removed | sum("files") %}
{{ files | things("file") }} of {{ removed | sum("bytes") | things("byte") }} {{ was(files) }}
purged; {{ purged.kept | length | count }} {{ was(purged.kept | length) }} kept.

{% if purged.unknown %}
{{ purged.unknown | length | things("file") }} that the purge does not know {{
was(purged.unknown | length) }} left: check what {{
"it holds" if purged.unknown | length == 1 else "they hold" }}.
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
    for name, source in (
        ("first", _FIRST),
        ("asked", _ASKED),
        ("done", _DONE),
        ("sure", _SURE),
        ("left", _LEFT),
        ("found", _FOUND),
        ("cannot_show", _CANNOT_SHOW),
    )
}


def words_of(certificate: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the sentences for a certificate.

    Returns:
        ``first`` has warnings; ``asked``, ``done``, ``sure`` and ``left`` are for everybody;
        ``found`` and ``cannot_show`` are the whole.
    """
    values = {
        "erased": None,
        "attacks": None,  # a request of 0.9.0 or before
        **certificate,
        "returned_bits": _returned_bits(certificate),
        "told": _told(certificate),
        "of_retrain": (certificate["retrain"] or {}).get("attacks"),
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


def summary_of(entry: Mapping[str, Any], number: int) -> list[str]:
    """Return what a command prints about a request that is measured.

    Args:
        entry: the ledger's entry of the request.
        number: number of the request, from 1.
    """
    first = (
        f"request {entry['request_id']} is carried out, the {number}. of this model, by "
        f"{entry['method']} in {entry['seconds']:.1f} s: "
    )
    if entry.get("kind") == CORRECTION:
        what, lines = f"corrected {corrected_rows(entry['evidence']['asked'])}", _learned(entry)
    else:
        rows = things(entry["rows"], "row")
        what = f"{things(entry['training_rows'], 'training row')} of {rows} asked for"
        lines = _unlearned(entry)
    return [first + what, *lines, *_drift(entry)]


def corrected_rows(counts: Mapping[str, Any]) -> str:
    """Say how many rows are corrected; ``counts`` is what a certificate has under ``asked``."""
    corrected = counts["corrected"]
    return (
        f"{counts['rows']:,} rows: another label in {corrected['labels']:,}, another user in "
        f"{corrected['users']:,}; of {counts['training_rows']:,} training rows the old answer is "
        f"forgotten, of {corrected['learned']:,} the new one learned"
    )


def _unlearned(entry: Mapping[str, Any]) -> list[str]:
    lines = unreached(entry["evidence"]["method"]["found"])
    if entry["forget_loss"] is not None:
        before, after = entry["forget_loss"]
        lines.append(f"their loss: {before:.4f} before, {after:.4f} after")
    return lines


def _learned(entry: Mapping[str, Any]) -> list[str]:
    evidence, lines = entry["evidence"], []
    measures, retrain = evidence["measures"], evidence["retrain"]
    for name, title in (("forget", "old"), ("learned", "new")):
        before, after = (measures[side].get(name, {}).get("loss") for side in ("before", "after"))
        if before is None or after is None:
            continue
        line = f"loss of the {title} answers: {before:.4f} before, {after:.4f} after"
        if retrain is not None:
            goal = retrain["measures"][name]["loss"]
            line += f", {goal:.4f} under a Retrain on the corrected data"
            line += f" (closed {(after - before) / (goal - before):.2f})" if goal != before else ""
        lines.append(line)
    goal = evidence["method"]["found"].get("learned_target")
    if goal is not None and measures["after"]["learned"]["loss"] > goal + MISSED:
        lines.append(f"warning: rows that were trained on are known better; {goal:.4f} was wanted")
    return [*lines, *_residuals(retrain)]


def _residuals(retrain: Mapping[str, Any] | None) -> list[str]:
    """Say how far the answers are from Retrain's, row by row, where the noise is known."""
    if retrain is None or NOISE not in retrain["distances"]:
        return []
    shares = [retrain["distances"][name].get("learned_residual") for name in ("after", NOISE)]
    if None in shares:
        return []
    return [
        f"residual of the corrected rows: {shares[0]:.2f} (1 = as before the request); between two "
        f"Retrains: {shares[1]:.2f}"
    ]


def _drift(entry: Mapping[str, Any]) -> list[str]:
    """Say how far the model has drifted after a request."""
    if entry["drift"] is None:
        return ["drift: unknown; no validation rows of users whom no request touched"]
    return [
        f"drift: the answers are {entry['drift']:.5f} nats from the first model's, on "
        f"{entry['drift_rows']:,} validation rows of users whom no request touched"
    ]


def _returned_bits(certificate: Mapping[str, Any]) -> list[str]:
    """Return to how many bits weights were rounded where something came back beyond noise."""
    rounding = (certificate.get("attacks") or {}).get("rounding", {})
    return [bits for bits, found in rounding.items() if found and found["interval"][0] > 0]


def _told(certificate: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the attack that best tells forgotten users from those who stay, if it is no chance."""
    if not certificate.get("attacks"):
        return None
    found = certificate["attacks"]["both_models"]["forgotten_from_stay"].values()
    sure = [attack for attack in found if attack and (attack["interval"] or [0])[0] > CHANCE]
    return max(sure, key=lambda attack: attack["auc"], default=None)


def unreached(findings: Mapping[str, float]) -> list[str]:
    """Return a warning if a method left out some rows; ``findings`` is what it found out."""
    missed = int(findings.get(NOT_REACHED, 0))
    if not missed:
        return []
    them = "it" if missed == 1 else "them"
    return [
        f"{things(missed, 'training row')} {was(missed)} not reached: the model knows {them} as "
        "well as before."
    ]


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
