"""The run: composes configuration, data and model into training on the Megatron-DeepSpeed engine."""
