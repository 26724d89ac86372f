"""Stops a deployment whose images have known vulnerabilities: `python -m infra.toolchain.image_scan staging`.

Waits for the scans that Amazon ECR makes of the images in the assembly's asset manifests, in the account of
the environment, and ends with 1 if one has a finding of severity CRITICAL or HIGH that
`accepted_vulnerabilities.toml` does not list. An entry there has a reason and an end.

Runs before the stacks of the environment exist, so it looks as the CDK's lookup role, narrowed to what it
asks (https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-scanning.html).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

STOPPING = ("CRITICAL", "HIGH")
ACCEPTED_FILE = Path(__file__).with_name("accepted_vulnerabilities.toml")

QUALIFIER = "hnb659fds"
"""Of the CDK's bootstrap stack, as in its default."""

WAIT_SECONDS = 45 * 60
_EVERY_SECONDS = 15.0
_RUNNING = ("PENDING", "IN_PROGRESS", "SCAN_IN_PROGRESS")
_ENDED = ("COMPLETE", "ACTIVE")
"""A basic scan completes; an enhanced one stays active and is repeated."""


class ScanError(Exception):
    """There is no scan to decide on. The text says what to do."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image of the assembly, in the registry of one account."""

    account: str
    region: str
    repository: str
    tag: str


@dataclass(frozen=True, kw_only=True)
class Vulnerability:
    """A finding of a scan."""

    id: str
    severity: str
    package: str
    image: str


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A vulnerability that is accepted until a day."""

    id: str
    reason: str
    until: date


def lookup_role_arn(account: str, region: str) -> str:
    """The bootstrap stack's role for looking."""
    return f"arn:aws:iam::{account}:role/cdk-{QUALIFIER}-lookup-role-{account}-{region}"


def images_of(assembly: Path, *, environment: str) -> list[Image]:
    """The images of an environment's stage, from its asset manifests."""
    found: set[tuple[str, str, str, str]] = set()
    for manifest in sorted((assembly / f"assembly-{environment}").glob("*.assets.json")):
        for image in json.loads(manifest.read_text(encoding="utf-8")).get("dockerImages", {}).values():
            for destination in image["destinations"].values():
                repository = destination["repositoryName"]
                # cdk-HNB-container-assets-ACCOUNT-REGION
                account = repository.split("-container-assets-")[1].split("-")[0]
                found.add((account, destination["region"], repository, destination["imageTag"]))
    return [
        Image(account=account, region=region, repository=repository, tag=tag)
        for account, region, repository, tag in sorted(found)
    ]


def load_accepted(path: Path = ACCEPTED_FILE) -> list[Accepted]:
    """The vulnerabilities that are accepted, with reason and end."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("vulnerabilities", [])
    return [Accepted(id=e["id"], reason=e["reason"], until=e["until"]) for e in entries]


def findings(
    ecr: Any, image: Image, *, wait_seconds: float = WAIT_SECONDS, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Vulnerability]:
    """What the scan of an image found, once it has ended.

    Raises:
        ScanError: The image is not scanned, the scan failed, or does not end.
    """
    name = f"{image.repository}:{image.tag[:12]}"
    request = {"repositoryName": image.repository, "imageId": {"imageTag": image.tag}}
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            answer = ecr.describe_image_scan_findings(**request)
            status = answer["imageScanStatus"]["status"]
        except ecr.exceptions.ScanNotFoundException:
            answer, status = {}, "PENDING"  # A scan on push appears some seconds after the push.
        if status in _ENDED:
            break
        if status not in _RUNNING:
            raise ScanError(
                f"{name}: the scan ended as {status}. Amazon Inspector's scanning knows more systems."
            )
        if time.monotonic() >= deadline:
            raise ScanError(
                f"{name}: no scan after {wait_seconds / 60:.0f} minutes. Switch scanning on push on in "
                f"account {image.account} (docs/deploy.md, bootstrap)."
            )
        sleep(_EVERY_SECONDS)
    pages = ecr.get_paginator("describe_image_scan_findings").paginate(**request)
    for page in pages:
        found = page["imageScanFindings"]
        for finding in found.get("findings", []):
            attributes = {a["key"]: a.get("value", "") for a in finding.get("attributes", [])}
            yield Vulnerability(
                id=finding["name"],
                severity=finding["severity"],
                package=attributes.get("package_name", "?"),
                image=name,
            )
        for finding in found.get("enhancedFindings", []):
            details = finding.get("packageVulnerabilityDetails", {})
            packages = sorted({p["name"] for p in details.get("vulnerablePackages", [])})
            yield Vulnerability(
                id=details.get("vulnerabilityId", finding["findingArn"]),
                severity=finding["severity"],
                package=", ".join(packages) or "?",
                image=name,
            )


def unaccepted(
    found: Iterable[Vulnerability], *, accepted: Iterable[Accepted], today: date
) -> list[Vulnerability]:
    """The findings that stop the deployment."""
    allowed = {entry.id for entry in accepted if today <= entry.until}
    return [one for one in found if one.severity in STOPPING and one.id not in allowed]


def ecr_client(image: Image, *, session: Any) -> Any:
    """A client that may ask for the findings of this repository and nothing else."""
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "ecr:DescribeImageScanFindings",
                "Resource": f"arn:aws:ecr:{image.region}:{image.account}:repository/{image.repository}",
            }
        ],
    }
    credentials = session.client("sts").assume_role(
        RoleArn=lookup_role_arn(image.account, image.region),
        RoleSessionName="image-scan",
        Policy=json.dumps(policy),
    )["Credentials"]
    return session.client(
        "ecr",
        region_name=image.region,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )


def main(arguments: list[str] | None = None, *, clients: Mapping[str, Any] | None = None) -> int:
    """Scan the environment's images; 0 if it may be deployed."""
    import boto3

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("environment")
    parser.add_argument("--assembly", type=Path, default=Path("cdk.out"))
    options = parser.parse_args(arguments)
    images = images_of(options.assembly, environment=options.environment)
    if not images:
        print(f"{options.assembly} has no images of {options.environment}", file=sys.stderr)
        return 1
    accepted, found = load_accepted(), []
    try:
        for image in images:
            client = clients[image.account] if clients else ecr_client(image, session=boto3.Session())
            found += list(findings(client, image))
    except ScanError as error:
        print(error, file=sys.stderr)
        return 1
    stopping = unaccepted(found, accepted=accepted, today=date.today())
    print(f"{len(images)} images, {len(found)} findings, {len(stopping)} that stop the deployment")
    for one in stopping:
        print(f"{one.severity} {one.id} in {one.package} ({one.image})", file=sys.stderr)
    if stopping:
        print(f"Update the package, or accept it for a time in {ACCEPTED_FILE.name}.", file=sys.stderr)
    return 1 if stopping else 0


if __name__ == "__main__":
    sys.exit(main())
