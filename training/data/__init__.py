"""Image sets as training items: read, transformed once, kept, sampled."""
