"""Job scripts and estimates: renders, computes and checks, never trains."""
