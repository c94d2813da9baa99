"""Job scripts and estimates: this package renders, computes and checks; it never trains."""
