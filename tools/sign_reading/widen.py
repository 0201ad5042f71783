"""Makes the trained pair cost what a large pair costs, and leaves every answer as it is.

    python -m tools.sign_reading.widen OUT --shape 26B+2B [--gflop 14]

writes OUT/large and OUT/small: both sign readers, widened so that vision encoder, decoder and guide cost in
the proportions of a real pair (`shapes.py`). --gflop is what the large model spends on a tile.

A model is widened in two ways, neither of which changes a value that it computes:

* **MLP units whose output weights are zero.** Their input weights are random: as much work as any unit.
* **Layers whose two output projections are zero**, behind the model's own, so that the residual stream passes
  them unchanged; the large model alone, and only as many as keep an MLP within 64 times its model's width.
  The guide gets none: importance is summed over all of its layers.

Floating-point sums run over more zeros than before, so logits agree to rounding, not bit by bit.
"""

import argparse
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .parts import DECODER, VISION, Part
from .shapes import SHAPES

_MODELS = Path(__file__).parents[2] / "models"
LARGE, SMALL = _MODELS / "signs-large", _MODELS / "signs-small"
#: MLP units per unit of model width, at most, where layers may be added.
_WIDEST = 64
#: MLP widths are multiples of this: what matrix kernels are cut for.
_STEP = 64

Tensors = dict[str, torch.Tensor]


def widen(
    source: Path, out: Path, vision_flops: float, decoder_flops: float, more_layers: bool, seed: int = 0
) -> Path:
    """Write a checkpoint that answers as `source` does; the path.

    Args:
        source: a directory in InternVL's chat format with one model.safetensors.
        vision_flops, decoder_flops: per tile of a large image, as `parts.py` counts them.
        more_layers: whether layers may be added.
        seed: of the random input weights.

    Raises:
        ValueError: where the model costs more than that already.
    """
    config = json.loads((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for part, flops in ((VISION, vision_flops), (DECODER, decoder_flops)):
        layers, units = _size(part, config, flops, more_layers)
        added = dict(_added(part, config, tensors, layers, units, generator))
        config = part.resized(config, layers, units)
        tensors |= added
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors", "*.jsonl"))
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def widen_large(out: Path, shape: str, gflop: float, source: Path = LARGE) -> Path:
    """Write the large model of a pair that costs in the proportions of a real one; its path.

    Args:
        shape: one of `shapes.SHAPES`.
        gflop: GFLOP of the large model per tile, vision encoder and decoder together.

    Raises:
        ValueError: where that is less than the model costs already.
    """
    wanted, scale = SHAPES[shape], _scale(shape, gflop)
    return widen(source, out, scale * wanted.vision, scale * wanted.decoder, more_layers=True)


def widen_small(out: Path, shape: str, gflop: float, source: Path = SMALL) -> Path:
    """Write its guide, as :func:`widen_large`; `gflop` is the large model's here, too."""
    wanted, scale = SHAPES[shape], _scale(shape, gflop)
    return widen(source, out, scale * wanted.guide_vision, scale * wanted.guide_decoder, more_layers=False)


def _scale(shape: str, gflop: float) -> float:
    return 1e9 * gflop / (SHAPES[shape].vision + SHAPES[shape].decoder)


def _size(part: Part, config: Mapping[str, Any], flops: float, more_layers: bool) -> tuple[int, int]:
    """Layers and MLP units of each that spend so much on a tile."""
    own, units = part.layers(config), part.units(config)
    if flops < part.flops(config):
        raise ValueError(
            f"{part.name}: expected at least the {part.flops(config) / 1e9:.4g} GFLOP per tile that it costs "
            f"already, received {flops / 1e9:.4g}; ask for more in all"
        )
    flops -= part.ends(config)
    widest = part.layer(config, _WIDEST * part.width(config))
    layers = max(own, math.ceil(flops / widest)) if more_layers else own
    none = part.layer(config, 0)
    wanted = (flops / layers - none) / (part.layer(config, 1) - none)
    return layers, max(units, _STEP * round(wanted / _STEP))


def _added(
    part: Part,
    config: Mapping[str, Any],
    tensors: Tensors,
    layers: int,
    units: int,
    generator: torch.Generator,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that are new or replaced: all MLPs, and everything of the new layers."""
    own = part.layers(config)
    for layer in range(layers):
        root = part.root.format(layer)
        if layer >= own:  # like the last one, but for its output projections
            last = part.root.format(own - 1)
            names = [name.removeprefix(last) for name in tensors if name.startswith(last)]
            for name in names:
                tensor = tensors[last + name]
                is_output = name.startswith(part.outputs)
                yield root + name, torch.zeros_like(tensor) if is_output else tensor.clone()
        like = part.root.format(min(layer, own - 1))
        for name in part.inputs:
            for leaf in ("weight", "bias"):
                if (tensor := tensors.get(f"{like}{name}.{leaf}")) is not None:
                    yield f"{root}{name}.{leaf}", _more_rows(tensor, units, generator)
        name = f"{part.outputs[-1]}.weight"
        weight = tensors[like + name]
        wide = weight.new_zeros(len(weight), units)
        if layer < own:
            wide[:, : weight.shape[1]] = weight
        yield root + name, wide


def _more_rows(tensor: torch.Tensor, rows: int, generator: torch.Generator) -> torch.Tensor:
    """[units, ...] to [rows, ...], the new ones drawn with the spread of the old."""
    shape = (rows - len(tensor), *tensor.shape[1:])
    drawn = torch.randn(shape, generator=generator) * tensor.float().std()
    return torch.cat([tensor, drawn.to(tensor.dtype)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.sign_reading.widen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="directory for large/ and small/")
    parser.add_argument("--shape", choices=SHAPES, default="26B+2B", help="the pair to cost like")
    parser.add_argument("--gflop", type=float, default=14.0, help="of the large model per tile (default: 14)")
    parser.add_argument("--large", type=Path, default=LARGE, help="to be widened (default: signs-large)")
    parser.add_argument("--small", type=Path, default=SMALL, help="to be widened (default: signs-small)")
    options = parser.parse_args(arguments)
    try:
        written = [
            widen_large(options.out / "large", options.shape, options.gflop, options.large),
            widen_small(options.out / "small", options.shape, options.gflop, options.small),
        ]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for path in written:
        config = json.loads((path / "config.json").read_text())
        sizes = (
            f"{part.name} {part.layers(config)} layers of {part.units(config)} units, "
            f"{part.flops(config) / 1e9:.2f} GFLOP per tile"
            for part in (VISION, DECODER)
        )
        print(f"{path}: {'; '.join(sizes)}")


if __name__ == "__main__":
    main()
