"""The UIDs of a result, derived from what was computed instead of drawn at random.

The same image set version (of several series: the same one) given to the same model has the same
SeriesInstanceUID and SOPInstanceUID for each object that is made of it, wherever and whenever it is computed:
a repeated request finds the stored objects instead of adding others.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

_NAMESPACE = uuid.UUID("0d6c5c0e-3b0a-5a3e-9a55-6a9a2c0f6f0b")
"""Namespace of this platform's results (RFC 9562, section 5.5). Changing it orphans every stored result."""


@dataclass(frozen=True, kw_only=True)
class InstanceIdentity:
    """UIDs of one stored object: each is alone in its series."""

    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class ResultIdentity:
    """DICOM identity of what one model makes of one image set version.

    The UIDs have the form ``2.25.<UUID as a decimal integer>`` (DICOM PS3.5, B.2), at most 44 characters.
    """

    image_set_id: str
    version_id: str
    model_fingerprint: str
    source_series: str | None = None
    """SeriesInstanceUID of what was looked at, where the image set holds several series: other rules choose
    another, whose result is another. None where there is nothing to choose."""

    @property
    def series_instance_uid(self) -> str:
        """Of the segmentation."""
        return self._uid("series")

    @property
    def sop_instance_uid(self) -> str:
        """Of the segmentation."""
        return self._uid("instance")

    @property
    def segmentation(self) -> InstanceIdentity:
        return InstanceIdentity(
            series_instance_uid=self.series_instance_uid, sop_instance_uid=self.sop_instance_uid
        )

    def report(self, kind: str) -> InstanceIdentity:
        """Identity of a report; ``kind`` as in the answer (`runtime.results.outputs`)."""
        return InstanceIdentity(
            series_instance_uid=self._uid(f"{kind}/series"), sop_instance_uid=self._uid(f"{kind}/instance")
        )

    def tracking_uid(self, number: int) -> str:
        """Tracking Unique Identifier (112040, DCM) of what segment or class ``number`` is."""
        return self._uid(f"tracking/{number}")

    @property
    def device_uid(self) -> str:
        """Device Observer UID (121012, DCM): the model, whatever it looked at."""
        return _uid(f"device/{self.model_fingerprint}")

    def _uid(self, level: str) -> str:
        source = () if self.source_series is None else (self.source_series,)
        return _uid("/".join((self.image_set_id, self.version_id, *source, self.model_fingerprint, level)))


def _uid(name: str) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
