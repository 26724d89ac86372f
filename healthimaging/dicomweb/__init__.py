"""DICOMweb on a HealthImaging datastore."""
