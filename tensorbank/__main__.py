"""``python -m tensorbank``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the ``tensorbank`` script."""
    from tensorbank.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
