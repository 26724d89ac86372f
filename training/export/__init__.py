"""The model archive that the runtime serves, and where it comes from."""
