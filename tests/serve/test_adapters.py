"""LoRA adapters beside profiles: each keeps its name, and the settings that it should have."""

import json

import openai
import pytest
import torch
from safetensors.torch import save_file

from tests.serve.asking import SHORT, VISUAL, request, text
from tests.support.server import Server

RANK = 4
FAST = {"retention": 0.25}


def write_adapter(model, folder):
    """An adapter of the decoder's queries that changes every answer."""
    config = json.loads((model / "config.json").read_text())["llm_config"]
    hidden = config["hidden_size"]
    width = hidden // config["num_attention_heads"] * config["num_attention_heads"]
    drawn = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.language_model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(RANK, hidden, generator=drawn)
        weights[f"{name}.lora_B.weight"] = torch.randn(width, RANK, generator=drawn)
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": RANK, "lora_alpha": 4 * RANK, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def server(qwen2_pair, tmp_path_factory):
    small, large = qwen2_pair
    folder = tmp_path_factory.mktemp("adapters")
    write_adapter(large, folder / "other")
    flags = [
        f"--sgl-small={small}", "--sgl-break-even=off", "--sgl-follow-ups=off",
        f"--sgl-profile=fast={json.dumps(FAST)}",
        "--enable-lora", f"--max-lora-rank={RANK * 2}", f"--lora-modules=other={folder / 'other'}",
        "--served-model-name", "signs", "alias",
    ]  # fmt: skip
    with Server(large, folder / "server.log", flags) as running:
        yield running


def ask(server, model, **options):
    completion = server.client.chat.completions.create(model=model, **request(*SHORT, **options))
    return completion.model, completion.sgl["profile"], completion.sgl["kept_tokens"], text(completion)


def test_adapters_and_profiles_keep_their_names(server):
    listed = server.client.models.list().data
    assert [model.id for model in listed] == ["signs", "alias", "signs:fast", "alias:fast", "other"]
    assert (listed[-1].parent, listed[2].root) == ("signs", server.model)
    few, many = int(0.25 * VISUAL), int(0.35 * VISUAL)
    *signs, plain = ask(server, "signs")
    *other, adapted = ask(server, "other")
    assert (signs, other) == (["signs", None, many], ["other", None, many])
    assert plain != adapted
    *fast, _ = ask(server, "alias:fast")
    assert fast == ["alias:fast", "fast", few]
    *both, _ = ask(server, "other", sgl={"profile": "fast"})
    assert both == ["other", "fast", few]
    with pytest.raises(openai.NotFoundError, match="Valid aliases: signs, alias, signs:fast, alias:fast"):
        ask(server, "other:fast")
