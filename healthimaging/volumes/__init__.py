"""Volumes: where slices lie, which of them belong together, and one array on a validated grid."""
