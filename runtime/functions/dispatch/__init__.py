"""Sends arriving image sets to the endpoints that the environment's rules name."""
