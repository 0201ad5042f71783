"""Small random-weight checkpoints of families other than InternVL's chat format, in transformers' classes."""

from . import (
    glm4v,
    glm4v_moe,
    internvl_hf,
    llava_onevision,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_5_moe,
    qwen3_vl,
    qwen3_vl_moe,
)
from .checkpoint import LARGE, SMALL, TinyFamily, build, build_pair

FAMILIES = {
    family.name: family
    for family in (
        qwen2_vl.FAMILY,
        qwen2_5_vl.FAMILY,
        qwen3_vl.FAMILY,
        glm4v.FAMILY,
        glm4v_moe.FAMILY,
        qwen3_vl_moe.FAMILY,
        qwen3_5.FAMILY,
        qwen3_5_moe.FAMILY,
        llava_onevision.FAMILY,
        internvl_hf.FAMILY,
    )
}

__all__ = ["FAMILIES", "LARGE", "SMALL", "TinyFamily", "build", "build_pair"]
