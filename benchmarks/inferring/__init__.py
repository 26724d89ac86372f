"""One request for a segmentation, answered by the runtime and in the workshop's way, and what it takes."""
