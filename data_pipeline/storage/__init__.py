"""Token shards on disk: writing, reading, checking and copying them."""
