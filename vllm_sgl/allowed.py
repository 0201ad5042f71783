"""What a setting's value may be, in words, for error messages and help (settings and request keys share
them)."""

ALLOWED = {
    "small": "the path or name of a small vision-language model",
    "retention": "a number in (0, 1]; 1 keeps every visual token",
    "exit_threshold": "a number in [0, 1], or 'off'",
    "exit_score": "'paper', 'product', 'lowest', 'geometric_mean' or 'product_consistency'",
    "guide_tokens": "a whole number >= 1",
    "query_rows": "'last_turn+generated', 'prompt+generated', 'last_prompt+generated', 'last_turn', "
    "'prompt', 'last_prompt' or 'generated'",
    "consistency_retention": "a number in (0, 1]",
    "policy": "the name of a policy, such as 'top' or 'tiles', or 'auto'",
    "positions": "'original' or 'packed'",
    "views": "'auto', 'joint', 'separate' or 'finest'",
    "small_memory": "'auto', a share of the device's memory in (0, 1), or a size such as '4GiB'",
    "small_args": "an object of vLLM engine arguments",
    "feature_cache": "'auto', a size such as '256MiB', or 0 to turn the cache off",
    "guide_timeout": "a number of seconds > 0",
    "follow_ups": "'auto', 'late', 'sticky' or 'off'",
    "hot_after": "a whole number >= 1, 'auto' or 'off'",
    "guide_memory": "a whole number >= 0",
    "shadow": "true or false",
    "on_error": "'fallback' or 'fail'",
    "break_even": "'auto', 'measure' or 'off'",
    "profiles": "profiles by name, such as {'fast': {'retention': 0.2}}",
    "enabled": "0 or 1",
    "profile": "the name of one of the server's profiles",
    "log": "the path of a file",
    "shadow_log": "the path of a file",
    "log_size": "a size from 4KiB on, such as '64MiB'",
    "log_text": "true or false",
}
