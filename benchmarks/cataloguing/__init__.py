"""Parts of the benchmark `catalog`."""
