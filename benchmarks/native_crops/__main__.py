"""`python -m benchmarks.native_crops`; see the package."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.crossed.__main__ import NATIVE
from benchmarks.crossed.readers import InternVLReader, NativeReader
from examples.demo.shipped import SMALL
from tools.sign_reading import example

from . import __doc__ as ABOUT
from .checks import as_recorded, same_image
from .cost import IMAGE, MODELS, TEXT
from .measure import equal_costs, measure
from .settings import Setting

#: Most tiles of the guides: as many as it has, and so few that it sees the image as a guide under a limit of
#: pixels does.
TILES = (12, 4)
#: Retentions whose costs are compared, and costs that pruning does not reach.
PRUNED = (0.35, 0.18, 0.09)
CHEAPER = (0.3, 0.2, 0.1)
#: Questions that the checks ask beforehand.
_CHECKED = 5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.native_crops",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--questions", type=int, default=400, help="of the signs' test split (default: 400)")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    environment = report.environment()
    report.print_environment(environment)
    large, guides = NativeReader(NATIVE), [InternVLReader(SMALL, tiles) for tiles in TILES]
    worst = same_image(large, (example("test", number) for number in range(_CHECKED)))
    print(f"checked   a crop to the whole image answers as the image, logits within {worst:.2g}")
    found = measure(large, guides, (example("test", number) for number in range(options.questions)))
    differ = as_recorded(found, guides[0].name)
    print(f"checked   answers that differ from those recorded for the same tokens: {differ}")
    shares = {name: model.vision_share() for name, model in MODELS.items()}
    print(
        f"cost      prefill of {IMAGE} visual tokens and {TEXT} of text, relative to nothing left out; of it"
    )
    print("          vision encoder:", ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    rows = [measured.row(setting) for setting, measured in found.items()]
    report.print_table({name: value for name, value in row.items() if name != "right"} for row in rows)
    bases = [Setting(guides[0].name, "pruned", 1, share) for share in PRUNED]
    equal = equal_costs(found, bases, CHEAPER)
    report.print_table(equal)
    if options.out is not None:
        values = {**environment, "vision_share": shares, "differ_from_recorded": differ, "equal_cost": equal}
        report.write_json(options.out, values, rows)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
