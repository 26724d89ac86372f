"""The environments before and after one, and how a policy names a role of their accounts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aws_cdk import aws_iam as iam

from infra.environment import Delivery, Environment, EnvironmentFileError, load_delivery, load_environment
from infra.environment.delivery import FILE, Tooling
from infra.network.endpoint_policies import Lender
from infra.promotion.names import promotion_role_name, role_arn


def only_role(arn: str) -> iam.IPrincipal:
    """A role of another account, by name.

    Its account as principal and the role as condition: a policy that names a role as principal is refused
    while the role does not exist, so neither of two environments could be deployed first; and it would hold
    the id of a deleted role for ever
    (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html).
    """
    account = arn.split(":")[4]
    return iam.AccountPrincipal(account).with_conditions({"ArnEquals": {"aws:PrincipalArn": arn}})


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Where an environment stands in the delivery."""

    environment: Environment
    tooling: Tooling
    before: Environment | None
    after: Environment | None

    @property
    def model_reader(self) -> str | None:
        """ARN of the role that may read this environment's approved models: the next one's."""
        if self.after is None:
            return None
        return role_arn(self.after.aws.account, promotion_role_name(self.after.name))

    @property
    def model_readers(self) -> dict[str, str]:
        """The same role, by the tasks that the next environment has as well: it takes candidates of these."""
        if self.after is None or self.model_reader is None:
            return {}
        there = {task.name for task in self.after.training.tasks}
        return {
            task.name: self.model_reader for task in self.environment.training.tasks if task.name in there
        }

    @property
    def lender(self) -> Lender | None:
        """The environment from which models come here, as the network knows it."""
        if self.before is None:
            return None
        borrower = role_arn(self.environment.aws.account, promotion_role_name(self.environment.name))
        return Lender(account=self.before.aws.account, borrower=borrower)


def neighbours_of(environment: Environment, *, delivery: Delivery | None = None) -> Neighbours | None:
    """The neighbours of an environment; None where the delivery does not name it, as `local`.

    Raises:
        EnvironmentFileError: The delivery and the environments that it names contradict each other.
    """
    delivery = delivery or load_delivery()
    if environment.name not in delivery.environments:
        return None

    def neighbour(name: str | None) -> Environment | None:
        return load_environment(name) if name is not None else None

    found = Neighbours(
        environment=environment,
        tooling=delivery.tooling,
        before=neighbour(delivery.before(environment.name)),
        after=neighbour(delivery.after(environment.name)),
    )
    problems = list(_contradictions(found))
    if problems:
        raise EnvironmentFileError(path=FILE, problems=problems)
    return found


def _contradictions(found: Neighbours) -> Iterator[str]:
    """What the files say one by one, and what does not work together.

    A network has endpoints of its own region alone, so models are not promoted from another one; and a
    delivery pipeline in another region would keep copies of the assembly in both.
    """
    region, account = found.environment.aws.region, found.environment.aws.account
    others = [found.before, found.after]
    for other in (environment for environment in others if environment is not None):
        if other.aws.region != region:
            yield (
                f"environments: {found.environment.name} is in {region} and {other.name} in "
                f"{other.aws.region}: environments that promote to each other share a region"
            )
        if other.aws.account == account:
            yield (
                f"environments: {found.environment.name} and {other.name} share account {account}: each "
                "environment needs an account of its own"
            )
    if found.tooling.region != region:
        yield f"tooling.region: is {found.tooling.region}, but {found.environment.name} is in {region}"
    if found.tooling.account == account:
        yield f"tooling.account: is also the account of {found.environment.name}"
