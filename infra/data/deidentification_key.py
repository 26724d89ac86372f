"""The secret from which de-identified names, identifiers and dates are derived."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

_CHARACTERS = 64
"""Letters and digits: 380 bits, more than any key that is derived of them has."""


class DeidentificationKey(Construct):
    """One text for the life of the environment (arrival/deidentification/key.py derives its keys from it).

    Secrets Manager makes it up when the stack is made, so it is in no template, parameter or log. It is never
    changed: with another text a patient would become another patient, and sealed records of who is who could
    not be opened. So it does not rotate, and it is kept where data are kept.

    Whoever holds it can say whose the de-identified images are. It has no policy of its own, which leaves
    other accounts out; in this account roles decide (docs/security.md, "De-identification").
    """

    def __init__(
        self, scope: Construct, id: str, *, key: kms.IKey, removal_policy: cdk.RemovalPolicy
    ) -> None:
        super().__init__(scope, id)
        secret = secretsmanager.CfnSecret(
            self,
            "Secret",
            description="Text of which de-identification derives its keys. Never change it",
            kms_key_id=key.key_arn,
            generate_secret_string=secretsmanager.CfnSecret.GenerateSecretStringProperty(
                password_length=_CHARACTERS, exclude_punctuation=True
            ),
        )
        secret.apply_removal_policy(removal_policy)
        self.secret_arn = secret.attr_id
        """With the six characters at its end that Secrets Manager adds to the name."""
