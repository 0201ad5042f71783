"""Gated delta nets in float32 on vLLM's CPU build, whose own kernels take bfloat16 alone.

The recurrence is written out token by token (formula: "Gated Delta Networks", arXiv 2412.06464, section 3.1).
Scheduling, slots of states, their places in the cache and what is resumed are vLLM's own; so is everything in
bfloat16. Processes that import this before they start an engine have float32.
"""

import torch
import torch.nn.functional as F
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.mamba.mamba_utils import is_conv_state_dim_first
from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention
from vllm.utils.torch_utils import LayerNameType, _resolve_layer_name

_OF_VLLM = gdn_attention.cpu_gdn_attention_core


def attention_core(
    mixed_qkv: torch.Tensor, b: torch.Tensor, a: torch.Tensor, core_attn_out: torch.Tensor,
    layer_name: LayerNameType,
) -> None:  # fmt: skip
    """As vLLM's op of this name: convolution and recurrence of a layer over a batch.

    Args:
        mixed_qkv: [tokens, channels], before the convolution.
        b, a: [tokens, value heads].
        core_attn_out: [tokens, value heads, head size], written to.
    """
    if mixed_qkv.dtype != torch.float32:
        _OF_VLLM(mixed_qkv, b, a, core_attn_out, layer_name)
        return
    context = get_forward_context()
    layer = context.no_compile_layers[_resolve_layer_name(layer_name)]
    if context.attn_metadata is None:  # vLLM profiles
        return
    batch = context.attn_metadata[layer.prefix]
    starts, slots = batch.non_spec_query_start_loc.tolist(), batch.non_spec_state_indices_tensor.tolist()
    for number in range(batch.num_decodes + batch.num_prefills):
        begin, end = starts[number], starts[number + 1]
        resumed = number < batch.num_decodes or bool(batch.has_initial_state[number])
        rows = slice(begin, end)
        if begin < end:
            core_attn_out[rows] = _one(layer, slots[number], resumed, mixed_qkv[rows], b[rows], a[rows])


def _one(
    layer: torch.nn.Module, slot: int, resumed: bool, mixed: torch.Tensor, b: torch.Tensor, a: torch.Tensor
) -> torch.Tensor:
    """One sequence's tokens [n, value heads, head size]; its slot's states are read and written."""
    inputs, states = layer.kv_cache[0][slot], layer.kv_cache[1][slot]
    if not is_conv_state_dim_first():
        inputs = inputs.transpose(-1, -2)  # [channels, width - 1]
    before = inputs.clone() if resumed else torch.zeros_like(inputs)
    seen = torch.cat([before, mixed.t()], 1)
    inputs.copy_(seen[:, -inputs.size(1) :])
    kernel = layer.conv1d.weight.view(seen.size(0), 1, -1)
    convolved = F.silu(F.conv1d(seen[None], kernel, layer.conv1d.bias, groups=seen.size(0))[0])
    query, key, value = (part[0] for part in layer.rearrange_mixed_qkv(convolved.t().contiguous()))
    heads, head_size = value.shape[1:]
    query, key = (
        (part * (part.square().sum(-1, keepdim=True) + 1e-6).rsqrt()).repeat_interleave(
            heads // part.size(1), 1
        )
        for part in (query, key)
    )
    query = query * query.size(-1) ** -0.5
    write = b.sigmoid()
    decay = (-layer.A_log.exp() * F.softplus(a + layer.dt_bias)).exp()
    kept = states.view(heads, key.size(-1), head_size)  # the CPU's layout: keys before values
    state = kept.clone() if resumed else torch.zeros_like(kept)
    outputs = []
    for now in range(len(mixed)):
        state = state * decay[now, :, None, None]
        known = torch.einsum("hkv,hk->hv", state, key[now])
        state = state + torch.einsum("hk,hv->hkv", key[now], (value[now] - known) * write[now, :, None])
        outputs.append(torch.einsum("hkv,hk->hv", state, query[now]))
    kept.copy_(state)
    return torch.stack(outputs)


gdn_attention.cpu_gdn_attention_core = attention_core
