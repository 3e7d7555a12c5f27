"""Runs the code blocks of a Markdown guide as a reader would: in order, in an empty folder.

Fenced blocks of bash and sh run in a shell each, with the environment of the tests on the PATH. Blocks of python share one
process and one namespace, and warnings are errors there. A block that cannot run in a test has the reason in a comment on the
line before its fence, which readers of the page do not see::

    <!-- not run: needs two GPUs -->
    ```python
    ...
    ```

Blocks of other languages (text, sql, json, toml, ...) are for reading; a test may take them by ``read_blocks``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support import WITH_SUPPORT

SHELLS = ("bash", "sh")
RUN_LANGUAGES = (*SHELLS, "python")
"""The languages of blocks that a guide's test runs."""

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
MARK = "\x1e"
"""The mark that separates the output of one block from that of the next."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a guide: its code, the line on which that begins, and why it does not run, if so."""

    language: str
    code: str
    line: int
    reason: str | None = None

    @property
    def is_run(self) -> bool:
        return self.language in RUN_LANGUAGES and self.reason is None


def read_blocks(guide: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a guide, of some languages or of all, in order."""
    text = guide.read_text()
    blocks = []
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        code = "\n".join(each.removeprefix(found["indent"]) for each in found["code"].splitlines()) + "\n"
        blocks.append(Block(found["language"], code, line, found["reason"]))
    return [block for block in blocks if not languages or block.language in languages]


def run_guide(
    guide: Path,
    folder: Path,
    *,
    setup: str = "",
    replace: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 600,
) -> dict[int, str]:
    """Run the blocks of a guide in ``folder``, and return what each printed, by the line on which its code begins.

    Parameters
    ----------
    setup
        Python that runs first, in the namespace of the python blocks: what the guide takes for granted, such as ``bank``.
    replace
        Texts of the guide and what stands for them here, such as an address and that of a server of the test.
    environment
        Variables that are set for the blocks, beside those of the tests.

    Raises
    ------
    AssertionError
        A block failed, which the message names by its line, or the guide has no block that runs.
    """
    blocks = [block for block in read_blocks(guide) if block.is_run]
    assert blocks, f"{guide} has no block that runs"
    for old, new in (replace or {}).items():
        assert any(old in block.code for block in blocks), f"no block of {guide} has {old!r}"
        blocks = [Block(b.language, b.code.replace(old, new), b.line) for b in blocks]
    job = {"guide": str(guide), "setup": setup, "blocks": [[b.language, b.code, b.line] for b in blocks]}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "support.guides"],
        input=json.dumps(job),
        cwd=folder,
        env={**WITH_SUPPORT, "PATH": path, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    outputs = {
        int(line): text for line, text in re.findall(rf"{MARK}(\d+)\n([^{MARK}]*)", done.stdout, re.DOTALL)
    }
    last = max(outputs, default=0)
    assert done.returncode == 0, f"{guide.name}:{last} failed: {done.stderr[-3000:] or outputs.get(last)}"
    return outputs


def run_blocks(guide: str, setup: str, blocks: list[tuple[str, str, int]]) -> None:
    """Run blocks in this process, which is theirs alone; the first failure ends it."""
    main = types.ModuleType("__main__")  # without a file, as in a notebook, so that workers do not import one
    sys.modules["__main__"] = main
    exec(compile(setup, "<setup>", "exec"), main.__dict__)
    for language, code, line in blocks:
        print(f"{MARK}{line}", flush=True)
        if language in SHELLS:
            command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else ["sh", "-euc", code]
            status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
            if status:
                sys.exit(f"a block of {language} ended with status {status}:\n{code}")
        else:
            # lines are counted as in the guide, and tracebacks show them
            exec(compile("\n" * (line - 1) + code, guide, "exec"), main.__dict__)
        sys.stdout.flush()


if __name__ == "__main__":
    run_blocks(**json.load(sys.stdin))
