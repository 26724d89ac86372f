"""Keeps what a stack's parameters say over a delivery: `python -m infra.toolchain.stack_parameters staging`.

Which model an endpoint runs is a parameter of the stack `inference`, so that approving a model changes no
template. `cdk deploy` keeps the values of parameters that it is not given; CodePipeline's CloudFormation
action has no such option and takes the template's defaults
(https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1789), which would delete every
endpoint. So this writes the values that the stack has now as the action's template configuration
(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/continuous-delivery-codepipeline-cfn-artifacts.html).

Runs before the environment's first deployment, too, so it looks as the CDK's lookup role, narrowed to what it
asks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from infra.environment import Environment, load_environment
from infra.toolchain.image_scan import lookup_role_arn

OUTPUT = "build/parameters"
CONFIGURATION = "inference.json"
"""Name of the file below the output folder."""


def inference_stack(environment: str) -> str:
    """Name of the stack whose parameters are kept: the others have none."""
    return f"monai-{environment}-inference"


def declared(assembly: Path, *, environment: str) -> set[str]:
    """Parameters of the template that is about to be deployed, without those that CloudFormation looks up."""
    folder = assembly / f"assembly-{environment}"
    artifacts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["artifacts"]
    (file,) = (
        artifact["properties"]["templateFile"]
        for artifact in artifacts.values()
        if artifact["type"] == "aws:cloudformation:stack"
        and artifact["properties"].get("stackName") == inference_stack(environment)
    )
    parameters = json.loads((folder / file).read_text(encoding="utf-8")).get("Parameters", {})
    return {name for name, one in parameters.items() if not one["Type"].startswith("AWS::SSM::")}


def current(cloudformation: Any, *, stack: str) -> dict[str, str]:
    """Parameters that the stack has now; none if there is no stack yet."""
    try:
        (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(error):
            return {}
        raise
    return {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", [])}


def configuration(values: dict[str, str], *, wanted: set[str]) -> dict[str, dict[str, str]]:
    """The template configuration. CloudFormation refuses values of parameters that the template lacks."""
    return {"Parameters": {name: value for name, value in sorted(values.items()) if name in wanted}}


def _client(environment: Environment) -> Any:
    """A client that may look at this one stack and nothing else."""
    import boto3

    aws = environment.aws
    stack = f"arn:aws:cloudformation:{aws.region}:{aws.account}:stack/{inference_stack(environment.name)}/*"
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": stack}],
    }
    credentials = boto3.client("sts").assume_role(
        RoleArn=lookup_role_arn(aws.account, aws.region),
        RoleSessionName="stack-parameters",
        Policy=json.dumps(policy),
    )["Credentials"]
    return boto3.client(
        "cloudformation",
        region_name=aws.region,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )


def main(arguments: list[str] | None = None, *, client: Any = None) -> int:
    """Write the template configuration of an environment's stack `inference`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("environment")
    parser.add_argument("--assembly", type=Path, default=Path("cdk.out"))
    parser.add_argument("--output", type=Path, default=Path(OUTPUT))
    options = parser.parse_args(arguments)
    environment = load_environment(options.environment)
    wanted = declared(options.assembly, environment=environment.name)
    cloudformation = client or _client(environment)
    kept = configuration(current(cloudformation, stack=inference_stack(environment.name)), wanted=wanted)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / CONFIGURATION).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    for name, value in kept["Parameters"].items():
        print(f"{name}: {value or '(empty)'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
