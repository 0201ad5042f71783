"""The outside reference checked against itself and, once, against plain vLLM."""

import gc
from itertools import pairwise
from typing import get_args

import pytest
import torch

from tests.support.images import random_image
from tests.support.rendering import chat_prompt, render
from tools.reference import QueryRows, Reference, confidence, reference, select
from tools.tiny_internvl import LARGE_LLAMA, SMALL_QWEN2, build

# Sizes of a request's images, and its question. Tiles: 1; 7; 7 + 4; none.
REQUESTS = (
    ([(112, 112)], "What is written on the sign?"),
    ([(640, 100)], "Read the number."),
    ([(300, 200), (120, 360)], "Which of the two images has more red shapes?"),
    ([], "How are you?"),
)


@pytest.fixture(scope="module", params=[SMALL_QWEN2, LARGE_LLAMA], ids=lambda spec: spec.name)
def checkpoint(request, tmp_path_factory):
    return build(request.param, tmp_path_factory.mktemp(request.param.name))


@pytest.fixture(scope="module")
def model(checkpoint) -> Reference:
    return reference(checkpoint)


def rendered(checkpoint, sizes, question):
    images = [random_image(seed, *size) for seed, size in enumerate(sizes)]
    return render(checkpoint, chat_prompt(question, len(images)), images)


@pytest.fixture(scope="module")
def two_images(checkpoint):
    return rendered(checkpoint, *REQUESTS[2])


def test_answers_depend_on_image_and_question(model, checkpoint):
    answers, first_logprobs = [], []
    for seed in range(4):
        for question in ("What is written on the sign?", "Read the number."):
            prompt = chat_prompt(question, 1)
            ids, pixels = render(checkpoint, prompt, [random_image(seed, 300, 200)])
            answers.append(model.generate(ids, pixels, 16).tokens)
            first_logprobs.append(model.teacher_forced_logprobs(ids, pixels, [5]).item())
    assert len({tuple(answer) for answer in answers}) >= 6  # short answers may coincide
    assert len({len(answer) for answer in answers}) > 2
    ordered = sorted(first_logprobs)
    assert all(high - low > 1e-2 for low, high in pairwise(ordered))


def test_generation_stops_at_the_end_token_only(model, checkpoint):
    for sizes, question in REQUESTS:
        tokens, logprobs = model.generate(*rendered(checkpoint, sizes, question), 24)
        assert len(tokens) == len(logprobs)
        assert model.eos_token_id not in tokens[:-1]
        assert tokens[-1] == model.eos_token_id or len(tokens) == 24


def test_teacher_forcing_gives_the_logprobs_of_generation(model, two_images):
    tokens, logprobs = model.generate(*two_images, 16)
    forced = model.teacher_forced_logprobs(*two_images, tokens)
    torch.testing.assert_close(forced, logprobs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("positions", ["original", "packed"])
def test_keeping_everything_changes_nothing(model, two_images, positions):
    everything = [torch.arange(112), torch.arange(64)]
    plain = model.generate(*two_images, 16)
    kept = model.generate(*two_images, 16, keep=everything, positions=positions)
    assert kept.tokens == plain.tokens
    assert kept.logprobs.equal(plain.logprobs)


def test_pruning_equals_hiding_the_dropped_tokens(model, two_images):
    """With original positions, removing a row is the same as masking its column everywhere."""
    ids, pixels = two_images
    keep = [torch.arange(3, 112, 5), torch.tensor([0, 17, 63])]
    pruned = model._prompt(ids, pixels, keep, "original")
    pruned_logits, _ = model._forward(pruned, [5, 6])

    full = model._prompt(ids, pixels, None, "original")
    positions = torch.arange(len(ids) + 2)
    kept = torch.isin(positions, pruned.positions) | (positions >= len(ids))
    lowest = torch.finfo(torch.float32).min
    mask = torch.full((len(positions), len(positions)), lowest).triu(1)
    mask[:, ~kept] = lowest
    fed = model.model.get_input_embeddings()(torch.tensor([5, 6]))
    with torch.inference_mode():
        hidden = model.model.model.language_model(
            inputs_embeds=torch.cat([full.embeddings, fed])[None],
            position_ids=positions[None],
            attention_mask=mask[None, None],
            use_cache=False,
        ).last_hidden_state[0]
        logits = model.model.lm_head(hidden)
    torch.testing.assert_close(pruned_logits, logits[kept], atol=1e-3, rtol=1e-4)


def test_packed_positions_are_another_model_input(model, two_images):
    keep = [torch.arange(0, 112, 9), torch.arange(0, 64, 9)]
    answer = [3, 4, 5]
    original = model.teacher_forced_logprobs(*two_images, answer, keep, "original")
    packed = model.teacher_forced_logprobs(*two_images, answer, keep, "packed")
    assert not torch.allclose(original, packed, atol=1e-2)


@pytest.mark.parametrize("query_rows", get_args(QueryRows))
@pytest.mark.parametrize("answer", [[70], [70, 71, 72, 73]], ids=["one token", "four tokens"])
def test_importance_is_the_sum_over_single_query_rows(model, checkpoint, query_rows, answer):
    """Each query row recomputed alone, as the last row of its own prefix."""
    ids, pixels = rendered(checkpoint, *REQUESTS[0])
    visual = [place for place, token in enumerate(ids) if token == model.image_token_id]
    prompt = model._prompt(ids, pixels, None, "original")
    turn = visual[-1] + 5
    assert turn < len(ids) - 1
    first, last = {
        "last_turn+generated": (turn, len(ids) + len(answer) - 2),
        "last_turn": (turn, len(ids) - 1),
        "prompt+generated": (visual[-1] + 1, len(ids) + len(answer) - 2),
        "last_prompt+generated": (len(ids) - 1, len(ids) + len(answer) - 2),
        "prompt": (visual[-1] + 1, len(ids) - 1),
        "last_prompt": (len(ids) - 1, len(ids) - 1),
        # No generated row: the prompt's last one.
        "generated": (len(ids), len(ids) + 2) if len(answer) > 1 else (len(ids) - 1, len(ids) - 1),
    }[query_rows]
    expected = torch.zeros(len(visual))
    with torch.inference_mode():
        fed = model.model.get_input_embeddings()(torch.tensor(answer))
        embeddings = torch.cat([prompt.embeddings, fed])
        for row in range(first, last + 1):
            prefix = prompt._replace(embeddings=embeddings[: row + 1], positions=torch.arange(row + 1))
            _, attentions = model._forward(prefix, [], attention=True)
            for layer in attentions:
                expected += layer[0, :, -1, visual].sum(0)
    (importance,) = model.importance(ids, pixels, answer, query_rows, last_turn=turn)
    assert importance.dtype == torch.float32
    torch.testing.assert_close(importance, expected, atol=1e-4, rtol=1e-4)


def test_importance_is_far_from_uniform_and_per_question(model, checkpoint):
    image = random_image(3, 300, 200)
    scores = []
    for question in ("What is written on the sign?", "How many people are in the picture?"):
        ids, pixels = render(checkpoint, chat_prompt(question, 1), [image])
        tokens, _ = model.generate(ids, pixels, 8)
        scores += model.importance(ids, pixels, tokens)
    assert all(len(score) == 112 and score.max() > 3 * score.min() for score in scores)
    kept = [set(select([score], 0.2)[0].tolist()) for score in scores]
    assert kept[0] != kept[1]


def test_consistency_with_everything_shown_is_the_answers_own_probability(model, two_images):
    tokens, logprobs = model.generate(*two_images, 6)
    everything = model.consistency(*two_images, tokens, retention=1.0)
    assert everything == pytest.approx(confidence(logprobs) ** len(tokens), rel=1e-3)
    assert model.consistency(*two_images, tokens) != pytest.approx(everything, rel=1e-2)


@pytest.mark.parametrize(
    ("scores", "retention", "kept"),
    [
        ([[1.0, 3.0, 2.0]], 1.0, [[0, 1, 2]]),
        ([[1.0, 3.0, 2.0]], 0.5, [[1]]),
        ([[1.0, 3.0, 2.0]], 0.01, [[1]]),
        ([[5.0, 5.0, 5.0, 5.0]], 0.5, [[0, 1]]),
        ([[0.0, 2.0], [2.0, 9.0, 2.0]], 0.6, [[1], [0, 1]]),
        ([[1.0, 1.0], [4.0, 5.0]], 0.5, [[], [0, 1]]),
    ],
)
def test_selection_is_joint_and_breaks_ties_downward(scores, retention, kept):
    chosen = select([torch.tensor(part) for part in scores], retention)
    assert [part.tolist() for part in chosen] == kept


@pytest.mark.nightly(
    "the references against vLLM alone: for a change of vLLM, tools/reference or tools/tiny_internvl",
    but="small-qwen2",
)
def test_plain_vllm_agrees(model, checkpoint, monkeypatch):
    """Greedy tokens and log-probabilities equal vLLM's, from vLLM's own image processing."""
    vllm = pytest.importorskip("vllm")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    engine = vllm.LLM(
        str(checkpoint),
        trust_remote_code=True,
        enforce_eager=True,
        dtype="float32",
        max_model_len=512,
        max_num_seqs=4,
        kv_cache_memory_bytes=32 << 20,
        limit_mm_per_prompt={"image": 2},
    )
    prompts = []
    for sizes, question in REQUESTS:
        images = [random_image(seed, *size) for seed, size in enumerate(sizes)]
        prompts.append({"prompt": chat_prompt(question, len(images))})
        if images:
            prompts[-1]["multi_modal_data"] = {"image": images}
    params = vllm.SamplingParams(temperature=0, max_tokens=24, logprobs=0)
    outputs = engine.generate(prompts, params, use_tqdm=False)
    del engine
    gc.collect()
    for output, request in zip(outputs, REQUESTS, strict=True):
        ids, pixels = rendered(checkpoint, *request)
        assert output.prompt_token_ids == ids
        tokens, logprobs = model.generate(ids, pixels, 24)
        answer = output.outputs[0]
        assert list(answer.token_ids) == tokens
        theirs = [step[token].logprob for step, token in zip(answer.logprobs, tokens, strict=True)]
        torch.testing.assert_close(torch.tensor(theirs), logprobs, atol=1e-3, rtol=0)
