"""Tags of every resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.sagemaker.errors import validation
from local.sagemaker.foundation import Foundation
from local.sagemaker.listing import page
from local.sagemaker.names import last
from local.service import Call, Handler


class Tags:
    """AddTags, ListTags, DeleteTags."""

    def __init__(self, foundation: Foundation) -> None:
        self._foundation = foundation

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {"AddTags": self.add, "ListTags": self.list_tags, "DeleteTags": self.delete}

    def add(self, call: Call) -> Mapping[str, Any]:
        """New tags, or new values of old ones."""
        arn = self._existing(call.params["ResourceArn"])
        added = {tag["Key"]: tag["Value"] for tag in call.params["Tags"]}
        with self._foundation.store.transaction():
            self._foundation.store.add("tags", arn, {"Tags": {}})
            document = self._foundation.store.change("tags", arn, lambda tags: tags["Tags"].update(added))
        return {"Tags": _listed(document["Tags"] if document else {})}

    def list_tags(self, call: Call) -> Mapping[str, Any]:
        """One page of tags (50 by default)."""
        document = self._foundation.store.get("tags", self._existing(call.params["ResourceArn"])) or {
            "Tags": {}
        }
        params = {"MaxResults": 50, **call.params}
        return page(_listed(document["Tags"]), params, into="Tags", members=("Key", "Value"))

    def delete(self, call: Call) -> Mapping[str, Any]:
        """Fewer tags."""

        def change(document: dict[str, Any]) -> None:
            for key in call.params["TagKeys"]:
                document["Tags"].pop(key, None)

        self._foundation.store.change("tags", self._existing(call.params["ResourceArn"]), change)
        return {}

    def _existing(self, arn: str) -> str:
        parts = arn.split(":")
        if len(parts) != 6 or parts[2] != "sagemaker":
            raise validation(f"{arn!r} is not the ARN of a SageMaker resource.")
        kind, name = parts[5].partition("/")[0], last(arn)
        documents = self._foundation.store.all(kind)
        if kind == "pipeline" and "/execution/" in name:
            documents = self._foundation.store.all("pipeline-execution")
        for document in documents:
            if arn in document.values():
                return arn
        raise validation(f"Resource {arn} does not exist.")


def _listed(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
