"""De-identification before import: DICOM PS3.15 Annex E, the Basic Application Level Confidentiality Profile
with options, driven by a library's copy of the standard's Table E.1-1. What, why and what not:
docs/deidentification.md.
"""

from __future__ import annotations

import logging
import warnings

# pydicom warns about malformed values by quoting them, once as a warning and once in its log: names,
# identifiers and dates of patients would reach standard error, and from there the log of the container.
logging.getLogger("pydicom").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
