"""Time and memory of all methods with t5-base's shape on a GPU: ``python -m benchmarks.gpu``.

The weights of the backbone are random, so only time and memory are meaningful. It needs a GPU, and
accepts ``--key=value`` like the command line.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import FULL, random_backbone, run_main
from recbole_e2urec.cli import parse
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.report.report import print_comparison

BASE = replace(FULL, layers=12, width=768)
METHODS = "LLMRec,E2URec,NegGrad,NegKL,BadT,FlipLabel,GradDiff,NPO,SimNPO,SISA,RecEraser,APA"


def main() -> None:
    """Write the backbone, and compare all methods."""
    if not torch.cuda.is_available():
        sys.exit("error: no GPU here; benchmarks.unlearning measures on a CPU")
    folder = Path("saved-gpu")
    settings = {
        "backbone": random_backbone(folder, "t5", BASE),
        "prompt": "plain",
        "model_list": METHODS,
        "enable_amp": True,
        "last_rows": 20_000,
        "epochs": 2,
        "learning_rate": 1e-3,
        "train_batch_size": 128,
        "checkpoint_dir": str(folder),
    }
    results = run_comparison("ml-100k", (), settings, parse(sys.argv[1:]).settings)
    print(torch.cuda.get_device_name(), f"torch {torch.__version__}")
    print_comparison(results)


if __name__ == "__main__":
    run_main(main)
