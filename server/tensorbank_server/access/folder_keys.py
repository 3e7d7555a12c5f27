"""Temporary keys of an object store that read the folders of one plan: the access ``dir``.

The store's own STS makes them (``AssumeRole``), by a role that may read the bank, narrowed by a session policy to reading objects
below some folders. The service's keys are not handed out.
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorbank.errors import ErrorKind, StorageError
from tensorbank.storage import StorageOptions, bucket_and_prefix

__all__ = ["FolderKeys", "assume", "folders_of", "read_policy"]

LIFETIME_S = (900, 3_600)
"""The shortest and the longest lifetime of such keys, seconds.

STS gives none for less than the first, and none for more than the second to a caller whose own keys are of a role.
"""
MAX_POLICY_CHARS = 2_048
TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class FolderKeys:
    """A set of temporary keys. ``expires_s`` is of the wall clock."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_s: float


def folders_of(keys: Iterable[str]) -> list[str]:
    """Return the folders of the parts that shards lie in, sorted: ``<table>/tensors/<part>``."""
    return sorted({"/".join(key.split("/", 3)[:3]) for key in keys})


def read_policy(bank_url: str, folders: Sequence[str]) -> str:
    """Return the session policy that lets objects below some folders of a bank be read, and nothing else.

    A policy has 2,048 characters. Of parts that do not fit, the folder that they all lie in is named.
    """
    bucket, prefix = bucket_and_prefix(bank_url)
    above = f"arn:aws:s3:::{bucket}/{_literal(prefix)}" if prefix else f"arn:aws:s3:::{bucket}"

    def policy(names: Iterable[str]) -> str:
        statement = {
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": [f"{above}/{name}/*" for name in names],
        }
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, separators=(",", ":"))

    exact = policy(folders)
    if len(exact) <= MAX_POLICY_CHARS:
        return exact
    return policy(sorted({folder.rsplit("/", 1)[0] for folder in folders}))


def _literal(text: str) -> str:
    """Return a part of a resource's name with ``$``, ``*`` and ``?`` escaped, so that none of them is a pattern.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#policy-vars-specialchars
    """
    return re.sub(r"[$*?]", lambda found: f"${{{found[0]}}}", text)


def assume(
    storage: StorageOptions, role: str, endpoint: str | None, policy: str, session: str, lifetime_s: float
) -> FolderKeys:
    """Ask STS for keys, in the name of the keys in ``storage``.

    Parameters
    ----------
    role
        The ARN of the role that the keys are of.
    endpoint
        The endpoint of STS, None for AWS's own.
    session
        The name of the keys' user in the store's log.

    Raises
    ------
    StorageError
        STS refuses or cannot be reached.
    """
    import botocore.exceptions

    seconds = int(min(max(lifetime_s, LIFETIME_S[0]), LIFETIME_S[1]))
    try:
        found = _client(storage, endpoint).assume_role(
            RoleArn=role, RoleSessionName=session, Policy=policy, DurationSeconds=seconds
        )["Credentials"]
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise StorageError(f"STS made no keys for {role}: {error}", kind=ErrorKind.STS) from error
    expires_s = min(found["Expiration"].timestamp(), time.time() + seconds)
    return FolderKeys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], expires_s)


def _client(storage: StorageOptions, endpoint: str | None) -> Any:
    import botocore.config
    import botocore.session

    own = storage.with_keys()
    config = botocore.config.Config(
        connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 3}
    )
    return botocore.session.Session().create_client(
        "sts",
        region_name=own.region,
        endpoint_url=endpoint,
        aws_access_key_id=own.access_key,
        aws_secret_access_key=own.secret_key,
        aws_session_token=own.session_token,
        config=config,
    )
