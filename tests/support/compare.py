"""What "equal" means between our engines and the reference."""

from collections.abc import Sequence
from typing import Any

import torch

from tools.reference import select

#: Relative error allowed per visual token.
IMPORTANCE_TOLERANCE = 1e-3
#: Retentions at which the kept sets must be identical: the paper's 35 % and 9 %.
RETENTIONS = (0.35, 0.09)


def assert_same_importance(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Per visual token within tolerance, and the same tokens kept at both retentions."""
    assert [len(part) for part in found] == [len(part) for part in expected]
    for image, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.dtype == torch.float32
        error = ((ours - theirs).abs() / theirs).max().item()
        assert error <= IMPORTANCE_TOLERANCE, f"image {image}: relative error {error:.2e}"
    for retention in RETENTIONS:
        ours, theirs = select(found, retention), select(expected, retention)
        assert [part.tolist() for part in ours] == [part.tolist() for part in theirs], retention


def assert_same_answer(
    found: tuple[list[int], torch.Tensor], expected: tuple[list[int], torch.Tensor], tolerance: float = 1e-2
) -> None:
    """The same greedy tokens, log-probabilities within tolerance (absolute)."""
    assert list(found[0]) == list(expected[0])
    torch.testing.assert_close(torch.as_tensor(found[1]), expected[1], atol=tolerance, rtol=0)


async def assert_known_images_are_looked_at_alike(engines: Any, one: Any, other: Any) -> None:
    """Two prompts about the same images: the second finds them in the guide's prefix cache, and what comes of
    it is what a guide without one sees; under another salt it finds nothing."""
    forget = engines.small.engine.reset_prefix_cache
    assert forget()
    expected, (nothing,) = await engines.known_to_small(engines.look(other))
    assert forget()
    await engines.look(one)
    found, (known,) = await engines.known_to_small(engines.look(other))
    _, (salted,) = await engines.known_to_small(engines.look({**other, "cache_salt": "salt"}))
    assert (nothing, salted) == (0, 0)
    assert known > 0
    assert found.answer.token_ids == expected.answer.token_ids
    for ours, theirs in zip(found.importance, expected.importance, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
