"""InternVL2, 3 and 3.5 in numbers; where they are from is told in ``README.md``."""

from .internvl import DenseDecoder, InternViT, InternVLSize

#: InternViT-300M-448px (and V2_5), InternViT-6B-448px-V1-5 (and V2_5).
_VIT_300M = InternViT(1024, 16, 4096, 24, qkv_bias=True, qk_normalization=False, norm_type="layer_norm")
_VIT_6B = InternViT(3200, 25, 12800, 45, qkv_bias=False, qk_normalization=True, norm_type="rms_norm")

# The published files also have `rope_scaling` "dynamic" for InternLM2.5 and Qwen2.5: up to
# max_position_embeddings that is plain RoPE. Phi-3's LongRoPE factors decide answers and neither speed nor
# memory, so they are ones here.
_ONES = [1.0] * 48
_PHI_3 = {
    "original_max_position_embeddings": 4096,
    "pad_token_id": 0,
    "rope_scaling": {"type": "longrope", "short_factor": _ONES, "long_factor": _ONES},
    "sliding_window": 262144,
}

# Each vocabulary of InternVL2 and 3 is the decoder's tokenizer plus InternVL's nine special tokens.
_QWEN2_05B = DenseDecoder("Qwen2ForCausalLM", 151655, 896, 4864, 24, 14, 2, 32768, 1e6, rms_norm_eps=1e-6)
_INTERNLM2_2B = DenseDecoder("InternLM2ForCausalLM", 92553, 2048, 8192, 24, 16, 8, 32768, 1e6)
_PHI3_MINI = DenseDecoder("Phi3ForCausalLM", 32020, 3072, 8192, 32, 32, 32, 131072, 1e4, more=_PHI_3)
_INTERNLM25_7B = DenseDecoder("InternLM2ForCausalLM", 92553, 4096, 14336, 32, 32, 8, 32768, 1e6)
_INTERNLM2_20B = DenseDecoder("InternLM2ForCausalLM", 92553, 6144, 16384, 48, 48, 8, 32768, 1e6)
_YI_34B = DenseDecoder("LlamaForCausalLM", 64009, 7168, 20480, 60, 56, 8, 8192, 5e6)
_LLAMA3_70B = DenseDecoder("LlamaForCausalLM", 128265, 8192, 28672, 80, 64, 8, 8192, 5e5)

INTERNVL2 = {
    "1B": InternVLSize("InternVL2-1B", _VIT_300M, _QWEN2_05B, 0.94),
    "2B": InternVLSize("InternVL2-2B", _VIT_300M, _INTERNLM2_2B, 2.21),
    "4B": InternVLSize("InternVL2-4B", _VIT_300M, _PHI3_MINI, 4.15),
    "8B": InternVLSize("InternVL2-8B", _VIT_300M, _INTERNLM25_7B, 8.08),
    "26B": InternVLSize("InternVL2-26B", _VIT_6B, _INTERNLM2_20B, 25.51),
    "40B": InternVLSize("InternVL2-40B", _VIT_6B, _YI_34B, 40.07),
    "76B": InternVLSize("InternVL2-Llama3-76B", _VIT_6B, _LLAMA3_70B, 76.26),
}


def _qwen25(*sizes: int) -> DenseDecoder:
    return DenseDecoder("Qwen2ForCausalLM", 151674, *sizes, 32768, 1e6, rms_norm_eps=1e-6)


INTERNVL3 = {
    "1B": InternVLSize("InternVL3-1B", _VIT_300M, _qwen25(896, 4864, 24, 14, 2), 0.94),
    "2B": InternVLSize("InternVL3-2B", _VIT_300M, _qwen25(1536, 8960, 28, 12, 2), 2.09),
    "38B": InternVLSize("InternVL3-38B", _VIT_6B, _qwen25(5120, 27648, 64, 40, 8), 38.4),
    "78B": InternVLSize("InternVL3-78B", _VIT_6B, _qwen25(8192, 29568, 80, 64, 8), 78.4),
}


def _qwen3(*sizes: int) -> DenseDecoder:
    """With Qwen3's own vocabulary, which has room for the special tokens."""
    return DenseDecoder("Qwen3ForCausalLM", 151936, *sizes, 40960, 1e6, rms_norm_eps=1e-6, head_size=128)


INTERNVL3_5 = {
    "1B": InternVLSize("InternVL3_5-1B", _VIT_300M, _qwen3(1024, 3072, 28, 16, 8), 1.06),
    "2B": InternVLSize("InternVL3_5-2B", _VIT_300M, _qwen3(2048, 6144, 28, 16, 8), 2.35),
    "38B": InternVLSize("InternVL3_5-38B", _VIT_6B, _qwen3(5120, 25600, 64, 64, 8), 38.4),
}
