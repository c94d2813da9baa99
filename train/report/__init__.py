"""The report of a run, as one page with its curves: python -m train.report runs/default."""
