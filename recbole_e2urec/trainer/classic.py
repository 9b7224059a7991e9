"""Any model of RecBole, trained and tested by RecBole's own trainer."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from recbole.utils import get_local_time, get_trainer, init_seed

from recbole_e2urec.complaints import as_input_errors
from recbole_e2urec.data.loaders import Loaders
from recbole_e2urec.errors import Diverged, InputError
from recbole_e2urec.trainer.eased import eased

_count = itertools.count(1)


class ClassicFit(NamedTuple):
    """A trained classic model.

    Attributes:
        trainer: RecBole's trainer; ``trainer.model`` holds the best weights.
        results: plain numbers: ``valid`` and ``test`` metrics, ``epochs``, ``steps``, ``seconds``,
            ``trained_parameters``, ``train_loss`` by epoch, and ``checkpoint``, the file's path.
    """

    trainer: Any
    results: dict[str, Any]


def fit_classic(config: Any, loaders: Loaders) -> ClassicFit:
    """Train a model of RecBole, keep its best epoch on validation, and test that.

    Seeds and order of steps are RecBole's own, so the numbers are, too.

    Raises:
        InputError: the loss or the scores became NaN, an optional package of the model is missing,
            or the disk is full.
    """
    started = time.perf_counter()
    init_seed(config["seed"], config["reproducibility"])
    trainer = make_trainer(config, loaders)
    with _explained(config["model"]):
        _, valid = trainer.fit(
            loaders.train, loaders.valid, saved=True, show_progress=config["show_progress"]
        )
    seconds = time.perf_counter() - started
    test = trainer.evaluate(loaders.test, show_progress=config["show_progress"])
    epochs = len(trainer.train_loss_dict)
    results = {
        "valid": plain(valid),
        "test": plain(test),
        "epochs": epochs,
        "steps": epochs * len(loaders.train),
        "seconds": seconds,
        "trained_parameters": sum(
            weights.numel() for weights in trainer.model.parameters() if weights.requires_grad
        ),
        "train_loss": [float(loss) for loss in trainer.train_loss_dict.values()],
        "checkpoint": str(trainer.saved_model_file),
    }
    return ClassicFit(trainer, results)


def make_trainer(config: Any, loaders: Loaders) -> Any:
    """Build the model of the config and RecBole's trainer for it, with a checkpoint of its own."""
    with as_input_errors():
        model = config.model_class(config, loaders.train._dataset).to(config["device"])
    trainer = _trainer_of(config, model)
    # RecBole's name has seconds only: two trainers started in one second would share a file
    name = f"{config['model']}-{get_local_time()}-{os.getpid()}-{next(_count)}.pth"
    trainer.saved_model_file = str(Path(config["checkpoint_dir"]) / name)
    return trainer


def ready_trainer(config: Any, model: Any, loaders: Loaders) -> Any:
    """Build RecBole's trainer for a model that is trained already, to evaluate it once more."""
    trainer = _trainer_of(config, model)
    trainer.eval_collector.data_collect(loaders.train)
    return trainer


def _trainer_of(config: Any, model: Any) -> Any:
    return eased(get_trainer(config["MODEL_TYPE"], config["model"]))(config, model)


def plain(metrics: Any) -> dict[str, float]:
    """Metrics as Python floats (NumPy 2 would print ``np.float64(0.5)``); None is empty."""
    return {str(name): float(value) for name, value in (metrics or {}).items()}


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Explain a missing package and RecBole's "Training loss is nan"; other errors are bugs."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"model {model} needs the package {error.name}; install it") from error
    except ValueError as error:
        if "loss is nan" not in str(error):
            raise
        raise Diverged("the training loss became NaN; try a smaller learning_rate") from error
