import pytest
import torch

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.tiny import EMBEDDED, EmbeddedOptions


def load(name, texts, seed):
    return load_backbone(BackboneOptions(name), texts, seed)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_same_seed_gives_the_same_weights(name, texts):
    first, second = (load(name, texts, 5).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_other_seed_gives_other_weights(name, texts):
    key = next(iter(load(name, texts, 5).state_dict()))
    assert not torch.equal(
        load(name, texts, 5).state_dict()[key], load(name, texts, 6).state_dict()[key]
    )


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_leaves_the_global_random_state(name, texts):
    before = torch.get_rng_state()
    load(name, texts, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_embedded_is_in_evaluation_mode(language_model):
    assert not any(module.training for module in language_model.model.modules())


def test_embedded_size_is_what_was_asked(texts):
    size = EmbeddedOptions(d_model=32, d_ff=48, layers=2, decoder_layers=3, heads=4, dropout=0.1)
    config = load_backbone(BackboneOptions("tiny-t5"), texts, 1, size).model.config
    asked = (config.d_model, config.d_ff, config.num_layers, config.num_decoder_layers)
    assert asked == (32, 48, 2, 3)
    assert (config.num_heads, config.d_kv, config.dropout_rate) == (4, 8, 0.1)


def test_embedded_is_saved_and_loaded_as_a_folder(language_model, batch, tmp_path):
    language_model.model.save_pretrained(tmp_path)
    language_model.codec.tokenizer.save_pretrained(tmp_path)
    again = load_backbone(BackboneOptions(str(tmp_path)), [], seed=0)
    assert torch.allclose(again(*batch), language_model(*batch), atol=1e-5)
    assert again.encode(["Léon: (1994) xyz"]) == language_model.encode(["Léon: (1994) xyz"])
    assert again.answer_ids == language_model.answer_ids
    assert (again.prefix_ids, again.suffix_ids) == (
        language_model.prefix_ids,
        language_model.suffix_ids,
    )


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"layers": 0}, "backbone_layers"),
        ({"heads": 3}, "backbone_heads"),
        ({"dropout": 1.0}, "backbone_dropout"),
    ],
)
def test_embedded_options_refuse_what_cannot_work(setting, key):
    with pytest.raises(InputError, match=key):
        EmbeddedOptions(**setting)
