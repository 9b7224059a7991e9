"""Files that this process has open, and would write to again after their removal."""

import logging
import sys
from pathlib import Path

from recbole_e2urec.compat_training import close_events
from recbole_e2urec.deployment.places import Places


def let_go(places: Places | None) -> None:
    """Close the log, TensorBoard's events and the run of wandb; later words go to the terminal."""
    close_events()
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish()
    if places is None:
        return
    log = logging.getLogger()
    for handler in list(log.handlers):
        name = getattr(handler, "baseFilename", None)
        if name and Path(name).resolve().is_relative_to(places.log):
            log.removeHandler(handler)
            handler.close()
