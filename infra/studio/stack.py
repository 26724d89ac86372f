"""Stack `studio`: where people work, and what each of them may do."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.assets.toolkit import ToolkitAsset
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.environment import Environment, pascal_case
from infra.network.placement import Placement
from infra.service_logs import ServiceLogGroup
from infra.studio.domain import Domain
from infra.studio.lifecycle import StartScript
from infra.studio.personas import PERSONAS, Permissions, Surroundings
from infra.studio.space import use_studio
from infra.workload import Workload, service


class StudioStack(cdk.Stack):
    """The SageMaker domain, its people, and a role for each persona that the environment has."""

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        import_role_arn: str,
        deidentification_secret_arn: str,
        placement: Placement,
    ) -> None:
        super().__init__(
            scope,
            "studio",
            stack_name=f"monai-{environment.name}-studio",
            description="MONAI on AWS: SageMaker Studio, personas",
            termination_protection=environment.protection.termination_protection,
        )
        toolkit = ToolkitAsset(self, "Toolkit")
        log_group = ServiceLogGroup(
            self,
            "Logs",
            name="/aws/sagemaker/studio",
            key=key,
            retention_days=environment.logs.retention_days,
            removal_policy=(
                cdk.RemovalPolicy.RETAIN if environment.protection.retain_data else cdk.RemovalPolicy.DESTROY
            ),
        )
        basics = use_studio(self, key=key, toolkit=toolkit, log_group=log_group)
        around = Surroundings(
            stack=self,
            environment=environment,
            archive=archive,
            buckets=buckets,
            import_role_arn=import_role_arn,
            deidentification_secret_arn=deidentification_secret_arn,
        )
        present = {user.persona for user in environment.studio.users}
        personas = {
            persona: self._role(
                pascal_case(persona),
                description=f"Studio, {persona}: {(permissions.__doc__ or '').splitlines()[0]}",
                statements=basics,
                topics=permissions(around),
            )
            for persona, permissions in PERSONAS.items()
            if persona in present
        }
        newcomer = self._role(
            "Newcomer",
            description="Studio, a profile that no environment file names: a space, and no data",
            statements=basics,
            topics={},
        )
        script = StartScript(
            self, "Start", environment=environment.name, region=environment.aws.region, toolkit=toolkit
        )
        domain = Domain(
            self,
            "Studio",
            environment=environment,
            placement=placement,
            key=key,
            newcomer=newcomer,
            personas=personas,
            start_script_arn=script.arn,
        )
        cdk.CfnOutput(self, "DomainId", value=domain.domain_id)
        cdk.CfnOutput(self, "DomainUrl", value=domain.url)
        for persona, workload in personas.items():
            cdk.CfnOutput(self, f"{pascal_case(persona)}RoleArn", value=workload.role_arn)

    def _role(
        self,
        id: str,
        *,
        description: str,
        statements: list[iam.PolicyStatement],
        topics: Permissions,
    ) -> Workload:
        principal = service("sagemaker.amazonaws.com", account=self.account)
        workload = Workload(
            self, id, description=description, principal=principal, statements=statements, topics=topics
        )
        role = workload.node.find_child("Role")
        if not isinstance(role, iam.Role) or role.assume_role_policy is None:
            raise TypeError(f"{workload.node.path} has no role with a trust policy")
        # The domain signs each session with the name of the profile (execution_role_identity_config).
        role.assume_role_policy.add_statements(
            iam.PolicyStatement(
                actions=["sts:SetSourceIdentity"],
                principals=[principal],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        return workload
