"""The seam that keeps a prompt's conversation: on any renderer with vLLM's methods, and on no other."""

import pytest
from vllm.renderers import ChatParams

from vllm_sgl.host.render.conversation import conversation_of, remember_conversations

PARAMS = ChatParams(chat_template_kwargs={"add_generation_prompt": True})
MESSAGES = [{"role": "user", "content": "What is this?"}]
IMAGES = {"image": ["pixels"]}


class Renderer:
    """Renders nothing, but as vLLM's does: messages -> prompt -> what an engine is given."""

    media = IMAGES

    def render_messages(self, messages, params):
        self.read = [list(message["content"]) for message in messages]
        return messages, {"prompt": "text", **({"multi_modal_data": self.media} if self.media else {})}

    async def render_messages_async(self, messages, params):
        return self.render_messages(messages, params)

    def process_for_engine(self, prompt, arrival_time, *, skip_mm_cache=False, tok_params=None):
        return {"type": "multimodal", "arrival_time": arrival_time, "skipped": skip_mm_cache}

    async def process_for_engine_async(self, prompt, arrival_time, *, skip_mm_cache=False, tok_params=None):
        return self.process_for_engine(prompt, arrival_time, skip_mm_cache=skip_mm_cache)


async def render(renderer, messages, how="async"):
    """Both steps, with a key between them as tokenization leaves it."""
    if how == "sync":
        _, prompt = renderer.render_messages(messages, PARAMS)
        prompt = {**prompt, "mm_processor_kwargs": {"max_dynamic_patch": 2}}
        return renderer.process_for_engine(prompt, 1.5, skip_mm_cache=True)
    _, prompt = await renderer.render_messages_async(messages, PARAMS)
    prompt = {**prompt, "mm_processor_kwargs": {"max_dynamic_patch": 2}}
    return await renderer.process_for_engine_async(prompt, 1.5, skip_mm_cache=True)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_what_an_engine_is_given_has_its_conversation(how):
    renderer = Renderer()
    remember_conversations(renderer)
    rendered = await render(renderer, MESSAGES, how)
    found = conversation_of(rendered)
    assert (found.messages, found.params, found.media) == (MESSAGES, PARAMS, IMAGES)
    assert found.processor_kwargs == {"max_dynamic_patch": 2}
    assert (rendered["arrival_time"], rendered["skipped"]) == (1.5, True)


async def test_a_conversation_that_can_be_read_once_is_kept_whole():
    """Validated content may be a one-shot iterator, which rendering uses up."""
    renderer = Renderer()
    remember_conversations(renderer)
    parts = [{"type": "text", "text": "What is this?"}]
    found = conversation_of(await render(renderer, [{"role": "user", "content": iter(parts)}]))
    assert renderer.read == [parts]
    assert found.messages == [{"role": "user", "content": parts}]


async def test_no_conversation_without_media_or_messages():
    renderer = Renderer()
    remember_conversations(renderer)
    assert conversation_of(renderer.process_for_engine({"multi_modal_data": IMAGES}, 0.0)) is None
    renderer.media = {}
    assert conversation_of(await render(renderer, MESSAGES)) is None


async def test_other_renderers_stay_as_they_are():
    renderer = Renderer()
    remember_conversations(renderer)
    assert conversation_of(await render(Renderer(), MESSAGES)) is None


def test_a_method_that_is_missing():
    class Older(Renderer):
        process_for_engine_async = None

    with pytest.raises(
        RuntimeError, match=r"Older.process_for_engine_async is missing .*host/render/conversation.py"
    ):
        remember_conversations(Older())


def test_a_method_with_other_parameters():
    class Newer(Renderer):
        def render_messages(self, request, messages, params):
            raise NotImplementedError

    with pytest.raises(
        RuntimeError, match=r"takes \('request', .*expected \('messages', .*host/render/conversation.py"
    ):
        remember_conversations(Newer())
