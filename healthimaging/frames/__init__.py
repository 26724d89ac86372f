"""Frames: requested, decoded, verified.

Nothing is imported here: `healthimaging.client` needs the transport without the decoders.
"""
