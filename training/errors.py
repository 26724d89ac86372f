"""Every error that a training or evaluation job reports on purpose.

Their texts become the job's failure reason, which anyone who may describe the job can read: they carry
identifiers of image sets and technical values, never names, patient IDs or dates.
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of the errors whose text is meant for the person who started the job."""


class JobConfigurationError(TrainingError):
    """The job's hyperparameters, channels or resources cannot be used; all problems are listed at once."""


class DataError(TrainingError):
    """The manifest, or image sets that it names, cannot be trained on."""


class BundleError(TrainingError):
    """The bundle lacks something that training or evaluation needs."""


class CheckpointError(TrainingError):
    """The checkpoints found belong to another training, or none of them can be read."""


class DivergenceError(TrainingError):
    """The loss or the validation's key metric is not a number any more."""


class ExportError(TrainingError):
    """The trained network cannot be turned into a servable model."""


class EvaluationError(TrainingError):
    """The model cannot be evaluated, or the result would be no number."""


class RankError(TrainingError):
    """A rank of the training ended without saying why, most likely for lack of memory, or is out of reach."""


class BaselineError(TrainingError):
    """The approved model, with which a new one is to be compared, cannot be found, verified or measured."""
