"""Iceberg tables of Glue: made, read and changed by PyIceberg over the local S3."""

from __future__ import annotations
