"""The unmodified CDK command line: bootstrap, a stack with an image, no change, destroy."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cloud_under_test import REPOSITORY

CDK = REPOSITORY / "node_modules" / "aws-cdk" / "bin" / "cdk"
APP = """
import aws_cdk as cdk
from aws_cdk import aws_ecr_assets as assets, aws_iam as iam, aws_s3 as s3, aws_s3_assets as s3_assets

app = cdk.App()
stack = cdk.Stack(app, "probe", env=cdk.Environment(account="000000000000", region="us-east-1"))
bucket = s3.Bucket(stack, "Bucket", enforce_ssl=True, removal_policy=cdk.RemovalPolicy.DESTROY)
bucket.grant_read(iam.Role(stack, "Reader", assumed_by=iam.AccountRootPrincipal()))
image = assets.DockerImageAsset(stack, "Image", directory="image")
store = cdk.CfnResource(stack, "Store", type="AWS::HealthImaging::Datastore", properties={})
cdk.CfnOutput(stack, "BucketOut", value=bucket.bucket_name)
cdk.CfnOutput(stack, "ImageOut", value=image.image_uri)
cdk.CfnOutput(stack, "StoreOut", value=store.ref)
cdk.CfnOutput(stack, "FileOut", value=s3_assets.Asset(stack, "File", path="app.py").s3_object_url)
app.synth()
"""


@pytest.mark.slow
@pytest.mark.skipif(not CDK.exists(), reason="the CDK command line is not installed (npm ci)")
def test_cdk(cloud, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "Dockerfile").write_text('FROM python:3.11\nCOPY . /opt\nENTRYPOINT ["python"]\n')
    environment = {
        **os.environ,
        **cloud.environment,
        "CDK_DOCKER": str(REPOSITORY / "local" / "containers" / "docker"),
    }

    def cdk(*arguments: str) -> str:
        done = subprocess.run(
            [REPOSITORY / ".venv" / "bin" / "node", CDK, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    cdk("bootstrap", "aws://000000000000/us-east-1", "--app", "")
    app = ("--app", f"{REPOSITORY}/.venv/bin/python app.py")
    cdk("deploy", *app, "--require-approval", "never", "--outputs-file", "outputs.json")
    made: dict[str, Any] = json.loads((tmp_path / "outputs.json").read_text())["probe"]
    cloud.client("s3").head_bucket(Bucket=made["BucketOut"])
    store = cloud.client("medical-imaging").get_datastore(datastoreId=made["StoreOut"])
    assert store["datastoreProperties"]["datastoreStatus"] == "ACTIVE"
    repository, _, tag = made["ImageOut"].partition("/")[2].partition(":")
    images = cloud.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    assert len(images["imageDetails"]) == 1
    assert "no changes" in cdk("deploy", *app, "--require-approval", "never")
    cdk("destroy", *app, "--force")
    names = {bucket["Name"] for bucket in cloud.client("s3").list_buckets()["Buckets"]}
    assert made["BucketOut"] not in names
