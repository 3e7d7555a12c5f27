"""The commands of the indexer are loaded by every start of the command line, which must not cost the indexer itself."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_imports_no_more_than_it_needs_to_be_listed():
    code = (
        "import sys, tensorbank_indexer.commands\n"
        "print([name for name in ('pandas', 'tensorbank_indexer.ingestion') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
