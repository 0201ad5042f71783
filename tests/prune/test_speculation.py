"""Speculative decoding of the large model beside pruning: drafts change nothing but the time it takes."""

import asyncio
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, Qwen2Config, Qwen2ForCausalLM
from vllm import SamplingParams

from tests.support.engines import Engines

QUESTIONS = ("What is on the sign?", "Who?")
TOKENS = 12


def text_draft(large, path, decoder):
    """A random text model over the large model's vocabulary, of its decoder's size but for the layers."""
    torch.manual_seed(0)
    settings = {name: value for name, value in decoder.items() if name not in ("model_type", "architectures")}
    Qwen2ForCausalLM(Qwen2Config(**{**settings, "num_hidden_layers": 1})).save_pretrained(path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(large / file, path)
    return {"method": "draft_model", "model": str(path), "num_speculative_tokens": 2}


def eagle_draft(large, path, decoder):
    """A random EAGLE head: one Llama layer without its first norm, over two hidden states."""
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
        "max_position_embeddings",
    )  # fmt: skip
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"], num_hidden_layers=1, **{name: decoder[name] for name in names}
    )
    config.save_pretrained(path)
    width, inner = config.hidden_size, config.intermediate_size
    groups = config.num_key_value_heads * (width // config.num_attention_heads)
    shapes = {
        "fc": (width, 2 * width), "layers.0.self_attn.q_proj": (width, width),
        "layers.0.self_attn.k_proj": (groups, width), "layers.0.self_attn.v_proj": (groups, width),
        "layers.0.self_attn.o_proj": (width, width), "layers.0.mlp.gate_proj": (inner, width),
        "layers.0.mlp.up_proj": (inner, width), "layers.0.mlp.down_proj": (width, inner),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    weights = {f"{name}.weight": torch.randn(*s, generator=generator) * 0.05 for name, s in shapes.items()}
    weights["layers.0.post_attention_layernorm.weight"] = torch.ones(width)
    save_file(weights, path / "model.safetensors")
    return {"method": "eagle", "model": str(path), "num_speculative_tokens": 2}


def answers(pair, **large):
    """(kept tokens, answer) of each question, greedily."""
    engines = Engines(pair, **large)

    async def ask(question):
        outcome = await engines.walk(engines.render(question, (300, 200)), max_tokens=TOKENS)
        params = SamplingParams(temperature=0, max_tokens=TOKENS)
        completion = (await engines._run_large(outcome.prompt, params)).outputs[0]
        return outcome.report.kept_tokens, list(completion.token_ids)

    async def every():
        return [await ask(question) for question in QUESTIONS]

    try:
        return asyncio.run(every())
    finally:
        engines.shutdown()


@pytest.fixture(scope="module")
def plain(qwen2_pair):
    return answers(qwen2_pair)


@pytest.mark.parametrize("make", [text_draft, eagle_draft])
def test_answers_with_a_draft_are_those_without(qwen2_pair, plain, make, tmp_path):
    large = qwen2_pair[1]
    decoder = json.loads((large / "config.json").read_text())["llm_config"]
    speculative = make(large, tmp_path, decoder)
    # vLLM asks every vision-language model for this, and InternVL's own format does not have it.
    image_token = AutoTokenizer.from_pretrained(large).convert_tokens_to_ids("<IMG_CONTEXT>")
    overrides = {"image_token_index": image_token}
    assert answers(qwen2_pair, speculative_config=speculative, hf_overrides=overrides) == plain
    assert plain[0][0] == 39
