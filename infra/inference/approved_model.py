"""A model that comes from an approved package, and exists only while there is one."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.data.buckets import SEGMENTATIONS
from infra.inference.surroundings import Surroundings
from infra.workload import Workload


class ApprovedModel(Construct):
    """The model package that is given at deployment, as a SageMaker model.

    The package is a parameter of the stack, so that approving a model changes a parameter and not a template.
    Without a package there is no model, nor anything that depends on one.

    The containers are in the network, and are not isolated from it (EnableNetworkIsolation): an isolated
    container has no credentials and reaches nothing, and this one reads frames from HealthImaging and stores
    segmentations there itself. What it can reach is limited by subnets without a way out, by the policies of
    the services' endpoints and by its role.

    Has no name: each of its properties is create-only, so a new package is a new model.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        endpoint: str,
        serves: str,
        container: Workload,
        surroundings: Surroundings,
        environment: dict[str, str] | None = None,
        inside_network: bool = True,
    ) -> None:
        """
        Args:
            scope: Parent.
            id: Id in it.
            name: Begins the names of the parameter and the condition.
            endpoint: Name in the environment file, under which the container counts its metrics.
            serves: What runs the package, for the parameter's description.
            container: The role that the container runs as.
            surroundings: The rest of the platform.
            environment: Variables of the container besides those that every mode has.
            inside_network: False for serverless endpoints, which cannot be.
        """
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        package = cdk.CfnParameter(
            stack,
            f"{name}ModelPackageArn",
            type="String",
            default="",
            allowed_pattern=r"^$|^arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/.+$",
            description=f"Approved model package that {serves} serves; empty: none",
        )
        self.package_arn = package.value_as_string
        """The package, at deployment an empty string where there is none."""
        self.deployed = cdk.CfnCondition(
            stack,
            f"{name}Deployed",
            expression=cdk.Fn.condition_not(cdk.Fn.condition_equals(package.value_as_string, "")),
        )
        self._model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=container.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                model_package_name=package.value_as_string,
                environment=container_environment(surroundings, endpoint=endpoint) | (environment or {}),
            ),
            enable_network_isolation=False,
            vpc_config=surroundings.placement.of_model() if inside_network else None,
        )
        self._model.node.add_dependency(container.policy)
        self._model.cfn_options.condition = self.deployed

    @property
    def model_name(self) -> str:
        return self._model.attr_model_name


def container_environment(surroundings: Surroundings, *, endpoint: str) -> dict[str, str]:
    """Variables that the inference container has in every mode (runtime/settings.py)."""
    results = surroundings.buckets.results
    (served,) = (one for one in surroundings.environment.inference.endpoints if one.name == endpoint)
    variables = {
        "RUNTIME_ENDPOINT_NAME": endpoint,
        "RUNTIME_SEGMENTATION_S3_URI": results.s3_url_for_object(SEGMENTATIONS),
    }
    if served.outputs:
        variables["RUNTIME_OUTPUTS"] = ",".join(served.outputs)
    return variables
