"""Where a step's time goes: ``OMP_NUM_THREADS=1 python -m benchmarks.profiling``.

One step of 128 rows of all weights, and one of a LoRA adapter, of the backbone that ``--backbone``
names, on ml-100k. The first line of each table is milliseconds a step without the profiler; the
others are the operations of torch that take most of the time, as shares of it.
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.given import arguments_of, common_settings, config_of
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting

ROWS, STEPS, SHOWN = 128, 10, 12
NAMES = {None: "all weights", "adapter": "a LoRA adapter"}


def main() -> None:
    """Profile both steps, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    own, arguments = arguments_of(parser, "profiling")
    with common_settings(own, arguments) as given:
        config = config_of(given, arguments)
        run = Forgetting(config, load_dataset(config))
        for place, name in NAMES.items():
            print(f"{name}\n{_profiled(run, place)}\n", flush=True)


def _profiled(run: Forgetting, place: str | None) -> str:
    model = run.model
    if place is not None:
        model.fresh_adapter(place, 1)
    optimizer = torch.optim.AdamW(model.bank.parameters(place), lr=1e-4)
    generator = np.random.default_rng(1)

    def step() -> None:
        rows = generator.choice(run.split.retain, ROWS)
        optimizer.zero_grad()
        for terms in model.answer_losses(rows):
            terms["loss"].backward()
        optimizer.step()

    with model.using_history(run.before), model.bank.training(place):
        _often(step)
        started = time.perf_counter()
        _often(step)
        spent = 1000 * (time.perf_counter() - started) / STEPS
        with torch.profiler.profile() as profile:
            _often(step)
    found = sorted(profile.key_averages(), key=lambda one: -one.self_cpu_time_total)
    whole = sum(one.self_cpu_time_total for one in found)
    lines = [("a step, ms", f"{spent:.1f}")]
    lines += [(one.key, f"{one.self_cpu_time_total / whole:.1%}") for one in found[:SHOWN]]
    softmax = sum(one.self_cpu_time_total for one in found if "log_softmax" in one.key)
    lines.append(("log_softmax over the vocabulary, both ways", f"{softmax / whole:.1%}"))
    return tabulate(lines, tablefmt="pipe", disable_numparse=True)


def _often(step: Callable[[], None]) -> None:
    for _ in range(STEPS):
        step()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
