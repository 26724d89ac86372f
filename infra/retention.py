"""What becomes of resources that are kept, when they never came into use."""

from __future__ import annotations

import aws_cdk as cdk


def unless_creation_fails(policy: cdk.RemovalPolicy) -> cdk.RemovalPolicy:
    """The policy for a resource whose name is fixed and which is empty when it is made.

    `RETAIN` also keeps what a deployment made that then failed and was rolled back. Nothing is in it, and the
    next attempt fails, because its name is taken. CloudFormation's `RetainExceptOnCreate` deletes it in this
    one case (https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html).

    Not for buckets, keys and the data store: they have no fixed names, and whoever deletes them shall have
    looked first.
    """
    return cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if policy == cdk.RemovalPolicy.RETAIN else policy
