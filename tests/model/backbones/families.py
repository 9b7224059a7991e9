"""Small random models of many architectures, written as folders that a hub could hold."""

from small_tokenizers import byte_level, sentence_piece
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    MistralConfig,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from recbole_e2urec.model.backbones.lora import seeded

DECODER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,  # weights large enough for every difference to show
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 0,
}
WINDOW = {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "init_std": 0.3,
    "scale_embedding": True,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 1,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
OTHERS = {"flan-t5": (T5Config, T5), "gpt2": (GPT2Config, GPT2)}
CONFIGS = {
    "bart": (BartConfig, BART),
    "qwen2": (Qwen2Config, DECODER),
    "mistral": (MistralConfig, {**DECODER, "sliding_window": 3}),
    "gemma": (GemmaConfig, DECODER),
    "gemma2": (Gemma2Config, {**DECODER, **WINDOW, "final_logit_softcapping": 2.0}),
    "gemma3": (Gemma3TextConfig, {**DECODER, **WINDOW}),
    "cohere": (CohereConfig, {**DECODER, "logit_scale": 0.3}),
}


def write_family(name, folder, **more):
    """Write a model and its tokenizer; gives the folder's name."""
    make, settings = {**CONFIGS, **OTHERS}[name]
    tokenizer = sentence_piece() if make is T5Config else byte_level()
    config = make(vocab_size=416, **{**settings, **more})
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with seeded(3):
        model = auto.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def small_t5(**more):
    """A T5 in memory, of one layer and width 16 unless told otherwise."""
    config = {"vocab_size": 400, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1}
    config |= {"num_heads": 2, "decoder_start_token_id": 0}
    with seeded(3):
        return T5ForConditionalGeneration(T5Config(**{**config, **more})).eval()
