"""The DICOM receiver: C-STORE from the PACS, durable in S3 before it is acknowledged, imported by study."""
