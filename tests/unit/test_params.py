"""Sampling parameters of the consistency pass, asked of vLLM's own scoring code of runner V2."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker

from vllm_sgl.guide.local import params

PROMPT, ANSWER, VOCABULARY = 7, (3, 5, 2), 11


@pytest.mark.parametrize("chunks", [[10], [4, 6], [7, 1, 2], [8, 2]], ids=str)
def test_runner_v2_scores_the_answer_and_projects_no_other_row(chunks):
    """Each answer token is scored at the row before it, however the prompt is cut up; logits stand for
    log-probabilities, whose kernel needs a GPU."""
    sampling = params.forcing(ANSWER, PROMPT, rows_alone=True)
    worker = PromptLogprobsWorker(2, torch.device("cpu"), logprobs_mode="raw_logits")
    sampling.prompt_logprob_token_ids = np.array(sampling.prompt_logprob_token_ids)  # as vLLM checks it
    worker.add_request("r", 0, sampling)
    length = PROMPT + len(ANSWER)
    hidden = torch.randn(length, VOCABULARY, generator=torch.Generator().manual_seed(0))
    projected, scores, done = 0, {}, 0

    def logits(rows):
        nonlocal projected
        projected += len(rows)
        return rows

    for size in chunks:
        batch = SimpleNamespace(
            req_ids=["r"],
            idx_mapping_np=np.array([0]),
            num_computed_prefill_tokens_np=np.array([done]),
            num_scheduled_tokens=np.array([size]),
            prefill_len_np=np.array([length]),
            query_start_loc_np=np.array([0, size]),
        )
        scores |= worker.compute_prompt_token_id_logprobs(
            logits, hidden[done : done + size], batch, np.array([length])
        )
        done += size
    assert projected == len(ANSWER)
    output = SimpleNamespace(prompt_token_id_logprobs=scores["r"].numpy())
    expected = [hidden[PROMPT - 1 + number, token].item() for number, token in enumerate(ANSWER)]
    assert params.answer_logprobs(output, ANSWER, PROMPT) == pytest.approx(expected)


def test_elsewhere_every_row_is_asked_for():
    sampling = params.forcing(ANSWER, PROMPT, rows_alone=False)
    assert (sampling.prompt_logprobs, sampling.prompt_logprob_token_ids) == (0, None)
    rows = [None, *({token: SimpleNamespace(logprob=-float(token))} for token in (1, 1, 1, 1, 1, 1, *ANSWER))]
    output = SimpleNamespace(prompt_token_id_logprobs=None, prompt_logprobs=rows)
    assert params.answer_logprobs(output, ANSWER, PROMPT) == [-3.0, -5.0, -2.0]
