"""The DICOMweb interface of a datastore: STOW-RS, QIDO-RS and WADO-RS (PS3.18; devguide: "Using
DICOMweb")."""
