"""Which source each sample comes from, with weights that change along the stream."""
