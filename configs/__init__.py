"""What a run is: typed configuration, its checks and what follows from it by arithmetic."""
