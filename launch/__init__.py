"""Scripts and estimates on paper: renders, computes and checks, never trains."""
