"""dicomweb-client, a DICOMweb client of others, signed for AWS: the oracle of ours."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from dicomweb_client.api import DICOMwebClient


class SigV4(requests.auth.AuthBase):
    """Signs requests for medical-imaging, as AWS asks of DICOMweb clients."""

    def __init__(self, key: str, secret: str, region: str) -> None:
        self._signer = SigV4Auth(Credentials(key, secret), "medical-imaging", region)

    def __call__(self, request: Any) -> Any:
        # The client names the host without its port, and addresses in answers begin with what was named.
        request.headers["Host"] = urlsplit(request.url).netloc
        signed_names = ("Content-Type", "Accept", "Host")
        headers = {name: request.headers[name] for name in signed_names if name in request.headers}
        signed = AWSRequest(method=request.method, url=request.url, data=request.body, headers=headers)
        self._signer.add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request


def oracle_client(cloud: Any, datastore_id: str) -> DICOMwebClient:
    session = requests.Session()
    session.trust_env = False
    session.auth = SigV4(cloud.access_key_id, cloud.secret_access_key, cloud.region)
    return DICOMwebClient(url=f"{cloud.endpoint_url}/datastore/{datastore_id}", session=session)
