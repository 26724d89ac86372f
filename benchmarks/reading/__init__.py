"""Reading one image set with different clients, each in a process of its own, at a chosen latency."""
