"""What comes in: DICOM from files and from the PACS, de-identified where asked for, imported.

Imports the connector and no other package. `monai-aws ingest` and `monai-aws receive` drive it, and so does
the receiver's container (`python -m arrival`).
"""
