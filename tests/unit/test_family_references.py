"""Every family's reference against transformers' own whole forward pass, and once against plain vLLM."""

import gc
import re

import pytest
import torch
from vllm import LLM, SamplingParams
from vllm.renderers.inputs.preprocess import parse_model_prompt

from tests.support.engines import inputs
from tests.support.images import random_image, random_video
from tests.support.processing import chat_text, processor, render, render_video, video_output
from tools.reference import reference
from tools.tiny_families import FAMILIES, build_pair

#: Sizes of a request's images, and its question.
REQUESTS = (
    ([(112, 112)], "What is written on the sign?"),
    ([(640, 100)], "Read the number."),
    ([(300, 200), (120, 360)], "Which of the two images has more red shapes?"),
    ([], "How are you?"),
)


#: Those whose whole prompts are not compared with vLLM's in tests/matrix/test_one_pair.py.
FIRST = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl_hf")


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    return build_pair(FAMILIES[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=[0, 1], ids=["small", "large"])
def model(request, pair):
    return reference(pair[request.param])


def images_of(sizes):
    return [random_image(seed, *size) for seed, size in enumerate(sizes)]


def has_mrope(model):
    return "mrope_section" in model.model.config.get_text_config().rope_parameters


def random_mask(count, seed=0, share=0.3):
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: int(share * count)].sort().values


@pytest.mark.parametrize("request_", REQUESTS, ids=["one", "wide", "two", "none"])
def test_whole_forward_pass_of_transformers_agrees(model, request_):
    """Features, their places, positions, DeepStack and the mask are all transformers' own on one side."""
    sizes, question = request_
    images = images_of(sizes)
    ids, fields = render(model, question, images)
    text = chat_text(model, question, len(images))
    inputs = processor(model.path)(text=[text], images=images or None, return_tensors="pt")
    if len(images) > 1 and "image_sizes" in inputs:
        # transformers tiles LLaVA-OneVision's images only where they seem to be alone in their prompts.
        inputs = {**inputs, "input_ids": torch.tensor([ids]), "batch_num_images": [1] * len(images)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    assert inputs["input_ids"][0].tolist() == ids
    with torch.inference_mode():
        logits = model.model(**inputs, use_cache=False).logits[0, -1]
        ours = model._forward(model._prompt(ids, fields, None, "original"), [])[0][-1]
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=0)


def logits_about_a_video(model, frames, fps):
    """(transformers', ours) of the last token of a question about a video."""
    asked = model, "Who?", random_video(0, 112, 84, frames), fps
    ids, fields = render_video(*asked)
    with torch.inference_mode():
        theirs = model.model(**video_output(*asked), use_cache=False).logits[0, -1]
        return theirs, model._forward(model._prompt(ids, fields, None, "original"), [])[0][-1]


def test_whole_forward_pass_of_transformers_agrees_about_a_video(model):
    theirs, ours = logits_about_a_video(model, 4, fps=16)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_text_after_a_long_video_is_where_the_published_model_puts_it(pair):
    """Behind the largest position id of the video, not behind its rows and columns; with time in text between
    a video's frames, as in Qwen3-VL, and without M-RoPE that is one and the same."""
    model = reference(pair[0])
    theirs, ours = logits_about_a_video(model, 12, fps=1)
    assert torch.allclose(theirs, ours, atol=1e-4) == (type(model).__name__ != "Qwen2VL")
    if type(model).__name__ != "Qwen2VL":
        return
    ids, (video,) = render_video(model, "Who?", random_video(0, 112, 84, 12), fps=1)
    positions, after = model.positions(torch.tensor(ids), [video])
    steps, rows, columns = (video["video_grid_thw"] // torch.tensor([1, 2, 2])).tolist()
    apart = int(getattr(model.model.config.vision_config, "tokens_per_second", 0.5) * 2)
    visual = (torch.tensor(ids) == model.video_token_id).nonzero().flatten()
    first, last = int(visual[0]), int(visual[-1])
    assert positions[:, last].tolist() == [first + (steps - 1) * apart, first + rows - 1, first + columns - 1]
    assert (steps - 1) * apart > columns
    assert positions[:, last + 1].tolist() == [first + (steps - 1) * apart + 1] * 3
    assert after == first + (steps - 1) * apart + len(ids) - last


def test_pruning_equals_hiding_the_dropped_tokens(model):
    """With original positions, removing a row is the same as masking its column in the whole prompt. A gated
    delta net has no columns: the state that it carries is another without the row."""
    if "linear_attention" in getattr(model.model.config.get_text_config(), "layer_types", ()):
        pytest.skip("no mask hides a token from a recurrent layer")
    ids, fields = render(model, *reversed((images_of([(300, 200), (120, 360)]), "Which is red?")))
    counts = [len(model.visual_features(image)) for image in fields]
    keep = [random_mask(count, seed) for seed, count in enumerate(counts)]
    pruned = model._forward(model._prompt(ids, fields, keep, "original"), [5, 6])[0]

    whole = model._prompt(ids, fields, None, "original")
    kept = torch.ones(len(ids) + 2, dtype=torch.bool)
    for rows, indices in zip(whole.visual_rows, keep, strict=True):
        kept[rows] = False
        kept[rows[indices]] = True
    forward = model.model.model.language_model.forward

    def hiding(**kwargs):
        kwargs["attention_mask"][..., ~kept] = torch.finfo(torch.float32).min
        return forward(**kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.model.model.language_model, "forward", hiding)
        hidden, _ = model._forward(whole, [5, 6])
    torch.testing.assert_close(pruned, hidden[kept], atol=1e-3, rtol=1e-4)


def test_positions_of_a_qwen_image_are_its_grid(pair):
    """Row and column of each visual token, from where the text before it ends."""
    model = reference(pair[0])
    ids, fields = render(model, "Who?", images_of([(300, 200)]))
    visual = (torch.tensor(ids) == model.image_token_id).nonzero().flatten()
    positions, after = model.positions(torch.tensor(ids), fields)
    first, last = int(visual[0]), int(visual[-1])
    if not has_mrope(model):
        assert positions.equal(torch.arange(len(ids)))
        assert after == len(ids)
        return
    _, height, width = (fields[0]["image_grid_thw"] // torch.tensor([1, 2, 2])).tolist()
    rows, columns = torch.arange(height * width) // width, torch.arange(height * width) % width
    expected = first + torch.stack([torch.zeros_like(rows), rows, columns])
    assert positions[:, visual].equal(expected)
    assert positions[:, last + 1].tolist() == [first + max(height, width)] * 3
    assert after == first + max(height, width) + len(ids) - last - 1


def test_packed_positions_are_for_models_without_mrope(pair):
    model = reference(pair[0])
    ids, fields = render(model, "Who?", images_of([(112, 112)]))
    keep = [torch.arange(0, ids.count(model.image_token_id), 3)]
    if has_mrope(model):
        with pytest.raises(ValueError, match="M-RoPE"):
            model.generate(ids, fields, 1, keep, "packed")
    else:
        original, packed = (model.generate(ids, fields, 1, keep, p).logprobs for p in ("original", "packed"))
        assert not torch.allclose(original, packed, atol=1e-2)


def test_an_incomplete_checkpoint_is_refused(pair, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in pair[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    layer = re.compile(r"language_model\.layers\.1\.mlp\.(?!experts\.\d).*up_proj")
    name = next(name for name in tensors if layer.search(name))
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"tensors do not match the model: .*missing.*up_proj"):
        reference(tmp_path)


@pytest.mark.nightly(
    "the references against vLLM alone: for a change of vLLM, tools/reference or tools/tiny_families",
    but="large-qwen3_vl",
)
def test_plain_vllm_agrees(model, monkeypatch):
    """Greedy tokens and log-probabilities equal vLLM's, from vLLM's own image processing."""
    if model.path.name.partition("-")[2] not in FIRST:
        pytest.skip("compared with vLLM in tests/matrix/test_one_pair.py")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    torch.compiler.set_stance("force_eager")
    llm = LLM(
        str(model.path), enforce_eager=True, dtype="float32", max_model_len=512, max_num_seqs=4,
        kv_cache_memory_bytes=32 << 20, limit_mm_per_prompt={"image": 2, "video": 0},
    )  # fmt: skip
    prompts = []
    for sizes, question in REQUESTS:
        prompts.append({"prompt": chat_text(model, question, len(sizes))})
        if sizes:
            prompts[-1]["multi_modal_data"] = {"image": images_of(sizes)}
    engine = llm.llm_engine
    parsed = [parse_model_prompt(engine.model_config, prompt) for prompt in prompts]
    # Not from vLLM's cache, which hands out an image's pixels once.
    rendered = engine.renderer.render_cmpl(
        parsed, engine.renderer.default_cmpl_tok_params, skip_mm_cache=True
    )
    params = SamplingParams(temperature=0, max_tokens=24, logprobs=0)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    del llm, engine
    gc.collect()
    for prompt, output, (sizes, question) in zip(rendered, outputs, REQUESTS, strict=True):
        ids, _ = render(model, question, images_of(sizes))
        assert output.prompt_token_ids == prompt["prompt_token_ids"] == ids
        _, images = inputs(prompt) if sizes else (ids, [])
        tokens, logprobs = model.generate(ids, images, 24)
        answer = output.outputs[0]
        assert list(answer.token_ids) == tokens
        theirs = [step[token].logprob for step, token in zip(answer.logprobs, tokens, strict=True)]
        torch.testing.assert_close(torch.tensor(theirs), logprobs, atol=1e-3, rtol=0)
