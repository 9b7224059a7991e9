"""Profile of a training step: ``OMP_NUM_THREADS=1 python -m benchmarks.profiling``.

It profiles training steps of 128 rows on ml-100k with the backbone that ``--backbone`` names: once
for all weights, and once for a LoRA adapter. The first line of each table is the milliseconds of a
step without the profiler. The other lines are the torch operations that take most of the time, as
shares of it.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.common import common_settings, config_of, parse_options, publish, run_main
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.unlearning import Forgetting

MARK = "profiling"
ROWS, STEPS, SHOWN = 128, 10, 12
TITLES = {None: "all weights", "adapter": "a LoRA adapter"}


def main() -> None:
    """Profile both steps, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    options, arguments = parse_options(parser, MARK)
    with common_settings(options, arguments) as settings:
        config = config_of(settings, arguments)
        run = Forgetting(config, load_dataset(config))
        tables = [f"{title}\n\n{_profile(run, adapter)}" for adapter, title in TITLES.items()]
    publish("\n\n".join(tables), options, MARK)


def _profile(run: Forgetting, adapter: str | None) -> str:
    model = run.model
    if adapter is not None:
        model.fresh_adapter(adapter, 1)
    optimizer = torch.optim.AdamW(model.bank.parameters(adapter), lr=1e-4)
    generator = np.random.default_rng(1)

    def step() -> None:
        rows = generator.choice(run.split.retain, ROWS)
        optimizer.zero_grad()
        for terms in model.answer_losses(rows):
            terms["loss"].backward()
        optimizer.step()

    with model.using_history(run.before), model.bank.training(adapter):
        _repeat(step)  # warms up
        started = time.perf_counter()
        _repeat(step)
        milliseconds = 1000 * (time.perf_counter() - started) / STEPS
        with torch.profiler.profile() as profile:
            _repeat(step)
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    softmax = sum(event.self_cpu_time_total for event in events if "log_softmax" in event.key)
    lines = [
        ("a step, ms", f"{milliseconds:.1f}"),
        *((event.key, f"{event.self_cpu_time_total / total:.1%}") for event in events[:SHOWN]),
        ("log_softmax over the vocabulary, both ways", f"{softmax / total:.1%}"),
    ]
    return tabulate(lines, tablefmt="pipe", disable_numparse=True)


def _repeat(step: Callable[[], None]) -> None:
    for _ in range(STEPS):
        step()


if __name__ == "__main__":
    run_main(main)
