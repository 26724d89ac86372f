"""Stack `observability`: what is going on, who is told when something is wrong, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.data.archive import Archive
from infra.environment import Environment
from infra.observability.alarms import Watch, add_alarm
from infra.observability.audit_events import AuditFilters
from infra.observability.catalog_upkeep import WatchedUpkeep
from infra.observability.cost_budget import CostBudget
from infra.observability.dashboard import Row, dashboard_body
from infra.observability.endpoints import watched
from infra.observability.failures import Failures
from infra.observability.input_drift import DriftAlarms, runtime_rows
from infra.observability.pictures import arrivals, cost, training
from infra.observability.queues import WorkQueue
from infra.observability.receiver import WatchedReceiver
from infra.observability.reconciliation import WatchedReconciliation
from infra.observability.training_runs import training_watches


class ObservabilityStack(cdk.Stack):
    """Dashboards, alarms and the budget of an environment.

    Deployed last and deleted first: it may refer to everything, and nothing refers to it. A queue or function
    that it watches can only be replaced after it has let go of it: delete this stack (it holds nothing but
    the failure queue), deploy the others, deploy it again.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        archive: Archive,
        key: kms.IKey,
        topic: sns.ITopic,
        audit_log_group_name: str,
        queues: Sequence[WorkQueue],
        reconciliation: WatchedReconciliation | None,
        upkeep: WatchedUpkeep,
        receiver: WatchedReceiver | None,
    ) -> None:
        """
        Args:
            scope: The Stage.
            environment: Its endpoints, tasks and budget.
            archive: Whose image sets are counted.
            key: For the queue of failed jobs.
            topic: Where alarms are announced.
            audit_log_group_name: Where the audit trail's records arrive.
            queues: Paths that events take.
            reconciliation: What looks for events that were lost on their way, where there is one.
            upkeep: What keeps the catalog in order.
            receiver: Where devices send studies, where there is one.
        """
        super().__init__(
            scope,
            "observability",
            stack_name=f"monai-{environment.name}-observability",
            description="MONAI on AWS: dashboards, alarms, budget",
        )
        self._topic = topic
        failures = Failures(self, "Failures", datastore_id=archive.datastore_id, key=key)
        filters = AuditFilters(self, "Audit", log_group_name=audit_log_group_name)
        endpoints = [
            found
            for endpoint in environment.inference.endpoints
            for found in watched(endpoint, environment=environment.name)
        ]

        paths: list[WatchedReceiver | WorkQueue | WatchedReconciliation | WatchedUpkeep] = [
            *([receiver] if receiver else []),
            *queues,
            *([reconciliation] if reconciliation else []),
            upkeep,
        ]
        in_arrivals = [watch for path in paths for watch in path.watches]
        in_inference = [watch for endpoint in endpoints for watch in endpoint.watches]
        in_operations = [*failures.watches, *training_watches(environment), *filters.watches]
        alarms = {
            name: self._alarms(name, watches)
            for name, watches in {
                "Arrivals": in_arrivals,
                "Inference": in_inference,
                "Operations": in_operations,
            }.items()
        }
        drift = DriftAlarms(self, "Drift", environment=environment, topic=topic)
        self._dashboard(
            "Arrivals",
            environment=environment,
            rows=[arrivals(archive), *(path.row for path in paths)],
            alarms=alarms["Arrivals"],
        )
        self._dashboard(
            "Inference",
            environment=environment,
            rows=[*(endpoint.row for endpoint in endpoints), *runtime_rows(environment)],
            alarms=[*alarms["Inference"], *drift.alarms],
        )
        self._dashboard(
            "Operations",
            environment=environment,
            rows=[training(environment), cost()],
            alarms=alarms["Operations"],
        )
        CostBudget(
            self,
            "Budget",
            limit_usd=environment.notices.monthly_budget_usd,
            topic=topic,
            emails=environment.notices.emails,
        )
        cdk.CfnOutput(self, "FailureQueueUrl", value=failures.queue.queue_url)

    def _alarms(self, id: str, watches: Sequence[Watch]) -> list[cloudwatch.CfnAlarm]:
        scope = Construct(self, f"{id}Alarms")
        return [add_alarm(scope, watch, topic=self._topic) for watch in watches]

    def _dashboard(
        self,
        id: str,
        *,
        environment: Environment,
        rows: Sequence[Row],
        alarms: Sequence[cloudwatch.CfnAlarm],
    ) -> None:
        """Three of them: so many are free. None where there is nothing to show."""
        if not rows:
            return
        body = dashboard_body(rows, region=self.region, alarm_arns=[alarm.attr_arn for alarm in alarms])
        name = f"monai-{environment.name}-{id.lower()}"
        # Its name is the only thing that would replace it, and what people look for.
        cloudwatch.CfnDashboard(
            self, f"{id}Dashboard", dashboard_name=name, dashboard_body=self.to_json_string(body)
        )
        cdk.CfnOutput(self, f"{id}DashboardName", value=name)
