"""Small atomic files for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RUN = Path("saved/small.e2urec-run")  # all that runs on the data set small write
INTER = "user_id:token item_id:token rating:float timestamp:float"
# Titles that RecBole's own reader, or pandas, would change.
TITLES = ['"Quoted", the', "None", "NA", "Seven  (a.k.a.  Se7en)", "千と千尋の神隠し"]


def write_table(path: Path, header: str, rows: Sequence[Sequence[Any]]) -> Path:
    """Write an atomic file; columns are separated by tabs."""
    lines = [header.replace(" ", "\t"), *("\t".join(map(str, row)) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def small_interactions(users: int = 24, items: int = 20, each: int = 12) -> list[list[Any]]:
    """Rows (user, item, rating, time), shuffled; times differ by less than float32 can tell."""
    generator = np.random.default_rng(7)
    rows = []
    for user in range(users):
        for place, item in enumerate(generator.permutation(items)[:each]):
            rating = int(np.clip(1 + (user + item) % 5, 1, 5))
            rows.append([f"u{user}", f"i{item}", rating, 1_600_000_000 + 7 * place])
    return [rows[index] for index in generator.permutation(len(rows))]


def rewrite(config: Any, rows: Sequence[Sequence[Any]], header: str = INTER) -> Any:
    """Put other interactions into the config's data set."""
    write_table(Path(config["data_path"]) / "small.inter", header, rows)
    return config


def rewritten(config: Any, place: int, column: int, value: Any) -> Any:
    """Put another value into one cell of the config's data set."""
    rows = small_interactions()
    rows[place][column] = value
    return rewrite(config, rows)
