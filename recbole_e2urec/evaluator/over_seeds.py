"""What Retrains of several seeds tell: how far two of them are apart, and what is off under all.

A perfect unlearner is one more draw of the same training, so on each row it differs from a given
Retrain by the difference of two draws: root of 2 times the spread of one draw about the mean.

All take P(yes) on the same rows, [n], by seed.
"""

from collections.abc import Mapping
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def apart(retrains: Mapping[int, Values]) -> float | None:
    """Root mean square distance of two Retrains; None for fewer than two."""
    if len(retrains) < 2:
        return None
    pairs = np.stack([one - other for one, other in permutations(retrains.values(), 2)])
    return float(np.sqrt((pairs**2).mean()))


def bias(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """What is off by the same under every seed, root mean square; None for fewer than two seeds.

    Differences to Retrain of n seeds have a mean and a variance on each row of data. The mean's
    square is greater than the bias squared by an nth of the variance, which is taken off; 0 where
    the bias is less than chance makes it look.
    """
    if len(ours) < 2:
        return None
    apart_by = np.stack([said - retrains[seed] for seed, said in ours.items()])
    whole = float((apart_by**2).mean())
    scatter = float(np.var(apart_by, axis=0, ddof=1).mean())
    return float(np.sqrt(max(0.0, whole - scatter)))


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
    found, floor = bias(ours, retrains), apart(retrains)
    return None if found is None or not floor else found / floor
