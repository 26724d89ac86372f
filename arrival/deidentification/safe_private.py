"""Private elements that PS3.15 Table E.3.10-1 lists as safe, as far as they are numbers that training needs.

Text is not kept even where the table lists it: what a vendor writes into it cannot be checked here.
"""

from __future__ import annotations

NUMERIC = frozenset({"DS", "IS", "FD", "FL", "SS", "US", "SL", "UL"})
"""VRs whose values are numbers."""

SAFE_PRIVATE: frozenset[tuple[str, int, int]] = frozenset(
    {
        # Diffusion weighting: without it a DWI series is just noise.
        ("SIEMENS MR HEADER", 0x0019, 0x0C),  # B value
        ("SIEMENS MR HEADER", 0x0019, 0x0E),  # diffusion gradient orientation
        ("SIEMENS MR HEADER", 0x0019, 0x27),  # B matrix
        ("Philips Imaging DD 001", 0x2001, 0x03),  # diffusion B factor
        ("GEMS_PARM_01", 0x0043, 0x39),  # first value is the B value
        # PET: standard uptake values cannot be computed without them.
        ("Philips PET Private Group", 0x7053, 0x00),  # SUV factor
        ("Philips PET Private Group", 0x7053, 0x09),  # activity concentration factor
        # CT: geometry and dose of the acquisition.
        ("GEMS_ACQU_01", 0x0019, 0x23),  # table speed
        ("GEMS_ACQU_01", 0x0019, 0x27),  # rotation speed
        ("GEMS_HELIOS_01", 0x0045, 0x01),  # macro rows in the detector
        ("GEMS_HELIOS_01", 0x0045, 0x02),  # macro width at the isocentre, mm
        ("ELSCINT1", 0x00E1, 0x21),  # dose length product
        ("ELSCINT1", 0x01F1, 0x07),  # table velocity
        ("ELSCINT1", 0x01F1, 0x26),  # pitch
        ("ELSCINT1", 0x01F1, 0x27),  # rotation time
    }
)
"""Private creator, group, last byte of the element."""
