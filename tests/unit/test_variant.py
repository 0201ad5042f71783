"""Which configs become a variant's, through vLLM's own configuration: models, and drafts that must not."""

import json
import pickle
import shutil

import pytest
from transformers import LlamaConfig, PreTrainedConfig
from vllm import EngineArgs

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.families import ACTIVE_ENV, family_of
from vllm_sgl.families.variant import UseVariant


@pytest.fixture
def config_of(qwen2_pair, monkeypatch):
    """The large engine's config."""
    monkeypatch.setenv(ACTIVE_ENV, "")

    def make(hf_overrides=None, **arguments):
        engine_args = EngineArgs(
            str(qwen2_pair[1]), trust_remote_code=True, dtype="float32", max_model_len=640,
            hf_overrides=hf_overrides or {}, **arguments,
        )  # fmt: skip
        use_sgl(engine_args, SGLConfig(small=str(qwen2_pair[0])))
        return engine_args.create_engine_config()

    return make


@pytest.fixture
def text_draft(qwen2_pair, tmp_path):
    """A checkpoint of the large model's decoder alone, as far as configuration reads it."""
    path = tmp_path / "draft"
    path.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(qwen2_pair[1] / file, path)
    config = json.loads((qwen2_pair[1] / "config.json").read_text())["llm_config"]
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2ForCausalLM"]}))
    return path


@pytest.fixture
def eagle_draft(tmp_path):
    path = tmp_path / "eagle"
    vocabulary = {"vocab_size": 512, "hidden_size": 32, "num_attention_heads": 4}
    LlamaConfig(architectures=["LlamaForCausalLM"], num_hidden_layers=1, **vocabulary).save_pretrained(path)
    return path


def assert_is_variant(config):
    assert config.architectures == ["SGLInternVLChatModel"]
    assert config.mrope_section == [0, 0, 0]


@pytest.mark.parametrize("overrides", [{}, {"llm_config": {"attention_dropout": 0.25}}])
def test_a_draft_model_stays_what_it_is(config_of, text_draft, overrides):
    speculative = {"method": "draft_model", "model": str(text_draft), "num_speculative_tokens": 2}
    config = config_of(overrides, speculative_config=speculative)
    assert_is_variant(config.model_config.hf_config)
    draft = config.speculative_config.draft_model_config
    assert draft.architectures == ["Qwen2ForCausalLM"]
    assert not draft.uses_mrope
    assert not hasattr(draft.hf_config, "llm_config")
    if overrides:
        assert config.model_config.hf_text_config.attention_dropout == 0.25


def test_an_eagle_draft_stays_what_it_is(config_of, eagle_draft):
    speculative = {"method": "eagle", "model": str(eagle_draft), "num_speculative_tokens": 2}
    config = config_of(speculative_config=speculative)
    assert_is_variant(config.model_config.hf_config)
    draft = config.speculative_config.draft_model_config
    assert draft.architectures == ["EagleLlamaForCausalLM"]
    assert not draft.uses_mrope


def test_ngram_speculation(config_of):
    config = config_of(speculative_config={"method": "ngram", "num_speculative_tokens": 2})
    assert_is_variant(config.model_config.hf_config)


def test_a_callable_of_the_users_reaches_the_draft_as_in_vllm(config_of, text_draft):
    speculative = {"method": "draft_model", "model": str(text_draft), "num_speculative_tokens": 2}
    config = config_of(mark, speculative_config=speculative)
    assert config.model_config.hf_config.marked
    assert config.speculative_config.draft_model_config.hf_config.marked


def mark(config):
    config.marked = True
    return config


def test_a_dict_may_name_the_architecture():
    use = UseVariant("packed", then={"architectures": ["InternVLChatModel"], "other": 1})
    config = use(PreTrainedConfig(architectures=["Renamed"]))
    assert (config.architectures, config.other) == (["SGLInternVLChatModel"], 1)


def test_a_dict_that_names_another_model_type_is_asked_first():
    probe = UseVariant("packed", then={"model_type": "other"})(PreTrainedConfig(architectures=[""]))
    assert (probe.model_type, probe.architectures) == ("other", [""])


def test_drafts_find_the_image_token():
    names = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}
    config = UseVariant("original")(PreTrainedConfig(image_token_id=7, **names))
    assert config.image_token_index == 7
    config = UseVariant("original")(PreTrainedConfig(image_token_id=7, image_token_index=8, **names))
    assert config.image_token_index == 8


def test_it_travels():
    use = UseVariant("packed", then={"a": 1})
    assert vars(pickle.loads(pickle.dumps(use))) == vars(use)


def test_a_model_without_a_family_is_refused_by_name(text_draft):
    model = EngineArgs(str(text_draft), dtype="float32", max_model_len=64).create_model_config()
    with pytest.raises(
        ValueError, match=rf"SGL supports .*; received Qwen2ForCausalLM \({text_draft}\): choose"
    ):
        family_of(model)
