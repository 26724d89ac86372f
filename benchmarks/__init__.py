"""What `make bench` measures: one module a benchmark, each a function `run` that answers a `Report`."""
