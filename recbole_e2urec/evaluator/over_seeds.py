"""What Retrains of several seeds tell: how far two of them are apart, and what is off under all.

A perfect unlearner is one more draw of the same training, so on each row it differs from a given
Retrain by the difference of two draws: root of 2 times the spread of one draw about the mean. From
the mean of k other draws it differs by root of (1 + 1 / k) times that spread.

All take P(yes) on the same rows, [n], by seed.
"""

from collections.abc import Mapping
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def left_out(values: Mapping[int, Any]) -> dict[int, Any]:
    """For each seed the mean of the others' values; nothing for one seed alone."""
    return {
        seed: np.mean([other for one, other in values.items() if one != seed], axis=0)
        for seed in values
        if len(values) > 1
    }


class Apart(NamedTuple):
    """How far Retrains of one request are apart in P(yes); ``_rms`` are roots of mean squares.

    Attributes:
        pair: mean distance of two.
        mean: mean distance of one to the mean of the others.
        pair_rms, mean_rms: the same in root mean square.
        spread_rms: standard deviation about their mean, root of the mean variance.
        expected: pair / mean, if they are independent draws of one distribution that is normal.
    """

    pair: float
    mean: float
    pair_rms: float
    mean_rms: float
    spread_rms: float
    expected: float


def apart(retrains: Mapping[int, Values]) -> Apart | None:
    """Measure it; None for fewer than two.

    In root mean square the factors are exact for whatever draws: pair = root of 2 times spread,
    and pair / mean = root of (2 (n - 1) / n) for n of them. For mean absolute distances they hold
    if draws are normal.
    """
    if len(retrains) < 2:
        return None
    means, count = left_out(retrains), len(retrains)
    pairs = np.stack([one - other for one, other in permutations(retrains.values(), 2)])
    single = np.stack([retrains[seed] - means[seed] for seed in retrains])
    variance = np.var(np.stack(list(retrains.values())), axis=0, ddof=1)
    return Apart(
        float(np.abs(pairs).mean()), float(np.abs(single).mean()),
        float(np.sqrt((pairs**2).mean())), float(np.sqrt((single**2).mean())),
        float(np.sqrt(variance.mean())), float(np.sqrt(2 * (count - 1) / count)),
    )  # fmt: skip


class Off(NamedTuple):
    """Of what the distance of a row from the own Retrain is made, in P(yes), root mean square.

    Attributes:
        whole: the distance; root of ``bias`` squared + ``scatter`` squared.
        bias: what is the same under every seed; 0 where it is less than chance makes it look.
        scatter: what differs by the seed, in the row and in Retrain. A perfect unlearner has no
            bias, and the scatter of two Retrains: ``pair_rms`` of :class:`Apart`.
    """

    whole: float
    bias: float
    scatter: float


def off(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> Off | None:
    """Measure it over the seeds of a row; None for fewer than two.

    Differences to Retrain of n seeds have a mean and a variance on each row of data. The mean's
    square is greater than the bias squared by an nth of the variance, which is taken off.
    """
    if len(ours) < 2:
        return None
    apart_by = np.stack([said - retrains[seed] for seed, said in ours.items()])
    whole = float((apart_by**2).mean())
    scatter = float(np.var(apart_by, axis=0, ddof=1).mean())
    return Off(*(float(np.sqrt(max(0.0, part))) for part in (whole, whole - scatter, scatter)))


def bias_in_floors(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """What is off under every seed, as a share of how far two Retrains are apart.

    The root mean square, over rows, of the mean over seeds of ours minus the own seed's Retrain,
    without what chance adds to it, by the root mean square distance of two Retrains of different
    seeds: 0 = as Retrain, 1 = as far off as another seed takes Retrain itself.

    Args:
        ours: of a model, by seed; each of its seeds has a Retrain.
        retrains: of all seeds.

    Returns:
        The share; None for fewer than two seeds, or where all Retrains answer alike.
    """
    found, floor = off(ours, retrains), apart(retrains)
    if found is None or floor is None or floor.pair_rms == 0:
        return None
    return found.bias / floor.pair_rms
