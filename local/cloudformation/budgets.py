"""AWS::Budgets::Budget, of which MiniStack has only the calls. Nothing costs anything here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from local.cloudformation.resource import Resource, UnsupportedChange, changed, generated_name
from local.service import Cloud


@dataclass(frozen=True, kw_only=True)
class Budget:
    """`Ref` is the budget's name. Its notifications are create-only: a change replaces the budget, which
    fails, as on AWS, when the template names it."""

    cloud: Cloud
    type_name: str = "AWS::Budgets::Budget"

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        name = str(properties["Budget"].get("BudgetName") or generated_name(stack, logical_id, longest=100))
        given: dict[str, Any] = {"Budget": _budget(properties["Budget"], name)}
        for member in ("NotificationsWithSubscribers", "ResourceTags"):
            if member in properties:
                given[member] = properties[member]
        self._budgets.create_budget(AccountId=self.cloud.account_id, **given)
        return Resource(physical_id=name, attributes={"Id": name})

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        name = new["Budget"].get("BudgetName") or physical_id
        if name != physical_id:
            raise UnsupportedChange(f"the local cloud does not rename the budget {physical_id}")
        if "Budget" in changed(old, new):
            self._budgets.update_budget(
                AccountId=self.cloud.account_id, NewBudget=_budget(new["Budget"], physical_id)
            )
        self._retag(physical_id, old.get("ResourceTags", []), new.get("ResourceTags", []))
        return {"Id": physical_id}

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        try:
            self._budgets.delete_budget(AccountId=self.cloud.account_id, BudgetName=physical_id)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NotFoundException":
                raise

    @property
    def _budgets(self) -> Any:
        return self.cloud.client("budgets")

    def _retag(self, name: str, old: list[Mapping[str, str]], new: list[Mapping[str, str]]) -> None:
        arn = f"arn:aws:budgets::{self.cloud.account_id}:budget/{name}"
        gone = {tag["Key"] for tag in old} - {tag["Key"] for tag in new}
        if gone:
            self._budgets.untag_resource(ResourceARN=arn, ResourceTagKeys=sorted(gone))
        if new:
            self._budgets.tag_resource(ResourceARN=arn, ResourceTags=new)


def _budget(template: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A template's budget as the calls take it: amounts are text there."""
    budget = dict(template) | {"BudgetName": name}
    if "BudgetLimit" in budget:
        limit = budget["BudgetLimit"]
        budget["BudgetLimit"] = {"Amount": str(limit["Amount"]), "Unit": limit["Unit"]}
    return budget
