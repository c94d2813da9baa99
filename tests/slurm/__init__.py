"""Tests on a real SLURM cluster of several nodes, which they start on one host and break on purpose."""
