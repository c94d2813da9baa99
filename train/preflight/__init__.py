"""Check each node before it joins a run:  srun python -m launch preflight [overrides] [--exclude-file FILE]

Every rank measures itself and publishes the result in the launcher's key-value store, so that a node that hangs is named
instead of blocking the others. Once all ranks have answered, they all-reduce tensors over the network, in pairs of nodes:
a slow node is slow with both its neighbours, and a node that is cut off reaches neither. `judge.py` compares the nodes;
rank 0 prints the table.
"""
