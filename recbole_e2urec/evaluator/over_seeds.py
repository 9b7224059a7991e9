"""Comparisons over seeds: how far Retrains are apart, what is off under every seed, what is nearer.

A perfect unlearner is one more run of the same random training. On each row it therefore differs
from a given Retrain as two runs do: by the square root of 2 times the spread of one run about the
mean.

All functions take P(yes) on the same rows, [n], by seed.

:func:`nearer` asks whether a model is nearer to Retrain than to Original. That a test with three
samples answers this better than one with two is the idea of Ribero, Schrab and Gretton (arXiv
2601.19755), after the relative test of Bounliphone et al. (arXiv 1511.04581). Of the first only the
abstract was read. The test here is this project's own: its samples are answers of single users, its
distance is squared, and it counts what seeds change.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

Values = NDArray[np.float64]
ORIGINAL, RETRAIN = "Original", "Retrain"
LEVEL = 0.05  # share of false verdicts, of either kind, that a table may have
LEAST_SEEDS = 3  # two seeds are one pair, which does not show what seeds change
LEAST_P = 1e-9  # smaller ones are not told apart


def apart(retrains: Mapping[int, Values]) -> float | None:
    """Compute the root mean square distance of two Retrains; None for fewer than two."""
    if len(retrains) < 2:
        return None
    differences = np.stack([one - other for one, other in permutations(retrains.values(), 2)])
    return float(np.sqrt((differences**2).mean()))


def bias(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """Compute the root mean square of the difference to Retrain that all seeds share.

    On each row, the differences to Retrain under n seeds have a mean and a variance. The square of
    the mean exceeds the squared bias by 1/n of the variance, which is subtracted.

    Args:
        ours: P(yes) of a model, by seed; each of its seeds has a Retrain.
        retrains: P(yes) of Retrain, by seed.

    Returns:
        The bias; 0 if it is smaller than chance alone makes it look, None for fewer than two seeds.
    """
    if len(ours) < 2:
        return None
    differences = _differences(ours, retrains)
    mean_square = float((differences**2).mean())
    return float(np.sqrt(max(0.0, mean_square - _variance(differences))))


def _differences(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> Values:
    """Differences to the Retrain of the same seed, [seeds, n]."""
    return np.stack([yes - retrains[seed] for seed, yes in ours.items()])


def _variance(differences: Values) -> float:
    """Return the variance over seeds, averaged over rows."""
    return float(np.var(differences, axis=0, ddof=1).mean())


def bias_in_floors(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """Compute the bias as a share of the distance of two Retrains.

    The numerator is :func:`bias`: the difference to the Retrain of the same seed, averaged over
    seeds, without what chance adds to it, as a root mean square over rows. The denominator is the
    root mean square distance of two Retrains of different seeds. 0 = as Retrain; 1 = as far off as
    another seed takes Retrain itself.

    Args:
        ours: P(yes) of a model, by seed; each of its seeds has a Retrain.
        retrains: P(yes) of Retrain, by seed.

    Returns:
        The share; None for fewer than two seeds, or if all Retrains answer alike.
    """
    shared, floor = bias(ours, retrains), apart(retrains)
    return None if shared is None or not floor else shared / floor


def scatter_in_floors(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """Compute what differs from seed to seed, as a share of the distance of two Retrains.

    The numerator is the standard deviation over seeds of the difference to the Retrain of the same
    seed, as a root mean square over rows. 0 = off in the same way under every seed; 1 = as another
    run of Retrain, whose chance is its own. With the bias it adds up to the whole distance:
    bias² + scatter² is its mean square in floors, if the bias is not 0.

    Args:
        ours: P(yes) of a model, by seed; each of its seeds has a Retrain.
        retrains: P(yes) of Retrain, by seed.

    Returns:
        The share; None for fewer than two seeds, or if all Retrains answer alike.
    """
    floor = apart(retrains)
    if len(ours) < 2 or not floor:
        return None
    return float(np.sqrt(_variance(_differences(ours, retrains)))) / floor


class Nearness(NamedTuple):
    """Whether a model is nearer to Retrain than to Original.

    Attributes:
        lead: mean squared distance to Original less that to Retrain; positive = nearer to Retrain.
        p: p-value of "nearer to Retrain"; 1 minus it is that of "nearer to Original".
    """

    lead: float
    p: float


def nearer(
    ours: Mapping[int, Values],
    originals: Mapping[int, Values],
    retrains: Mapping[int, Values],
    users: NDArray[np.integer],
) -> Nearness | None:
    """Test whether a model is nearer to Retrain than to Original, over users and seeds.

    The lead is the squared distance to Original less that to Retrain. On a row it equals 2 (u - m)
    (r - o), where m is half-way between o and r. u was made from Original and shares the chance of
    its seed, so u - m is taken from one seed and r - o from another. Leads are means over the rows
    of a user, then over users and pairs of seeds.

    Two variances are known: of the mean over users, and, by a jackknife that leaves out each seed
    once, of what seeds change for all users alike. With few seeds the second is itself uncertain,
    so each has its own t quantile: p solves lead² = variance of users t²(p, users - 1) + variance
    of seeds t²(p, seeds - 1).

    Args:
        ours: P(yes) of a model, by seed.
        originals: P(yes) of Original, by seed.
        retrains: P(yes) of Retrain, by seed.
        users: number of the user of each row, [n].

    Returns:
        The lead and its p-value; None for fewer than three seeds or two users, and for a seed
        without Original or Retrain.
    """
    distinct, user = np.unique(users, return_inverse=True)
    is_known = ours.keys() <= originals.keys() & retrains.keys()
    if not is_known or len(ours) < LEAST_SEEDS or len(distinct) < 2:
        return None
    off = {seed: yes - (originals[seed] + retrains[seed]) / 2 for seed, yes in ours.items()}
    way = {seed: retrains[seed] - originals[seed] for seed in ours}
    pairs = list(combinations(ours, 2))
    leads = np.stack(  # [pairs, users]
        [np.bincount(user, off[s] * way[t] + off[t] * way[s]) for s, t in pairs]
    ) / np.bincount(user)
    without = np.array([leads[[seed not in pair for pair in pairs]].mean() for seed in ours])
    of_users = float(leads.mean(axis=0).var(ddof=1)) / len(distinct)
    of_seeds = float(without.var()) * (len(ours) - 1)
    lead = float(leads.mean())
    p = _p_value(lead**2, [(of_users, len(distinct) - 1), (of_seeds, len(ours) - 1)])
    return Nearness(lead, p if lead > 0 else 1 - p)


def _p_value(square: float, variances: Sequence[tuple[float, int]]) -> float:
    """Return the p at which the sum of variance times squared t quantile is ``square``.

    Args:
        square: square of the estimate.
        variances: its variances, each with its degrees of freedom.
    """

    def excess(log_p: float) -> float:
        p = np.exp(log_p)
        return float(sum(v * stdtrit(freedom, p) ** 2 for v, freedom in variances)) - square

    least, most = np.log(LEAST_P), np.log(0.5)
    if excess(most) >= 0:
        return 0.5
    return LEAST_P if excess(least) <= 0 else float(np.exp(brentq(excess, least, most)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for their number (Holm 1979): the smallest counts times all, and so on."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, p_values[name] * (len(p_values) - rank)))
        corrected[name] = largest
    return corrected


def verdicts(
    answers: Mapping[str, Mapping[int, Values]], users: NDArray[np.integer]
) -> dict[str, str]:
    """Say of each model whether it is nearer to Retrain than to Original.

    p-values of methods are corrected for the number of methods. Those of Original and Retrain are
    not: they show what these seeds and users can tell.

    Args:
        answers: P(yes) by model and seed.
        users: number of the user of each row, [n].

    Returns:
        Such as ``yes, p .003``; ``no`` = nearer to Original; ``undecided`` = neither can be said.
        Models that :func:`nearer` cannot test are left out.
    """
    tests: dict[str, Nearness] = {}
    for name, ours in answers.items():
        test = nearer(ours, answers.get(ORIGINAL, {}), answers.get(RETRAIN, {}), users)
        if test is not None:
            tests[name] = test
    families = [[name for name in tests if name not in (ORIGINAL, RETRAIN)], [ORIGINAL], [RETRAIN]]
    words = {}
    for family in families:
        known = [name for name in family if name in tests]
        to_retrain = holm({name: tests[name].p for name in known})
        to_original = holm({name: 1 - tests[name].p for name in known})
        for name in known:
            is_nearer = tests[name].lead > 0
            p = to_retrain[name] if is_nearer else to_original[name]
            words[name] = _verdict(is_nearer, p)
    return words


def _verdict(is_nearer: bool, p: float) -> str:
    word = "undecided" if p > LEVEL else "yes" if is_nearer else "no"
    return f"{word}, p < .001" if p < 0.0005 else f"{word}, p {f'{p:.3f}'.removeprefix('0')}"
