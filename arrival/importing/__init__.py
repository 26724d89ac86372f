"""Import jobs of HealthImaging: starting them, waiting for them, and what they say became of every file."""
