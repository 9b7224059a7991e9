"""Whether a rehearsal on one request fits others: ``python -m benchmarks.transfer``.

It needs the package installed. For each size a request A is rehearsed. Fresh requests of the same
size, none of which shares a user with A or with the request that the settings name, are then
unlearned by E2URec of ``tuned.yaml``, with alpha 2 and as it is (or by the default of the method
that ``--model`` names), by A's calibration, and by the calibration of the largest size. All share
one Original; each has a Retrain. Test rows are read of fresh requests alone, whose seeds nothing
was chosen on. ``--sizes 0.01 0.2``: shares of the training users; ``--requests 1``, ``--trials 8``:
how many of each; ``--write FILE`` puts the table between two marks of a markdown file; any
``--key=value`` is common to all; ``--small`` is a quick look without meaning. Killed, the same
command goes on.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbole.utils import init_seed

from benchmarks.given import (
    FOUND,
    UNREHEARSED,
    arguments_of,
    common_settings,
    config_of,
    filled,
    taking,
)
from recbole_e2urec.calibration import Calibration, drawn
from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import Asked
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.data.rehearsed import RehearseOptions, rehearsed_request
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import parts_of, request_of
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.matching import share_closed
from recbole_e2urec.rehearsal import rehearse
from recbole_e2urec.storage import write_text
from recbole_e2urec.tables import Cells

MARK = "transfer"
HEAD = [
    "users", "request", "rows", "settings", "loss gap closed", "AUC gap closed", "residual",
    "test AUC lost", "of it, users who stay", "/ Retrain's", "strength", "alpha",
]  # fmt: skip


class Transfer:
    """Rehearsals and fresh requests on one model.

    Args:
        config: of the run; its own request is left alone.
        own: sizes, numbers of requests and of trials.
    """

    def __init__(self, config: Config, own: argparse.Namespace) -> None:
        init_seed(config["seed"], config["reproducibility"])
        self.config, self.own, self.dataset = config, own, load_dataset(config)
        parts = parts_of(config, self.dataset)
        self.train, self.real = parts.splits.train, request_of(config, self.dataset, parts)
        self.files: dict[float, Path] = {}

    def rehearse(self, size: float) -> None:
        """Rehearse a size, and keep its calibration; where nothing is remembered, say so."""
        file = Path(self.config["checkpoint_dir"]) / f"calibration-{size:g}.json"
        options = RehearseOptions(share=size, trials=self.own.trials, output_file=str(file))
        try:
            found, path = rehearse(options, self.config, self.dataset)
        except InputError as error:
            print(f"{size:.0%}: {error}\n", flush=True)
            return
        self.files[size] = path
        print(drawn(found, path), end="\n\n", flush=True)

    def fresh(self, size: float, number: int) -> Asked:
        """A request of other users than the rehearsed ones."""
        seed, first = RehearseOptions.draw_seed, RehearseOptions(share=size)
        taken = rehearsed_request(first, self.dataset, self.train, self.real)
        options = RehearseOptions(share=size, draw_seed=seed + number)
        both = taking(self.real, taken.rows)
        return rehearsed_request(options, self.dataset, self.train, both)

    def lines(self, size: float, number: int) -> Iterator[list[str]]:
        """A line for each way of setting the method, on a fresh request."""
        validating = self.real.split.retain
        asked = self.fresh(size, number)
        run = Forgetting(self.config, self.dataset, "test", asked, validating)
        run.train()
        rows = {"Original": run.measured("Original", run.original)}
        retrain = rows["Retrain"] = run.measured("Retrain", run.retrain)
        for name, settings in self.ways(size):
            rows[name] = run.unlearned_row(self.config.moved(settings))
        for name, row in rows.items():
            head = [f"{size:.0%}", f"{number}", f"{len(asked.split.forget):,}", name]
            yield [*head, *cells(row, rows["Original"], retrain)]

    def ways(self, size: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and settings of what is compared."""
        if self.config.model == "E2URec":
            yield "alpha 2", {**FOUND, "alpha": 2.0}
        yield "default", FOUND if self.config.model == "E2URec" else {}
        for of in sorted({size, max(self.own.sizes)} & self.files.keys()):
            yield f"rehearsed on {of:.0%}", {"calibration": str(self.files[of])}


def cells(row: dict[str, Any], original: dict[str, Any], retrain: dict[str, Any]) -> list[str]:
    """Numbers of a line, from three rows of results."""
    shown = []
    for name in ("logloss", "auc"):
        share = share_closed(*(one["forget"][name] for one in (row, original, retrain)))
        shown.append("-" if share is None else f"{share:.0%}")
    left = row["to_retrain"]["residual"]
    shown.append("-" if left is None else f"{left:.3f}")
    for part in ("test", "heldout_other_users"):
        shown.append(f"{original[part]['auc'] - row[part]['auc']:.4f}")
    shown.append(f"{row['cost']['relative_to_retrain']:.2f}")
    found = row.get("found", {})
    strength = [f"{value:.3g}" for key, value in found.items() if key != "alpha"]
    return [*shown, *(strength or [""]), f"{found['alpha']:.2f}" if "alpha" in found else ""]


def main() -> None:
    """Rehearse every size, then try fresh requests of every size."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--sizes", type=float, nargs="+", default=(0.01, 0.05, 0.2))
    parser.add_argument("--requests", type=int, default=3)
    parser.add_argument("--trials", type=int, default=12)
    own, arguments = arguments_of(parser, MARK)
    with common_settings(own, arguments) as given:
        of_paper = (arguments.model or "E2URec") == "E2URec"
        common = {**UNREHEARSED, **given} if of_paper else given
        transfer = Transfer(config_of(common, arguments), own)
        for size in own.sizes:
            transfer.rehearse(size)
        lines = []
        for size in own.sizes:
            for number in range(1, own.requests + 1):
                for line in transfer.lines(size, number):
                    print(" | ".join(line), flush=True)
                    lines.append(line)
        table = Cells(HEAD, lines).drawn("markdown")
        curves = [
            f"```\n{drawn(Calibration.read(path), Path(path.name))}\n```"
            for path in transfer.files.values()
        ]
    print(f"\n{table}")
    if own.write is not None:
        write_text(own.write, filled(own.write, MARK, "\n\n".join([table, *curves])))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
