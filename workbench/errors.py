"""The failures that a person sees: what went wrong, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence


class WorkbenchError(Exception):
    """A piece of work could not be done.

    `advice` is one sentence that says what to do next; `details` are further lines (a log tail, stack events)
    that belong under the message and not in it. Neither carries patient attributes: UIDs and file names only.
    """

    def __init__(self, message: str, *, advice: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.details = tuple(details)

    def to_json(self) -> dict[str, object]:
        """The error as the `--json` output and a demo's summary name it."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "advice": self.advice,
            "details": list(self.details),
        }


class EnvironmentInvalid(WorkbenchError):
    """The environment file is missing or lacks what the workbench needs."""


class NotDeployed(WorkbenchError):
    """A stack, or an output of it, does not exist in the account."""


class ProgramFailed(WorkbenchError):
    """A program that the workbench runs (the CDK CLI, the local cloud) ended with a failure."""


class ImportFailed(WorkbenchError):
    """An import job ended without a readable result."""


class QueryFailed(WorkbenchError):
    """Athena did not run a query to its end."""


class DatasetInvalid(WorkbenchError):
    """The rows of a query do not make a dataset that one could train on."""


class BundleUnusable(WorkbenchError):
    """A folder is not a MONAI bundle that could be packed and trained."""


class TrainingFailed(WorkbenchError):
    """A pipeline execution ended without a registered model package."""


class DeploymentFailed(WorkbenchError):
    """CloudFormation could not put the approved model into service."""


class PredictionFailed(WorkbenchError):
    """An endpoint answered a request with an error, or not in time."""
