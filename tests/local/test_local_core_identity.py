"""Who may call: signatures, identity policies, trust policies and session policies on our own services."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError
from role_sessions import ACCOUNT, make_role, refused, session


@pytest.fixture(scope="module")
def datastore(cloud) -> str:
    client = cloud.client("medical-imaging")
    datastore_id: str = client.create_datastore(datastoreName="identity")["datastoreId"]
    for _ in range(100):
        if (
            client.get_datastore(datastoreId=datastore_id)["datastoreProperties"]["datastoreStatus"]
            == "ACTIVE"
        ):
            return datastore_id
        time.sleep(0.1)
    pytest.fail("the datastore did not become active")


def test_role_may_do_what_its_policy_says_and_no_more(cloud, datastore: str) -> None:
    arn = f"arn:aws:medical-imaging:us-east-1:{ACCOUNT}:datastore/{datastore}"
    role = make_role(cloud, "reader", {"Action": "medical-imaging:GetDatastore", "Resource": arn})
    client = session(cloud, role, "medical-imaging")
    assert client.get_datastore(datastoreId=datastore)["datastoreProperties"]["datastoreArn"] == arn
    message = refused(client.search_image_sets, datastoreId=datastore)
    assert (
        f"{ACCOUNT}:assumed-role/reader/tester is not authorized to perform: medical-imaging:SearchImageSets"
        in message
    )
    assert arn in message
    other = "f" * 32
    assert other in refused(client.get_datastore, datastoreId=other), (
        "the resource is checked, not only the action"
    )
    refused(client.list_datastores)


def test_policy_change_counts_at_once(cloud, datastore: str) -> None:
    role = make_role(cloud, "changing", {"Action": "medical-imaging:*", "Resource": "*"})
    client = session(cloud, role, "medical-imaging")
    client.list_datastores()
    cloud.client("iam").delete_role_policy(RoleName="changing", PolicyName="work")
    refused(client.list_datastores)


def test_session_policy_limits(cloud) -> None:
    role = make_role(cloud, "limited", {"Action": "sagemaker:*", "Resource": "*"})
    policy = {"Statement": [{"Effect": "Allow", "Action": "sagemaker:ListModels", "Resource": "*"}]}
    client = session(cloud, role, "sagemaker", Policy=json.dumps(policy))
    client.list_models()
    assert "sagemaker:ListEndpoints" in refused(client.list_endpoints)


def test_runtime_is_authorised_as_sagemaker(cloud) -> None:
    role = make_role(cloud, "invoker", {"Action": "sagemaker:InvokeEndpoint", "Resource": "*"})
    client = session(cloud, role, "sagemaker-runtime")
    with pytest.raises(ClientError) as missing:
        client.invoke_endpoint(EndpointName="nowhere", Body=b"{}")
    assert not missing.value.response["Error"]["Code"].startswith("AccessDenied")
    assert "sagemaker:InvokeEndpointAsync" in refused(
        client.invoke_endpoint_async, EndpointName="nowhere", InputLocation="s3://b/k"
    )


@pytest.mark.parametrize("service", ["medical-imaging", "sagemaker"])
def test_unknown_key_and_wrong_secret(cloud, service: str) -> None:
    role = make_role(cloud, f"signer-{service}", {"Action": "*", "Resource": "*"})
    made = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="signer")["Credentials"]
    for key, secret, token, code in (
        ("AKIAUNKNOWN000000000", "no", None, "UnrecognizedClientException"),
        (made["AccessKeyId"], "wrong", made["SessionToken"], "SignatureDoesNotMatch"),
        (made["AccessKeyId"], made["SecretAccessKey"], "wrong", "InvalidToken"),
    ):
        client = cloud.client(
            service, aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token
        )
        with pytest.raises(ClientError) as caught:
            client.list_datastores() if service == "medical-imaging" else client.list_models()
        assert caught.value.response["Error"]["Code"] == code


def test_aws_cli(cloud, datastore: str) -> None:
    aws = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "aws"
    command = [aws, "--endpoint-url", cloud.endpoint_url, "--output", "json", "medical-imaging"]
    environment = {"PATH": "/usr/bin:/bin", **cloud.environment}
    listed = subprocess.run(
        [*command, "list-datastores"], env=environment, capture_output=True, text=True, check=True
    )
    assert datastore in {
        summary["datastoreId"] for summary in json.loads(listed.stdout)["datastoreSummaries"]
    }
    failed = subprocess.run(
        [*command, "get-datastore", "--datastore-id", "e" * 32],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode != 0
    assert "ResourceNotFoundException" in failed.stderr


def test_wrong_parameters_and_unsupported_operations(cloud) -> None:
    unchecked = Config(parameter_validation=False)
    imaging = cloud.client("medical-imaging", config=unchecked)
    with pytest.raises(imaging.exceptions.ValidationException, match="failed to satisfy constraint"):
        imaging.list_datastores(datastoreStatus="OPEN")
    sagemaker = cloud.client("sagemaker", config=unchecked)
    with pytest.raises(ClientError, match="Missing required parameter") as caught:
        sagemaker.create_model()
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="does not support sagemaker:ListClusters") as caught:
        sagemaker.list_clusters()
    assert caught.value.response["Error"]["Code"] == "UnsupportedOperation"


def test_an_operation_that_is_not_supported_says_so_before_its_parameters_are_looked_at(cloud) -> None:
    options = Config(parameter_validation=False)
    with pytest.raises(ClientError, match="does not support sagemaker:CreateDomain"):
        cloud.client("sagemaker", config=options).create_domain()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer abc"}])
def test_dicomweb_without_a_signature_is_told_to_sign(cloud, headers: dict[str, str]) -> None:
    answer = urllib3.request("GET", f"{cloud.endpoint_url}/datastore/{'0' * 32}/studies", headers=headers)
    assert answer.status == 403
    assert answer.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    assert b"Signature Version 4 for medical-imaging" in answer.data
