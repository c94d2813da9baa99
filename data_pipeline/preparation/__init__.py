"""From text to token shards: in parts, by several processes, surviving a kill."""
