import pytest
import torch
from bank_steps import LORA, answer, changed, gradients, shake, step, switches
from torch.testing import assert_close

from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions
from recbole_e2urec.model.backbones.tiny import EmbeddedOptions


def test_fresh_adapter_changes_no_bit(language_model, batch):
    bare = language_model(*batch)
    bank = AdapterBank(language_model)
    bank.add("a", LORA, seed=1)
    assert torch.equal(answer(bank, batch, "a"), bare)
    assert torch.equal(answer(bank, batch, None), bare)


def test_nothing_is_active_after_add(bank, batch):
    bare = answer(bank, batch, None)
    shake(bank, "a")
    assert torch.equal(bank.language_model(*batch), bare)
    assert not torch.equal(answer(bank, batch, "a"), bare)


def test_add_same_seed_gives_the_same_weights_and_leaves_the_global_state(bank):
    before = torch.get_rng_state()
    bank.add("same", LORA, seed=1)
    bank.add("other", LORA, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not changed(bank.state("a"), bank.state("same"))
    assert changed(bank.state("a"), bank.state("other"))


def test_add_keeps_mode_and_flags_of_the_backbone(language_model):
    bank = AdapterBank(language_model.eval())
    bank.add("a", LORA, seed=1)
    bank.add("b", LORA, seed=1)
    assert not any(module.training for module in language_model.modules())
    assert all(parameter.requires_grad for parameter in bank.parameters(None))
    assert not any(parameter.requires_grad for parameter in bank.parameters("b"))


def test_training_an_adapter_changes_that_adapter_only(bank, batch):
    bank.add("b", LORA, seed=2)
    before = {name: bank.state(name) for name in ("a", "b", None)}
    step(bank, batch, "a")
    assert changed(before["a"], bank.state("a"))
    assert not changed(before["b"], bank.state("b"))
    assert not changed(before[None], bank.state(None))


def test_training_the_backbone_changes_all_of_it_and_no_adapter(bank, batch):
    before = {name: bank.state(name) for name in ("a", None)}
    step(bank, batch, None)
    still = set(before[None]) - set(changed(before[None], bank.state(None)))
    # one decoder position has nothing to choose from: its self-attention scores learn nothing
    assert all("decoder.block.0.layer.0.SelfAttention" in key for key in still)
    assert not changed(before["a"], bank.state("a"))


def test_training_puts_dropout_on(bank, batch):
    shake(bank, "a")
    with bank.training("a"):
        first, second = bank.language_model(*batch), bank.language_model(*batch)
    assert not torch.equal(first, second)


def test_gradients_flow_when_a_teacher_answers_before_the_step(bank, batch):
    shake(bank, "a")
    bank.add("teacher", LORA, seed=2)
    alone = gradients(bank, batch)
    target = answer(bank, batch, "teacher")
    assert not target.requires_grad
    assert all(torch.equal(x, y) for x, y in zip(alone, gradients(bank, batch), strict=True))


@pytest.mark.parametrize("context", ["active", "frozen", "training"])
@pytest.mark.parametrize("name", ["a", None])
def test_context_restores_everything_after_an_error(bank, batch, context, name):
    shake(bank, "a")
    bank.language_model.train()
    bank.parameters(None)[0].requires_grad_(False)
    before, bare = switches(bank), answer(bank, batch, None)
    with pytest.raises(RuntimeError), getattr(bank, context)(name):
        raise RuntimeError
    assert switches(bank) == before
    assert torch.is_grad_enabled()
    assert torch.equal(bank.language_model.eval()(*batch), bare)


def test_contexts_nest(bank, batch):
    bank.add("b", LORA, seed=2)
    shake(bank, "a", 1)
    shake(bank, "b", 2)
    wanted = {name: answer(bank, batch, name) for name in ("a", "b", None)}
    with bank.training("a"):
        inside = switches(bank)
        for name in ("b", None, "a"):
            with bank.frozen(name):
                assert torch.equal(bank.language_model(*batch), wanted[name])
        assert switches(bank) == inside
        assert bank.language_model(*batch).requires_grad
    with bank.frozen("b"):
        with bank.training("a"):
            assert bank.language_model(*batch).requires_grad
        assert torch.equal(bank.language_model(*batch), wanted["b"])


def test_frozen_has_no_gradient_and_no_dropout(bank, batch):
    shake(bank, "a")
    with bank.frozen("a"):
        first, second = bank.language_model(*batch), bank.language_model(*batch)
        assert not any(parameter.requires_grad for parameter in bank.language_model.parameters())
    assert not first.requires_grad
    assert torch.equal(first, second)


def test_frozen_knows_of_adapters_that_came_and_went(bank, batch):
    shake(bank, "a")
    first = answer(bank, batch, "a")
    bank.add("b", LORA, seed=2)
    with bank.training("b"), bank.frozen("b"):
        model = bank.language_model
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    bank.remove("b")
    bank.merge("a")
    assert_close(answer(bank, batch, None), first, rtol=1e-4, atol=1e-4)
    assert all(parameter.requires_grad for parameter in bank.language_model.parameters())


@pytest.mark.parametrize("name", ["a", "", "x.y"])
def test_add_refuses_a_taken_or_unusable_name(bank, name):
    with pytest.raises(ValueError, match="adapter name"):
        bank.add(name, LORA, seed=1)


def test_unknown_name_is_refused(bank):
    with pytest.raises(ValueError, match="no adapter 'x'; have"), bank.active("x"):
        pass


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("name", ["tiny-t5", "tiny-llama"])
def test_checkpoints_and_no_dropout_train_the_adapter_like_a_backbone_without_dropout(
    texts, batch, name
):
    grads = []
    for share, checkpointing, dropout in (
        (0.0, False, True),
        (0.0, True, True),
        (0.5, False, False),
        (0.5, True, False),
    ):
        options = BackboneOptions(name, gradient_checkpointing=checkpointing)
        size = EmbeddedOptions(dropout=share)
        bank = AdapterBank(load_backbone(options, texts, 7, size))
        bank.add("a", LoraOptions(r=4, dropout=0.0), seed=1)
        shake(bank, "a")
        with bank.training("a", dropout=dropout):
            recomputes = [m for m in bank.language_model.modules() if recomputing(m)]
        assert bool(recomputes) == checkpointing
        grads.append(gradients(bank, batch, dropout))
    assert len(grads[0]) > 0
    for plain, *others in zip(*grads, strict=True):
        for other in others:
            torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-6)


def recomputing(module):
    return getattr(module, "gradient_checkpointing", False) and module.training


def test_without_the_backbones_dropout_the_adapters_own_still_drops(texts, batch):
    size = EmbeddedOptions(dropout=0.5)
    bank = AdapterBank(load_backbone(BackboneOptions("tiny-t5"), texts, 7, size))
    bank.add("a", LoraOptions(r=4, dropout=0.5), seed=1)
    shake(bank, "a")
    for dropout, drops in ((True, {True}), (False, {False})):
        with bank.training("a", dropout=dropout):
            modules = dict(bank.language_model.named_modules())
            own = {m.training for path, m in modules.items() if path.endswith("lora_dropout.a")}
            others = {
                m.training
                for path, m in modules.items()
                if isinstance(m, torch.nn.Dropout) and "lora_dropout" not in path
            }
        assert own == {True}
        assert others == drops


def test_adapter_of_a_bfloat16_backbone_is_kept_in_float32(language_model, batch):
    bank = AdapterBank(language_model.to(torch.bfloat16))
    bank.add("a", LORA, seed=1)
    before = bank.state("a")
    step(bank, batch, "a")
    assert {weight.dtype for weight in before.values()} == {torch.float32}
    assert changed(before, bank.state("a"))
    assert bank.language_model.hidden(*batch).dtype == torch.bfloat16


def test_adapted_embedding_learns_the_given_tokens_alone(bank, batch):
    bank.add("words", LoraOptions(r=4, target_modules=("embed_tokens",)), seed=1)
    shake(bank, "words")
    own = torch.tensor([310, 311])  # the second prompt is made of them; no other prompt has them
    before, answered = bank.state("words"), answer(bank, batch, "words")
    step(bank, batch, "words", own)
    after, now = bank.state("words"), answer(bank, batch, "words")
    assert not torch.equal(now[1], answered[1])
    assert torch.equal(now[[0, 2]], answered[[0, 2]])
    columns = {
        token
        for key in changed(before, after)
        for token in (before[key] != after[key]).any(0).nonzero().flatten().tolist()
        if key.endswith("lora_embedding_A")
    }
    assert columns == {310, 311}
    assert not any(key.endswith("_B") for key in changed(before, after))
    layers = sum(key.endswith("_A") for key in before)
    assert bank.learning("words", own) == layers * 4 * 2
    assert bank.learning("words") == sum(weight.numel() for weight in before.values())


def test_alone_tokens_learn_and_other_answers_stay(bank, batch):
    targets = (*bank.language_model.lora_targets, "embed_tokens")
    bank.add("all", LoraOptions(r=4, dropout=0.0, target_modules=targets), seed=1)
    shake(bank, "all")
    own = torch.tensor([310, 311])  # of the second prompt alone
    before, answered = bank.state("all"), answer(bank, batch, "all")
    step(bank, batch, "all", own, alone=True)
    now = answer(bank, batch, "all")
    assert not torch.equal(now[1], answered[1])
    assert torch.equal(now[[0, 2]], answered[[0, 2]])
    moved = changed(before, bank.state("all"))
    assert moved
    assert all(key.endswith("lora_embedding_A") for key in moved)
    layers = sum(key.endswith("lora_embedding_A") for key in before)
    assert bank.learning("all", own, alone=True) == layers * 4 * 2
    assert bank.learning("all", own) > layers * 4 * 2
    step(bank, batch, "all", own)
    assert not torch.equal(answer(bank, batch, "all")[[0, 2]], answered[[0, 2]])


def test_an_adapter_reaches_words_where_it_adapts_their_embedding(bank):
    assert bank.reaches_words(LoraOptions(target_modules=("embed_tokens",)))
    assert not bank.reaches_words(LoraOptions())


def test_what_tokens_say_is_put_back_after_the_block(bank, batch):
    bank.add("words", LoraOptions(r=4, target_modules=("embed_tokens",)), seed=1)
    before = switches(bank)
    with bank.training("words", torch.tensor([310])):
        assert switches(bank) != before
    assert switches(bank) == before
    state = bank.state("words")
    shake(bank, "words")
    step(bank, batch, "words")
    assert set(changed(state, bank.state("words"))) == set(state)


@pytest.mark.parametrize("name", ["a", None])
def test_lent_weights_answer_and_the_own_ones_come_back_after_an_error(bank, batch, name):
    shake(bank, "a")
    before, places = bank.state(name), [weight.data_ptr() for weight in bank.parameters(name)]
    other = {key: weight + 0.1 for key, weight in before.items()}
    with bank.restored_after(name):
        bank.load(name, other)
        expected = answer(bank, batch, "a")
    with pytest.raises(ZeroDivisionError), bank.swapped_weights(name, other):
        1 / (answer(bank, batch, "a") != expected).sum().item()
    assert not changed(before, bank.state(name))
    assert [weight.data_ptr() for weight in bank.parameters(name)] == places


def test_weights_that_do_not_fit_are_not_lent(bank):
    with pytest.raises(ValueError, match="does not fit"), bank.swapped_weights("a", {}):
        pass
