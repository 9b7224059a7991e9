"""The evidence as markdown: figures, intervals, noise, and what stands against the aims."""

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product

from benchmarks.evidence_rows import RETRAIN, SETUPS, wanted_rows
from benchmarks.evidence_store import Place, Store
from benchmarks.evidence_summary import ORDER, Summary
from benchmarks.evidence_verdict import Aim, aims, better, standings
from recbole_e2urec.tables import Cells, Columns, comparison

FORGETTING: Columns = (
    ("forget AUC", "forget_auc", 4),
    ("forget LogLoss", "forget_logloss", 4),
    ("AUC gap closed", "closed_auc", 2),
    ("same, other seeds", "closed_auc_mean", 2),
    ("loss gap closed", "closed_logloss", 2),
    ("same, other seeds", "closed_logloss_mean", 2),
    ("residual", "residual", 3),
    ("same, other seeds", "residual_mean", 3),
    ("JSD", "jsd", 5),
    ("same, other seeds", "jsd_mean", 5),
    ("MIA AUC", "mia", 4),
)
USEFULNESS: Columns = (
    ("test AUC", "test_auc", 4),
    ("AUC lost", "lost", 4),
    ("users who stay", "heldout_other_users_auc", 4),
    ("forgotten users", "heldout_forget_users_auc", 4),
    ("test LogLoss", "test_logloss", 4),
    ("seconds", "seconds", 1),
    ("/ Retrain's", "share", 3),
    ("before", "prior", 2),
    ("1 request", "of_1", 2),
    ("of 10", "of_10", 3),
    ("of 100", "of_100", 3),
)


def document(summaries: Sequence[Summary], pictures: Mapping[str, str]) -> str:
    """Everything that is there, verdicts first.

    Args:
        summaries: setups and sizes.
        pictures: files of the plots, by name.
    """
    if not summaries:
        return "Nothing is measured yet."
    parts = [*_verdicts(summaries), *(f"![{name}]({file})" for name, file in pictures.items())]
    for one in summaries:
        parts += [f"### {one.title}", comparison(one.lines, FORGETTING).drawn("markdown")]
        parts += [comparison(one.lines, USEFULNESS).drawn("markdown"), _intervals(one)]
    return "\n\n".join([*parts, _noise(summaries), *_offs(summaries)])


def _verdicts(summaries: Sequence[Summary]) -> list[str]:
    parts = ["### Aims, means over seeds and sizes"]
    for setup in dict.fromkeys(one.setup for one in summaries):
        stands = standings([one.lines for one in summaries if one.setup == setup])
        if not stands:
            continue
        table = {name: aims(one) for name, one in stands.items()}
        head = [SETUPS[setup].title, *next(iter(table.values())), "all"]
        lines = [[name, *map(_aim, found.values()), _all(found)] for name, found in table.items()]
        parts.append(Cells(head, lines).drawn("markdown"))
        compared = [
            [name, _number(old), _number(new), {True: "yes", False: "no", None: "-"}[wins]]
            for name, (old, new, wins) in better(stands).items()
        ]
        if compared:
            head = [SETUPS[setup].title, "alpha 2", "rehearsed", "better"]
            parts.append(Cells(head, compared).drawn("markdown"))
    return parts


def _aim(aim: Aim) -> str:
    if aim.found is None or aim.missed_by is None:
        return "-"
    verdict = f"missed by {_number(aim.missed_by)}" if aim.missed_by else "met"
    return f"{_number(aim.found)} {verdict}"


def _all(found: Mapping[str, Aim]) -> str:
    met = [aim.missed_by == 0 for aim in found.values() if aim.missed_by is not None]
    return f"{sum(met)} of {len(met)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}"


def _intervals(summary: Summary) -> str:
    head = ["95 %, users drawn anew", "AUC gap closed", "residual", "same, other seeds", "AUC lost"]
    lines = [
        [name, *("-" if one is None else f"{one[0]:.3f} to {one[1]:.3f}" for one in row.intervals)]
        for name, row in summary.rows.items()
        if row.intervals is not None
    ]
    return Cells(head, lines).drawn("markdown")


def _noise(summaries: Iterable[Summary]) -> str:
    head = [
        "Retrains apart in P(yes)", "two", "one and the others' mean", "ratio", "expected",
        "two / root of 2", "root mean square: two", "one and the others' mean", "spread",
        "two / spread",
    ]  # fmt: skip
    lines = []
    for summary in summaries:
        found = summary.rows[RETRAIN].noise
        if found is None:
            continue
        numbers = [
            f"{found.pair:.4f}", f"{found.mean:.4f}", f"{found.pair / found.mean:.3f}",
            f"{found.expected:.3f}", f"{found.pair / 2**0.5:.4f}", f"{found.pair_rms:.4f}",
            f"{found.mean_rms:.4f}", f"{found.spread_rms:.4f}",
            f"{found.pair_rms / found.spread_rms:.3f}",
        ]  # fmt: skip
        lines.append([summary.title, *numbers])
    if not lines:
        return "How far Retrains are apart needs two seeds."
    return "### Noise\n\n" + Cells(head, lines).drawn("markdown")


def _offs(summaries: Iterable[Summary]) -> list[str]:
    """Bias and scatter of each row's distance, as shares of the distance of two Retrains."""
    by_setup: dict[str, list[Summary]] = {}
    for one in summaries:
        if one.rows[RETRAIN].noise is not None:
            by_setup.setdefault(one.setup, []).append(one)
    tables = []
    for setup, sizes in by_setup.items():
        names = [
            name for name in ORDER if any(name in one.rows and one.rows[name].off for one in sizes)
        ]
        parts = [(f"{one.size:.0%}: distance", "bias", "scatter") for one in sizes]
        head = [SETUPS[setup].title, *chain.from_iterable(parts)]
        lines = [[name, *chain.from_iterable(_off(one, name) for one in sizes)] for name in names]
        tables.append(Cells(head, lines).drawn("markdown"))
    return ["### Bias and scatter, in distances of two Retrains", *tables] if tables else []


def _off(summary: Summary, name: str) -> list[str]:
    row, floor = summary.rows.get(name), summary.rows[RETRAIN].noise
    if row is None or row.off is None or floor is None or floor.pair_rms == 0:
        return ["-"] * 3
    return [f"{part / floor.pair_rms:.2f}" for part in row.off]


def missing(summaries: Sequence[Summary], store: Store, own: argparse.Namespace) -> str:
    """One line about what is not shown, and about rows of unlike settings; empty if all is well."""
    known, names = store.rows(), wanted_rows(own.only)
    shown = {one.place: one.rows for one in summaries}
    told: dict[tuple[str, str], list[tuple[int, float]]] = {}
    reasons = []
    for setup, seed, size in product(own.setups, own.seeds, own.sizes):
        rows = shown.get((setup, size), {})
        lack = [name for name in names if name not in rows or seed not in rows[name].seeds]
        places = [Place(setup, size, seed, name) for name in lack]
        reasons += [known.get(place, {}).get("refused", "not yet") for place in places]
        if lack:
            which = "all" if len(lack) == len(names) else "; ".join(lack)
            told.setdefault((setup, which), []).append((seed, size))
    unlike = [
        f"{name} of {one.setup}"
        for one in summaries
        for name, row in one.rows.items()
        if len(row.decided_by) > 1
    ]
    parts = [
        f"{setup}, {part} ({which})"
        for (setup, which), each in told.items()
        for part in _columns(each, own)
    ]
    lines = [f"Missing: {', '.join(parts)}: {' / '.join(dict.fromkeys(reasons))}."] if told else []
    lines += (
        [f"Not all under the same settings: {', '.join(dict.fromkeys(unlike))}."] if unlike else []
    )
    return " ".join(lines)


def _columns(places: Sequence[tuple[int, float]], own: argparse.Namespace) -> list[str]:
    """Name seeds and sizes, as shortly as they can be: together where a seed has all sizes."""
    counts = Counter(seed for seed, _ in places)
    whole = [seed for seed, count in counts.items() if count == len(own.sizes) > 1]
    if len(whole) == len(own.seeds):
        return ["all seeds and sizes"]
    seeds = [f"seed{'s' * (len(whole) > 1)} {', '.join(map(str, whole))}"] if whole else []
    return seeds + [f"seed {s}, {size:.0%}" for s, size in places if s not in whole]
