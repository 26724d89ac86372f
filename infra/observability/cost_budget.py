"""The monthly budget."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_sns as sns
from constructs import Construct

FORECAST_PERCENT = 80
ACTUAL_PERCENT = 100


class CostBudget(Construct):
    """What the account may cost in a month: one account has one environment, so nothing is filtered out.

    It has no name of its own: its notices cannot be changed in place, and a named budget could not be
    replaced.
    """

    def __init__(
        self, scope: Construct, id: str, *, limit_usd: int, topic: sns.ITopic, emails: Sequence[str]
    ) -> None:
        super().__init__(scope, id)
        # By mail as well as through the topic: the topic needs its subscriptions confirmed.
        subscribers = [
            budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=topic.topic_arn),
            *(
                budgets.CfnBudget.SubscriberProperty(subscription_type="EMAIL", address=email)
                for email in emails
            ),
        ]
        budgets.CfnBudget(
            self,
            "Monthly",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=limit_usd, unit="USD"),
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        notification_type=type,
                        comparison_operator="GREATER_THAN",
                        threshold=percent,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=subscribers,
                )
                for type, percent in (("FORECASTED", FORECAST_PERCENT), ("ACTUAL", ACTUAL_PERCENT))
            ],
        )
