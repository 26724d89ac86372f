"""Rules of our own, for controls that neither AwsSolutions nor HIPAA.Security looks at.

They are written for CloudFormation Guard (https://github.com/aws-cloudformation/cloudformation-guard) and run
in the CDK's own validator, beside its rules of CloudFormation: every synthesis passes them or fails. A rule
that is not passed names itself, the resource, what to do, and the paragraph of the HIPAA Security Rule
(45 CFR 164) that asks for it.

An exception is an entry of `infra/acknowledgements.py`: one resource, `CloudFormation-Validate::` with the
rule's name, and a reason. The rules themselves know none.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import aws_cdk as cdk

FOLDER = Path(__file__).parent


def rule_files() -> list[Path]:
    """The files of the rules, by subject."""
    return sorted(FOLDER.glob("*.guard"))


@cache
def template_rules() -> cdk.CloudFormationValidatePlugin:
    """The CDK's validator with these rules beside its own.

    One for a process: compiling its rules takes a second, using them some milliseconds a template.
    """
    return cdk.CloudFormationValidatePlugin(
        guard_rules=[
            cdk.ValidationRuleSource(name=path.name, content=path.read_text(encoding="utf-8"))
            for path in rule_files()
        ]
    )
