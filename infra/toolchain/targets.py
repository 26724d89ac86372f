"""Where the environments of the delivery are, for the GitHub workflow: `python -m infra.toolchain.targets`.

Prints one line of JSON: {"dev": {"role": ..., "region": ...}, ...}. So the workflow has no account of its own
to keep in step with the environment files.
"""

from __future__ import annotations

import json

from infra.environment import load_delivery, load_environment
from infra.promotion.names import github_role_name, role_arn


def targets() -> dict[str, dict[str, str]]:
    """The role and the region of each environment."""
    found = {}
    for name in load_delivery().environments:
        aws = load_environment(name).aws
        found[name] = {"role": role_arn(aws.account, github_role_name(name)), "region": aws.region}
    return found


if __name__ == "__main__":
    print(json.dumps(targets()))
