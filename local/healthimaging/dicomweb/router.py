"""DICOMweb paths to what answers them, with authorisation, throttling and error answers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from local.healthimaging.context import Context
from local.healthimaging.datastores import active_datastore
from local.healthimaging.dicomweb.exchange import Exchange
from local.healthimaging.dicomweb.qido import Qido
from local.healthimaging.dicomweb.stow import Stow
from local.healthimaging.dicomweb.wado import Wado
from local.healthimaging.errors import failure_place
from local.healthimaging.throttling import Throttle
from local.service import ServiceError

_log = logging.getLogger(__name__)

_STATUS = {
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "NotAcceptableException": 406,
    "ConflictException": 409,
    "ThrottlingException": 429,
    "InternalServerException": 500,
}
_UID = "[0-9A-Za-z.]+"


@dataclass(frozen=True, kw_only=True)
class _Route:
    method: str
    pattern: re.Pattern[str]
    action: str
    handler: Callable[[Exchange], Response]


class DicomWebRouter:
    """Answers DICOMweb requests on `/datastore/{id}/...`."""

    def __init__(self, context: Context, throttle: Throttle) -> None:
        self._context = context
        self._throttle = throttle
        stow, qido, wado = Stow(context), Qido(context), Wado(context)
        study, series = f"/studies/(?P<study>{_UID})", f"/studies/(?P<study>{_UID})/series/(?P<series>{_UID})"
        instance = f"{series}/instances/(?P<instance>{_UID})"
        self._routes = [
            _Route(method=method, pattern=re.compile(pattern), action=action, handler=handler)
            for method, pattern, action, handler in (
                ("POST", "/studies", "StoreDICOM", stow.store),
                ("POST", study, "StoreDICOMStudy", stow.store),
                ("GET", "/studies", "SearchDICOMStudies", qido.studies),
                ("GET", "/series", "SearchDICOMSeries", qido.series),
                ("GET", f"{study}/series", "SearchDICOMSeries", qido.series),
                ("GET", "/instances", "SearchDICOMInstances", qido.instances),
                ("GET", f"{study}/instances", "SearchDICOMInstances", qido.instances),
                ("GET", f"{series}/instances", "SearchDICOMInstances", qido.instances),
                ("GET", f"{series}/metadata", "GetDICOMSeriesMetadata", wado.series_metadata),
                ("GET", instance, "GetDICOMInstance", wado.instance),
                ("GET", f"{instance}/metadata", "GetDICOMInstanceMetadata", wado.instance_metadata),
                ("GET", rf"{instance}/frames/(?P<frames>[0-9,%C]+)", "GetDICOMInstanceFrames", wado.frames),
                ("GET", f"{instance}/bulkdata/(?P<bulk>[0-9a-z]{{32}})", "GetDICOMBulkdata", wado.bulkdata),
            )
        ]

    def answer(self, request: Request) -> Response:
        """The response to a request whose caller and body are in `request.state`."""
        try:
            return self._answer(request)
        except ServiceError as error:
            status = error.status or _STATUS.get(error.code, 400)
            return _refusal(error.code, error.message, status)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the client gets an answer
            _log.error("A DICOMweb request failed: %s", failure_place(error))
            return _refusal("InternalServerException", "An internal error occurred.", 500)

    def _answer(self, request: Request) -> Response:
        matched = re.fullmatch(r"/datastore/(?P<datastore>[0-9a-z]{32})(?P<rest>/.*)", request.url.path)
        if matched is None:
            raise ServiceError("ResourceNotFoundException", "The path names no datastore.")
        methods = set()
        for route in self._routes:
            found = route.pattern.fullmatch(matched["rest"])
            if found is None:
                continue
            if route.method != request.method:
                methods.add(route.method)
                continue
            return self._run(route, request, matched["datastore"], found.groupdict())
        if methods:
            raise ServiceError("ValidationException", f"Use {' or '.join(sorted(methods))}.", status=405)
        raise ServiceError("ResourceNotFoundException", "HealthImaging has no such DICOMweb resource.")

    def _run(self, route: _Route, request: Request, datastore_id: str, named: Mapping[str, str]) -> Response:
        uids = {"medical-imaging:StudyInstanceUID": "study", "medical-imaging:SeriesInstanceUID": "series"}
        self._context.cloud.authorize(
            caller=request.state.caller,
            action=f"medical-imaging:{route.action}",
            resources=[self._context.arns.datastore(datastore_id)],
            context={key: named[name] for key, name in uids.items() if name in named},
        )
        self._throttle.take(route.action)
        active_datastore(self._context.database.reader(), datastore_id)
        base = str(request.base_url).rstrip("/")
        return route.handler(
            Exchange(
                datastore_id=datastore_id,
                named=named,
                query=list(request.query_params.multi_items()),
                headers=request.headers,
                body=request.state.body,
                base_url=f"{base}/datastore/{datastore_id}",
            )
        )


def _refusal(code: str, message: str, status: int) -> Response:
    return Response(
        json.dumps({"code": code, "message": message}),
        status_code=status,
        headers={"x-amzn-ErrorType": code},
        media_type="application/json",
    )
