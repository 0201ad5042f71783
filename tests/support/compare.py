"""What "equal" means between our engines and the reference."""

from collections.abc import Sequence

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
