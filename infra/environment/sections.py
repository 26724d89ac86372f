"""Sections of an environment file that belong to the whole platform: account, network, protection, people."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.environment.names import AccountId, Section, Slug

HealthImagingRegion = Literal["us-east-1", "us-west-2", "ap-southeast-2", "eu-west-1", "eu-west-2"]
"""The regions that offer AWS HealthImaging
(https://docs.aws.amazon.com/general/latest/gr/healthimaging-quotas.html).
"""

LogRetentionDays = Literal[
    30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]
"""Retentions of a month and more that CloudWatch Logs accepts."""


class Aws(Section):
    """The account and region of the environment. Written down, so that synthesis looks nothing up."""

    account: AccountId
    region: HealthImagingRegion


class LocalCloud(Section):
    """How to reach the cloud of a developer's own machine. Only for an endpoint on the loopback interface."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    docker: Annotated[str, Field(min_length=1)]
    """Program that builds images in Docker's place (the CDK's CDK_DOCKER), relative to the repository."""


class Protection(Section):
    """Whether the environment holds patient data, and whether `cdk destroy` may take data along. The
    datastore is retained in every environment.
    """

    patient_data: bool
    """Protected health information may be here. Forbids what cannot be kept inside the network: serverless
    endpoints.
    """
    retain_data: bool
    """Keep buckets, keys, log groups with an audit trail and model package groups when their stack or they
    themselves are removed, and refuse to delete an Athena workgroup with its history.
    """
    termination_protection: bool
    """Refuse to delete the stacks that hold data."""


AvailabilityZone = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$")]
SubnetId = Annotated[str, Field(pattern=r"^subnet-[0-9a-f]{8,17}$")]


class ExistingNetwork(Section):
    """A VPC of the hospital that the platform moves into instead of making one.

    Its subnets must have private DNS and reach the services' endpoints without the internet.
    """

    vpc_id: Annotated[str, Field(pattern=r"^vpc-[0-9a-f]{8,17}$")]
    subnet_ids: Annotated[tuple[SubnetId, ...], Field(min_length=2)]
    """One in each of at least two zones."""
    route_table_ids: tuple[Annotated[str, Field(pattern=r"^rtb-[0-9a-f]{8,17}$")], ...] = ()
    """Where the gateway endpoint of S3 enters its route. Required if `make_endpoints`."""
    make_endpoints: bool
    """Make the interface endpoints and the gateway endpoint of S3; false where the VPC has them already."""
    endpoint_cidrs: tuple[Annotated[str, Field(pattern=r"^[0-9.]+/[0-9]+$")], ...] = ()
    """Addresses of the endpoints that are there already, the only ones that workloads may connect to.
    Required unless `make_endpoints`.
    """


class Network(Section):
    """The network: either one of the platform's own (`cidr` and `availability_zones`), or an existing VPC."""

    cidr: Annotated[str, Field(pattern=r"^[0-9.]+/[0-9]+$")] | None = None
    """Addresses of the platform's own VPC, /16 to /24."""
    availability_zones: tuple[AvailabilityZone, ...] = ()
    """Written down, because a template must not depend on what an account's zones are called."""
    existing: ExistingNetwork | None = None


class Notices(Section):
    """Who hears of alarms and of what costs more than planned."""

    emails: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")], ...], Field(max_length=10)
    ]
    """Each address has to confirm the subscription once. Empty: the topics only."""
    monthly_budget_usd: Annotated[int, Field(ge=1)]


class Logs(Section):
    """Retention of log groups and of bucket access logs."""

    retention_days: LogRetentionDays
    audit_retention_days: LogRetentionDays
    """Retention of the audit trail: who read which image set. HIPAA wants documentation of six years
    (45 CFR 164.316(b)(2)(i)).
    """


class CatalogReconcile(Section):
    """How often the catalog is compared with the data store."""

    every_hours: Annotated[int, Field(ge=1, le=168)]
    """A large data store takes several runs."""
    after_minutes: Annotated[int, Field(ge=0, le=1440)]
    """Age of a change from which on its event should have been worked off."""


class Catalog(Section):
    """The SQL catalog: what a query may cost, and how it is kept in order."""

    scan_limit_gib: Annotated[int, Field(ge=1, le=10_240)]
    """A query that scans more than this is cancelled by Athena."""
    compact_minutes: Annotated[int, Field(ge=15, le=1440)]
    """How often new rows move into the compacted tables. Queries see them before, too, but read more."""
    reconcile: CatalogReconcile


ImageName = Annotated[
    str, Field(pattern=r"^[a-z0-9.-]+/[a-z0-9._/-]+(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$")
]
"""An image with its registry and its tag or digest, so that every machine builds on the same one."""


class Images(Section):
    """What the images build on. Without it, as their Dockerfiles say: CPU."""

    training_base: ImageName | None = None
    inference_base: ImageName | None = None


Persona = Literal["data-scientist", "model-reviewer", "clinical-integrator"]
"""What a person does in SageMaker Studio. Who trains a model does not approve it."""


class StudioUser(Section):
    """A user profile of the SageMaker domain."""

    name: Slug
    persona: Persona
    sso_user: Annotated[str, Field(min_length=1)] | None = None
    """User name in IAM Identity Center. Required with `auth = "SSO"`, and only there."""


class Studio(Section):
    """The SageMaker domain in which people work."""

    auth: Literal["IAM", "SSO"]
    idle_minutes: Annotated[int, Field(ge=60, le=525_600)]
    """A notebook server that does nothing for so long is stopped."""
    instance_type: str
    """Machine of a new notebook server."""
    users: tuple[StudioUser, ...]
