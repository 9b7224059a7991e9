"""E2URec as tuned for tiny-t5, for tests in which it must forget something."""

from pathlib import Path

from recbole_e2urec.yamlfiles import read_yaml

TUNED = read_yaml(Path(__file__).parents[1] / "benchmarks" / "tuned.yaml")
