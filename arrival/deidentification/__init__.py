"""De-identification before import (DICOM PS3.15 annex E)."""
