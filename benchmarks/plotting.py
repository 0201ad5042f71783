"""Writing pictures, which look as in :mod:`vllm_sgl.commands.plotting`."""

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure


def save(figure: Figure, path: Path, title: str) -> Path:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.savefig(path)
    plt.close(figure)
    return path
