"""The dataset class that a model wants, with stable rows."""

from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

from recbole.data import dataset as recbole_datasets
from recbole.utils import ModelType

from recbole_e2urec import processes
from recbole_e2urec.complaints import as_input_errors
from recbole_e2urec.data.dataset import LLMRecDataset, RowDataMixin
from recbole_e2urec.data.targets import TargetOptions
from recbole_e2urec.errors import InputError


@cache
def with_rows(base: type) -> type:
    """Put :class:`RowDataMixin` on a dataset class of RecBole; the class can be pickled here."""
    name = f"Row{base.__name__}"
    made = type(name, (RowDataMixin, base), {"__module__": __name__, "__doc__": base.__doc__})
    globals()[name] = made  # DIN's checkpoint pickles its dataset, which looks the class up
    return made


def load_dataset(config: Any) -> RowDataMixin:
    """Load, filter and number the data set of a run, in the class that its model wants.

    Raises:
        InputError: a file or column is missing or cannot be fetched, a cell is not a number,
            nothing is left, the labels do not do, or two settings choose the rows of the parts.
    """
    if config["benchmark_filename"] and config.options(TargetOptions) != TargetOptions():
        raise InputError("benchmark_filename names the parts; drop min_history and last_rows")
    if config.is_language_model:
        kind: type = LLMRecDataset
    else:
        by_type = {
            ModelType.SEQUENTIAL: "SequentialDataset",
            ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
        }
        usual = by_type.get(config["MODEL_TYPE"], "Dataset")
        own = f"{config['model']}Dataset"
        kind = with_rows(getattr(recbole_datasets, own, getattr(recbole_datasets, usual)))
    try:
        with as_input_errors():
            return _loaded(kind, config)
    except URLError as error:
        advice = f"put its atomic files into {config['data_path']}"
        raise InputError(
            f"{config['dataset']} cannot be fetched: {error.reason}; {advice}"
        ) from error


def _loaded(kind: type, config: Any) -> RowDataMixin:
    """Load it; where it must be fetched, the first process of each machine goes before the rest."""
    missing = processes.total(float(not Path(config["data_path"]).is_dir())) > 0
    first = processes.local_rank() == 0
    if missing and not first:
        processes.gathered(first)
    data: RowDataMixin = kind(config)
    if missing and first:
        processes.gathered(first)
    return data
