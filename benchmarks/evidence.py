"""Whether methods forget as Retrain would, on requests nothing was chosen on.

``OMP_NUM_THREADS=1 python -m benchmarks.evidence`` measures; it needs the package installed.
``--report`` trains nothing and shows what is there. Setups are data sets and backbones, rows the
models of the tables; both, and how requests are drawn, are in ``evidence_rows.py``. Under each seed
every setup has one Original, one rehearsal a rehearsed method, and a Retrain for each request.
What is finished is kept in ``evidence/`` below ``checkpoint_dir``: killed, the same command goes
on, and several may work at once on other seeds or setups, and ``--report`` shows all.
``--write FILE`` puts the tables between two marks of this markdown file, and beside it the plots
and the figures of each seed (``.jsonl``). Figures that are there already stay in the tables, where
they are of today's settings, of the same Originals and Retrains, and of more seeds than the new.
Any ``--key=value`` is common to all runs; ``--small`` is a quick look without meaning.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.evidence_cells import cells_of
from benchmarks.evidence_measuring import Column
from benchmarks.evidence_plots import plots
from benchmarks.evidence_rows import SEEDS, SETUPS, SIZES, WAYS, Task
from benchmarks.evidence_store import Store
from benchmarks.evidence_summary import joined, read, summary_of, write
from benchmarks.evidence_tables import document, missing
from benchmarks.given import SWITCH, arguments_of, common_settings, filled
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.bootstrap import RESAMPLES
from recbole_e2urec.storage import write_text
from recbole_e2urec.yamlfiles import read_switch

MARK = "evidence"


def report(task: Task, store: Store) -> None:
    """Show what is there, and write it where that was asked for."""
    own = task.own
    cells = cells_of(store, own.setups, own.sizes, own.seeds, own.only)
    summaries = [summary_of(cell, own.resamples) for cell in cells]
    target: Path | None = own.write
    folder, stem = (target.parent, target.stem) if target else (store.folder, "evidence")
    kept = folder / f"{stem}.jsonl"
    if target is not None:
        summaries = joined(summaries, read(kept, task.digests))
    drawn = plots(summaries)
    names = {name: f"{stem}-{name}.svg" for name in drawn}
    text = document(summaries, names)
    told = missing(summaries, store, own)
    if target is not None:
        text = f"{text}\n\n{told}" if told else text
        write_text(target, filled(target, MARK, text))
        write(kept, summaries)
    for name, picture in drawn.items():
        write_text(folder / names[name], picture)
    print(text)
    print(told or "nothing is missing")


def main() -> None:
    """Measure what is missing, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--setups", choices=SETUPS, nargs="+", default=list(SETUPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES)
    parser.add_argument("--only", choices=WAYS, nargs="+", help="rows; without it, all")
    parser.add_argument("--rehearsed", type=float, default=0.05, help="share of training users")
    parser.add_argument("--trials", type=int, default=12, help="settings a rehearsal tries")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of users, for intervals")
    parser.add_argument("--report", help="train nothing", **SWITCH)
    own, arguments = arguments_of(parser, MARK)
    own.report = read_switch(own.report, "report")
    with common_settings(own, arguments) as given:
        task = Task(own, arguments, given)
        saved = task.config(own.setups[0], own.seeds[0], WAYS["E2URec"])["checkpoint_dir"]
        store = Store(Path(saved) / "evidence")
        for seed in () if own.report else own.seeds:
            for setup in own.setups:
                Column(task, store, setup, seed).measure()
        report(task, store)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
