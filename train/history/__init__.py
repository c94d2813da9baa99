"""What happened to a run, in order and for people: python -m train.history runs/default."""
