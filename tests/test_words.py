"""Docstrings begin with a verb in the imperative or with a noun phrase, and words that were given up do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OWN_PATH = Path(__file__).resolve().relative_to(ROOT).as_posix()
FOLDERS = [
    "tensorbank",
    "indexer/tensorbank_demo",
    "indexer/tensorbank_indexer",
    "loader/tensorbank_floods",
    "loader/tensorbank_gpu",
    "loader/tensorbank_lightning",
    "loader/tensorbank_loader",
    "loader/tensorbank_pretraining",
    "loader/tensorbank_simulation",
    "server/tensorbank_server",
    "benchmarks",
    "tests",
]

ALLOWED: dict[str, str] = {
    "zarr-python": "the name of a library",
}
"""Reasons for first words that the rules refuse."""

BEGINNINGS = frozenset(
    "What Whether Where Wherever How Which Who Whose Whoever Why Of For As When While If That Since".split()  # noqa: SIM905 - words are read as a text
)
"""First words of clauses and fragments, whose subject stands elsewhere or nowhere."""

THIRD_PERSON = frozenset(
    """Adds Allows Answers Applies Asks Asserts Begins Builds Calculates Calls Checks Chooses Closes Compares Completes
    Computes Contains Continues Converts Copies Counts Creates Decides Decodes Defines Deletes Describes Determines Does
    Draws Drops Encodes Ends Ensures Estimates Executes Expects Fetches Fills Finds Finishes Follows Forgets Formats Gets
    Gives Goes Handles Has Holds Ignores Implements Initializes Inserts Is Iterates Joins Keeps Lets Lists Loads Looks Makes
    Maps Marks Measures Merges Moves Names Opens Parses Prints Produces Provides Puts Raises Receives Records Refuses Releases
    Removes Renders Replaces Represents Resets Resolves Returns Runs Saves Says Sees Sends Serves Sets Shows Sorts Starts
    Stops Stores Streams Takes Tells Tests Throws Tracks Translates Tries Turns Updates Uses Verifies Waits Walks Wraps
    Yields""".split()  # noqa: SIM905
)
"""Verbs in the third person; a function's docstring asks for the deed."""

NO_ARTICLE = frozenset(
    {"All", "Any", "Each", "None", "One", "Some", "Two", "Three"}
    | {
        "Arithmetic",
        "Data",
        "Memory",
        "Authentication",
        "Discovery",
        "Normalisation",
        "Reading",
        "SQL",
        "Time",
        "Verification",
    }
    | {"Learn"}
)
"""Words in front of "of" that need no article: numbers, what is not counted, and verbs."""

GIVEN_UP = {
    "storey": "level (of the index)",
    "lightning strikes?": "a probability",
    "hit by lightning": "a probability",
    "front door": "what it opens",
    "door upward": "an import of an optional package",
    "a disk that lies": "reported corruption",
    "shorter than a person": "a number of seconds",
}
"""Metaphors that stood in the code, as regular expressions, and what to write for each."""


def docstrings(tree: ast.AST) -> Iterator[tuple[int, bool, str]]:
    """Yield the line of each docstring, True if it is a function's, and its text; texts below constants and fields, too."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for statement in body:
            match statement:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    of_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                    yield statement.lineno, of_function, text


def wrong_beginning(text: str, *, of_function: bool) -> str | None:
    """Return what is wrong with the first words of a docstring, None if nothing is."""
    words = text.split(None, 2)
    if not words:
        return "is empty"
    first = words[0].rstrip(",:;.")
    if first in ALLOWED or first.startswith(("`", ":", "(", '"', "'", "[", "-")):
        return None
    if first in BEGINNINGS or text.startswith("The same"):
        return f"begins with {' '.join(words[:2])!r}: begin with a verb or with a noun that says what it is"
    if of_function and first in THIRD_PERSON:
        return f"begins with {first!r}: write the imperative"
    if first[:1].islower():
        return f"begins with a small letter: {first!r}"
    if (
        words[1:2] == ["of"]
        and first.isalpha()
        and not first.endswith(("s", "ing"))
        and first not in NO_ARTICLE
    ):
        return f"begins with {first!r} of: give the noun an article"
    return None


def sources() -> Iterator[tuple[str, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def test_docstrings_begin_with_what_they_are_about():
    n, wrong = 0, []
    for path, text in sources():
        for line, of_function, docstring in docstrings(ast.parse(text)):
            n += 1
            if problem := wrong_beginning(docstring, of_function=of_function):
                wrong.append(f"{path}:{line} {problem}")
    assert n > 2000
    assert wrong == []


def test_metaphors_that_were_given_up_do_not_come_back():
    pattern = re.compile("|".join(GIVEN_UP), re.IGNORECASE)
    found = [
        f"{path}: {match[0]}"
        for path, text in sources()
        if path != OWN_PATH  # which names them
        for match in pattern.finditer(" ".join(text.split()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "Return the rows.",
        "The rows of a plan.",
        "A plan of a query.",
        "Bytes of the ranges that were read.",
        "Statistics of a band.",
        "One of the kinds.",
        "Reads of one batch.",
        "``numcodecs`` as it is.",
        "Names: hashes of values.",
    ],
)
def test_good_beginnings(text):
    assert wrong_beginning(text, of_function=False) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is left.",
        "Whether it is open.",
        "Of what is not a range.",
        "The same, of a store that is busy.",
        "Returns the rows.",
        "Computes.",
        "the rows.",
        "Number of rows.",
    ],
)
def test_bad_beginnings(text):
    assert wrong_beginning(text, of_function=True) is not None


def test_texts_below_constants_are_docstrings():
    tree = ast.parse('"""A module."""\nN = 1\n"""Of rows."""\nclass C:\n    n: int\n    """Of columns."""\n')
    assert [text for _, _, text in docstrings(tree)] == ["A module.", "Of rows.", "Of columns."]
