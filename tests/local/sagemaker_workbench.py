"""What the tests of SageMaker need around them: a bucket, a role, a repository, small images."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "local" / "containers" / "docker"

DOCKERFILE = """\
FROM python:3.11-slim
WORKDIR /opt/program
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY program.py ./
ENV GREETING="hello world"
ENTRYPOINT ["python", "-u", "-m", "program"]
"""
REQUIREMENTS = "boto3==1.43.106\n"

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}


@dataclass
class Workbench:
    """AWS resources of one test module, with names of their own."""

    cloud: Any
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.s3 = self.cloud.client("s3")
        self.sagemaker = self.cloud.client("sagemaker")
        self.runtime = self.cloud.client("sagemaker-runtime")
        self.bucket = f"{self.name}-bucket"
        self.s3.create_bucket(Bucket=self.bucket)
        self.cloud.client("ecr").create_repository(repositoryName=self.name)
        self.role = self.make_role("job", self.allow())

    def allow(self, *more: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The statements that a SageMaker job of these tests needs."""
        bucket = f"arn:aws:s3:::{self.bucket}"
        return [
            {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": bucket},
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"{bucket}/*"},
            {"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": "*"},
            {
                "Effect": "Allow",
                "Action": [
                    "ecr:BatchGetImage",
                    "ecr:GetDownloadUrlForLayer",
                    "ecr:BatchCheckLayerAvailability",
                ],
                "Resource": f"arn:aws:ecr:*:*:repository/{self.name}",
            },
            {
                "Effect": "Allow",
                "Action": ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": "arn:aws:logs:*:*:log-group:/aws/sagemaker/*",
            },
            *more,
        ]

    def make_role(self, name: str, statements: Sequence[Mapping[str, Any]]) -> str:
        """A role that SageMaker may assume; its ARN."""
        iam = self.cloud.client("iam")
        full = f"{self.name}-{name}"
        role = iam.create_role(RoleName=full, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.put_role_policy(RoleName=full, PolicyName="work", PolicyDocument=json.dumps(policy))
        return str(role["Arn"])

    def client_as(self, role: str, service: str) -> Any:
        """A client with the credentials of a role that anybody in the account may assume."""
        iam = self.cloud.client("iam")
        trust = json.loads(json.dumps(TRUST))
        root = {"AWS": f"arn:aws:iam::{self.cloud.account_id}:root"}
        trust["Statement"].append({"Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole"})
        iam.update_assume_role_policy(RoleName=role.rsplit("/", 1)[-1], PolicyDocument=json.dumps(trust))
        given = self.cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        return self.cloud.client(
            service,
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
        )

    def image(self, folder: Path, program: str, *, tag: str, label: str = "") -> str:
        """Build and push an image through the docker front, as the CDK CLI does; its URI."""
        context = folder / tag
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE + (f"LABEL {label}\n" if label else ""))
        (context / "requirements.txt").write_text(REQUIREMENTS)
        (context / "program.py").write_text(program)
        uri = f"{self.cloud.account_id}.dkr.ecr.{self.cloud.region}.amazonaws.com/{self.name}:{tag}"
        local = f"cdkasset-{self.name}-{tag}"
        self.docker("build", "--tag", local, ".", cwd=context)
        self.docker("tag", local, uri)
        self.docker("push", uri)
        return uri

    def docker(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run the docker front."""
        done = subprocess.run(
            [DOCKER, *arguments],
            cwd=cwd,
            env={**os.environ, **self.cloud.environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def put(self, key: str, body: bytes | str) -> str:
        """An object in the bucket; its URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def uri(self, key: str) -> str:
        """URI of a key in the bucket."""
        return f"s3://{self.bucket}/{key}"

    def get(self, uri: str) -> bytes:
        """The object at a URI."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def wait_for(check: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """The first true value of `check`."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def model_archive(**content: Any) -> bytes:
    """A model.tar.gz for the server of `sagemaker_server`."""
    body = json.dumps({"name": "model", **content}).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("model.json")
        entry.size = len(body)
        tar.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


NEEDS = {"MinMemoryRequiredInMb": 512}
"""What every inference component must ask of its machine."""


@dataclass
class Hosting:
    """Endpoints of a workbench."""

    bench: Workbench
    image: str

    def model(self, name: str, **content: Any) -> str:
        """A model whose archive says what its server does; its name."""
        full = f"{self.bench.name}-{name}"
        url = self.bench.put(f"models/{name}/model.tar.gz", model_archive(name=name, **content))
        self.bench.sagemaker.create_model(
            ModelName=full,
            PrimaryContainer={"Image": self.image, "ModelDataUrl": url, "Environment": {"MODE": "test"}},
            ExecutionRoleArn=self.bench.role,
        )
        return full

    def config(self, name: str, *, model: str, **more: Any) -> str:
        """An endpoint configuration with one variant; its name."""
        full = f"{self.bench.name}-{name}"
        variant = {
            "VariantName": "main",
            "ModelName": model,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
        }
        variant.update(more.pop("variant", {}))
        self.bench.sagemaker.create_endpoint_config(
            EndpointConfigName=full, ProductionVariants=[variant], **more
        )
        return full

    def endpoint(self, name: str, *, wait: bool = True, asynchronous: bool = False, **content: Any) -> str:
        """Model, configuration and endpoint of one name; the endpoint's name."""
        more: dict[str, Any] = {}
        if asynchronous:
            output: dict[str, Any] = {
                "S3OutputPath": self.bench.uri("responses"),
                "S3FailurePath": self.bench.uri("failures"),
            }
            if "topics" in content:
                success, error = content.pop("topics")
                output["NotificationConfig"] = {"SuccessTopic": success, "ErrorTopic": error}
            more["AsyncInferenceConfig"] = {"OutputConfig": output}
            if "concurrent" in content:
                client = {"MaxConcurrentInvocationsPerInstance": content.pop("concurrent")}
                more["AsyncInferenceConfig"]["ClientConfig"] = client
        config = self.config(name, model=self.model(name, **content), **more)
        full = f"{self.bench.name}-{name}"
        self.bench.sagemaker.create_endpoint(EndpointName=full, EndpointConfigName=config)
        if wait:
            described = self.settled(full)
            assert described["EndpointStatus"] == "InService", described.get("FailureReason")
        return full

    def component(self, name: str, *, endpoint: str, copies: int = 1, **specification: Any) -> str:
        """An inference component on an endpoint's variant "main"; its name. It is not waited for."""
        full = f"{self.bench.name}-{name}"
        self.bench.sagemaker.create_inference_component(
            InferenceComponentName=full,
            EndpointName=endpoint,
            VariantName="main",
            Specification={"ComputeResourceRequirements": NEEDS, **specification},
            RuntimeConfig={"CopyCount": copies},
        )
        return full

    def settled_component(self, name: str) -> dict[str, Any]:
        """Wait until an inference component is not being changed, and describe it."""

        def check() -> Any:
            described = self.bench.sagemaker.describe_inference_component(InferenceComponentName=name)
            return None if described["InferenceComponentStatus"].endswith("ing") else described

        return dict(wait_for(check))

    def host(self, name: str, **more: Any) -> str:
        """A configuration whose variant is for inference components; its name."""
        full = f"{self.bench.name}-{name}"
        variant = {
            "VariantName": "main",
            "InstanceType": "ml.g5.xlarge",
            "InitialInstanceCount": 1,
            "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 2},
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
            **more,
        }
        self.bench.sagemaker.create_endpoint_config(
            EndpointConfigName=full, ExecutionRoleArn=self.bench.role, ProductionVariants=[variant]
        )
        return full

    def settled(self, name: str) -> dict[str, Any]:
        """Wait until an endpoint is not being changed, and describe it."""

        def check() -> Any:
            endpoint = self.bench.sagemaker.describe_endpoint(EndpointName=name)
            return endpoint if endpoint["EndpointStatus"] in ("InService", "Failed", "OutOfService") else None

        return dict(wait_for(check))

    def invoke(self, name: str, body: bytes, **more: Any) -> dict[str, Any]:
        """The JSON that an endpoint answers."""
        answer = self.bench.runtime.invoke_endpoint(
            EndpointName=name, Body=body, ContentType="application/json", **more
        )
        return dict(json.loads(answer["Body"].read()))
