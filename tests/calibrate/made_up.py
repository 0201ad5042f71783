"""Requests whose true losses are known, drawn at random."""

import numpy as np

from vllm_sgl.commands.calibrate.losses import Pruned, Requests

RETENTIONS = (0.5, 0.2)
#: Of the population: how often pruning loses a request that did not exit, by retention.
LOSS_OF = {1.0: 0.0, 0.5: 0.01, 0.2: 0.06}


def wrong_below(score: np.ndarray) -> np.ndarray:
    """How often the small model's answer is a loss, by its score."""
    return np.clip(0.5 * (1 - score), 0, 1)


def draw(rng: np.random.Generator, n: int, whole: bool = True) -> Requests:
    """n requests of the population; scores are uniform in [0, 1]."""
    score = rng.random(n)

    def losses(mean: np.ndarray) -> np.ndarray:
        lost = (rng.random(n) < mean).astype(float)
        return lost if whole else lost * 0.5 + 0.5 * mean  # of the same mean, and with values in between

    visual = np.full(n, 100.0)
    tiles = np.full(n, 4.0)
    hard = rng.random(n)  # a request that is hard loses under each retention that is low enough

    def pruned(retention: float) -> np.ndarray:
        lost = (hard < LOSS_OF[retention]).astype(float)
        return lost if whole else 0.5 * lost + 0.5 * LOSS_OF[retention]

    return Requests(
        prompt_tokens=visual + 20,
        visual_tokens=visual,
        tiles=tiles,
        guided=np.ones(n),
        scores={"paper": score},
        small_tokens=np.full(n, 4.0),
        small_loss=losses(wrong_below(score)),
        whole=whole,
        pruned={
            ("top", retention): Pruned(pruned(retention), visual * retention, tiles)
            for retention in (1.0, *RETENTIONS)
        },
    )


def true_loss(retention: float, threshold: float | None) -> float:
    """The population's mean loss under a setting."""
    if threshold is None:
        return LOSS_OF[retention]
    exits = 1 - threshold
    of_exits = 0.5 * (1 - (1 + threshold) / 2)  # mean of wrong_below over [threshold, 1]
    return exits * of_exits + threshold * LOSS_OF[retention]
