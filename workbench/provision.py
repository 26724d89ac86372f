"""Bootstraps and deploys the platform's stacks with the CDK command line, exactly as a person would.

The local environment differs by environment variables alone: the endpoint, its key pair and the program in
place of `docker`. The CDK CLI and the templates are the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from botocore.exceptions import ClientError

from workbench.environment import REPOSITORY, Environment
from workbench.errors import ProgramFailed
from workbench.program import run_attached, run_program
from workbench.progress import Progress
from workbench.session import Session

BOOTSTRAP_STACK = "CDKToolkit"
GOOD_STATES = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"})
"""States in which the bootstrap stack's bucket and roles are in place."""


def bootstrap(session: Session, *, progress: Progress) -> bool:
    """Bootstrap the environment's account if it is not; True if that was needed."""
    if _bootstrapped(session):
        return False
    environment = session.environment
    _cdk(
        environment,
        "bootstrap",
        f"aws://{environment.account}/{environment.region}",
        what="cdk bootstrap",
        progress=progress,
    )
    return True


def deploy(session: Session, *, progress: Progress, ask: bool = False) -> None:
    """Deploy every stack of the environment; stacks without a change are left alone by the CLI.

    Args:
        session: The environment's clients.
        progress: Gets the CLI's lines.
        ask: Let the CLI show permissions that become broader, and wait on the terminal for a yes.
    """
    _cdk(
        session.environment,
        "deploy",
        "**",  # the stacks stand in a Stage, which --all does not look into
        "--context",
        f"env={session.environment.name}",
        "--require-approval",
        "broadening" if ask else "never",
        "--progress",
        "events",
        # Most stacks need `data` and `network` only. But while several are deployed, the CLI can ask nobody.
        "--concurrency",
        "1" if ask else "4",
        what="cdk deploy",
        progress=None if ask else progress,
    )


def program_environment(environment: Environment, *, base: dict[str, str] | None = None) -> dict[str, str]:
    """Variables for the CDK CLI: its Node.js, and for the local environment how to reach that cloud."""
    variables = dict(os.environ if base is None else base)
    binaries = Path(sys.executable).parent
    variables["PATH"] = os.pathsep.join([str(binaries), variables.get("PATH", os.defpath)])
    variables["JSII_NODE"] = str(binaries / "node")
    variables["AWS_REGION"] = variables["AWS_DEFAULT_REGION"] = environment.region
    local = environment.local
    if local is not None:
        # A profile or a session token of the person's own shell must not meet the local cloud.
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            variables.pop(name, None)
        variables["AWS_ENDPOINT_URL"] = local.endpoint_url
        variables["AWS_ENDPOINT_URL_S3"] = local.endpoint_url
        variables["AWS_ACCESS_KEY_ID"] = local.access_key_id
        variables["AWS_SECRET_ACCESS_KEY"] = local.secret_access_key
        variables["AWS_EC2_METADATA_DISABLED"] = "true"
        if local.docker is not None:
            variables["CDK_DOCKER"] = str(local.docker)
    return variables


def _bootstrapped(session: Session) -> bool:
    try:
        stacks = session.client("cloudformation").describe_stacks(StackName=BOOTSTRAP_STACK)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return False
        raise
    return stacks[0]["StackStatus"] in GOOD_STATES


def _cdk(environment: Environment, *arguments: str, what: str, progress: Progress | None) -> None:
    program = REPOSITORY / "node_modules" / ".bin" / "cdk"
    if not program.exists():
        raise ProgramFailed(
            "The CDK command line is not installed (node_modules/.bin/cdk).",
            advice="Install it with the version that package.json pins: make environments.",
        )
    command: list[str | Path] = [program, *arguments, "--no-notices", "--no-lookups"]
    variables = program_environment(environment)
    advice = (
        "The first failed resource, or the last line of a traceback, names the cause. Stacks before it "
        "stay deployed: correct it and run the same command again."
    )
    if progress is None:
        run_attached(command, what=what, advice=advice, environment=variables, folder=REPOSITORY)
    else:
        run_program(
            command, what=what, advice=advice, environment=variables, folder=REPOSITORY, progress=progress
        )
