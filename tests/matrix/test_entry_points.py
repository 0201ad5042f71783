"""Every public entry point guides, prunes and reports, for every family: the answers are those that the walk
gives inside one process, which ``test_engines.py`` holds against transformers."""

import asyncio
import json
from urllib.request import Request, urlopen

import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

import vllm_sgl
from tests.support.engines import user
from tests.support.images import data_url, random_image, random_video
from tests.support.server import REQUEST_TIMEOUT, Server

from .checks import CONTEXT

QUESTION, SIZE = "Read the number on the back of the shirt.", (300, 200)
MOST = 8
URL = data_url(random_image(0, *SIZE))


@pytest.fixture(scope="module")
def expected(engines):
    """(answer, visual tokens, kept tokens) of the question about one image."""
    return walked(engines, random_image(0, *SIZE))


def walked(engines, about):
    prompt = engines.render_chat([user(QUESTION, about)])

    async def walk():
        outcome = await engines.walk(prompt, max_tokens=MOST)
        return outcome, await engines.answer_large(outcome.prompt, MOST)

    outcome, (tokens, _) = asyncio.run(walk())
    text = engines.large_reference.tokenizer.decode(tokens, skip_special_tokens=True)
    return text, outcome.report.visual_tokens, outcome.report.kept_tokens


@pytest.fixture(scope="module")
def server(case, pair, tmp_path_factory):
    small, large = pair
    flags = [
        f"--sgl-small={small}",
        "--sgl-break-even=off",
        "--sgl-follow-ups=off",
        f"--sgl-positions={case[1]}",
    ]
    with Server(large, tmp_path_factory.mktemp("matrix") / "server.log", flags) as running:
        yield running


@pytest.fixture(scope="module")
def llm(case, pair):
    small, large = pair
    llm = vllm_sgl.LLM(
        str(large), sgl_small=str(small), sgl_positions=case[1], sgl_break_even="off",
        sgl_follow_ups="off", trust_remote_code=True,
        enforce_eager=True, dtype="float32", max_model_len=CONTEXT, kv_cache_memory_bytes=32 << 20,
        max_num_seqs=8, limit_mm_per_prompt={"image": 2},
    )  # fmt: skip
    yield llm
    llm.shutdown()


def post(server, path, body):
    address = f"http://127.0.0.1:{server.port}{path}"
    body = {"model": server.model, "temperature": 0, **body}
    request = Request(address, json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=REQUEST_TIMEOUT) as response:
        return json.loads(response.read())


MESSAGES = [
    {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": URL}}, {"type": "text", "text": QUESTION}],
    }
]


def chat(server):
    answer = post(server, "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": MOST})
    return answer["choices"][0]["message"]["content"], answer["sgl"]


def streamed_chat(server):
    chunks = list(
        server.client.chat.completions.create(
            model=server.model, messages=MESSAGES, max_tokens=MOST, temperature=0, stream=True
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    first, last = [chunk.sgl for chunk in chunks if hasattr(chunk, "sgl")]
    assert first == last
    return text, last


def responses(server):
    parts = [
        {"type": "input_image", "image_url": URL, "detail": "auto"},
        {"type": "input_text", "text": QUESTION},
    ]
    asked = {"input": [{"role": "user", "content": parts}], "max_output_tokens": MOST}
    answer = post(server, "/v1/responses", asked)
    return answer["output"][0]["content"][0]["text"], answer["sgl"]


def messages(server):
    source = {"type": "base64", "media_type": "image/png", "data": URL.partition("base64,")[2]}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    asked = {"messages": [{"role": "user", "content": parts}], "max_tokens": MOST}
    answer = post(server, "/v1/messages", asked)
    return answer["content"][0]["text"], answer["sgl"]


def batch(server):
    asked = {"messages": [MESSAGES, MESSAGES], "max_tokens": MOST}
    answer = post(server, "/v1/chat/completions/batch", asked)
    assert "sgl" not in answer
    one, two = ((choice["message"]["content"], choice["sgl"]) for choice in answer["choices"])
    assert one[0] == two[0]
    for name in ("decision", "reason", "visual_tokens", "kept_tokens"):
        assert one[1][name] == two[1][name]
    return one


#: Every entry point that takes messages, which may show images.
WITH_MESSAGES = [chat, streamed_chat, responses, messages, batch]


@pytest.mark.parametrize("ask", WITH_MESSAGES)
def test_over_http(server, expected, ask):
    text, report = ask(server)
    assert (text, report["visual_tokens"], report["kept_tokens"]) == expected
    assert (report["decision"], report["reason"]) == ("prune", None)


def chat_offline(llm, params, _):
    return llm.chat([user(QUESTION, random_image(0, *SIZE))], params, use_tqdm=False)


def generate_offline(llm, params, engines):
    image = random_image(0, *SIZE)
    prompt = {"prompt": engines.chat_text([user(QUESTION, image)]), "multi_modal_data": {"image": image}}
    return llm.generate(prompt, params, use_tqdm=False)


@pytest.mark.parametrize("ask", [chat_offline, generate_offline])
def test_offline(llm, expected, engines, ask):
    params = SamplingParams(temperature=0, max_tokens=MOST)
    (output,) = ask(llm, params, engines)
    report = output.sgl
    assert (output.outputs[0].text, report.visual_tokens, report.kept_tokens) == expected
    assert (report.decision, report.reason) == ("prune", None)


def test_llm_chat_about_a_video(llm, engines, case):
    clip = random_video(1, 112, 84, 6)
    params = SamplingParams(temperature=0, max_tokens=MOST)
    if not case[0].videos:
        with pytest.raises(VLLMValidationError, match="At most 0 video"):
            llm.chat([user(QUESTION, clip)], params, use_tqdm=False)
        return
    (output,) = llm.chat([user(QUESTION, clip)], params, use_tqdm=False)
    report = output.sgl
    assert (output.outputs[0].text, report.visual_tokens, report.kept_tokens) == walked(engines, clip)
    assert (report.decision, report.reason) == ("prune", None)
