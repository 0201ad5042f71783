"""GLM-4.5V and 4.6V (https://huggingface.co/zai-org/GLM-4.5V): GLM-4.1V with a mixture of experts behind one
dense layer, and an expert that every token uses."""

from transformers import Glm4vMoeConfig, Glm4vMoeForConditionalGeneration

from tools.tiny_internvl import TinyShape

from . import glm4v
from .checkpoint import TinyFamily, TokenIds
from .qwen3_vl_moe import EXPERTS, USED, one_by_one


def config(shape: TinyShape, tokens: TokenIds) -> Glm4vMoeConfig:
    dense = glm4v.config(shape, tokens)
    own = {name: getattr(dense, name) for name in glm4v.TOKENS}
    text, vision = (part.to_dict() for part in (dense.text_config, dense.vision_config))
    for part in (text, vision):
        for key in ("model_type", "architectures", "dtype"):
            part.pop(key, None)
    experts = {
        "n_routed_experts": EXPERTS,
        "num_experts_per_tok": USED,
        "moe_intermediate_size": shape.intermediate // 4 + 32,
        "norm_topk_prob": True,
        "first_k_dense_replace": 1,
        "use_qk_norm": False,  # of published configs, which vLLM asks for and transformers does not write
        "head_dim": shape.head_dim,
    }
    return Glm4vMoeConfig(
        text_config={**text, **experts}, vision_config=vision, tie_word_embeddings=False, **own
    )


FAMILY = TinyFamily(
    "glm4v_moe",
    Glm4vMoeForConditionalGeneration,
    glm4v.FAMILY.special_tokens,
    glm4v.CHAT_TEMPLATE,
    config,
    glm4v.processor,
    published=one_by_one,
)
