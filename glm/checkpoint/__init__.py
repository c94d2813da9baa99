"""The checkpoint format: named boxes in the coordinates of whole tensors, safetensors files, one JSON manifest.

It knows no process group and no engine: anything that has torch can read a checkpoint.
"""
