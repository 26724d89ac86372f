"""The UIDs of a result, derived from what was computed instead of drawn at random.

The same image set version segmented by the same model has the same SeriesInstanceUID and SOPInstanceUID,
wherever and whenever it is computed: a repeated request finds the stored result instead of adding one.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

_NAMESPACE = uuid.UUID("0d6c5c0e-3b0a-5a3e-9a55-6a9a2c0f6f0b")
"""Namespace of this platform's results (RFC 9562, section 5.5). Changing it orphans every stored result."""


@dataclass(frozen=True, kw_only=True)
class ResultIdentity:
    """DICOM identity of the segmentation of one image set version by one model.

    The UIDs have the form ``2.25.<UUID as a decimal integer>`` (DICOM PS3.5, B.2), at most 44 characters.
    """

    image_set_id: str
    version_id: str
    model_fingerprint: str

    @property
    def series_instance_uid(self) -> str:
        return self._uid("series")

    @property
    def sop_instance_uid(self) -> str:
        return self._uid("instance")

    def _uid(self, level: str) -> str:
        name = "/".join((self.image_set_id, self.version_id, self.model_fingerprint, level))
        return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
