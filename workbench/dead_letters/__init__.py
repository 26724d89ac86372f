"""What could not be done: listed, sent again, discarded."""
