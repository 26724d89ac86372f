"""IAM throughout: every role does exactly its job. With all of its permissions each step of its work
succeeds; without any single one of them a named step fails; and there is no permission without a step or a
written reason.
"""

from __future__ import annotations

import pytest
from arrivals import Arrival
from permissions import withheld
from role_steps import Step
from role_table import ROLES
from role_world import RoleWorld

from workbench.deployment import Deployment

STEPS = sorted(
    {step for role in ROLES.values() for step, _ in role.needed.values()}, key=lambda step: step.__name__
)
REMOVALS = [
    (name, action, step, text) for name, role in ROLES.items() for action, (step, text) in role.needed.items()
]


@pytest.fixture(scope="session")
def world(deployment: Deployment, study: Arrival) -> RoleWorld:
    return RoleWorld(deployment, study)


def test_every_role_and_every_permission_is_in_the_table(world: RoleWorld) -> None:
    assert set(world.roles) == set(ROLES)
    for name, role in ROLES.items():
        mappings = [set(role.needed), set(role.only_on_aws), set(role.elsewhere)]
        assert sum(map(len, mappings)) == len(set.union(*mappings)), name
        assert world.granted(name) == set.union(*mappings), name
        reasons = [*role.only_on_aws.values(), *role.elsewhere.values()]
        assert all(len(reason.split()) > 5 for reason in reasons), name


@pytest.mark.parametrize("step", STEPS, ids=[step.__name__ for step in STEPS])
def test_with_its_permissions_a_role_does_its_work(world: RoleWorld, step: Step) -> None:
    step(world)


@pytest.mark.parametrize(
    ("role", "action", "step", "text"), REMOVALS, ids=[f"{role}-{action}" for role, action, *_ in REMOVALS]
)
def test_without_one_permission_a_step_fails(
    world: RoleWorld, role: str, action: str, step: Step, text: str
) -> None:
    iam = world.deployment.session.client("iam")
    with (
        withheld(iam, role_arn=world.roles[role], action=action),
        # A step fails in its own way: an error of the workbench, a client's, or what its log says.
        pytest.raises(Exception) as caught,  # noqa: PT011 - the text is asserted below
    ):
        step(world)
    told = " ".join([str(caught.value), *getattr(caught.value, "details", ())])
    assert text in told, told
