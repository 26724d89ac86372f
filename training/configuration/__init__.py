"""MONAI bundles under the platform: read, overlaid, built."""
