"""A small Llama in a GGUF file."""

import json

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from recbole_e2urec.model.backbones.lora import seeded

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.0.input_layernorm": "blk.0.attn_norm",
    "model.layers.0.post_attention_layernorm": "blk.0.ffn_norm",
    "model.layers.0.self_attn.q_proj": "blk.0.attn_q",
    "model.layers.0.self_attn.k_proj": "blk.0.attn_k",
    "model.layers.0.self_attn.v_proj": "blk.0.attn_v",
    "model.layers.0.self_attn.o_proj": "blk.0.attn_output",
    "model.layers.0.mlp.gate_proj": "blk.0.ffn_gate",
    "model.layers.0.mlp.up_proj": "blk.0.ffn_up",
    "model.layers.0.mlp.down_proj": "blk.0.ffn_down",
}


def small_llama(vocab_size):
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=128, initializer_range=0.3,
    )  # fmt: skip
    with seeded(3):
        return LlamaForCausalLM(config).eval()


def write_gguf(path, model, tokenizer):
    """Write a Llama as llama.cpp does: linear layers in 8 bit, queries and keys interleaved."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    described = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(described["vocab"], key=described["vocab"].get))
    writer.add_token_types([1] * len(described["vocab"]))
    writer.add_token_merges([" ".join(pair) for pair in described["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for name, weight in model.state_dict().items():
        layer, _, rest = name.rpartition(".")
        if layer.endswith(("q_proj", "k_proj")):
            weight = weight.view(2, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        linear = weight.dim() == 2 and "embed" not in name
        kind = gguf.GGMLQuantizationType.Q8_0 if linear else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(weight.contiguous().numpy(), kind)
        writer.add_tensor(f"{NAMES[layer]}.{rest}", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
