"""How fast unlearning is, against a plain reading: ``python -m benchmarks.unlearning``.

Run it from a checkout with the package installed. Each measure prints what it found; the last line
is one JSON object with all of them. ``--only NAME`` runs one part, ``--size small`` is a quick look
whose numbers mean nothing, ``--threads N`` sets torch's threads for both sides. Times are compared
in turns in one process, as ratios: median (least to greatest).
"""

from typing import Any

from benchmarks import asking, costs, preparing, steps
from benchmarks.parts import Part, run_parts
from benchmarks.racing import Ratio

PARTS: dict[str, Part] = {
    "step_time": steps.step_time,
    "dropout_step_time": steps.dropout_step_time,
    "compiled_step_time": steps.compiled_step_time,
    "memory": steps.memory,
    "prompts": preparing.prompts,
    "evaluation": asking.evaluation,
    "ranking": asking.ranking,
    "cost": costs.cost_to_retrain,
    "growth": costs.growth,
    "one_user": costs.one_user,
    "million_rows": preparing.million_rows,
}


def told(measured: dict[str, Any]) -> dict[str, Any]:
    """Print what a part found; a ratio's spread is a value of its own."""
    values: dict[str, Any] = {}
    for key, value in measured.items():
        print(f"{key}: {_shown(value)}", flush=True)
        values[key] = value.median if isinstance(value, Ratio) else value
        if isinstance(value, Ratio):
            values[f"{key}_spread"] = [value.low, value.high]
    return values


def _shown(value: Any) -> str:
    if isinstance(value, Ratio):
        return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_parts(__doc__, PARTS, told)
