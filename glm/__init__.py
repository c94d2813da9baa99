"""The model: a pure function of tensors and a tensor-parallel group."""
