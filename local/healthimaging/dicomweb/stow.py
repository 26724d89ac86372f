"""STOW-RS: StoreDICOM and StoreDICOMStudy (PS3.18 10.5)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.responses import Response

from local.healthimaging.context import Context
from local.healthimaging.datastores import STORAGE_SYNTAXES, active_datastore
from local.healthimaging.dicomweb.exchange import Exchange, json_response
from local.healthimaging.dicomweb.media import parse_media_type, parse_multipart
from local.healthimaging.errors import invalid
from local.healthimaging.instances import ParsedInstance, RejectedFile, parse_instance
from local.healthimaging.placement import place
from local.service import ServiceError

MAXIMUM_BODY_BYTES = 1024**3
"""Largest request (devguide: "Storing instances")."""

_CANNOT_UNDERSTAND = 0xC000
_DOES_NOT_MATCH = 0xA900
"""Failure reasons of PS3.18 table I.2-2: the file cannot be parsed; it is not of the study that it was
sent to."""


class Stow:
    """The store transaction."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def store(self, exchange: Exchange) -> Response:
        """Store every instance that can be stored, in one transaction.

        200 where all were stored, else 409; the body tells of each instance, in either case.
        """
        exchange.require_json()
        files = _files(exchange)
        context = self._context
        datastore = active_datastore(context.database.reader(), exchange.datastore_id)
        storage_syntax = STORAGE_SYNTAXES[datastore["storage_format"]]
        study_uid = exchange.named.get("study")
        with context.content.holding() as put:

            def read(data: bytes) -> ParsedInstance | RejectedFile:
                try:
                    return parse_instance(data, storage_syntax=storage_syntax, put=put)
                except RejectedFile as error:
                    return error

            with ThreadPoolExecutor(min(len(files), (os.cpu_count() or 1) + 2)) as threads:
                outcomes = list(threads.map(read, files))
            stored = [
                outcome
                for outcome in outcomes
                if isinstance(outcome, ParsedInstance) and study_uid in (None, outcome.identity["study_uid"])
            ]
            with context.database.transaction() as connection:
                active_datastore(connection, exchange.datastore_id)
                place(
                    connection,
                    datastore_id=exchange.datastore_id,
                    arrivals=stored,
                    arns=context.arns,
                    now=context.clock(),
                )
        context.publisher.wake()
        failed = [_failure(outcome) for outcome in outcomes if outcome not in stored]
        return json_response(_report(stored, failed, exchange), status=409 if failed else 200)


def _files(exchange: Exchange) -> list[bytes]:
    if len(exchange.body) > MAXIMUM_BODY_BYTES:
        raise ServiceError("ValidationException", "The request is larger than 1 GB.", status=413)
    media_type = parse_media_type(exchange.headers.get("content-type", ""))
    if media_type.name != "application/dicom":
        raise ServiceError(
            "ValidationException",
            'Content-Type must be application/dicom or multipart/related; type="application/dicom".',
            status=415,
        )
    if not media_type.multipart:
        files = [exchange.body]
    elif boundary := media_type.parameters.get("boundary"):
        files = [part.data for part in parse_multipart(exchange.body, boundary)]
    else:
        raise invalid("The Content-Type names no boundary.")
    if not files or not files[0]:
        raise invalid("The request holds no instance.")
    return files


def _failure(outcome: ParsedInstance | RejectedFile) -> dict[str, Any]:
    if isinstance(outcome, ParsedInstance):
        reason, sop_class, instance = _DOES_NOT_MATCH, outcome.sop_class_uid, outcome.sop_instance_uid
    else:
        reason, sop_class, instance = _CANNOT_UNDERSTAND, outcome.sop_class_uid, outcome.sop_instance_uid
    item: dict[str, Any] = {"00081197": {"vr": "US", "Value": [reason]}}
    if sop_class:
        item["00081150"] = {"vr": "UI", "Value": [sop_class]}
    if instance:
        item["00081155"] = {"vr": "UI", "Value": [instance]}
    return dict(sorted(item.items()))


def _report(stored: list[ParsedInstance], failed: list[dict[str, Any]], exchange: Exchange) -> dict[str, Any]:
    report: dict[str, Any] = {}
    studies = {instance.identity["study_uid"] for instance in stored}
    if len(studies) == 1:
        report["00081190"] = {"vr": "UR", "Value": [f"{exchange.base_url}/studies/{studies.pop()}"]}
    if failed:
        report["00081198"] = {"vr": "SQ", "Value": failed}
    if stored:
        report["00081199"] = {"vr": "SQ", "Value": [_stored(instance, exchange) for instance in stored]}
    return report


def _stored(instance: ParsedInstance, exchange: Exchange) -> dict[str, Any]:
    identity = instance.identity
    url = (
        f"{exchange.base_url}/studies/{identity['study_uid']}/series/{identity['series_uid']}"
        f"/instances/{instance.sop_instance_uid}"
    )
    item: dict[str, Any] = {
        "00081150": {"vr": "UI", "Value": [instance.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [instance.sop_instance_uid]},
        "00081190": {"vr": "UR", "Value": [url]},
    }
    if instance.warnings:
        item["00081196"] = {"vr": "US", "Value": [int(instance.warnings[0].code)]}
    return item
