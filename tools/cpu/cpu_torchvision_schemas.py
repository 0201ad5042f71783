"""Let torchvision's CUDA build be imported next to a CPU build of torch.

Symptom: ``import torchvision`` fails with "operator torchvision::nms does not exist". The package
registers fake kernels for operators that its compiled library declares, and that library, built for
CUDA, cannot load. The pure Python part (``torchvision.transforms``) is all that vLLM uses, and it
imports once the two operators registered by name are declared.

The .pth file beside this module calls ``install()`` in every interpreter, vLLM's worker processes
included, so this file must import nothing slow: torch is imported only when somebody looks up
torchvision, who would import torch anyway.
"""

import sys

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class TorchvisionFinder:
    """Meta-path finder that finds nothing; it declares the schemas at the first look-up."""

    library = None  # keeps the declarations alive: torch drops them with the Library object
    done = False

    def find_spec(self, name, path=None, target=None):
        # `done` rather than removing the finder: importlib is iterating over sys.meta_path now,
        # and a removal would make it skip the next finder.
        if name == "torchvision" and not self.done:
            self.done = True
            self._declare()
        return None

    def _declare(self):
        try:
            import torch
        except ImportError:
            return  # torchvision itself will report the missing torch
        if torch.version.cuda is not None:
            return  # a CUDA torch loads the compiled operators, which declare themselves
        self.library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            self.library.define(schema)


def install():
    """Put the finder in front of the others, once per interpreter."""
    if not any(isinstance(finder, TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchvisionFinder())
