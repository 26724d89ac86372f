"""The wire protocol of an AWS service, taken from botocore's service model (rest-json and json 1.1).

Server side of what botocore does as a client: a request is routed to an operation, parsed, validated and
authorised; the handler's answer is validated against the model and serialised. A service adds only the
handlers.
"""

from local.protocol.dispatch import invoke
from local.protocol.http import HttpRequest, HttpResponse, answer, answer_promptly
from local.protocol.model import WireModel, wire_model

__all__ = ["HttpRequest", "HttpResponse", "WireModel", "answer", "answer_promptly", "invoke", "wire_model"]
