"""How well a strength matches Retrain, and the search for the one that matches best: pure maths."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

TOLERANCE = 0.005  # of validation AUC; what costs no more is not told from noise
ENOUGH = 0.02  # a strength that matches as well as this is not refined further
STEP = 1.6  # between two strengths while both are too weak, or both too strong
WIDER = 4.0  # how far the search may leave the method's own bounds of its strength

Settings = Mapping[str, float]


class Point(NamedTuple):
    """One setting at one stopping step, on the rehearsed request.

    Attributes:
        settings: options of the method.
        stop: share of the steps that were taken.
        closed_loss: share of the way from Original's forget loss to Retrain's; above 1 = too far.
        closed_auc: the same of forget AUC.
        lost: Original's validation AUC of users who stay, minus this one.
        residual: 0 = Retrain, 1 = did nothing.
        found: settings that the method found by itself.
    """

    settings: Settings
    stop: float
    closed_loss: float
    closed_auc: float
    lost: float
    residual: float
    found: Settings

    @property
    def excess(self) -> float:
        """How much too far it goes, in shares of the way: -1 = did nothing, 0 = as Retrain."""
        return (self.closed_loss + self.closed_auc) / 2 - 1

    @property
    def badness(self) -> float:
        """What the search makes least.

        ``|closed_loss - 1| + |closed_auc - 1| + max(0, lost - t) / t`` with t = 0.005. The first
        two are the distances to Retrain in units of Original's own distance, so that loss and AUC
        count alike and going too far is as bad as not going far enough; Original has 2. Lost
        usefulness within t is free. Beyond it each further t costs as much as leaving one of the
        two gaps as it was: no match is bought by ruin.
        """
        penalty = max(0.0, self.lost - TOLERANCE) / TOLERANCE
        return abs(self.closed_loss - 1) + abs(self.closed_auc - 1) + penalty


Ask = Callable[[Settings], list[Point]]  # a setting's points, the last one at its end


@dataclass
class Search:
    """Looks for the least badness: along the strength, then aside of it, then along it again.

    Args:
        ask: trains under a setting; gives its points by stopping step, the whole training last,
            and none where that diverged.
        strength: option that forgets more the greater it is.
        space: bounds of the options, by key, the strength's among them.
        start: the values to begin with.
        trials: how many settings are asked about.
    """

    ask: Ask
    strength: str
    space: Mapping[str, tuple[float, float]]
    start: Settings
    trials: int

    def run(self) -> list[Point]:
        """Every point, in the order of asking.

        Half of the trials go along the strength, one to each side of every other option (half way
        to its bound, in logarithms), and what is left along the strength from the best of these.
        """
        self.points: list[Point] = []
        self._tried = 0
        self._asked: list[Point] = []  # at their ends
        self._along(self.start, -(-self.trials // 2))
        for key, bounds in self.space.items():
            if key == self.strength:
                continue
            for bound in bounds:
                if self._left > 0 and self.points:
                    best = dict(self.best.settings)
                    self._try({**best, key: shortened(math.sqrt(self.start[key] * bound))})
        if self.points:
            self._along(self.best.settings, self._left)
        return self.points

    @property
    def best(self) -> Point:
        """The best point so far; of equals the first."""
        return min(self.points, key=lambda point: point.badness)

    @property
    def _left(self) -> int:
        return self.trials - self._tried

    def _try(self, settings: Settings) -> bool:
        """Ask about a setting; says whether its training came to an end."""
        found = self.ask(settings)
        self._tried += 1
        self.points += found
        self._asked += found[-1:]
        return bool(found)

    def _along(self, settings: Settings, most: int) -> None:
        """Ask about other strengths, the rest being as it is."""
        others = {key: value for key, value in settings.items() if key != self.strength}
        low, high = self.space[self.strength]
        for _ in range(min(most, self._left)):
            known = [
                (point.settings[self.strength], point.excess)
                for point in self._asked
                if others.items() <= point.settings.items()
            ]
            value = next_strength(known, (low / WIDER, high * WIDER)) if known else None
            if known and value is None:
                return
            value = settings[self.strength] if value is None else value
            if not self._try({**others, self.strength: shortened(value)}):
                return


def next_strength(
    known: Sequence[tuple[float, float]], bounds: tuple[float, float]
) -> float | None:
    """The strength to ask about next, from what is known: (strength, excess) in any order.

    Between the strongest that is too weak and the weakest that is too strong: where a line through
    both, over the logarithm of the strength, crosses 0, but no nearer to either than a tenth of
    the way. While all are on one side: a step beyond the outermost.

    Returns:
        It; None where one is near enough, or nothing is left between or beyond.
    """
    if min(abs(excess) for _, excess in known) < ENOUGH:
        return None
    weak = [one for one in known if one[1] < 0]
    strong = [one for one in known if one[1] > 0]
    if not strong:
        value = max(weak)[0] * STEP
        return value if value <= bounds[1] else None
    if not weak:
        value = min(strong)[0] / STEP
        return value if value >= bounds[0] else None
    (below, short), (above, over) = max(weak), min(strong)
    if below * 1.02 >= above:  # noise: nothing between, or the order is the wrong way round
        return None
    share = min(max(-short / (over - short), 0.1), 0.9)
    return math.exp(math.log(below) + share * (math.log(above) - math.log(below)))


def share_closed(ours: float | None, original: float | None, retrain: float | None) -> float | None:
    """Share of the way from Original's value to Retrain's; None where there is no way."""
    if ours is None or original is None or retrain is None or original == retrain:
        return None
    return (original - ours) / (original - retrain)


def shortened(value: float) -> float:
    """Three digits: a setting that a person can type."""
    return float(f"{value:.3g}")
