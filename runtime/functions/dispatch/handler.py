"""Dispatch function: sends arriving image sets to the endpoints that the environment's rules name.

Reads image set events from SQS (EventBridge puts them there) and looks at the image set's LATEST version,
whatever version the event speaks of. So events may come twice, late or in any order: they lead to one request
for each endpoint and state of the images (`runs`). Non-primary image sets are passed over: they conflict with
their study, and a person has to say which one is right.

Environment:
    RESULT_BUCKET, REQUEST_PREFIX: Where requests are put, and what has been decided.
    DISPATCH_ROUTES: The rules, and which endpoints and models they lead to (`rules.read_routes`).
    QUIET_SECONDS: How long an image set is left alone before it is run; also the delay of the queue.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import boto3

from healthimaging.client import connect
from healthimaging.errors import HealthImagingError
from runtime.functions.batches.batch import work_off
from runtime.functions.dispatch.decisions import Decisions
from runtime.functions.dispatch.dispatcher import Dispatcher
from runtime.functions.dispatch.rules import read_routes
from runtime.functions.dispatch.runs import Requests
from runtime.functions.image_sets.events import image_set_event


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Lambda handler for batches of SQS messages.

    Args:
        event: `Records` of SQS, each body one EventBridge event of source `aws.medical-imaging`.
        context: Lambda's context.

    Returns:
        `batchItemFailures`: the messages to deliver again.
    """
    s3 = boto3.client("s3")
    dispatcher = dispatcher_of(os.environ, medical_imaging=connect(), s3=s3)
    return work_off(
        event,
        context=context,
        doing="dispatching",
        read=image_set_event,
        work=lambda item: dispatcher.dispatch(item).settled,
        speaking=(HealthImagingError,),
    )


def dispatcher_of(variables: Mapping[str, str], *, medical_imaging: Any, s3: Any) -> Dispatcher:
    """The dispatcher that the environment variables describe."""
    bucket, prefix = variables["RESULT_BUCKET"], variables["REQUEST_PREFIX"]
    return Dispatcher(
        routes=read_routes(variables["DISPATCH_ROUTES"]),
        medical_imaging=medical_imaging,
        requests=Requests(
            s3=s3, sagemaker_runtime=boto3.client("sagemaker-runtime"), bucket=bucket, prefix=prefix
        ),
        decisions=Decisions(s3=s3, bucket=bucket, prefix=prefix),
        quiet=timedelta(seconds=int(variables["QUIET_SECONDS"])),
    )
