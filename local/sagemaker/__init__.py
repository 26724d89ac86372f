"""SageMaker on one machine: jobs, the model registry, pipelines and endpoints over `local.containers`."""

from local.sagemaker.runtime import SageMakerRuntimeService
from local.sagemaker.service import SageMakerService

__all__ = ["SageMakerRuntimeService", "SageMakerService"]
