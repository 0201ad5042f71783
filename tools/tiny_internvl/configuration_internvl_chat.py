"""Configuration of an InternVL chat checkpoint, loaded from its directory through `auto_map`."""

from transformers import CONFIG_MAPPING, PretrainedConfig


class InternVisionConfig(PretrainedConfig):
    """The vision encoder (InternViT)."""

    model_type = "intern_vit_6b"

    def __init__(
        self,
        num_channels=3,
        patch_size=14,
        image_size=448,
        qkv_bias=True,
        hidden_size=1024,
        num_attention_heads=16,
        intermediate_size=4096,
        num_hidden_layers=24,
        qk_normalization=False,
        norm_type="layer_norm",
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        initializer_factor=0.1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_channels = num_channels
        self.patch_size = patch_size
        self.image_size = image_size
        self.qkv_bias = qkv_bias
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.qk_normalization = qk_normalization
        self.norm_type = norm_type
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.initializer_factor = initializer_factor


class InternVLChatConfig(PretrainedConfig):
    """The whole model: vision encoder, connector and decoder."""

    model_type = "internvl_chat"

    def __init__(
        self,
        vision_config=None,
        llm_config=None,
        select_layer=-1,
        downsample_ratio=0.5,
        ps_version="v2",
        template="internlm2-chat",
        force_image_size=None,
        dynamic_image_size=True,
        use_thumbnail=True,
        min_dynamic_patch=1,
        max_dynamic_patch=6,
        pad2square=False,
        **kwargs,
    ):
        llm_config = dict(llm_config or {"model_type": "llama"})
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        self.llm_config = self.decoder_config(llm_config)
        self.select_layer = select_layer
        self.downsample_ratio = downsample_ratio
        self.ps_version = ps_version
        self.template = template
        self.force_image_size = force_image_size
        self.dynamic_image_size = dynamic_image_size
        self.use_thumbnail = use_thumbnail
        self.min_dynamic_patch = min_dynamic_patch
        self.max_dynamic_patch = max_dynamic_patch
        self.pad2square = pad2square
        super().__init__(**kwargs)

    def decoder_config(self, llm_config):
        return CONFIG_MAPPING[llm_config["model_type"]](**llm_config)
