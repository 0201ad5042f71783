"""The list of packages; everything else is in pyproject.toml.

kernels/ lies beside vllm_sgl/ in the repository, because it knows nothing of vLLM or of this
package, and is installed inside it, as vllm_sgl.kernels. pyproject.toml could say that too, but
would need a line for every new kernel.
"""

from setuptools import find_packages, setup

kernels = ["vllm_sgl.kernels", *(f"vllm_sgl.kernels.{name}" for name in find_packages("kernels"))]

setup(
    packages=find_packages(include=["vllm_sgl", "vllm_sgl.*"]) + kernels,
    package_dir={"vllm_sgl.kernels": "kernels"},
)
