"""What is measured of a run at intervals, on all ranks alike: it goes to details.jsonl and samples.jsonl."""
