"""Stack `promotion`: what an environment of the delivery shows to the pipeline that deploys it, tells the
environment after it, and takes from the one before. Environments that the delivery does not name have none.
"""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.assets.images import Image
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.environment import Environment
from infra.network.placement import Placement
from infra.promotion.announcement import Announcement
from infra.promotion.intake import Intake
from infra.promotion.neighbours import Neighbours
from infra.promotion.verification import Verification


class PromotionStack(cdk.Stack):
    """The gates of one environment. Nothing here approves a model: a person of each environment does."""

    def __init__(
        self,
        scope: Construct,
        *,
        neighbours: Neighbours,
        stacks: Sequence[str],
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
        image: Image,
    ) -> None:
        environment = neighbours.environment
        super().__init__(
            scope,
            "promotion",
            stack_name=f"monai-{environment.name}-promotion",
            description="MONAI on AWS: checks after a deployment, promotion of models",
        )
        self.verified_stacks = (*stacks, self.stack_name)
        Verification(
            self,
            "Verification",
            neighbours=neighbours,
            stacks=self.verified_stacks,
            archive=archive,
            buckets=buckets,
            key=key,
        )
        self.intake: Intake | None = None
        before, after = neighbours.before, neighbours.after
        if after is not None and (groups := _groups(environment, after)):
            Announcement(self, "Announcement", environment=environment, after=after, groups=list(groups))
        if before is not None and (groups := _groups(before, environment)):
            self.intake = Intake(
                self,
                "Candidates",
                environment=environment,
                before=before,
                groups=groups,
                image=image,
                buckets=buckets,
                key=key,
                placement=placement,
            )
            for name, value in {
                "CandidateQueueUrl": self.intake.queue.queue_url,
                "CandidateDeadLetterQueueUrl": self.intake.dead_letters.queue_url,
                "CandidateFunctionName": self.intake.function.function_name,
            }.items():
                cdk.CfnOutput(self, name, value=value)


def _groups(before: Environment, after: Environment) -> dict[str, str]:
    """Model package group there -> here, of the tasks that both environments have."""
    tasks = {task.name for task in after.training.tasks}
    return {
        f"monai-{before.name}-{task.name}": f"monai-{after.name}-{task.name}"
        for task in before.training.tasks
        if task.name in tasks
    }
