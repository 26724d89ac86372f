"""InvokeEndpoint and InvokeEndpointAsync."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from local.sagemaker.errors import unsupported
from local.sagemaker.hosting import ModelServer, ModelServerError, ModelTimeoutError, Reply
from local.sagemaker.multi_model import (
    ModelNotLoadedError,
    ModelNotReadyError,
    MultiModelServer,
    TargetModelError,
)
from local.sagemaker.names import resource_arns
from local.sagemaker.service import SageMakerService
from local.sagemaker.store import Document
from local.sagemaker.variants import hosts_components
from local.service import Call, Caller, ConditionKeys, Handler, Prompt, ServiceError

_ANSWER_SECONDS = 60.0
"""A real-time model must answer within 60 seconds."""
_MEGABYTE = 1024 * 1024
_PAYLOAD_BYTES = 25 * _MEGABYTE
"""docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints.html: payloads up to 25 MB."""
_SERVERLESS_PAYLOAD_BYTES = 4 * _MEGABYTE
_INLINE_BYTES = 128_000
"""An asynchronous request without an InputLocation (the model's limit of InvokeEndpointAsync's Body)."""
_REFUSED = (
    "TargetContainerHostname",
    "EnableExplanations",
    "SessionId",
    "PrefixAwareId",
)
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency "
    "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
)


class SageMakerRuntimeService:
    """The data plane of the same endpoints."""

    name = "sagemaker-runtime"

    def __init__(self, sagemaker: SageMakerService) -> None:
        self._sagemaker = sagemaker
        self._lock = threading.Lock()
        self._serverless: Counter[tuple[str, str]] = Counter()
        """Requests that the serverless variants are answering."""

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
        """Which model of a multi-model endpoint is asked for."""
        return {"sagemaker:TargetModel": params["TargetModel"]} if params.get("TargetModel") else {}

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
        endpoint = self._endpoint(params["EndpointName"])
        server = self._server(endpoint, params)
        with self._admitted(endpoint, server, len(params["Body"])):
            try:
                reply = self._ask(call, server)
            except ModelTimeoutError as error:
                raise self._model_error(server, 0, _TIMED_OUT) from error
            except ModelServerError as error:
                raise self._model_error(server, 0, str(error)) from error
        if not 200 <= reply.status < 300:
            raise self._model_error(server, reply.status, reply.body.decode(errors="replace"))
        answer = {
            "Body": reply.body,
            "ContentType": reply.content_type,
            "InvokedProductionVariant": server.variant,
        }
        if reply.custom_attributes:
            answer["CustomAttributes"] = reply.custom_attributes
        return answer

    def invoke_async(self, call: Call) -> Mapping[str, Any]:
        """Put a request in the endpoint's queue."""
        if len(call.params.get("Body", b"")) > _INLINE_BYTES:
            raise _too_large(_INLINE_BYTES)
        return self._sagemaker.queue.submit(call, self._endpoint(call.params["EndpointName"]))

    def _server(self, endpoint: Document, params: Mapping[str, Any]) -> ModelServer:
        """The container that is to answer."""
        name, config = endpoint["EndpointName"], endpoint["_Snapshot"]["Config"]
        if "AsyncInferenceConfig" in config:
            raise _invalid(f"Endpoint {name} is asynchronous; use InvokeEndpointAsync.")
        component = params.get("InferenceComponentName")
        if hosts_components(config):
            if not component:
                raise _invalid(
                    "Inference Component Name header is required for endpoints to which you plan to deploy "
                    "inference components. Please include Inference Component Name header or consider using "
                    "SageMaker models."
                )
            return self._copy(name, component)
        if component:
            raise _invalid(
                f"Endpoint {name} has no inference components; remove the Inference Component Name header."
            )
        server = self._sagemaker.endpoints.server(name, params.get("TargetVariant"))
        if server is None:
            raise ServiceError(
                "ServiceUnavailable", f"Endpoint {name} is {endpoint['EndpointStatus']}.", status=503
            )
        return server

    def _copy(self, endpoint: str, component: str) -> ModelServer:
        document = self._sagemaker.foundation.store.get("inference-component", component)
        if document is None or document["EndpointName"] != endpoint:
            raise _invalid(f"Inference Component {component} not found for endpoint {endpoint}.")
        server = self._sagemaker.components.server(component)
        if server is None:
            raise _invalid(
                f"Inference Component {component} has no capacity to process this request. It is "
                f"{document['InferenceComponentStatus']} with {document['_Copies']} wanted copies; more can "
                "be had by UpdateInferenceComponentRuntimeConfig."
            )
        return server

    def _ask(self, call: Call, server: ModelServer) -> Reply:
        params, name = call.params, call.params["EndpointName"]
        headers = {
            header: params[member]
            for member, header in (
                ("CustomAttributes", "X-Amzn-SageMaker-Custom-Attributes"),
                ("InferenceId", "X-Amzn-SageMaker-Inference-Id"),
                ("TargetVariant", "X-Amzn-SageMaker-Target-Variant"),
            )
            if params.get(member)
        }
        types: dict[str, Any] = {"content_type": params.get("ContentType"), "accept": params.get("Accept")}
        target = params.get("TargetModel")
        if not isinstance(server, MultiModelServer):
            if target:
                raise _invalid(
                    f"Endpoint {name} is not a multi-model endpoint and does not support target model header."
                )
            return server.invoke(params["Body"], seconds=_ANSWER_SECONDS, headers=headers, **types)
        if not target:
            raise _invalid(f"Request {call.request_id} is missing a target model header.")
        try:
            return server.invoke_model(
                target, params["Body"], seconds=_ANSWER_SECONDS, headers=headers, **types
            )
        except TargetModelError as error:
            raise _invalid(str(error)) from error
        except ModelNotReadyError as error:
            raise ServiceError(
                "ModelNotReadyException",
                f"Model {target} of endpoint {name} is still being downloaded or loaded; try again.",
                status=429,
            ) from error
        except ModelNotLoadedError as error:
            status = error.reply.status if error.reply else 0
            raise self._model_error(server, status, str(error)) from error

    @contextmanager
    def _admitted(self, endpoint: Document, server: ModelServer, size: int) -> Iterator[None]:
        """The limits of size and, of a serverless variant, of requests at a time."""
        serverless = next(
            (
                variant["ServerlessConfig"]
                for variant in endpoint["_Snapshot"]["Config"]["ProductionVariants"]
                if variant["VariantName"] == server.variant and "ServerlessConfig" in variant
            ),
            None,
        )
        limit = _PAYLOAD_BYTES if serverless is None else _SERVERLESS_PAYLOAD_BYTES
        if size > limit:
            raise _too_large(limit)
        if serverless is None:
            yield
            return
        key = endpoint["EndpointName"], server.variant
        with self._lock:
            if self._serverless[key] >= serverless["MaxConcurrency"]:
                raise ServiceError(
                    "ThrottlingException",
                    f"Endpoint {key[0]} answers MaxConcurrency={serverless['MaxConcurrency']} requests at a "
                    "time already; try again.",
                    status=400,
                )
            self._serverless[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._serverless[key] -= 1

    def _endpoint(self, name: str) -> Document:
        foundation = self._sagemaker.foundation
        document = foundation.store.get("endpoint", name)
        if document is None or document["EndpointStatus"] in ("Deleting", "Failed"):
            account = foundation.cloud.account_id
            raise _invalid(f"Endpoint {name} of account {account} not found.")
        return document

    def _model_error(self, server: ModelServer, status: int, message: str) -> ServiceError:
        foundation = self._sagemaker.foundation
        kind = "client error" if 400 <= status < 500 else "server error"
        group = server.log_group
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


def _invalid(message: str) -> ServiceError:
    return ServiceError("ValidationError", message)


def _too_large(limit: int) -> ServiceError:
    return _invalid(
        "1 validation error detected: Value at 'body' failed to satisfy constraint: "
        f"Member must have length less than or equal to {limit}"
    )
