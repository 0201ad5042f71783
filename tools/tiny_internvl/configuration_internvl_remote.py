"""Configuration of an InternVL chat checkpoint whose decoder's config is remote code too."""

from .configuration_internlm2 import InternLM2Config
from .configuration_internvl_chat import InternVLChatConfig as _InternVLChatConfig
from .configuration_phi3 import Phi3Config

_DECODERS = {"internlm2": InternLM2Config, "phi3": Phi3Config}


class InternVLChatConfig(_InternVLChatConfig):
    def __init__(self, *args, **kwargs):  # without one, transformers makes one that fills in fields
        super().__init__(*args, **kwargs)

    def decoder_config(self, llm_config):
        own = _DECODERS.get(llm_config["model_type"])
        return super().decoder_config(llm_config) if own is None else own(**llm_config)
