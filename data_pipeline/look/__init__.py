"""Inspecting data without changing it: one sample, a range of samples, the shards."""
