"""Which functions are which part of the work, and whose."""

#: Part -> (module, class or "", function). In the order of a request's life; the names are those of reports.
PLACES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "vLLM: decode the JPEG": (("vllm.multimodal.media.image", "ImageMediaIO", "load_bytes"),),
    "vLLM: tiles and pixels": (("vllm.renderers.base", "BaseRenderer", "_process_multimodal"),),
    "vLLM: hash the image": (("vllm.multimodal.hasher", "MultiModalHasher", "hash_kwargs"),),
    "vLLM: engine requests": (("vllm.v1.engine.input_processor", "InputProcessor", "process_inputs"),),
    "vLLM: encode for the engines": (("vllm.v1.serial_utils", "MsgpackEncoder", "encode"),),
    "vLLM: outputs": (("vllm.v1.engine.output_processor", "OutputProcessor", "process_outputs"),),
    "SGL: facts": (("vllm_sgl.request.facts", "FactsReader", "read"),),
    "SGL: the guide's prompt": (("vllm_sgl.guide.local.guide", "", "tag_items"),),
    "SGL: importance": (("vllm_sgl.guide.local.guide", "", "importance"),),
    "SGL: which tokens stay": (
        ("vllm_sgl.prune.top", "TopImportance", "select"),
        ("vllm_sgl.prune.tiles", "FewTiles", "select"),
    ),
    "SGL: pruned prompts": (
        ("vllm_sgl.engine.client", "", "given_prompt"),
        ("vllm_sgl.guide.local.guide", "", "prune_prompt"),
    ),
}
#: Threads of ZeroMQ, by the beginning of their names.
ZEROMQ_THREADS = "ZMQ"
ZEROMQ = "ZeroMQ: copies to the engines"
REST = "the rest"
TOTAL = "all of it"
