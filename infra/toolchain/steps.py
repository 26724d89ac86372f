"""The steps of the delivery pipeline between source and production."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import pipelines

from infra.environment import Environment
from infra.repository import ROOT
from infra.toolchain.stack_parameters import OUTPUT as PARAMETERS

ASSEMBLY = "cdk.out"
SBOM = "build/sbom"

BUILD_IMAGE = codebuild.LinuxBuildImage.STANDARD_7_0

RUNTIMES = codebuild.BuildSpec.from_object(
    {"version": "0.2", "phases": {"install": {"runtime-versions": {"python": "3.11", "nodejs": "22"}}}}
)
"""Languages of every build. Python is the one of the repository's environments; Node runs the CDK's command
line.
"""

PROGRAM_PACKAGES = "python3 -m pip install --quiet --constraint requirements.txt boto3 pydantic"
"""What the two programs below need; the versions are those of the lock file."""


def cdk_version() -> str:
    """The command line that package.json pins: what npm calls the latest is a stray old build."""
    package: dict[str, Any] = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))
    return str(package["devDependencies"]["aws-cdk"])


def synthesis(source: pipelines.IFileSetProducer) -> pipelines.CodeBuildStep:
    """Everything that has to hold before anything is deployed, then the one assembly for all environments."""
    step = pipelines.CodeBuildStep(
        "Synth",
        input=source,
        commands=[
            "make environments",
            "make lint",
            "make test",
            "make sbom",
            "make synth ENV=toolchain",
        ],
        primary_output_directory=ASSEMBLY,
        # The tests train and serve a model.
        build_environment=codebuild.BuildEnvironment(compute_type=codebuild.ComputeType.LARGE),
        timeout=cdk.Duration.hours(3),
    )
    step.add_output_directory(SBOM)
    return step


def image_scan(
    environment: Environment,
    *,
    source: pipelines.IFileSetProducer,
    assembly: pipelines.IFileSetProducer,
    role: iam.IRole,
) -> pipelines.CodeBuildStep:
    """Vulnerabilities of the images that this environment is about to get."""
    return pipelines.CodeBuildStep(
        f"{environment.name}-image-scan",
        input=source,
        additional_inputs={ASSEMBLY: assembly},
        commands=[
            PROGRAM_PACKAGES,
            f"python3 -m infra.toolchain.image_scan {environment.name} --assembly {ASSEMBLY}",
        ],
        role=role,
        timeout=cdk.Duration.hours(1),
    )


def kept_parameters(
    environment: Environment,
    *,
    source: pipelines.IFileSetProducer,
    assembly: pipelines.IFileSetProducer,
    role: iam.IRole,
    after: pipelines.Step,
) -> pipelines.CodeBuildStep:
    """Which models the environment runs: read right before it is deployed, for an approval can take days."""
    step = pipelines.CodeBuildStep(
        f"{environment.name}-parameters",
        input=source,
        additional_inputs={ASSEMBLY: assembly},
        commands=[
            PROGRAM_PACKAGES,
            f"python3 -m infra.toolchain.stack_parameters {environment.name} --assembly {ASSEMBLY}",
        ],
        primary_output_directory=PARAMETERS,
        role=role,
        timeout=cdk.Duration.minutes(15),
    )
    step.add_step_dependency(after)
    return step


def kept_parameters_objects(environment: Environment) -> str:
    """Where in the bucket of artifacts the output of that step is. CodePipeline makes the key of an artifact
    from the pipeline's name, the artifact's first ten characters, and something random.
    """
    artifact = f"{environment.name}-parameters".replace("-", "_")
    return f"*/{artifact[:10]}*"


def environment_check(
    environment: Environment, *, source: pipelines.IFileSetProducer, role: iam.IRole
) -> pipelines.CodeBuildStep:
    """The integration test: what was deployed is there and answers."""
    return pipelines.CodeBuildStep(
        f"{environment.name}-check",
        input=source,
        commands=[PROGRAM_PACKAGES, f"python3 -m infra.toolchain.environment_check {environment.name}"],
        role=role,
        timeout=cdk.Duration.minutes(30),
    )


def approval(environment: Environment, *, after: pipelines.Step) -> pipelines.ManualApprovalStep:
    """A person lets the environment have what the one before it was tested with, knowing the scan."""
    step = pipelines.ManualApprovalStep(
        f"{environment.name}-approval",
        comment=f"Deploy to {environment.name} (account {environment.aws.account})?",
    )
    step.add_step_dependency(after)
    return step
