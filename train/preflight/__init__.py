"""What a node must show before it may join a run:  srun python -m launch preflight [overrides] [--exclude-file FILE]

Every rank measures itself and publishes the result in the launcher's key-value store, so a node that hangs is named
instead of waited for. Only when all have answered do they sum tensors over the network, in pairs of nodes: a slow one is
slow with both its neighbours, and one that is cut off reaches neither (`links.py`). `judge.py` compares the nodes; rank 0
prints the table.
"""
