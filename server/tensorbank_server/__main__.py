"""Print the description of the service as it is installed, in OpenAPI 3.1: ``python -m tensorbank_server``."""

from __future__ import annotations

import json
import sys

from tensorbank_server.app import create_app
from tensorbank_server.settings import Settings

if __name__ == "__main__":
    described = create_app(Settings(access="open")).openapi()
    sys.stdout.write(json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
