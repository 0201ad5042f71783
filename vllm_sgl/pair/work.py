"""What a visual token costs each model, and what pruning can gain at most: parameters, by configs alone.

A token of a prefill takes two operations for each parameter that it meets, so parameters per visual token
stand for time where arithmetic is what takes it: long prompts on a GPU. Short prompts, and decoders with
experts, whose weights are read for a few tokens as for many, gain less; closed tiles and exits come on top.
"""

from dataclasses import dataclass
from typing import Any

from vllm.config import ModelConfig

#: Shares of visual tokens at which the bound is told, and the least gain that is worth a guide.
SHARES = (0.35, 0.18)
WORTH = 1.1


@dataclass(frozen=True)
class Work:
    """Parameters that are active for one visual token: of the decoder, and of the vision encoder for all
    patches that become this token."""

    decoder: int
    vision: int

    @property
    def whole(self) -> int:
        return self.decoder + self.vision


def speed_up(large: Work, small: Work, kept: float, seen: float = 1.0) -> float:
    """Of the large model's prefill with its vision encoder, the guide's pass included, at most.

    Args:
        kept: share of the visual tokens that the large model keeps.
        seen: visual tokens of the guide for each of the large model's.
    """
    return large.whole / (seen * small.whole + large.vision + kept * large.decoder)


def work_of(model: ModelConfig) -> Work:
    """Of a model's config. Embeddings are looked up and the last layer's logits are one token's, so neither
    counts."""
    return Work(decoder_parameters(model), vision_parameters(model.hf_config))


def decoder_parameters(model: ModelConfig, active: bool = True) -> int:
    """Of all layers, without embeddings.

    Args:
        active: of the experts only those that a token meets.
    """
    text = model.hf_text_config
    layers = model.get_total_num_hidden_layers()
    types = getattr(text, "layer_types", None) or ["full_attention"] * layers
    return sum(
        (_linear_attention(text) if types[layer] == "linear_attention" else _attention(model))
        + _mlp(model, layer, active)
        for layer in range(layers)
    )


def vision_parameters(config: Any) -> int:
    """Of the encoder, times the patches of one visual token, and of the layers that merge these into it."""
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return 0
    width = (
        getattr(vision, "embed_dim", None) or vision.hidden_size
    )  # Qwen2-VL's hidden_size is the decoder's
    layers = getattr(vision, "depth", None) or vision.num_hidden_layers
    inner = getattr(vision, "intermediate_size", None) or round(width * vision.mlp_ratio)
    gated = getattr(vision, "hidden_act", "") == "silu"
    patches = _patches(config)
    merged, out = patches * width, _decoder_width(config)
    mergers = 1 + len(getattr(vision, "deepstack_visual_indexes", None) or ())
    between = merged if hasattr(vision, "spatial_merge_size") else out
    encoder = layers * (4 * width**2 + (3 if gated else 2) * width * inner)
    return int(patches * encoder + mergers * between * (merged + out))


def _patches(config: Any) -> int:
    """That become one visual token."""
    ratio = getattr(config, "downsample_ratio", None)  # InternVL's
    merge = getattr(config.vision_config, "spatial_merge_size", 1)
    return round(1 / ratio**2) if ratio else int(merge) ** 2


def _decoder_width(config: Any) -> int:
    text = getattr(config, "text_config", None) or getattr(config, "llm_config", None) or config
    return int(text.hidden_size)


def _attention(model: ModelConfig) -> int:
    text, width, head = model.hf_text_config, model.get_hidden_size(), model.get_head_size()
    heads = text.num_attention_heads
    if model.use_mla:
        nope, rope, values = text.qk_nope_head_dim, text.qk_rope_head_dim, text.v_head_dim
        query, latent = getattr(text, "q_lora_rank", None), text.kv_lora_rank
        asking = heads * (nope + rope)
        queries = width * asking if not query else query * (width + asking)
        found = queries + width * (latent + rope) + latent * heads * (nope + values) + heads * values * width
        return int(found)
    # As vLLM has it: hybrid decoders of Qwen's have a gate behind attention unless they say otherwise.
    hybrid = "linear_attention" in (getattr(text, "layer_types", None) or ())
    gate = 2 if getattr(text, "attn_output_gate", hybrid) else 1
    return int(width * head * ((gate + 1) * heads + 2 * model.get_total_num_kv_heads()))


def _linear_attention(text: Any) -> int:
    """A gated delta net: projections to q, k, v and gate, two scalars a head, a convolution, and back."""
    keys = text.linear_num_key_heads * text.linear_key_head_dim
    values = text.linear_num_value_heads * text.linear_value_head_dim
    mixed = 2 * keys + values
    into = mixed + values + 2 * text.linear_num_value_heads
    return int(text.hidden_size * (into + values) + mixed * text.linear_conv_kernel_dim)


def _mlp(model: ModelConfig, layer: int, active: bool) -> int:
    text, width, experts = model.hf_text_config, model.get_hidden_size(), model.get_num_experts()
    first = getattr(text, "first_k_dense_replace", 0)
    dense = layer in (getattr(text, "mlp_only_layers", None) or ()) or layer < first
    if not experts or dense:
        return int(3 * width * text.intermediate_size)
    each = 3 * width * (getattr(text, "moe_intermediate_size", None) or text.intermediate_size)
    shared = 3 * width * (getattr(text, "shared_expert_intermediate_size", None) or 0)
    shared += each * (getattr(text, "n_shared_experts", None) or 0)
    met = model.get_num_experts_per_tok() if active else experts
    return int(met * each + shared + width * experts)
