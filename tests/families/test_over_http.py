"""A Qwen2.5-VL pair served, as clients see it: M-RoPE, placeholders without markers, raw pixels in prompts.
The tests run in this order; the last one kills the guide."""

import base64
from functools import cache
from typing import NamedTuple

import httpx
import openai
import pytest

from tests.serve.asking import TOOLS, ask, request, same_report, stream, text
from tests.support.images import QUESTIONS, jpegs, random_image, random_video, video_file, video_url
from tests.support.processing import render, render_video
from tests.support.server import Server, frozen, poll
from tools.reference import confidence, reference, select
from tools.tiny_families import FAMILIES, build_pair
from vllm_sgl.decide.early_exit import ROW_TOKENS

#: Width and height that ``ask`` draws its images in, and visual tokens of one: 28 x 28 pixels each.
SIZE, VISUAL = (300, 200), 11 * 7
GUIDE_TOKENS, MOST = 32, 12
#: Of the server's videos: as many frames are taken, and two of them have 4 x 3 visual tokens.
FRAMES, VIDEO_SIZE = 8, (112, 84)
VIDEO_VISUAL = FRAMES // 2 * 4 * 3
CLIP = random_video(0, *VIDEO_SIZE, FRAMES)
CLIP_URL = video_url(CLIP)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return build_pair(FAMILIES["qwen2_5_vl"], tmp_path_factory.mktemp("qwen2_5_vl"))


@pytest.fixture(scope="module")
def server(pair, tmp_path_factory):
    small, large = pair
    flags = [
        f"--sgl-small={small}", "--sgl-break-even=off", "--sgl-guide-memory=0", "--sgl-follow-ups=off",
        "--enable-auto-tool-choice",
        "--tool-call-parser=hermes", "--trust-request-mm-kwargs",
        '--limit-mm-per-prompt={"image": 4, "video": 2}',
        f'--media-io-kwargs={{"video": {{"num_frames": {FRAMES}}}}}',
    ]  # fmt: skip
    with Server(large, tmp_path_factory.mktemp("server") / "server.log", flags) as running:
        yield running


class Expected(NamedTuple):
    """Of a question, by transformers alone."""

    prompt_tokens: int
    small: str
    confidence: float
    consistency: float
    pruned: str


@pytest.fixture(scope="module")
def expect(pair):
    small, large = map(reference, pair)

    @cache
    def expected(question, seed=0):
        """About an image, or the clip where the seed is None."""
        if seed is None:
            ids, images = render_video(small, question, jpegs(CLIP), fps=1)
        else:
            ids, images = render(small, question, [random_image(seed, *SIZE)])
        answer = small.generate(ids, images, GUIDE_TOKENS)
        consistency = small.consistency(ids, images, answer.tokens)
        # Where no exit is possible, the guide's answer is as long as its rows need it.
        seen = small.generate(ids, images, ROW_TOKENS).tokens
        kept = select(small.importance(ids, images, seen), 0.35, least=1)
        after = large.generate(ids, images, MOST, keep=kept).tokens
        said = [small.tokenizer.decode(each, skip_special_tokens=True) for each in (answer.tokens, after)]
        return Expected(len(ids), said[0], confidence(answer.logprobs), consistency, said[1])

    return expected


def test_pruned_answers(server, expect):
    for question in QUESTIONS:
        completion = ask(server, question, 0, max_tokens=MOST)
        report, expected = completion.sgl, expect(question)
        assert (report["decision"], report["visual_tokens"]) == ("prune", VISUAL)
        assert report["kept_tokens"] == int(0.35 * VISUAL)
        assert text(completion) == expected.pruned
        assert completion.usage.prompt_tokens == expected.prompt_tokens  # the whole prompt, as it was sent


def test_exits_and_streams(server, expect):
    for question in QUESTIONS:
        expected = expect(question)
        options = {"sgl": {"exit_threshold": 0}, "max_tokens": GUIDE_TOKENS}
        completion = ask(server, question, 0, **options)
        *_, last = chunks = stream(server, question, 0, stream_options={"include_usage": True}, **options)
        streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        report = completion.sgl
        assert streamed == text(completion)
        assert last.usage.completion_tokens == completion.usage.completion_tokens
        assert report["decision"] == "exit"
        assert text(completion) == expected.small
        assert report["confidence"] == pytest.approx(expected.confidence, rel=1e-2)
        assert report["consistency"] == pytest.approx(expected.consistency, rel=2e-2, abs=1e-6)


def test_videos(server, expect):
    """Pruned; exits, streamed or not; and their usage."""
    for question in QUESTIONS[:4]:
        expected = expect(question, None)
        completion = ask(server, question, videos=[CLIP_URL], max_tokens=MOST)
        report = completion.sgl
        assert (report["decision"], report["visual_tokens"]) == ("prune", VIDEO_VISUAL)
        assert (report["kept_tokens"], report["tiles"]) == (int(0.35 * VIDEO_VISUAL), FRAMES // 2)
        assert text(completion) == expected.pruned
        assert completion.usage.prompt_tokens == expected.prompt_tokens
        options = {"videos": [CLIP_URL], "sgl": {"exit_threshold": 0}, "max_tokens": GUIDE_TOKENS}
        exited = ask(server, question, **options)
        *_, last = chunks = stream(server, question, stream_options={"include_usage": True}, **options)
        streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert exited.sgl["decision"] == "exit"
        assert text(exited) == streamed == expected.small
        assert exited.usage.completion_tokens == last.usage.completion_tokens
        assert exited.sgl["consistency"] == pytest.approx(expected.consistency, rel=2e-2, abs=1e-6)


def test_a_video_file_and_what_vllm_makes_of_it(server, tmp_path):
    """Of four frames a second it takes two for this model; the request may ask for others."""
    file = video_file(tmp_path / "clip.mp4", random_video(1, *VIDEO_SIZE, 12), fps=4)
    url = "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()
    for extra, frames in (({}, 6), ({"media_io_kwargs": {"video": {"fps": 4}}}, 12)):
        report = ask(server, "Who?", videos=[url], extra=extra).sgl
        assert (report["decision"], report["visual_tokens"]) == ("prune", frames // 2 * 12)
    mixed = ask(server, "Who?", 0, videos=[url, CLIP_URL]).sgl
    assert (mixed["decision"], mixed["visual_tokens"]) == ("prune", VISUAL + 3 * 12 + VIDEO_VISUAL)
    assert mixed["kept_tokens"] == int(0.35 * mixed["visual_tokens"])
    with pytest.raises(openai.BadRequestError, match="At most 2 video"):
        ask(server, "Who?", videos=[CLIP_URL] * 3)


def test_requests_that_never_exit(server):
    for reason, options in (("n", {"n": 2, "temperature": 0.8}), ("tools", {"tools": TOOLS})):
        completion = ask(server, QUESTIONS[0], 0, sgl={"exit_threshold": 0}, **options)
        assert (completion.sgl["decision"], completion.sgl["reason"]) == ("prune", reason)
        assert len(completion.choices) == options.get("n", 1)


def test_bad_keys(server):
    for sgl in ({"retention": 2}, {"retain": 0.5}):
        with pytest.raises(openai.BadRequestError, match=f"sgl_{next(iter(sgl))}"):
            ask(server, QUESTIONS[0], 0, sgl=sgl)
        with pytest.raises(openai.BadRequestError, match=f"sgl_{next(iter(sgl))}"):
            ask(server, QUESTIONS[0], videos=[CLIP_URL], sgl=sgl)


@pytest.mark.parametrize("settings", [{"merge_size": 1}, {"patch_size": 7}, {"temporal_patch_size": 1}])
def test_settings_that_the_model_does_not_share(server, settings):
    """Plain vLLM's engine ends over such a request. Here both would, and the guide is there afterwards."""
    for about in ({}, {"sgl": {"enabled": 0}}):
        with pytest.raises(openai.BadRequestError, match="drop mm_processor_kwargs"):
            ask(server, QUESTIONS[0], 0, extra={"mm_processor_kwargs": settings}, **about)
    assert ask(server, QUESTIONS[0], 0, max_tokens=2).sgl["decision"] == "prune"


def test_images_that_would_keep_nothing(server):
    """Joint ranking gives one of three images everything; the engine lives on all the same."""
    completion = ask(server, QUESTIONS[0], 0, 1, 2, sgl={"retention": 0.001}, max_tokens=4)
    assert (completion.sgl["decision"], completion.sgl["kept_tokens"]) == ("prune", 3)
    assert ask(server, QUESTIONS[0], 0, sgl={"enabled": 0}, max_tokens=2).sgl["decision"] == "bypass"


@pytest.mark.parametrize("about", [{"seeds": [5]}, {"videos": [CLIP_URL]}], ids=["image", "video"])
def test_eight_clients_ask_about_one_item(server, clients, about):
    seeds, options = about.get("seeds", []), {k: v for k, v in about.items() if k != "seeds"}
    rounds = [{"retention": 0.35}, {"retention": 0.09}, {"retention": 0.35, "exit_threshold": 0.2}]
    asked = [(question, rounds[(turn + i) % 3]) for turn in range(2) for i, question in enumerate(QUESTIONS)]
    alone = [ask(server, question, *seeds, sgl=sgl, **options) for question, sgl in asked]
    futures = [clients.submit(ask, server, question, *seeds, sgl=sgl, **options) for question, sgl in asked]
    for one, other in zip(alone, (future.result() for future in futures), strict=True):
        assert text(one) == text(other)
        assert same_report(one.sgl, other.sgl)
    assert len({text(completion) for completion in alone}) > len(QUESTIONS) / 2  # masks and questions tell


def test_client_gone_while_the_guide_looks(server, expect):
    asked = request(QUESTIONS[1], 0, timeout=1.5)
    with frozen(server.small_engine()), pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)):
        server.client.chat.completions.create(model=server.model, **asked)
    assert text(ask(server, QUESTIONS[1], 0, max_tokens=MOST)) == expect(QUESTIONS[1]).pruned


def test_killed_guide(server, expect):
    """Answers go on without guidance, and with it once the guide is back."""
    server.small_engine().kill()
    reports = [ask(server, QUESTIONS[0], 0, max_tokens=2).sgl for _ in range(3)]
    reports.append(ask(server, QUESTIONS[0], videos=[CLIP_URL], max_tokens=2).sgl)
    assert {report["decision"] for report in reports} == {"bypass"}
    assert server.get("/health")[0] == 200

    def guided():
        return ask(server, QUESTIONS[0], 0, max_tokens=2).sgl["decision"] == "prune"

    poll(guided, timeout=180, what="a guide that was started again")
    assert text(ask(server, QUESTIONS[0], 0, max_tokens=MOST)) == expect(QUESTIONS[0]).pruned
    about_clip = ask(server, QUESTIONS[0], videos=[CLIP_URL], max_tokens=MOST)
    assert text(about_clip) == expect(QUESTIONS[0], None).pruned
