"""Reading a part of a model from the disk or else from the hub, and what to say if it fails."""

import os
from collections.abc import Callable
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from recbole_e2urec.data.nearest import nearest
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.llm.sources import Source, named_backbones

HUB_SECONDS = 5.0


class Reader:
    """Reads parts of one backbone.

    Args:
        name: how the user calls it; for messages.
        source: where it is.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source = name, source

    def __call__(self, load: Callable[..., Any], **settings: Any) -> Any:
        """Call transformers' ``load`` on the folder or the local cache, else on the hub.

        Raises:
            InputError: neither has it, or what is there is no such part.
        """
        folder, gguf = self.source
        if gguf is not None:
            settings["gguf_file"] = gguf
        try:
            return load(folder, local_files_only=True, **settings)
        except Exception as error:  # whatever foreign bytes make the libraries raise
            if self.source.is_local:
                raise self._unusable(error) from error
            if not _hub_answers():
                raise self._unreachable(error) from error
        try:
            return load(folder, **settings)
        except Exception as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> InputError:
        place = os.path.join(self.source.folder, self.source.gguf or "")
        return InputError(
            f"backbone {self.name!r} cannot be loaded from {place}: a folder as save_pretrained "
            f"writes it, a hub id or a GGUF file is needed ({one_line(error)[:200]})"
        )

    def _unreachable(self, error: Exception) -> InputError:
        folder = self.source.folder
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub does not answer"
        if "/" not in folder:
            hint = nearest(folder, named_backbones())
            return InputError(
                f"backbone {self.name!r} cannot be loaded; {hint} A local folder, a GGUF file or a "
                f"hub id would do too ({reason}; {one_line(error)[:200]})"
            )
        return InputError(
            f"backbone {self.name!r} cannot be loaded: {reason} and {folder} is not in the cache "
            f"{constants.HF_HUB_CACHE}; name a local folder (--backbone_source=FOLDER keeps "
            f"the settings of this name), or set HF_HOME to a place whose cache has it"
        )


def _hub_answers() -> bool:
    """Ask the hub once, for a few seconds; its own client would retry for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # the HTTP library below, and so its errors, differ by hub version
        return False
    return True
