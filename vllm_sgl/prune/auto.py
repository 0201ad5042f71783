"""What ``--sgl-policy auto`` stands for. Pure."""

#: Stands for the policy that suits the pair's costs.
AUTO = "auto"
#: The vision encoder's share of the large model's prefill from which on it is worth keeping tokens in few
#: tiles: at 35 % kept that then saves a sixth of the prefill or more (``docs/decisions/tile-policy.md``).
LARGE_PART = 0.25


def best_policy(vision_share: float | None) -> str:
    """The name of the policy for a pair.

    Args:
        vision_share: the vision encoder's share of the large model's prefill, in [0, 1]; None where it was
            not measured, which gives the plain ranking.
    """
    return "tiles" if vision_share is not None and vision_share >= LARGE_PART else "top"
