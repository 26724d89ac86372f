"""InvokeEndpoint and InvokeEndpointAsync."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from local.sagemaker.errors import unsupported
from local.sagemaker.hosting import ModelServerError, Reply
from local.sagemaker.names import resource_arns
from local.sagemaker.service import SageMakerService
from local.sagemaker.store import Document
from local.service import Call, Caller, ConditionKeys, Handler, Prompt, ServiceError

_ANSWER_SECONDS = 60.0
"""A real-time model must answer within 60 seconds."""
_REFUSED = (
    "TargetModel",
    "TargetContainerHostname",
    "EnableExplanations",
    "InferenceComponentName",
    "SessionId",
    "PrefixAwareId",
)


class SageMakerRuntimeService:
    """The data plane of the same endpoints."""

    name = "sagemaker-runtime"

    def __init__(self, sagemaker: SageMakerService) -> None:
        self._sagemaker = sagemaker

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {"InvokeEndpoint": self.invoke, "InvokeEndpointAsync": self.invoke_async}

    def prompt(self) -> Mapping[str, Prompt]:
        """None: calls wait for a container."""
        return {}

    def resources(self, operation: str, params: Mapping[str, Any], caller: Caller) -> Sequence[str]:
        """The endpoint."""
        return resource_arns(self._sagemaker.foundation.names, operation, params, lambda group: 1)

    def condition_keys(self, operation: str, params: Mapping[str, Any]) -> ConditionKeys:
        """None: the keys of InvokeEndpoint are about multi-model endpoints, which are refused."""
        return {}

    def start(self) -> None:
        """The control plane starts the containers."""

    def stop(self) -> None:
        """The control plane stops them."""

    def invoke(self, call: Call) -> Mapping[str, Any]:
        """Pass the body to a container and its answer back."""
        params = call.params
        for member in _REFUSED:
            if params.get(member):
                raise unsupported(member)
        name = params["EndpointName"]
        endpoint = self._endpoint(name)
        if "AsyncInferenceConfig" in endpoint["_Snapshot"]["Config"]:
            raise ServiceError(
                "ValidationError", f"Endpoint {name} is asynchronous; use InvokeEndpointAsync."
            )
        server = self._sagemaker.endpoints.server(name, params.get("TargetVariant"))
        if server is None:
            raise ServiceError(
                "ServiceUnavailable", f"Endpoint {name} is {endpoint['EndpointStatus']}.", status=503
            )
        headers = {
            header: params[member]
            for member, header in (
                ("CustomAttributes", "X-Amzn-SageMaker-Custom-Attributes"),
                ("InferenceId", "X-Amzn-SageMaker-Inference-Id"),
                ("TargetVariant", "X-Amzn-SageMaker-Target-Variant"),
            )
            if params.get(member)
        }
        try:
            reply = server.invoke(
                params["Body"],
                seconds=_ANSWER_SECONDS,
                content_type=params.get("ContentType"),
                accept=params.get("Accept"),
                headers=headers,
            )
        except ModelServerError as error:
            raise self._model_error(endpoint, 0, str(error)) from error
        if not 200 <= reply.status < 300:
            raise self._model_error(endpoint, reply.status, reply.body.decode(errors="replace"))
        return self._answer(reply, server.name.rpartition("variant ")[2])

    def invoke_async(self, call: Call) -> Mapping[str, Any]:
        """Put a request in the endpoint's queue."""
        return self._sagemaker.queue.submit(call, self._endpoint(call.params["EndpointName"]))

    def _answer(self, reply: Reply, variant: str) -> Mapping[str, Any]:
        answer = {"Body": reply.body, "ContentType": reply.content_type, "InvokedProductionVariant": variant}
        if reply.custom_attributes:
            answer["CustomAttributes"] = reply.custom_attributes
        return answer

    def _endpoint(self, name: str) -> Document:
        foundation = self._sagemaker.foundation
        document = foundation.store.get("endpoint", name)
        if document is None or document["EndpointStatus"] in ("Deleting", "Failed"):
            account = foundation.cloud.account_id
            raise ServiceError("ValidationError", f"Endpoint {name} of account {account} not found.")
        return document

    def _model_error(self, endpoint: Document, status: int, message: str) -> ServiceError:
        foundation = self._sagemaker.foundation
        kind = "server error" if status >= 500 else "client error"
        group = f"/aws/sagemaker/Endpoints/{endpoint['EndpointName']}"
        logs = f"arn:aws:logs:{foundation.cloud.region}:{foundation.cloud.account_id}:log-group:{group}"
        text = (
            f'Received {kind} ({status}) from primary with message "{message[:1024]}". '
            f"See the log group {group} for more information."
        )
        return ServiceError(
            "ModelError",
            text,
            status=424,
            OriginalStatusCode=status,
            OriginalMessage=message[:1024],
            LogStreamArn=logs,
        )
