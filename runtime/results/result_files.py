"""Copies of results as files in S3, for readers that do not speak DICOMweb."""

from __future__ import annotations

import io
from typing import Any

from pydicom import Dataset

from runtime.results.identity import ResultIdentity
from runtime.settings import S3Prefix

_DICOM = "application/dicom"


class ResultFiles:
    """Puts files below a prefix, by names that follow from the result's identity: the same result twice is
    the same file."""

    def __init__(self, client: Any, *, prefix: S3Prefix) -> None:
        """``client`` is boto3's ``s3`` client."""
        self._client = client
        self._prefix = prefix

    def put_dicom(self, *, identity: ResultIdentity, dataset: Dataset) -> str:
        """Write an object as a DICOM file (PS3.10) and return its ``s3://`` address."""
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return self.put(
            identity=identity,
            name=f"{dataset.SeriesInstanceUID}.dcm",
            content=buffer.getvalue(),
            content_type=_DICOM,
        )

    def put(self, *, identity: ResultIdentity, name: str, content: bytes, content_type: str) -> str:
        """Write a file of a result and return its ``s3://`` address."""
        path = f"{identity.image_set_id}/{identity.version_id}/{name}"
        key = f"{self._prefix.key}/{path}" if self._prefix.key else path
        self._client.put_object(Bucket=self._prefix.bucket, Key=key, Body=content, ContentType=content_type)
        return f"s3://{self._prefix.bucket}/{key}"
