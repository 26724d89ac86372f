"""Batch transform jobs: every object of an S3 prefix through a model container, answers beside it as `.out`.

Source: docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.sagemaker.errors import unsupported, validation
from local.sagemaker.foundation import Foundation, refuse
from local.sagemaker.job_life import JobKind, JobLife
from local.sagemaker.models import Models
from local.sagemaker.multi_model import MULTI_MODEL
from local.sagemaker.s3 import split
from local.sagemaker.transform_run import TransformRun
from local.service import Call, Handler

_REFUSED = ("DataCaptureConfig", "DataProcessing", "ExperimentConfig")
_LARGEST_MB = 100
"""API_CreateTransformJob: concurrent requests times their size."""


class TransformJobs:
    """CreateTransformJob and its kin."""

    def __init__(self, foundation: Foundation, models: Models) -> None:
        self._models = models
        self._life = JobLife(
            foundation,
            JobKind(noun="Transform", summary=("FailureReason",), shows_modification=False),
            lambda document, folder, stop: TransformRun(
                foundation, document=document, folder=folder, stop=stop
            ),
        )

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return self._life.handlers(self.create)

    def create(self, call: Call) -> Mapping[str, Any]:
        """Check the request and start the job."""
        _check(call.params)
        name = call.params["ModelName"]
        model = self._models.model(name)
        if model["_Container"].get("Mode") == MULTI_MODEL:
            raise validation(f"Model {name} is a multi-model container: no transform job can run it.")
        return self._life.begin(call, _Model=model)

    def fail_interrupted(self) -> None:
        """Jobs that ran when the cloud was killed are failed with the reason."""
        self._life.fail_interrupted()

    def join(self, seconds: float) -> None:
        """Wait for the threads at the end of the cloud."""
        self._life.join(seconds)


def _check(params: Mapping[str, Any]) -> None:
    refuse(params, _REFUSED)
    if params["TransformResources"]["InstanceCount"] != 1:
        raise unsupported("TransformResources.InstanceCount > 1 (several hosts)")
    given = params["TransformInput"]
    source = given["DataSource"]["S3DataSource"]
    if source["S3DataType"] != "S3Prefix":
        raise unsupported(f"S3DataType {source['S3DataType']}")
    split(source["S3Uri"])
    if given.get("CompressionType", "None") != "None":
        raise unsupported(f"CompressionType {given['CompressionType']}")
    if given.get("SplitType", "None") not in ("None", "Line"):
        raise unsupported(f"SplitType {given['SplitType']}")
    split(params["TransformOutput"]["S3OutputPath"])
    concurrent = params.get("MaxConcurrentTransforms", 1) or 1
    if concurrent * params.get("MaxPayloadInMB", 0) > _LARGEST_MB:
        raise validation(
            f"MaxConcurrentTransforms * MaxPayloadInMB must be at most {_LARGEST_MB} MB "
            f"({concurrent} * {params['MaxPayloadInMB']})."
        )
