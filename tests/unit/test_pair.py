"""How one model can guide another, by what their files say."""

from dataclasses import replace

import pytest

from vllm_sgl.pair.verdict import ModelFacts, check_pair

LARGE = ModelFacts(
    "large", "InternVLChatModel", "InternVLChatModel", {"image_size": 448, "visual tokens per tile": 256},
    vocabulary={"a": 0, "b": 1}, encoded=(0, 1), rendered="<user>",
)  # fmt: skip
SMALL = replace(LARGE, name="small")


def test_one_prompt_for_both():
    verdict = check_pair(LARGE, SMALL)
    assert (verdict.way, verdict.same_tokens, dict(verdict.differences)) == ("shared", True, {})
    assert str(verdict) == "small guides large over the same prompt"


@pytest.mark.parametrize(
    ("change", "differs", "same_tokens"),
    [
        ({"vocabulary": {"a": 1, "b": 0}}, "tokenizer", False),
        ({"encoded": (1, 0)}, "tokenizer", False),
        ({"rendered": "<USER>"}, "chat template", True),
        ({"rendered": None}, "chat template", True),
        ({"format": "InternVL (-hf)"}, "prompt format", True),
    ],
)
def test_a_prompt_for_each(change, differs, same_tokens):
    verdict = check_pair(LARGE, replace(SMALL, **change))
    assert (verdict.way, verdict.same_tokens, list(verdict.differences)) == (
        "translated", same_tokens, [differs],
    )  # fmt: skip
    assert str(verdict) == f"small guides large over a prompt of its own; what differs: {differs}"


@pytest.mark.parametrize("change", [{}, {"vocabulary": {"c": 0}}])
def test_images_that_are_not_cut_alike(change):
    other = replace(SMALL, vision={"image_size": 224, "visual tokens per tile": 256}, **change)
    verdict = check_pair(LARGE, other)
    assert (verdict.way, verdict.same_tokens) == ("crossed", not change)
    assert "guides large over a prompt of its own, and importance is carried to" in str(verdict)
    assert "image tiling ((large, small): {'image_size': (448, 224)})" in str(verdict)


def test_where_visual_tokens_lie_must_be_known_then():
    verdict = check_pair(LARGE, replace(SMALL, vision={"patch_size": 14}))
    assert verdict.differences["image tiling"].endswith("each have a way of their own")
    refused = replace(verdict, way="refused", unknown={"small": "its images are cropped"})
    assert "cannot guide large: their image tiling differs" in str(refused)
    assert "that is not known (small: its images are cropped). Or choose another --sgl-small" in str(refused)
