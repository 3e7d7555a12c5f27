"""The runner of guides: what it runs, what it leaves, and that a block that fails is named."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from support.guides import read_blocks, run_guide

ROOT = Path(__file__).parents[2]
RUN_BY = {
    "README.md": "e2e/test_readme.py",
    "indexer/README.md": "indexer/test_guide.py",
    "loader/FORECAST.md": "simulation/test_guide.py",
    "loader/README.md": "loader/test_guide.py",
    "server/README.md": "server/test_readme.py",
    "tensorbank/README.md": "docs/test_sql_guide.py",
    "tensorbank/TABLE_LIFE.md": "docs/test_table_life_guide.py",
}
"""The test that runs the blocks of a guide."""

GUIDE = """
# A guide

```bash
echo "from bash" > made.txt
cat made.txt
```

<!-- not run: needs a cluster -->
```bash
exit 7
```

```text
read, not run
```

1. In a list:

   ```python
   from pathlib import Path

   words = Path("made.txt").read_text().split()
   ```

```python
print(words, given)
```
"""


@pytest.fixture
def guide(tmp_path):
    def write(text: str):
        path = tmp_path / "GUIDE.md"
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_blocks_are_found_with_their_lines_and_reasons(guide):
    found = [(b.language, b.line, b.reason, b.is_run) for b in read_blocks(guide(GUIDE))]
    assert found == [
        ("bash", 5, None, True),
        ("bash", 11, "needs a cluster", False),
        ("text", 15, None, False),
        ("python", 21, None, True),
        ("python", 27, None, True),
    ]


def test_blocks_run_in_order_in_one_folder_and_one_namespace(guide, tmp_path):
    outputs = run_guide(guide(GUIDE), tmp_path, setup="given = 7", replace={"from bash": "of bash"})
    assert outputs == {5: "of bash\n", 21: "", 27: "['of', 'bash'] 7\n"}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("```bash\nfalse\necho on\n```", "GUIDE.md:2 failed: a block of bash ended with status 1"),
        ("```bash\nfalse | true\n```", "GUIDE.md:2 failed: a block of bash ended with status 1"),
        ("```python\n\n1 / 0\n```", 'GUIDE.md", line 3, in <module>'),
        (
            "```python\nimport warnings\nwarnings.warn('old', DeprecationWarning)\n```",
            "DeprecationWarning: old",
        ),
        ("```text\nnothing\n```", "GUIDE.md has no block that runs"),
    ],
    ids=["bash", "pipe", "python", "warning", "empty"],
)
def test_a_block_that_fails_is_named(guide, tmp_path, block, said):
    with pytest.raises(AssertionError) as failed:
        run_guide(guide(block), tmp_path)
    assert said in str(failed.value)


def test_what_is_replaced_must_be_there(guide, tmp_path):
    with pytest.raises(AssertionError, match="http://nowhere"):
        run_guide(guide(GUIDE), tmp_path, replace={"http://nowhere": "x"})


def test_the_blocks_of_all_guides_are_run():
    rooms = {page.relative_to(ROOT).as_posix() for page in ROOT.glob("*/*.md")} | {"README.md"}
    with_blocks = {name for name in rooms if any(block.is_run for block in read_blocks(ROOT / name))}
    assert with_blocks == set(RUN_BY)
    for test in RUN_BY.values():
        assert re.search(r"\brun_guide\(", (ROOT / "tests" / test).read_text()), test
