"""The dashboard of a run in wandb: pages.py says what stands where, workspace.py makes it."""
