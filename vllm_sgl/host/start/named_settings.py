"""What vLLM sets up for a model by the name of its architecture: a variant's name must get the same.

Symptom without it: the recurrent state of Qwen3.5's gated delta nets is bfloat16 where its config asks for
float32, without a word: the table has the key ``Qwen3_5ForConditionalGeneration``, not its variant's.
vLLM has no hook by which a registered class brings such settings along; this can go when it has one.
``tools/check_seams.py`` lists where a release of vLLM names an architecture of ours.
"""


def copy_configs(architecture: str, variant: str) -> None:
    """In the table of config hooks, which every process reads; idempotent."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    if architecture in MODELS_CONFIG_MAP:
        MODELS_CONFIG_MAP[variant] = MODELS_CONFIG_MAP[architecture]


def copy_decisions(architecture: str, variant: str) -> None:
    """In the table of structured decisions, which a server reads; idempotent."""
    from vllm.entrypoints.generate.structured_decisions.strategies import READ_STRATEGIES

    if architecture in READ_STRATEGIES:
        READ_STRATEGIES[variant] = READ_STRATEGIES[architecture]
