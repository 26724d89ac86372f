"""AWS HealthImaging (botocore's "medical-imaging") and its DICOMweb interface, on one machine."""

from local.healthimaging.service import HealthImagingService

__all__ = ["HealthImagingService"]
