"""Counting what the layers cost: bytes, kernels, operations, collectives and host syncs, without a GPU.

`tally.py` is the result, `operators.py` says what an operator costs, `counter.py` counts while code runs,
`network.py` runs the real layers on meta tensors, `gradients.py` the real engine on CPU.
"""
