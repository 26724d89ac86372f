"""Mode `real-time`: answers while the caller waits, on machines in several zones."""

from __future__ import annotations

from constructs import Construct

from infra.data.buckets import PROMOTED, TRAINING
from infra.environment import RealTimeEndpoint
from infra.inference.approved_model import ApprovedModel
from infra.inference.container_role import ContainerRole
from infra.inference.on_request import logs_and_alarms, serve
from infra.inference.surroundings import Surroundings


class RealTime(Construct):
    """The endpoint `endpoint` of the environment file, for the model package given at deployment.

    SageMaker spreads two or more machines over the zones of the model's subnets
    (https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-best-practices.html): with
    `minimum_instances` of two, the loss of a zone leaves one that answers.
    """

    def __init__(
        self, scope: Construct, id: str, *, endpoint: RealTimeEndpoint, surroundings: Surroundings
    ) -> None:
        super().__init__(scope, id)
        logs, alarms = logs_and_alarms(self, endpoint, surroundings)
        container = ContainerRole(
            self,
            "Container",
            surroundings=surroundings,
            serves=endpoint.name,
            models=(TRAINING, PROMOTED),
            logs=(logs,),
            metrics=("/aws/sagemaker/Endpoints",),
            guards=alarms,
        )
        model = ApprovedModel(
            self,
            "Approved",
            name=endpoint.logical_name,
            endpoint=endpoint.name,
            serves=endpoint.name,
            container=container,
            surroundings=surroundings,
        )
        self.deployed = model.deployed
        """Holds while a model is deployed."""
        serve(
            self,
            endpoint,
            surroundings=surroundings,
            model_name=model.model_name,
            logs=logs,
            alarms=alarms,
            deployed=self.deployed,
            least_busy=True,
        )
