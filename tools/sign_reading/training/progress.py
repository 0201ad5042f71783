"""What every stage of training shares: checkpoints to resume from, a learning rate, a log."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

SAVE_SECONDS = 120


def optimizers(muon: list[dict[str, Any]], adam: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
    """Muon for groups of matrices, AdamW for the other groups; every group has its own peak rate."""
    found: list[torch.optim.Optimizer] = [
        torch.optim.Muon(muon, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adam, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return found


class Stage:
    """One stage of training: resumes from `directory/name.pt`, saves there, logs to `directory/log.jsonl`.

    Iterating gives the number of each step still to do; learning rates are set on the way: warm-up over
    the first 3 %, then down to 2 % of the peak along a half cosine.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        directory: Path,
        module: nn.Module,
        optimizers: list[torch.optim.Optimizer],
    ) -> None:
        self.name, self.steps, self.directory = name, steps, directory
        self.module, self.optimizers = module, optimizers
        self.file = directory / f"{name}.pt"
        self.first = 0
        if self.file.exists():
            stored = torch.load(self.file, map_location="cpu")
            module.load_state_dict(stored["module"])
            for optimizer, state in zip(optimizers, stored["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.first = stored["step"]

    def __iter__(self) -> Iterator[int]:
        saved = time.monotonic()
        with tqdm(
            range(self.first, self.steps), self.name, self.steps, initial=self.first, mininterval=5
        ) as bar:
            for step in bar:
                scale = min(1.0, (step + 1) / (0.03 * self.steps))
                scale *= 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))
                for optimizer in self.optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = group["peak_lr"] * scale
                yield step
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save(step + 1)
                    saved = time.monotonic()
        if self.first < self.steps:
            self._save(self.steps)

    def learn(self, loss: torch.Tensor) -> None:
        """One step of every optimizer down the gradient of `loss`, clipped to length 1."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()

    def log(self, step: int, **values: float) -> None:
        line = {"stage": self.name, "step": step, **{name: round(value, 5) for name, value in values.items()}}
        tqdm.write(json.dumps(line))
        with (self.directory / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self, step: int) -> None:
        partial = self.file.with_suffix(".partial")
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save({"module": self.module.state_dict(), "optimizers": states, "step": step}, partial)
        partial.rename(self.file)
