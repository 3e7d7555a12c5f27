"""The filter language: every condition means what numpy says it means, and no word of a caller becomes SQL."""

from __future__ import annotations

import copy
import math
import operator
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import duckdb
import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.filtered import NAMES
from tensorbank import InvalidInputError
from tensorbank_server.filters import FilterError, compile_filter, parse_text
from tensorbank_server.filters.literals import Literal

N = 200
START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def rows():
    """Columns as numpy has them, NaN for what is missing, and DuckDB over the same."""
    random = np.random.default_rng(5)
    columns = {
        "cloud_cover": np.where(random.random(N) < 0.2, np.nan, random.integers(0, 10, N) / 10),
        "lon": random.uniform(-180, 180, N),
        "lat": random.uniform(-90, 90, N),
        "mean": np.where(random.random(N) < 0.3, np.nan, random.integers(-3, 4, N).astype(float)),
        "season": random.choice(["summer", "winter", "it's", "a%b", 'q"'], N),
        "hours": random.integers(0, 2_000, N),
    }
    con = duckdb.connect()
    con.execute("SET TimeZone = 'America/New_York'")
    con.execute(
        'CREATE TABLE t (n INTEGER, cloud_cover DOUBLE, lon DOUBLE, lat DOUBLE, season VARCHAR, "S2_time" TIMESTAMPTZ, '
        '"NDVI" STRUCT("mean" DOUBLE))'
    )
    for i in range(N):
        values = [
            None if isinstance(v[i], float) and math.isnan(v[i]) else v[i].item() for v in columns.values()
        ]
        cloud, lon, lat, mean, season, hours = values
        time = START + timedelta(hours=hours)
        con.execute(
            "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, {'mean': ?})", [i, cloud, lon, lat, season, time, mean]
        )
    return columns, con


def found(con: duckdb.DuckDBPyConnection, tree: object) -> list[bool]:
    """Return which rows a tree selects."""
    sql = compile_filter(tree, NAMES)
    hits = con.execute(f"SELECT n FROM t WHERE {sql}").fetchall()
    return np.isin(np.arange(N), [n for (n,) in hits]).tolist()


# ------------------------------------------- properties, against numpy

NUMBERS = {"cloud_cover": "cloud_cover", "lon": "lon", "NDVI.mean": "mean"}
COMPARISONS = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ARITHMETIC = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
constants = st.one_of(st.integers(-4, 4), st.sampled_from([0.1, 0.5, 0.3, -17.25, 1e300, 1e-300]))


@st.composite
def values(draw, depth=2):
    """A numeric value: its tree, and what computes it from columns; NaN is unknown."""
    kind = draw(st.sampled_from(["constant", "property", *(["arithmetic"] if depth else [])]))
    if kind == "constant":
        c = draw(constants)
        return c, lambda _: np.full(N, float(c))
    if kind == "property":
        name = draw(st.sampled_from(sorted(NUMBERS)))
        return {"property": name}, lambda columns: columns[NUMBERS[name]]
    op = draw(st.sampled_from(sorted(ARITHMETIC)))
    (left, f), (right, g) = draw(values(depth - 1)), draw(values(depth - 1))

    def compute(columns):
        a, b = f(columns), g(columns)
        with np.errstate(all="ignore"):
            return np.where((b == 0) & (op == "/"), np.nan, ARITHMETIC[op](a, b))

    return {"op": op, "args": [left, right]}, compute


@st.composite
def conditions(draw, depth=3):
    """A condition: its tree, and (true, false) by row; neither is unknown."""
    kinds = ["compare", "between", "in", "null", "like", "time"]
    kind = draw(st.sampled_from([*kinds, *(["and", "or", "not"] if depth else [])]))
    if kind in ("and", "or"):
        parts = draw(st.lists(conditions(depth - 1), min_size=2, max_size=3))
        trees = [t for t, _ in parts]

        def compute(columns):
            known = [f(columns) for _, f in parts]
            some, every = np.logical_or.reduce, np.logical_and.reduce
            trues, falses = [t for t, _ in known], [f for _, f in known]
            return (every(trues), some(falses)) if kind == "and" else (some(trues), every(falses))

        return {"op": kind, "args": trees}, compute
    if kind == "not":
        tree, f = draw(conditions(depth - 1))
        return {"op": "not", "args": [tree]}, lambda columns: f(columns)[::-1]
    if kind == "compare":
        op = draw(st.sampled_from(sorted(COMPARISONS)))
        (left, f), (right, g) = draw(values()), draw(values())

        def compute(columns):
            a, b = f(columns), g(columns)
            known = ~(np.isnan(a) | np.isnan(b))
            return known & COMPARISONS[op](a, b), known & ~COMPARISONS[op](a, b)

        return {"op": op, "args": [left, right]}, compute
    if kind == "between":
        low, high = draw(constants), draw(constants)
        name = draw(st.sampled_from(sorted(NUMBERS)))

        def compute(columns):
            v = columns[NUMBERS[name]]
            inside = (v >= low) & (v <= high)
            return inside, ~inside & ~np.isnan(v)

        return {"op": "between", "args": [{"property": name}, low, high]}, compute
    if kind == "in":
        names = draw(
            st.lists(st.sampled_from(["summer", "it's", "x'; DROP TABLE t", "$1", 'q"']), min_size=1)
        )

        def compute(columns):
            inside = np.isin(columns["season"], names)
            return inside, ~inside

        return {"op": "in", "args": [{"property": "season"}, names]}, compute
    if kind == "null":

        def compute(columns):
            missing = np.isnan(columns["mean"])
            return missing, ~missing

        return {"op": "isNull", "args": [{"property": "NDVI.mean"}]}, compute
    if kind == "like":

        def compute(columns):
            inside = np.isin(columns["season"], ["a%b"])
            return inside, ~inside

        return {"op": "like", "args": [{"property": "season"}, "a\\%_"]}, compute
    hours = draw(st.integers(-5, 2_005))
    op = draw(st.sampled_from(["t_after", "t_before", "t_equals", "t_disjoint"]))
    zone = draw(st.sampled_from([0, 2, -7]))
    moment = (START + timedelta(hours=hours + zone)).replace(tzinfo=None)
    text = f"{moment.isoformat()}{zone:+03d}:00" if zone else f"{moment.isoformat()}Z"
    compare = {
        "t_after": operator.gt,
        "t_before": operator.lt,
        "t_equals": operator.eq,
        "t_disjoint": operator.ne,
    }

    def compute(columns):
        inside = compare[op](columns["hours"], hours)
        return inside, ~inside

    return {"op": op, "args": [{"property": "S2_time"}, {"timestamp": text}]}, compute


@given(conditions())
@settings(max_examples=300)
def test_a_condition_means_what_numpy_says(rows, condition):
    columns, con = rows
    tree, compute = condition
    try:
        hits = found(con, tree)
    except InvalidInputError:  # more than 16 arithmetic operators
        hypothesis.reject()
    assert hits == compute(columns)[0].tolist()


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00")))
@settings(max_examples=300)
def test_any_text_is_a_value_and_nothing_else(text):
    con = duckdb.default_connection()
    ((back,),) = con.execute(f"SELECT {Literal(text).sql}").fetchall()
    assert back == text


@given(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)).map(
            lambda d: d.replace(tzinfo=UTC)
        ),
    )
)
def test_numbers_and_times_are_kept_to_the_last_bit(value):
    con = duckdb.connect()
    con.execute("SET TimeZone = 'Asia/Kathmandu'")
    ((back,),) = con.execute(f"SELECT {Literal(value).sql} = $1", [value]).fetchall()
    assert back is True


# ------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("tree", "pointer"),
    [
        ({"op": "=", "args": [{"property": "password"}, 1]}, "/args/0/property"),
        ({"op": "=", "args": [{"property": "season"}, 1]}, "/"),
        ({"op": "=", "args": [{"property": "season; DROP TABLE t"}, "x"]}, "/args/0/property"),
        ({"op": "=", "args": [{"property": "NDVI.mean"}, None]}, "/args/1"),
        ({"op": "=", "args": [{"property": "NDVI.mean"}, math.nan]}, "/args/1"),
        ({"op": "=", "args": [{"property": "NDVI.mean"}, 2**63]}, "/args/1"),
        ({"op": "=", "args": [{"property": "NDVI"}, 1]}, "/args/0/property"),
        ({"op": "=", "args": [{"property": "season"}, "a\x00"]}, "/args/1"),
        ({"op": "=", "args": [{"property": "season"}, "\ud800"]}, "/args/1"),
        ({"op": "=", "args": [1]}, "/args"),
        ({"op": "=", "args": {"a": 1}}, "/"),
        ({"op": "=", "args": [1, 1], "x": 1}, "/"),
        ({"op": 7, "args": []}, "/"),
        ({"op": "getenv", "args": ["HOME"]}, "/op"),
        ({"op": "=", "args": [{"op": "read_text", "args": ["/etc/passwd"]}, "x"]}, "/args/0/op"),
        ({"op": "in", "args": [{"property": "season"}, []]}, "/args/1"),
        ({"op": "in", "args": [{"property": "season"}, [1]]}, "/args/1/0"),
        ({"op": "in", "args": [{"property": "season"}, [{"property": "split"}]]}, "/args/1/0"),
        ({"op": "like", "args": [{"property": "season"}, "%%%%%"]}, "/args/1"),
        ({"op": "like", "args": [{"property": "season"}, "a\\"]}, "/args/1"),
        ({"op": "and", "args": [True]}, "/"),
        ({"op": "and", "args": [True, 1]}, "/args/1"),
        ({"op": "t_after", "args": [{"property": "S2_time"}, {"timestamp": "yesterday"}]}, "/args/1"),
        ({"op": "t_after", "args": [{"property": "lon"}, {"date": "2020-01-01"}]}, "/args/0/property"),
        (
            {"op": "t_during", "args": [{"property": "S2_time"}, {"interval": ["2021-01-01", "2020-01-01"]}]},
            "/args/1",
        ),
        ({"op": "s_intersects", "args": [{"property": "geometry"}, {"bbox": [0, 0, 1]}]}, "/args/1"),
        ({"op": "s_intersects", "args": [{"property": "geometry"}, {"bbox": [0, 2, 1, 1]}]}, "/args/1"),
        (
            {
                "op": "s_intersects",
                "args": [{"property": "geometry"}, {"type": "Circle", "coordinates": [0, 0]}],
            },
            "/args/1",
        ),
        (
            {
                "op": "s_intersects",
                "args": [{"property": "geometry"}, {"type": "Polygon", "coordinates": "x"}],
            },
            "/args/1",
        ),
        (
            {
                "op": "s_intersects",
                "args": [{"property": "geometry"}, {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}],
            },
            "/args/1",
        ),
        ({"op": "pixels_any", "args": [{"property": "NDVI"}, "> x"]}, "/args/1"),
        ({"op": "pixels_any", "args": [{"property": "NDVI"}, "> 1e999"]}, "/args/1"),
        ({"op": "pixels_any", "args": [{"property": "lon"}, "> 1"]}, "/args/0/property"),
        (None, "/"),
        ([], "/"),
        ("TRUE", "/"),
        (1, "/"),
    ],
)
def test_what_is_wrong_is_pointed_at(tree, pointer):
    with pytest.raises(InvalidInputError) as refused:
        compile_filter(tree, NAMES)
    assert refused.value.kind == "filter"
    assert str(refused.value).startswith(f"filter{pointer}: ")


def nested(n: int) -> object:
    tree: object = True
    for _ in range(n):
        tree = {"op": "not", "args": [tree]}
    return tree


def test_sizes_are_bounded():
    compile_filter(nested(30), NAMES)
    junction = {"op": "and", "args": [{"op": "=", "args": [1, 1]}] * 600}
    ids = {"op": "in", "args": [{"property": "sample_id"}, ["x"] * 1_001]}
    ring = [[math.cos(a), math.sin(a)] for a in np.linspace(0, 2 * math.pi, 2_000)]
    area = {
        "op": "s_intersects",
        "args": [{"property": "geometry"}, {"type": "Polygon", "coordinates": [ring]}],
    }
    deep_list: object = 1
    for _ in range(100_000):
        deep_list = [deep_list]
    sums: object = 1
    for _ in range(17):
        sums = {"op": "+", "args": [sums, 1]}
    for tree in (
        nested(33),
        nested(100_000),
        junction,
        ids,
        area,
        deep_list,
        {"bbox": deep_list},
        {"op": "=", "args": [sums, 1]},
    ):
        with pytest.raises(InvalidInputError):
            compile_filter(tree, NAMES)
    del deep_list


def test_queryables_are_those_of_the_schema():
    assert NAMES["S2L2A.B08.mean"].sql == '"S2L2A"."B08"."mean"'
    assert NAMES["NDVI.p50"].sql == '"NDVI"."p50"'
    assert NAMES["LULC.share.bare ground"].sql == '"LULC"."share"."bare ground"'
    assert "LULC.mean" not in NAMES
    assert "footprint" not in NAMES
    assert NAMES["geometry"].kind == "geometry"


# --------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("cloud_cover < 0.1", {"op": "<", "args": [{"property": "cloud_cover"}, 0.1]}),
        ("S2L2A.B08.mean>=1500", {"op": ">=", "args": [{"property": "S2L2A.B08.mean"}, 1500]}),
        ("season = 'it''s'", {"op": "=", "args": [{"property": "season"}, "it's"]}),
        ('"LULC.share.bare ground" > .5', {"op": ">", "args": [{"property": "LULC.share.bare ground"}, 0.5]}),
        (
            "NOT season IN ('a', 'b')",
            {"op": "not", "args": [{"op": "in", "args": [{"property": "season"}, ["a", "b"]]}]},
        ),
        (
            "season NOT LIKE 'a%'",
            {"op": "not", "args": [{"op": "like", "args": [{"property": "season"}, "a%"]}]},
        ),
        ("NDVI IS NOT NULL", {"op": "not", "args": [{"op": "isNull", "args": [{"property": "NDVI"}]}]}),
        ("lon between -5 and 5", {"op": "between", "args": [{"property": "lon"}, -5, 5]}),
        ("lon-1 > 2", {"op": ">", "args": [{"op": "-", "args": [{"property": "lon"}, 1]}, 2]}),
        (
            "(lon + 1) * 2 > 3",
            {"op": ">", "args": [{"op": "*", "args": [{"op": "+", "args": [{"property": "lon"}, 1]}, 2]}, 3]},
        ),
        (
            "lon > 1 OR lat > 2 AND (lon < 5 OR NOT lat < 3)",
            {
                "op": "or",
                "args": [
                    {"op": ">", "args": [{"property": "lon"}, 1]},
                    {
                        "op": "and",
                        "args": [
                            {"op": ">", "args": [{"property": "lat"}, 2]},
                            {
                                "op": "or",
                                "args": [
                                    {"op": "<", "args": [{"property": "lon"}, 5]},
                                    {"op": "not", "args": [{"op": "<", "args": [{"property": "lat"}, 3]}]},
                                ],
                            },
                        ],
                    },
                ],
            },
        ),
        (
            "T_DURING(datetime, INTERVAL('2020-01-01', '..'))",
            {"op": "t_during", "args": [{"property": "datetime"}, {"interval": ["2020-01-01", ".."]}]},
        ),
        (
            "S2_time > TIMESTAMP('2020-01-01T00:00:00Z')",
            {"op": ">", "args": [{"property": "S2_time"}, {"timestamp": "2020-01-01T00:00:00Z"}]},
        ),
        (
            "S_INTERSECTS(geometry, BBOX(5, 45, 15, 55))",
            {"op": "s_intersects", "args": [{"property": "geometry"}, {"bbox": [5, 45, 15, 55]}]},
        ),
        (
            "s_intersects(geometry, POLYGON((0 0, 1 0, 1 -1.5, 0 0)))",
            {
                "op": "s_intersects",
                "args": [
                    {"property": "geometry"},
                    {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, -1.5], [0, 0]]]},
                ],
            },
        ),
        (
            "pixels_share(nd(S2L2A.B08, S2L2A.B04), '> 0.2') >= 0.1",
            {
                "op": ">=",
                "args": [
                    {
                        "op": "pixels_share",
                        "args": [
                            {"op": "nd", "args": [{"property": "S2L2A.B08"}, {"property": "S2L2A.B04"}]},
                            "> 0.2",
                        ],
                    },
                    0.1,
                ],
            },
        ),
        ("true", True),
    ],
)
def test_text_is_sugar(text, tree):
    assert parse_text(text) == tree
    compile_filter(tree, NAMES)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "lon", "lon >", "lon > 1 lat", "(lon > 1", "lon > 1)", "lon > 'a", "1 2", "lon = = 1", "f(1) = 2", "lon > #",
     "lon NOT > 1", "s_intersects(geometry, POLYGON((0 0))", "s_intersects(geometry, POLYGON(x))", "in (1)", "and", "lon in ()",
     "POLYGON", "bbox", "lon like 3", "lon is 3", "timestamp(3) > lon", "x" * 9_000],
)  # fmt: skip
def test_what_is_no_text_is_refused(text):
    with pytest.raises(InvalidInputError) as refused:
        compile_filter(parse_text(text), NAMES)
    assert refused.value.kind == "filter"


def outcome(compiling) -> str:
    """Tell what became of a filter; anything but a refusal of its own is an error."""
    try:
        compiling()
    except FilterError:
        return "refused"
    return "accepted"


WORDS = [
    *[
        "lon",
        "NDVI.mean",
        "season",
        "S2_time",
        "geometry",
        "NDVI",
        '"cloud_cover"',
        "1",
        "-0.5",
        "2e3",
        "'a'",
    ],
    *[
        "DATE('2021-07-01')",
        "INTERVAL('2021-01-01', '..')",
        "BBOX(5, 45, 15, 55)",
        "TRUE",
        "NULL",
        "(",
        ")",
        ",",
    ],
    *["AND", "OR", "NOT", "=", "<>", ">", "<=", "+", "-", "*", "/", "BETWEEN", "IN", "LIKE", "IS"],
    *["S_INTERSECTS", "T_AFTER", "pixels_any"],
]
GOOD_TEXTS = [
    "lon > 1 AND season IN ('summer', 'it''s')",
    "NOT (NDVI.mean BETWEEN 0 AND 1 OR season LIKE 'a%')",
    "NDVI IS NOT NULL",
    "S_INTERSECTS(geometry, BBOX(5, 45, 15, 55))",
    "T_AFTER(S2_time, DATE('2021-07-01'))",
    "(lon + 2 * -lat) / 3 >= 1.5e3",
    "pixels_any(NDVI, '> 0.8')",
]


good_texts = st.recursive(
    st.sampled_from(GOOD_TEXTS),
    lambda parts: st.builds("({}) {} ({})".format, parts, st.sampled_from(["AND", "OR", "AND NOT"]), parts),
    max_leaves=3,
)


@st.composite
def nearly_good(draw):
    """A good text of which one word, or none, is replaced or left out."""
    words = re.findall(r"'(?:[^']|'')*'|[\w.]+|[<>=]+|\S", draw(good_texts))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(words) - 1))
        words[at : at + 1] = draw(st.lists(st.sampled_from(WORDS), max_size=1))
    return " ".join(words)


TEXTS = st.one_of(
    st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), nearly_good()
)


def test_no_text_breaks_the_parser():
    outcomes: Counter[str] = Counter()

    @given(TEXTS)
    @settings(max_examples=400)
    def check(text):
        found = outcome(lambda: compile_filter(parse_text(text), NAMES))
        outcomes[found] += 1
        hypothesis.event(found)

    check()
    assert outcomes["accepted"] >= 20, "the texts hardly reach the compiler"
    assert outcomes["refused"] >= 100, "the texts are hardly ever wrong"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4_000 + "1=1" + ")" * 4_000,
        "NOT " * 2_000 + "TRUE",
        "-" * 8_000 + "1 = 1",
        "lon > " + "(" * 3_000,
    ],
)
def test_deep_text_is_refused_soon(text):
    with pytest.raises(InvalidInputError):
        compile_filter(parse_text(text), NAMES)


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from([*NAMES][:9]),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.dictionaries(st.text(max_size=8), children, max_size=3),
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(
                    ["and", "=", "in", "s_intersects", "t_during", "like", "pixels_any", "+"]
                ),
                "args": st.lists(children, max_size=3),
            }
        ),
        st.fixed_dictionaries({"property": st.sampled_from([*NAMES])}),
        st.fixed_dictionaries({"bbox": children}),
        st.fixed_dictionaries({"type": st.just("Polygon"), "coordinates": children}),
        st.fixed_dictionaries({"timestamp": children}),
        st.fixed_dictionaries({"interval": children}),
    ),
    max_leaves=12,
)


@st.composite
def nearly_good_trees(draw):
    """A good tree of which one value, or none, is replaced by any other."""
    tree, _ = draw(conditions())
    tree = copy.deepcopy(tree)
    places = []
    waiting: list = [tree]
    while waiting:
        node = waiting.pop()
        inside = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        places += [(node, key) for key, _ in inside]
        waiting += [value for _, value in inside if isinstance(value, dict | list)]
    if draw(st.booleans()):
        node, key = draw(st.sampled_from(places))
        node[key] = draw(JSON_VALUES)
    return tree


def test_no_tree_breaks_the_compiler():
    outcomes: Counter[str] = Counter()

    @given(st.one_of(JSON_VALUES, nearly_good_trees()))
    @settings(max_examples=500)
    def check(tree):
        found = outcome(lambda: compile_filter(tree, NAMES))
        outcomes[found] += 1
        hypothesis.event(found)

    check()
    assert outcomes["accepted"] >= 50, "the trees hardly reach what is compiled"
    assert outcomes["refused"] >= 100, "the trees are hardly ever wrong"
