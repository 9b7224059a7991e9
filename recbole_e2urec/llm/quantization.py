"""Backbones in 4 or 8 bit, by bitsandbytes: frozen, under an adapter that learns."""

import logging
from importlib.util import find_spec
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from recbole_e2urec.errors import InputError

Quantization = Literal["4bit", "8bit"]
PER_PRODUCT = "bitsandbytes.autograd._functions"  # logs a line for each product of an 8-bit layer


def quantized_as(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Ask transformers for quantised weights.

    4 bit is QLoRA's way (Dettmers et al. 2023): normal floats, whose scales are quantised as well;
    8 bit is LLM.int8() (Dettmers et al. 2022). It rounds inputs as well, but for columns in which
    any token of the batch is large: an answer there depends on its neighbours and on padding.

    Args:
        kind: how many bits.
        dtype: in which 4-bit weights are multiplied.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"backbone_quantization: {kind} needs the package bitsandbytes; "
            "pip install bitsandbytes, or leave it out"
        )
    if kind == "8bit":
        logging.getLogger(PER_PRODUCT).setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
