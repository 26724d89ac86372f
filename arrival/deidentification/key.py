"""The key of de-identification, and the subkeys that its purposes get.

One secret text lies in Secrets Manager. Pseudonyms, UIDs, days of shift and the sealing of records each use a
subkey of their own (HKDF-SHA256, RFC 5869), so that knowing one tells nothing about another.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from arrival.errors import KeyMaterialError

SHORTEST_SECRET = 32
"""Characters. 32 hexadecimal digits are 128 bits, the least that this decade calls safe (NIST SP 800-57)."""

_NAMESPACE = b"monai-on-aws/deidentification/1/"


@dataclass(frozen=True, repr=False)
class KeyMaterial:
    """The secret that makes pseudonyms reproducible, and reversible for who holds it. Never shown."""

    _secret: bytes

    @classmethod
    def from_secret(cls, text: str) -> KeyMaterial:
        """The key that `text` is.

        Raises:
            KeyMaterialError: It has fewer than 32 characters without the blanks around it, or is one
                character repeated.
        """
        stripped = text.strip()
        if len(stripped) < SHORTEST_SECRET or len(set(stripped)) == 1:
            raise KeyMaterialError(
                f"The key of de-identification has fewer than {SHORTEST_SECRET} characters, or one repeated.",
                advice="Let Secrets Manager generate it, or take the output of `openssl rand -hex 32`.",
            )
        return cls(stripped.encode("utf-8"))

    def subkey(self, purpose: str) -> bytes:
        """32 bytes for one purpose, by HKDF-SHA256."""
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=_NAMESPACE + purpose.encode()).derive(
            self._secret
        )

    def pseudonym(self, text: str) -> str:
        """64 hexadecimal digits that stand for `text` in names of ledgers and objects (HMAC-SHA256)."""
        return hmac.new(self.subkey("pseudonym"), text.encode("utf-8"), hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return "KeyMaterial(...)"


def key_of_secret(
    secrets_manager: Any, secret_id: str, *, version_id: str | None = None, version_stage: str | None = None
) -> KeyMaterial:
    """The key that the secret `secret_id` (ARN or name) holds as its SecretString.

    `secrets_manager` is a boto3 client; its identity needs secretsmanager:GetSecretValue on the secret, and
    kms:Decrypt on the secret's key. Without `version_id` and `version_stage` it is the current version
    (AWSCURRENT); the one before it has the stage AWSPREVIOUS.

    Raises:
        KeyMaterialError: It cannot be read, holds no text, or a text that is too short.
    """
    version = {"VersionId": version_id, "VersionStage": version_stage}
    try:
        answer = secrets_manager.get_secret_value(
            SecretId=secret_id, **{name: value for name, value in version.items() if value is not None}
        )
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise KeyMaterialError(
            f"The key of de-identification cannot be read from the secret {secret_id}: {code}.",
            advice="Check that the secret exists, and that this identity may read it and use its KMS key.",
        ) from error
    if "SecretString" not in answer:
        raise KeyMaterialError(
            f"The secret {secret_id} holds bytes and no text.", advice="Store the key as the secret's text."
        )
    return KeyMaterial.from_secret(answer["SecretString"])
