"""Shadow mode reports what would have happened and changes nothing; and an ``LLM`` ends when told to."""

import multiprocessing

import psutil

from tests.offline.conftest import prompt
from tests.offline.test_llm import QUESTIONS, VISUAL, greedy


def test_answers_are_those_without_sgl(shadow_llm):
    prompts = [prompt(question, 1) for question in QUESTIONS]
    off = {"exit_threshold": "off"}
    ways = [greedy(sgl=off), greedy(sgl={"retention": 0.09, **off}), greedy()]
    plain = shadow_llm.generate(prompts, greedy(sgl={"enabled": 0}), use_tqdm=False)
    answers = [output.outputs[0].token_ids for output in plain]
    assert {output.sgl.decision for output in plain} == {"bypass"}
    for params, decision, kept in zip(ways, ("prune", "prune", "exit"), (39, 10, 0), strict=True):
        outputs = shadow_llm.generate(prompts, params, use_tqdm=False)
        assert [output.outputs[0].token_ids for output in outputs] == answers
        assert [output.sgl.decision for output in outputs] == [decision] * len(prompts)
        assert [output.sgl.kept_tokens for output in outputs] == [kept] * len(prompts)
        assert [output.sgl.visual_tokens for output in outputs] == [VISUAL] * len(prompts)
        assert all(output.sgl.importance[0].sum() > 0 for output in outputs)


def test_shutdown_ends_every_process(shadow_llm):
    engines = [psutil.Process(process.pid) for process in multiprocessing.active_children()]
    assert len(engines) == 2
    below = [process for engine in engines for process in engine.children(recursive=True)]
    shadow_llm.shutdown()
    shadow_llm.shutdown()
    assert not psutil.wait_procs([*engines, *below], timeout=30)[1]
