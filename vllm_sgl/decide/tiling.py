"""Whether few tiles pay: what ``--sgl-policy auto`` stands for. Pure."""

from vllm_sgl.decide.costs import Costs

#: The vision encoder's share of the large model's prefill from which on it is worth keeping tokens in few
#: tiles: at 35 % kept that then saves a sixth of the prefill or more (``docs/decisions/tile-policy.md``).
LARGE_PART = 0.25


def best_policy(costs: Costs | None) -> str:
    """The name of the policy for a pair with these costs; the plain ranking where none were measured."""
    return "tiles" if costs is not None and costs.vision_share >= LARGE_PART else "top"
