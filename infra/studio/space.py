"""What everyone needs who works in SageMaker Studio: a private space, and in it one JupyterLab server."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from infra.assets.toolkit import ToolkitAsset
from infra.permissions import lend_key_to_volumes, use_key
from infra.service_logs import ServiceLogGroup
from infra.workload import allow

# Studio fills these in for the person who asks: one role for a persona, and yet nobody reaches another's
# space (https://docs.aws.amazon.com/sagemaker/latest/dg/studio-updated-jl-admin-guide-permissions.html).
_DOMAIN = "${sagemaker:DomainId}"
_ME = "${sagemaker:DomainId}/${sagemaker:UserProfileName}"


def use_studio(
    stack: cdk.Stack, *, key: kms.IKey, toolkit: ToolkitAsset, log_group: ServiceLogGroup
) -> list[iam.PolicyStatement]:
    """Make a private space of one's own, start and stop JupyterLab in it, and use the toolkit.

    No shared spaces, no other applications: those are the types that the statements leave out. Only AWS
    itself misses all of this but reading the toolkit: the local cloud has no Studio.
    """

    def arn(resource: str, name: str) -> str:
        return stack.format_arn(service="sagemaker", resource=resource, resource_name=name)

    me = arn("user-profile", _ME)
    spaces = arn("space", f"{_DOMAIN}/*")
    # AWS writes the type of an application in both ways.
    servers = [arn("app", f"{_DOMAIN}/*/{type}/*") for type in ("JupyterLab", "jupyterlab")]
    mine = {
        "ArnLike": {"sagemaker:OwnerUserProfileArn": me},
        "StringEquals": {"sagemaker:SpaceSharingType": "Private"},
    }
    return [
        allow(
            "sagemaker:CreateSpace", "sagemaker:DeleteSpace", "sagemaker:UpdateSpace", on=[spaces], when=mine
        ),
        allow("sagemaker:CreateApp", "sagemaker:DeleteApp", on=servers, when=mine),
        # Studio tags what it makes; nothing that exists can be tagged.
        allow(
            "sagemaker:AddTags", on=[spaces, *servers], when={"Null": {"sagemaker:TaggingAction": "false"}}
        ),
        allow("sagemaker:CreatePresignedDomainUrl", "sagemaker:DescribeUserProfile", on=[me]),
        allow("sagemaker:DescribeDomain", on=[arn("domain", _DOMAIN)]),
        allow("sagemaker:DescribeApp", "sagemaker:DescribeSpace", on=[spaces, *servers]),
        # Names only, and IAM knows no resources for them.
        allow(
            "sagemaker:ListApps",
            "sagemaker:ListDomains",
            "sagemaker:ListSpaces",
            "sagemaker:ListUserProfiles",
            on=["*"],
        ),
        # What the server and its start script print.
        allow("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents", on=[log_group.arn]),
        allow("s3:GetObject", on=[toolkit.arn]),
        # The home folder is a volume under the platform's key.
        use_key(key),
        lend_key_to_volumes(key),
    ]
