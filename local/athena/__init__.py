"""Athena of the local cloud: Trino SQL, translated by sqlglot, run by DuckDB over Glue tables in S3."""

from __future__ import annotations

from local.athena.engine import install

__all__ = ["install"]
