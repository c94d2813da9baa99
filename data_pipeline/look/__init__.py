"""Looking at data and changing nothing: one sample, a stretch of them, the shards."""
