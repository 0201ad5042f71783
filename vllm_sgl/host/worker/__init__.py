"""Inside an engine's workers: attention layers, the model runner, the encoder's budget."""
