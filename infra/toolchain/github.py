"""Stack `ENV-github`: lets GitHub Actions deploy one environment, without a key that could be stolen.

Instead of the stack `toolchain`, for those whose deliveries run in GitHub: `.github/workflows/delivery.yml`.
One stack an account, from `cdk deploy -c env=github ENV-github`.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.environment import Delivery, Environment
from infra.promotion.names import github_role_name, role_arn, verification_role_name
from infra.toolchain.image_scan import QUALIFIER
from infra.workload import Workload, allow

_ISSUER = "token.actions.githubusercontent.com"
_AUDIENCE = "sts.amazonaws.com"

_BOOTSTRAP_ROLES = ("deploy", "file-publishing", "image-publishing", "lookup")
"""What the CDK's command line becomes. CloudFormation's own role is handed over by the first of them."""


class GithubAccess(cdk.Stack):
    """GitHub as identity provider of the account, and the one role that a workflow gets there.

    The role belongs to jobs of this repository that run in the GitHub environment of the same name: whoever
    GitHub asks for approval there has approved
    (https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-aws).

    The subject of such a job names no branch. That another branch, with a workflow of its own, gets nothing
    is up to the environment's settings in GitHub: without a deployment branch, whoever may push to the
    repository can deploy. Whose repository cannot have these settings takes the stack `toolchain`.
    """

    def __init__(self, scope: Construct, *, delivery: Delivery, environment: Environment) -> None:
        aws = environment.aws
        super().__init__(
            scope,
            f"{environment.name}-github",
            stack_name=f"monai-{environment.name}-github",
            description="MONAI on AWS: access of GitHub Actions",
            env=cdk.Environment(account=aws.account, region=aws.region),
        )
        # An account has one provider for an issuer. GitHub's certificate needs no thumbprint any more.
        provider = iam.CfnOIDCProvider(self, "Github", url=f"https://{_ISSUER}", client_id_list=[_AUDIENCE])
        become = [
            role_arn(aws.account, f"cdk-{QUALIFIER}-{role}-role-{aws.account}-{aws.region}")
            for role in _BOOTSTRAP_ROLES
        ]
        deployer = Workload(
            self,
            "Deployer",
            name=github_role_name(environment.name),
            description=f"GitHub Actions of {delivery.source.repository}: deploy {environment.name}",
            principal=iam.FederatedPrincipal(
                provider.attr_arn,
                {
                    "StringEquals": {
                        f"{_ISSUER}:aud": _AUDIENCE,
                        f"{_ISSUER}:sub": (
                            f"repo:{delivery.source.repository}:environment:{environment.name}"
                        ),
                    }
                },
                "sts:AssumeRoleWithWebIdentity",
            ),
            statements=[
                allow(
                    "sts:AssumeRole",
                    on=[*become, role_arn(aws.account, verification_role_name(environment.name))],
                )
            ],
        )
        cdk.CfnOutput(self, "DeployerRoleArn", value=deployer.role_arn)
