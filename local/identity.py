"""Who calls, and what they may do: by MiniStack's IAM and its policy evaluator."""

from __future__ import annotations

import functools
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from local.service import Caller, ConditionKeys, Credentials, ServiceError

_POLICIES = 1024
"""How many policy documents are kept in parsed form."""
_SESSION_SECONDS = 12 * 3600
"""How long credentials of a service principal last: longer than any job on one machine should take."""


def install() -> None:
    """Make MiniStack read each policy document once: it reads all of a caller's policies for each request.

    What a document says depends on its text alone, and which documents count is looked up each time, so a
    change of permissions counts at once.
    """
    from ministack.core import iam_evaluator

    parse = iam_evaluator.parse_policy_document
    parse_text = functools.lru_cache(maxsize=_POLICIES)(parse)

    def parse_once(document: str | Mapping[str, Any]) -> Any:
        return parse_text(document) if isinstance(document, str) else parse(document)

    iam_evaluator.parse_policy_document = parse_once


def authenticate(
    *,
    service: str,
    method: str,
    raw_path: str,
    query: Mapping[str, list[str]],
    raw_headers: Sequence[tuple[bytes, bytes]],
    headers: Mapping[str, str],
    body: bytes,
    client: str,
) -> Caller:
    """The caller of an HTTP request after its signature (header or presigned) has been checked.

    `headers` are the raw ones, decoded, with names in lower case.
    Raises `ServiceError` where the request is not signed, its key is unknown or its signature does not fit.
    """
    from ministack.app import _request_account_scope
    from ministack.core import iam_evaluator, responses, router

    key = router.extract_access_key_id(headers, query)
    if not key:
        raise ServiceError(
            "MissingAuthenticationTokenException",
            f"Missing Authentication Token: sign the request with AWS Signature Version 4 for {service} "
            "(bearer tokens are not supported)",
            status=403,
        )
    try:
        responses.set_request_account_id(_request_account_scope(key))
    except iam_evaluator.AmbiguousAccessKeyError:
        raise ServiceError(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            status=403,
        ) from None
    responses.set_request_region(router.extract_region(headers, query))
    iam_evaluator.pin_request_origin(client, True)
    iam_evaluator.pin_signed_request(method, raw_path, dict(query), list(raw_headers))
    iam_evaluator.pin_signed_body(body)
    failure = iam_evaluator.check_credentials(key, service)
    if failure is not None:
        raise ServiceError(failure.code, failure.message, status=403)
    account_id = responses.get_account_id()
    # Who it is, without the policies, which `authorize` reads when it needs them.
    credential = iam_evaluator.resolve_credential(key, account_id)
    if isinstance(credential, iam_evaluator.CredentialResolutionError):
        raise ServiceError(credential.code, credential.message, status=403)
    return Caller(
        account_id=account_id,
        region=responses.get_region(),
        access_key_id=key,
        arn=str(credential.principal_arn),
    )


def authorize(
    *, caller: Caller, action: str, resources: Sequence[str], context: ConditionKeys | None = None
) -> None:
    """Raise AccessDeniedException unless the caller's identity policies allow `action` on every resource.

    Root may do everything. Permissions boundaries and session policies limit as in IAM.
    """
    from ministack.core import iam_evaluator

    if caller.arn.endswith(":root"):
        return
    principal = _principal(caller)
    keys: dict[str, Any] = {name.lower(): value for name, value in (context or {}).items()}
    keys.setdefault("aws:tagkeys", None)
    for resource in resources:
        result = iam_evaluator.evaluate(
            iam_evaluator.EvalContext(
                principal_arn=principal.arn,
                principal_type=principal.type,
                principal_account=principal.account,
                action=action,
                resource_arn=resource,
                region=caller.region,
                secure_transport=True,
                service_context=keys,
                principal_keys=principal.keys,
            ),
            principal.policies,
            *principal.limits,
        )
        if result.decision != "Allow":
            why = (
                "with an explicit deny in an identity-based policy"
                if result.decision == "Deny"
                else f"because no identity-based policy allows the {action} action"
            )
            raise ServiceError(
                "AccessDeniedException",
                f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource} {why}",
                status=403,
            )


def _principal(caller: Caller) -> Any:
    """The caller's policies as they are now."""
    from ministack.core import iam_evaluator

    principal = iam_evaluator.resolve_principal(caller.access_key_id, caller.account_id)
    if isinstance(principal, iam_evaluator.AuthError):
        raise ServiceError(principal.code, principal.message, status=403)
    return principal


def assume(
    *,
    role_arn: str,
    principal: str,
    session_name: str,
    account_id: str,
    region: str,
    source_arn: str | None = None,
) -> Credentials:
    """Credentials of a role for a service principal, after its trust policy has been asked.

    The trust policy sees aws:SourceAccount and aws:SourceArn as AWS sends them to keep a deputy from being
    confused.
    """
    role = _role(role_arn)
    if role is None:
        raise ServiceError("ValidationException", f"The role {role_arn} does not exist.")
    source = source_arn or f"arn:aws:{principal.partition('.')[0]}:{region}:{account_id}:*"
    if not allows_service(
        role["AssumeRolePolicyDocument"],
        principal=principal,
        action="sts:AssumeRole",
        resource=role_arn,
        region=region,
        context={
            "aws:SourceAccount": account_id,
            "aws:SourceArn": source,
            "sts:RoleSessionName": session_name,
        },
    ):
        raise ServiceError(
            "AccessDeniedException",
            f"Could not assume role {role_arn}: "
            f"its trust policy does not allow sts:AssumeRole by {principal}.",
            status=403,
        )
    return register_session(role_arn=role_arn, session_name=session_name, seconds=_SESSION_SECONDS)


def allows_service(
    document: str | Mapping[str, Any],
    *,
    principal: str,
    action: str,
    resource: str,
    region: str,
    context: Mapping[str, str],
) -> bool:
    """Whether a trust or resource policy lets a service principal ("events.amazonaws.com") do something."""
    from ministack.core import iam_evaluator

    evaluated = iam_evaluator.EvalContext(
        principal_arn=principal,
        principal_type="Service",
        principal_account=context.get("aws:SourceAccount", ""),
        action=action,
        resource_arn=resource,
        region=region,
        secure_transport=True,
        service_context={name.lower(): value for name, value in context.items()},
    )
    return bool(
        iam_evaluator.evaluate_trust_policy(_statements_for(document, principal), principal, evaluated)
    )


def register_session(*, role_arn: str, session_name: str, seconds: int) -> Credentials:
    """New temporary credentials of a role, known to every service of the cloud."""
    from ministack.services import sts

    access_key = f"ASIA{secrets.token_hex(8).upper()}"
    account_id = role_arn.split(":")[4]
    name = role_arn.rsplit("/", 1)[-1]
    session = "".join(c if c.isalnum() or c in "+=,.@-_" else "-" for c in session_name)[:64]
    role = _role(role_arn) or {}
    expires = time.time() + seconds
    secret, token = secrets.token_urlsafe(30), secrets.token_urlsafe(120)
    sts.register_session(
        access_key,
        {
            "Arn": f"arn:aws:sts::{account_id}:assumed-role/{name}/{session}",
            "UserId": f"{role.get('RoleId', name)}:{session}",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": expires,
            "AccountId": account_id,
            "PrincipalType": "AssumedRole",
        },
    )
    return Credentials(
        access_key_id=access_key,
        secret_access_key=secret,
        session_token=token,
        expiration=datetime.fromtimestamp(expires, UTC),
    )


def _role(role_arn: str) -> Mapping[str, Any] | None:
    from ministack.services import iam

    parts = role_arn.split(":")
    if len(parts) < 6 or not parts[5].startswith("role/"):
        raise ServiceError("ValidationException", f"{role_arn} is not the ARN of a role.")
    found: Mapping[str, Any] | None = iam._roles.get_scoped(parts[4], None, role_arn.rsplit("/", 1)[-1])
    return found if found is not None and found.get("Arn", role_arn) == role_arn else None


def _statements_for(document: str | Mapping[str, Any], principal: str) -> dict[str, Any]:
    """The statements of a trust policy that name a service, with a principal that the evaluator matches.

    MiniStack's evaluator lets the account's root pass for any service; a service must be named here itself.
    """
    parsed = json.loads(document) if isinstance(document, str) else dict(document)
    statements = parsed.get("Statement", [])
    named = []
    for statement in [statements] if isinstance(statements, dict) else statements:
        who = statement.get("Principal", {})
        services = who.get("Service", []) if isinstance(who, dict) else []
        if principal in ([services] if isinstance(services, str) else services):
            named.append({**statement, "Principal": "*"})
    return {"Version": parsed.get("Version", "2012-10-17"), "Statement": named}
