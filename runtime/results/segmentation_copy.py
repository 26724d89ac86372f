"""A copy of every segmentation in S3, for readers that do not speak DICOMweb."""

from __future__ import annotations

import io
from typing import Any

from pydicom import Dataset

from runtime.results.identity import ResultIdentity
from runtime.settings import S3Prefix


class SegmentationCopy:
    """Puts DICOM files below a prefix, by names that follow from the result's identity."""

    def __init__(self, client: Any, *, prefix: S3Prefix) -> None:
        """``client`` is boto3's ``s3`` client."""
        self._client = client
        self._prefix = prefix

    def put(self, *, identity: ResultIdentity, dataset: Dataset) -> str:
        """Write the segmentation as a DICOM file (PS3.10) and return its ``s3://`` address."""
        name = f"{identity.image_set_id}/{identity.version_id}/{identity.series_instance_uid}.dcm"
        key = f"{self._prefix.key}/{name}" if self._prefix.key else name
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        self._client.put_object(
            Bucket=self._prefix.bucket, Key=key, Body=buffer.getvalue(), ContentType="application/dicom"
        )
        return f"s3://{self._prefix.bucket}/{key}"
