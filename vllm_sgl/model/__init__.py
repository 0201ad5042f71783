"""What is added to vLLM's model inside its engine: pruned inputs, cached features, the scheduler's charge."""
