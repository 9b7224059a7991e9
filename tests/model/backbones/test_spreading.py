"""A backbone that is spread over devices answers and learns as one that is not.

There is but one CPU: its layers get the hooks that move inputs from device to device, and nothing
has far to go.
"""

import pytest
import torch
from bank_steps import shake, step
from families import write_family
from torch.testing import assert_close

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones import loading
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions
from recbole_e2urec.model.backbones.seq2seq import Seq2SeqLM

SPREAD = {"device_map": "auto", "max_memory": {"cpu": "1GiB"}}
HOOK = "_hf_hook"


@pytest.fixture
def hooked(monkeypatch):
    """Let accelerate treat every layer as one that has a device of its own."""
    from accelerate import dispatch_model

    for auto in (loading.AutoModelForCausalLM, loading.AutoModelForSeq2SeqLM):

        def load(*names, read=auto.from_pretrained, **settings):
            assert {key: settings.pop(key) for key in SPREAD} == SPREAD
            model, info = read(*names, **settings)
            children = [*model.named_children(), *model.named_buffers(recurse=False)]
            parts = dict.fromkeys((name for name, _ in children), "cpu")
            return dispatch_model(model, parts, main_device="cpu", force_hooks=True), info

        monkeypatch.setattr(auto, "from_pretrained", load)


def learned(folder, **settings):
    """Answers of a backbone with an adapter before and after a step, and the backbone."""
    torch.manual_seed(0)
    language_model = load_backbone(BackboneOptions(folder, **settings), [], seed=0)
    bank = AdapterBank(language_model)
    bank.add("a", LoraOptions(r=4, alpha=8, dropout=0.0), seed=1)
    shake(bank, "a")
    batch = (
        torch.tensor([[5, 6, 7], [8, 9, 0], [4, 0, 0]]),
        torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]),
    )
    answers = []
    for _ in range(2):
        with bank.frozen("a"):
            states = language_model.hidden(*batch)
            answers += [states, language_model.head(states), language_model.head_copy()(states)]
        torch.manual_seed(5)
        step(bank, batch, "a")
    return answers, language_model


@pytest.mark.parametrize("family", ["qwen2", "flan-t5", "bart"])
def test_a_spread_backbone_answers_and_learns_as_a_whole_one(request, tmp_path, family):
    more = {"dropout_rate": 0.0} if family == "flan-t5" else {"dropout": 0.0}
    folder = write_family(family, tmp_path, **more)
    whole, _ = learned(folder)
    request.getfixturevalue("hooked")
    spread, language_model = learned(folder, **SPREAD)
    assert any(hasattr(module, HOOK) for module in language_model.modules())
    if family == "flan-t5":
        assert type(language_model) is Seq2SeqLM
    for one, other in zip(whole, spread, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_spread_backbone_stays_where_it_is(tmp_path):
    folder = write_family("qwen2", tmp_path)
    spread = load_backbone(BackboneOptions(folder, **SPREAD), [], seed=0)
    assert torch.nn.Sequential(spread).to("meta")[0].model.device == torch.device("cpu")
    whole = load_backbone(BackboneOptions(folder), [], seed=0)
    assert whole.to("meta").model.device == torch.device("meta")


def test_devices_that_do_not_hold_it_are_refused(tmp_path):
    folder = write_family("qwen2", tmp_path, num_hidden_layers=4)
    options = BackboneOptions(folder, device_map="auto", max_memory={"cpu": 150_000})
    with pytest.raises(InputError, match="backbone_device_map: the devices do not hold the whole"):
        load_backbone(options, [], seed=0)


def test_options_that_do_not_go_together_are_refused(texts, monkeypatch):
    with pytest.raises(InputError, match="backbone_max_memory goes with backbone_device_map"):
        BackboneOptions(max_memory={0: "1GiB"})
    with pytest.raises(InputError, match="backbone_device_map: tiny-t5 is made on the spot"):
        load_backbone(BackboneOptions("tiny-t5", device_map="auto"), texts, seed=0)
    spread = BackboneOptions("a", device_map="auto")
    with pytest.raises(InputError, match="spread weights stay frozen; choose tuning: lora"):
        spread.check_tuning("full")
    spread.check_tuning("lora")
    monkeypatch.setattr("recbole_e2urec.utils.distributed.count", lambda: 2)
    with pytest.raises(InputError, match="one process has all GPUs; leave nproc out"):
        spread.check_tuning("lora")
