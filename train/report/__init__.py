"""A run's curves as one page: python -m train.report runs/default."""
