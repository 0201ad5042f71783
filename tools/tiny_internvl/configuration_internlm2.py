"""Configuration of an InternLM2 decoder, which transformers has no class for."""

from transformers import PretrainedConfig


class InternLM2Config(PretrainedConfig):
    """Llama's fields under Llama's names; attention and MLP differ in how their tensors are stored."""

    model_type = "internlm2"

    def __init__(
        self,
        vocab_size=92544,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=None,
        hidden_act="silu",
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        rope_theta=10000,
        rope_scaling=None,
        bias=False,
        **kwargs,
    ):
        if rope_scaling is not None and set(rope_scaling) != {"type", "factor"}:
            raise ValueError(
                f"rope_scaling: expected the keys type and factor, received {sorted(rope_scaling)}"
            )
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.bias = bias
        super().__init__(**kwargs)
