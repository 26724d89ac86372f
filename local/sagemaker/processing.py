"""Processing jobs.

Source: docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.containers.process import SAGEMAKER_BASE
from local.sagemaker.errors import unsupported, validation
from local.sagemaker.foundation import Foundation, refuse
from local.sagemaker.job_life import JobKind, JobLife
from local.sagemaker.processing_run import ProcessingRun
from local.sagemaker.s3 import split
from local.service import Call, Handler

_REFUSED = ("NetworkConfig.EnableNetworkIsolation", "ExperimentConfig")
_DEFAULT_MAX_RUNTIME = 86_400


class ProcessingJobs:
    """CreateProcessingJob and its kin."""

    def __init__(self, foundation: Foundation) -> None:
        self._foundation = foundation
        self._life = JobLife(
            foundation,
            JobKind(noun="Processing", summary=("FailureReason", "ExitMessage"), shows_modification=True),
            lambda document, folder, stop: ProcessingRun(
                foundation, document=document, folder=folder, stop=stop
            ),
        )

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return self._life.handlers(self.create)

    def create(self, call: Call) -> Mapping[str, Any]:
        """Check the request and start the job."""
        params = call.params
        _check(params)
        self._foundation.take_role(call, params["RoleArn"])
        condition = params.get("StoppingCondition", {"MaxRuntimeInSeconds": _DEFAULT_MAX_RUNTIME})
        return self._life.begin(call, StoppingCondition=condition)

    def fail_interrupted(self) -> None:
        """Jobs that ran when the cloud was killed are failed with the reason."""
        self._life.fail_interrupted()

    def join(self, seconds: float) -> None:
        """Wait for the threads at the end of the cloud."""
        self._life.join(seconds)


def _check(params: Mapping[str, Any]) -> None:
    refuse(params, _REFUSED)
    if params["ProcessingResources"]["ClusterConfig"].get("InstanceCount", 1) != 1:
        raise unsupported("ProcessingResources.ClusterConfig.InstanceCount > 1 (several hosts)")
    for entry in params.get("ProcessingInputs", []):
        label = f"(input {entry['InputName']!r})"
        refuse(entry, ("AppManaged",))
        source = entry.get("S3Input")
        if source is None:
            raise unsupported(f"an input other than S3Input {label}")
        if source.get("S3DataType", "S3Prefix") != "S3Prefix" or source.get("S3InputMode", "File") != "File":
            raise unsupported(f"S3DataType or S3InputMode other than S3Prefix and File {label}")
        if source.get("S3CompressionType", "None") != "None":
            raise unsupported(f"S3CompressionType {label}")
        split(source["S3Uri"])
        _check_path(source.get("LocalPath"), label)
    for entry in params.get("ProcessingOutputConfig", {}).get("Outputs", []):
        label = f"(output {entry['OutputName']!r})"
        refuse(entry, ("AppManaged", "FeatureStoreOutput"))
        target = entry.get("S3Output")
        if target is None:
            raise unsupported(f"an output other than S3Output {label}")
        split(target["S3Uri"])
        _check_path(target.get("LocalPath"), label)


def _check_path(path: str | None, label: str) -> None:
    if path is None or not path.startswith(f"{SAGEMAKER_BASE}/processing/") or ".." in path.split("/"):
        raise validation(f"LocalPath must be below {SAGEMAKER_BASE}/processing/, got {path!r} {label}.")
