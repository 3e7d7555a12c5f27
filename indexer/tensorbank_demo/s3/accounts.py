"""SeaweedFS's configuration files of accounts, roles and their rights.

https://github.com/seaweedfs/seaweedfs/tree/master/test/s3/iam has their form.
"""

from __future__ import annotations

import base64
import secrets

__all__ = ["ROLE", "identities", "roles"]

ROLE = "arn:aws:iam::role/Reader"


def identities(access_key: str, secret_key: str) -> dict[str, object]:
    """Return the document of ``-s3.config``: one administrator."""
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "tensorbank", "credentials": credentials, "actions": actions}]}


def roles() -> dict[str, object]:
    """Return the document of ``-s3.iam.config``: an STS, and a role that everybody who has keys may assume."""

    def document(**statement: object) -> dict[str, object]:
        return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}

    anybody = document(Principal="*", Action=["sts:AssumeRole"])
    reading = document(Action=["s3:GetObject", "s3:ListBucket"], Resource=["arn:aws:s3:::*"])
    return {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "seaweedfs-sts",
            "signingKey": base64.b64encode(secrets.token_bytes(32)).decode(),
        },
        "policies": [{"name": "Reading", "document": reading}],
        "roles": [
            {"roleName": "Reader", "roleArn": ROLE, "trustPolicy": anybody, "attachedPolicies": ["Reading"]}
        ],
    }
