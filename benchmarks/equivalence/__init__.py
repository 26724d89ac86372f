"""Every bundle of a model zoo, run by this runtime and by MONAI's own command on the same volume."""
