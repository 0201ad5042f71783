"""``CompilationConfig.cudagraph_mm_encoder``: CUDA graphs of vision encoders.

A captured encoder returns every visual token of an image without calling the model's ``embed_multimodal``,
where the kept ones are picked. vLLM would then take the first of them for the kept ones. A model's class has
no say in it: vLLM asks whether it inherits a protocol, and ours inherit what vLLM's models do.
"""

from vllm import EngineArgs


def without_encoder_graphs(engine_args: EngineArgs) -> None:
    """Turn them off, whatever the user set."""
    engine_args.compilation_config.cudagraph_mm_encoder = False
