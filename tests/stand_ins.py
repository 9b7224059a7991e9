"""Stand in for packages that the tests do not need."""

import types
from typing import Any


class Recorder(types.ModuleType):
    """Stands in for wandb: records what is called."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run: Any = None
        self.logged: list[list[dict[str, Any]]] = []  # by run
        self.defined: set[tuple[str, str]] = set()

    def init(self, project: str, config: Any) -> None:
        self.run = types.SimpleNamespace(project=project, config=config, summary={})
        self.logged.append([])

    def finish(self) -> None:
        self.run = None

    def log(self, metrics: dict[str, Any], commit: bool = True) -> None:
        assert self.run is not None
        self.logged[-1].append(metrics)

    def define_metric(self, name: str, step_metric: str) -> None:
        self.defined.add((name, step_metric))
