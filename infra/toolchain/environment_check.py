"""The integration test of a deployment: `python -m infra.toolchain.environment_check staging`.

Looks whether what the environment file describes is there and answers: the stacks, the data store, each
pipeline, each endpoint that has a model, and a query through the workgroup. Ends with 1 and a line for each
thing that is not so. Runs as the environment's verification role, which can look and nothing else
(infra/promotion/verification.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from infra.environment import BatchTransform, Environment, load_environment
from infra.promotion.names import role_arn, verification_role_name

STACKS = ("data", "network", "catalog", "training", "inference", "studio", "promotion")
"""Without them an environment does not work."""

RECEIVER_STACK = "arrival"
"""Of environments that have a receiver."""

PROTECTED = ("data", "studio")
"""Nobody deletes them by mistake, where the environment file says so. `cdk deploy` sees to that itself,
CodePipeline cannot (https://github.com/aws/aws-cdk/issues/17871): after its first deployment a person does.
"""

_DONE = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
_QUERY_SECONDS = 120.0

Client = Callable[[str], Any]


class CheckError(Exception):
    """Something is not as it should be."""


def stacks_of(environment: Environment) -> tuple[str, ...]:
    """The stacks that the environment has to have."""
    return (*STACKS, RECEIVER_STACK) if environment.arrival.receiver else STACKS


def check(
    environment: Environment, *, client: Client, stacks: tuple[str, ...] | None = None
) -> Iterator[str]:
    """What holds, a line each.

    Args:
        environment: As its file says.
        client: Makes clients.
        stacks: Which ones to look at; None: all of the environment.

    Raises:
        CheckError: Something that does not, and where to look.
    """
    prefix = f"monai-{environment.name}"
    outputs: dict[str, str] = {}
    for name in stacks_of(environment) if stacks is None else stacks:
        protected = environment.protection.termination_protection and name in PROTECTED
        outputs |= _stack(client("cloudformation"), f"{prefix}-{name}", protected=protected)
        yield f"stack {prefix}-{name} is complete"
    yield _datastore(client("medical-imaging"), outputs["DatastoreId"])
    for task in environment.training.tasks:
        yield _pipeline(client("sagemaker"), f"{prefix}-{task.name}")
    for endpoint in environment.inference.endpoints:
        if not isinstance(endpoint, BatchTransform):
            yield _endpoint(client("sagemaker"), endpoint.endpoint_name(environment.name))
    yield _query(client("athena"), prefix)


def _stack(cloudformation: Any, name: str, *, protected: bool) -> dict[str, str]:
    stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    if stack["StackStatus"] not in _DONE:
        raise CheckError(f"stack {name} is {stack['StackStatus']}: look at its events")
    if protected and not stack.get("EnableTerminationProtection"):
        raise CheckError(
            f"stack {name} can be deleted: aws cloudformation update-termination-protection "
            f"--enable-termination-protection --stack-name {name}"
        )
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def _datastore(medical_imaging: Any, datastore_id: str) -> str:
    status = medical_imaging.get_datastore(datastoreId=datastore_id)["datastoreProperties"]["datastoreStatus"]
    if status != "ACTIVE":
        raise CheckError(f"data store {datastore_id} is {status}")
    return "the data store is active"


def _pipeline(sagemaker: Any, name: str) -> str:
    status = sagemaker.describe_pipeline(PipelineName=name)["PipelineStatus"]
    if status != "Active":
        raise CheckError(f"pipeline {name} is {status}")
    return f"pipeline {name} is active"


def _endpoint(sagemaker: Any, name: str) -> str:
    try:
        status = sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
    except ClientError as error:
        # SageMaker calls an endpoint that is not there a ValidationException. It comes with the first model.
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return f"endpoint {name} waits for an approved model"
    if status != "InService":
        raise CheckError(f"endpoint {name} is {status}: look at its log group")
    return f"endpoint {name} is in service"


def _query(athena: Any, workgroup: str) -> str:
    """The workgroup, its engine, and that it may write results. Reads no table: those are of patients."""
    execution = athena.start_query_execution(QueryString="SELECT 1", WorkGroup=workgroup)["QueryExecutionId"]
    deadline = time.monotonic() + _QUERY_SECONDS
    while True:
        answer = athena.get_query_execution(QueryExecutionId=execution)["QueryExecution"]["Status"]
        if answer["State"] == "SUCCEEDED":
            return f"workgroup {workgroup} answers"
        if answer["State"] in ("FAILED", "CANCELLED") or time.monotonic() >= deadline:
            reason = answer.get("StateChangeReason", "no reason given")
            raise CheckError(f"workgroup {workgroup}: the query is {answer['State']}: {reason}")
        time.sleep(1)


def _client(environment: Environment) -> Client:
    """Clients with the permissions of the environment's verification role."""
    import boto3

    role = role_arn(environment.aws.account, verification_role_name(environment.name))
    session = boto3.Session(region_name=environment.aws.region)
    credentials = session.client("sts").assume_role(RoleArn=role, RoleSessionName="environment-check")[
        "Credentials"
    ]
    verifier = boto3.Session(
        region_name=environment.aws.region,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )
    return lambda service: verifier.client(service)  # type: ignore[call-overload]  # any service's name


def main(arguments: list[str] | None = None) -> int:
    """Check the environment; 0 if all of it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("environment")
    environment = load_environment(parser.parse_args(arguments).environment)
    try:
        for line in check(environment, client=_client(environment)):
            print(line)
    except (CheckError, ClientError) as error:
        print(f"{environment.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
