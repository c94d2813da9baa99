"""The model beside SwissArmyTransformer's GLM130B (benchmarks/swissarmy.py): two processes, the same weights and rows."""
