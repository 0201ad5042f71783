"""Disabled means untouched: without SGL vLLM is what it was, to the last attribute but one, which looks for
settings in engine arguments that a Python program makes."""

import json
import os
import sys

from tests.support.server import run_command
from vllm_sgl.families import FAMILIES

SNAPSHOT = """
import json, os, sys
from vllm import ModelRegistry
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.entrypoints import llm
from vllm.model_executor.models.internvl import InternVLChatModel
from vllm.plugins import load_general_plugins
from vllm.v1.engine.async_llm import AsyncLLM

OWNERS = (EngineArgs, AsyncEngineArgs, AsyncLLM, InternVLChatModel, llm.LLM, llm)

def snapshot():
    found = {}
    for owner in OWNERS:
        for name, value in vars(owner).items():
            if name not in ("__builtins__", "__warningregistry__"):
                found[f"{owner.__name__}.{name}"] = value
    return found


def changes(register, *arguments):
    # What registering the plugin changes in vLLM, given a command line.
    before, known = snapshot(), set(ModelRegistry.get_supported_archs())
    sys.argv = ["vllm", "serve", "MODEL", *arguments]
    register()
    after = snapshot()
    changed = sorted(n for n in before.keys() | after.keys() if before.get(n) is not after.get(n))
    return changed, sorted(set(ModelRegistry.get_supported_archs()) ^ known)

silent = ("--max-model-len", "64", "--additional-config", '{"other": 1}')
result = {"plain": changes(load_general_plugins, *silent)}
register = sys.modules["vllm_sgl.plugin"].register  # loaded, by vLLM's own hook
os.environ["SGL_VLLM_ACTIVE"] = "1"
result["engine process"] = changes(register, *silent)
result["asked"] = changes(register, "--sgl-small", "SMALL")
print("RESULT", json.dumps(result))
"""

VARIANTS = sorted(f"SGL{architecture}" for architecture in FAMILIES)

ANSWER = """
import json, sys
import vllm
from tests.support.images import random_image
from tests.support.rendering import chat_prompt

path = sys.argv.pop()
engine = vllm.LLM(
    path, trust_remote_code=True, enforce_eager=True, dtype="float32", max_model_len=512, max_num_seqs=4,
    kv_cache_memory_bytes=32 << 20,
)
prompts = [
    {"prompt": chat_prompt("Who?", 1), "multi_modal_data": {"image": random_image(0, 300, 200)}},
    {"prompt": chat_prompt("How are you?", 0)},
]
params = vllm.SamplingParams(temperature=0, max_tokens=12, logprobs=2)
outputs = engine.generate(prompts, params, use_tqdm=False)

def plain(answer):
    steps = [sorted((token, entry.logprob) for token, entry in step.items()) for step in answer.logprobs]
    return [list(answer.token_ids), steps]

answers = [plain(output.outputs[0]) for output in outputs]
report = [hasattr(output, "sgl") for output in outputs]
print("RESULT", json.dumps({"plugin": "vllm_sgl.plugin" in sys.modules, "sgl": report, "answers": answers}))
"""


def run(script, *arguments, **environment):
    """The script's result, from a process of its own."""
    variables = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        **environment,
    }
    for name in ("SGL_VLLM_ACTIVE", "VLLM_PLUGINS"):
        if name not in environment:
            variables.pop(name, None)
    done = run_command([sys.executable, "-c", script, *arguments], 300, environment=variables)
    assert done.returncode == 0, done.stdout[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def test_nothing_changes_until_it_is_asked_for():
    found = run(SNAPSHOT)
    assert found["plain"] == [["EngineArgs.create_engine_config"], []]
    # An engine process of an SGL server knows the model variants; nothing is patched there.
    assert found["engine process"] == [[], VARIANTS]
    patched = ["AsyncLLM.from_vllm_config", "EngineArgs.add_cli_args", "EngineArgs.from_cli_args"]
    assert found["asked"] == [patched, []]


def test_outputs_are_those_of_vllm_without_the_plugin(qwen2_pair):
    path = str(qwen2_pair[1])
    with_plugin, without = run(ANSWER, path), run(ANSWER, path, VLLM_PLUGINS="")
    assert (with_plugin.pop("plugin"), without.pop("plugin")) == (True, False)
    assert with_plugin["sgl"] == [False, False]
    assert with_plugin == without
