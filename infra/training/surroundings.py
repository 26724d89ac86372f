"""What the pipeline of a task refers to outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.training.references import EXECUTION_ID, Reference, join

EVALUATION_FILE = "evaluation.json"
"""The figures by which a model is judged. Beside it: report.html, model-card.json and pictures."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Values may be tokens of the CDK."""

    training_image: str
    inference_image: str
    trainer_role_arn: str
    evaluator_role_arn: str
    key_arn: str
    network: Mapping[str, Sequence[str]]
    """Subnets and security groups of the jobs, as SageMaker's VpcConfig."""
    model_package_group_name: str
    training_uri: str
    """`s3://` URI below which training puts models."""
    checkpoint_uri: str
    """`s3://` URI below which each run keeps the checkpoints of its training; ends with a slash."""
    evaluation_uri: str
    """`s3://` URI below which each execution puts its evaluation; ends with a slash."""

    @property
    def evaluation_folder(self) -> Reference:
        """Where the execution's evaluation goes."""
        return join(self.evaluation_uri, EXECUTION_ID)

    def in_evaluation(self, file: str) -> Reference:
        """A file of the execution's evaluation."""
        return join(self.evaluation_folder, f"/{file}")
