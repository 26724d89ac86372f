"""What the functions that follow the archive know of image sets: their events, their latest version."""
