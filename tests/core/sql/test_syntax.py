"""The keys and kinds of DuckDB's syntax trees that are relied on: a version of DuckDB that has others fails here, by name."""

from __future__ import annotations

import duckdb
import pytest

from tensorbank import InvalidInputError
from tensorbank.sql.expressions import (
    Between,
    Call,
    Cast,
    Choice,
    Column,
    Comparison,
    Conjunction,
    Constant,
    Field,
    In,
    Not,
    ScalarQuery,
    Star,
    Window,
    alias_of,
    expression_of,
    is_known_expression,
    is_null,
    names_of,
    text_of,
)
from tensorbank.sql.parser import Parser
from tensorbank.sql.syntax import (
    At,
    BaseTable,
    Join,
    Relation,
    Show,
    Subquery,
    TableFunction,
    common_tables,
    is_known,
    is_query,
    modifiers_of,
    ordered_further,
    query_of,
    recursive_name,
    relation_of,
    sample_has_no_seed,
    select_of,
    set_operation_of,
    with_name,
    with_query,
)
from tensorbank.sql.trees import children, rebuilt, walk


@pytest.fixture(scope="module")
def parser():
    with duckdb.connect() as con:
        yield Parser(con)


def said(node):
    """Return what a node says, with what is below it said in the same way."""
    found = expression_of(node)
    if found is None:
        return "NULL" if is_null(node) else None
    if isinstance(found, ScalarQuery):
        return ScalarQuery("a query") if is_query(found.query) else None
    values = {}
    for name in found.__dataclass_fields__:
        value = getattr(found, name)
        if isinstance(value, dict) and "class" in value:
            value = said(value)
        elif isinstance(value, list):
            value = [said(v) if "class" in v else said(v["expression"]) for v in value]
        elif isinstance(value, dict):
            value = {k: said(v) for k, v in value.items()}
        values[name] = value
    return type(found)(**values)


A, B, C = Column(("a",)), Column(("b",)), Column(("c",))
ONE, TWO = Constant(1), Constant(2)
EXPRESSIONS = {
    "a": A,
    's.t."A b".f': Column(("s", "t", "A b", "f")),
    "(a).f": Field(A, "f"),
    "a['f']": Field(A, "f"),
    "1": ONE,
    "-5": Constant(-5),
    "123456789012345678901234567890": Constant(123456789012345678901234567890),
    "1.5": Constant(1.5),
    "1e3": Constant(1000.0),
    "'it''s'": Constant("it's"),
    "true": Constant(True),
    "NULL": "NULL",
    "a > 1": Comparison(A, ">", ONE),
    "a >= 1": Comparison(A, ">=", ONE),
    "a < 1": Comparison(A, "<", ONE),
    "a <= 1": Comparison(A, "<=", ONE),
    "a = 1": Comparison(A, "=", ONE),
    "a <> 1": Comparison(A, "!=", ONE),
    "a != 1": Comparison(A, "!=", ONE),
    "a IS DISTINCT FROM 1": None,
    "a AND b AND c": Conjunction(True, [A, B, C]),
    "a OR b": Conjunction(False, [A, B]),
    "NOT a": Not(A),
    "a BETWEEN 1 AND 2": Between(A, ONE, TWO),
    "a NOT BETWEEN 1 AND 2": Not(Between(A, ONE, TWO)),
    "a IN (1, 2)": In(A, [ONE, TWO]),
    "a NOT IN (1, 2)": Not(In(A, [ONE, TWO])),
    "a IS NULL": None,
    "CASE WHEN a THEN b ELSE c END": Choice([B, C]),
    "CASE WHEN a THEN b WHEN b THEN c END": Choice([B, C, "NULL"]),
    "coalesce(a, b, NULL)": Choice([A, B, "NULL"]),
    "ifnull(a, b)": Choice([A, B]),
    "if(a, b, c)": Call("if", [A, B, C]),
    "(SELECT 1)": ScalarQuery("a query"),
    "EXISTS (SELECT 1)": None,
    "a IN (SELECT 1)": None,
    "Within_Bbox(a, 1, west := 2)": Call("within_bbox", [A, ONE], {"west": TWO}),
    "a + 1": Call("+", [A, ONE]),
    "['x', 'y']": Call("list_value", [Constant("x"), Constant("y")]),
    "count(*)": Call("count_star", []),
    "TIMESTAMP '2020-01-01'": Cast(Constant("2020-01-01"), "TIMESTAMP", False),
    "'2020-01-01'::timestamptz": Cast(Constant("2020-01-01"), "TIMESTAMPTZ", False),
    "TRY_CAST(a AS DATE)": Cast(A, "DATE", True),
    "*": Star("", frozenset(), frozenset(), True),
    "T.* EXCLUDE (A) REPLACE (1 AS b)": Star("t", frozenset({"a"}), frozenset({"b"}), True),
    "* RENAME (a AS b)": Star("", frozenset(), frozenset(), False),
    "t.* EXCLUDE (t.a)": Star("t", frozenset(), frozenset(), False),
    "COLUMNS('a.*')": Star("", frozenset(), frozenset(), False),
    "row_number() OVER (PARTITION BY a ORDER BY b)": Window(
        "row_number", [], {}, [B], "UNBOUNDED_PRECEDING", "CURRENT_ROW_RANGE", False, True
    ),
    "sum(a) OVER (ORDER BY b ROWS 2 PRECEDING)": Window(
        "sum", [A], {}, [B], "EXPR_PRECEDING_ROWS", "CURRENT_ROW_ROWS", False, True
    ),
    "first_value(a IGNORE NULLS) OVER (ORDER BY b ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)": Window(
        "first_value", [A], {}, [B], "UNBOUNDED_PRECEDING", "UNBOUNDED_FOLLOWING", True, True
    ),
    "row_number(ORDER BY a) OVER (ORDER BY b)": Window(
        "row_number", [], {}, [B], "UNBOUNDED_PRECEDING", "CURRENT_ROW_RANGE", False, False
    ),
    "max(a) OVER (ORDER BY b ROWS 1 PRECEDING EXCLUDE TIES)": Window(
        "max", [A], {}, [B], "EXPR_PRECEDING_ROWS", "CURRENT_ROW_ROWS", False, False
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "right"), EXPRESSIONS.items(), ids=EXPRESSIONS)
def test_an_expression_says_what_it_is(parser, text, right):
    node = parser.node(text)
    assert said(node) == right
    assert is_known_expression(node)


def test_names_and_texts(parser):
    assert names_of(parser.node("t.s.f")) == ("t", "s", "f")
    assert names_of(parser.node("((t.s).f)['g']")) == ("t", "s", "f", "g")
    assert names_of(parser.node("t.s[1].f")) is None
    assert text_of(parser.node("'x'")) == "x"
    assert text_of(parser.node("1")) is None
    assert alias_of(parser.node('a AS "B"')) == "B"
    assert alias_of(parser.node("a")) == ""


def test_a_number_of_many_digits_is_read(parser):
    assert expression_of(parser.node("9" * 5000)) == Constant(float("inf"))


def source(parser, text):
    return select_of(query_of(parser.tree(f"SELECT 1 FROM {text}"))).source


def constant_node(text, kind):
    literal = {"kind": kind, "text": text}
    return {"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "literal": literal}


RELATIONS = {
    "T": BaseTable("", False, False, "", "", "T"),
    "a.S.T AS q(c, d)": BaseTable("q", True, False, "a", "S", "T"),
    "t TABLESAMPLE reservoir(5 ROWS) REPEATABLE (3)": BaseTable("", False, True, "", "", "t"),
    "'x.csv'": BaseTable("", False, False, "", "", "x.csv"),
    "t AS a AT (VERSION => 3)": BaseTable(
        "a", False, False, "", "", "t", At("VERSION", constant_node("3", "INTEGER"))
    ),
    "s.t at (timestamp => '2026-03-01')": BaseTable(
        "", False, False, "", "s", "t", At("TIMESTAMP", constant_node("2026-03-01", "STRING"))
    ),
    "Range(3) r": TableFunction("r", False, False, "range"),
    "(PIVOT t ON a IN (1) USING count(*))": Subquery,
    "(SELECT 1) AS q": Subquery,
    "(VALUES (1)) v(x)": Subquery,
    "(DESCRIBE t)": Subquery,
    "a JOIN b USING (x, y)": Join,
}


@pytest.mark.parametrize(("text", "right"), RELATIONS.items(), ids=RELATIONS)
def test_a_relation_says_what_it_is(parser, text, right):
    found = relation_of(source(parser, text))
    assert type(found) is right if isinstance(right, type) else found == right
    if isinstance(found, Subquery):
        assert is_query(found.query)


def test_a_table_becomes_another_one_without_an_at(parser):
    tree = parser.tree("SELECT * FROM t AS a AT (VERSION => 3) TABLESAMPLE reservoir(5 ROWS) REPEATABLE (3)")
    select = query_of(tree)
    other = {**select, "from_table": with_name(select["from_table"], "t@3", "samples", "a")}
    text = parser.text(with_query(tree, other))
    assert text.startswith('SELECT * FROM "t@3".samples AS a TABLESAMPLE')
    assert parser.says(text, with_query(tree, other))


JOINS = {
    "a JOIN b ON x": ("REGULAR", "INNER", (), True),
    "a LEFT JOIN b USING (x, y)": ("REGULAR", "LEFT", ("x", "y"), False),
    "a RIGHT JOIN b ON x": ("REGULAR", "RIGHT", (), True),
    "a FULL JOIN b ON x": ("REGULAR", "FULL", (), True),
    "a SEMI JOIN b ON x": ("REGULAR", "SEMI", (), True),
    "a ANTI JOIN b ON x": ("REGULAR", "ANTI", (), True),
    "a NATURAL JOIN b": ("NATURAL", "INNER", (), False),
    "a, b": ("CROSS", "INNER", (), False),
    "a CROSS JOIN b": ("CROSS", "INNER", (), False),
    "a ASOF JOIN b ON x >= y": ("ASOF", "INNER", (), True),
    "a POSITIONAL JOIN b": ("POSITIONAL", "INNER", (), False),
}


@pytest.mark.parametrize(("text", "right"), JOINS.items(), ids=JOINS)
def test_a_join_says_how_it_joins(parser, text, right):
    found = relation_of(source(parser, text))
    assert (found.how, found.kind, found.using, found.condition is not None) == right
    assert [relation_of(side).name for side in (found.left, found.right)] == ["a", "b"]


def test_a_show(parser):
    shown = [relation_of(n) for n in walk(parser.tree("SHOW TABLES")) if isinstance(relation_of(n), Show)]
    assert [(s.name, s.is_special, s.query) for s in shown] == [('"tables"', True, None)]
    shown = [relation_of(n) for n in walk(parser.tree("DESCRIBE t")) if isinstance(relation_of(n), Show)]
    assert [(s.is_special, is_query(s.query)) for s in shown] == [(False, True)]


def test_a_select(parser):
    found = select_of(query_of(parser.tree("SELECT a, b AS x FROM t WHERE c")))
    assert ([said(c) for c in found.columns], said(found.where)) == ([A, B], C)
    assert (found.is_grouped, found.is_sampled) == (False, False)
    assert select_of(query_of(parser.tree("SELECT 1"))).source is None
    for text in ("GROUP BY a", "GROUP BY ALL", "HAVING count(*) > 1", "GROUP BY GROUPING SETS ((a), ())"):
        assert select_of(query_of(parser.tree(f"SELECT max(a) FROM t {text}"))).is_grouped, text
    assert select_of(query_of(parser.tree("SELECT a FROM t USING SAMPLE 3 ROWS"))).is_sampled
    assert select_of(query_of(parser.tree("SELECT 1 UNION SELECT 2"))) is None


def test_set_operations(parser):
    for text, by_name in (
        ("UNION ALL", False),
        ("EXCEPT", False),
        ("INTERSECT", False),
        ("UNION BY NAME", True),
    ):
        found = set_operation_of(query_of(parser.tree(f"SELECT a FROM t {text} SELECT b FROM t")))
        assert ([said(select_of(b).columns[0]) for b in found.branches], found.by_name) == ([A, B], by_name)
    assert set_operation_of(query_of(parser.tree("SELECT 1"))) is None


def test_common_tables(parser):
    query = query_of(parser.tree("WITH C(x) AS (SELECT 1), d AS MATERIALIZED (SELECT 2) SELECT 3"))
    found = common_tables(query)
    assert [(t.name, t.is_renamed, is_query(t.query)) for t in found] == [
        ("C", True, True),
        ("d", False, True),
    ]
    query = query_of(parser.tree("WITH RECURSIVE R AS (SELECT 1 UNION ALL SELECT n FROM R) SELECT 3"))
    assert [recursive_name(t.query) for t in common_tables(query)] == ["R"]
    unknown = {"cte_map": {"map": [{"key": "c", "value": {"of": "another version"}}]}, "type": "SELECT_NODE"}
    with pytest.raises(InvalidInputError, match="common table 'c' is not a SELECT"):
        common_tables(unknown)


def test_what_follows_a_query(parser):
    def flags(text):
        found = modifiers_of(query_of(parser.tree(f"SELECT {text}")))
        return found.is_ordered, found.is_limited, found.is_distinct, found.is_distinct_on

    assert flags("a FROM t") == (False, False, False, False)
    assert flags("a FROM t ORDER BY ALL") == (True, False, False, False)
    assert flags("a FROM t ORDER BY a LIMIT 3") == (True, True, False, False)
    assert flags("a FROM t OFFSET 3") == flags("a FROM t LIMIT 5%") == (False, True, False, False)
    assert flags("DISTINCT a FROM t") == (False, False, True, False)
    assert flags("DISTINCT ON (a) a FROM t") == (False, False, False, True)
    assert flags("1 UNION SELECT 2 ORDER BY 1") == (True, False, False, False)


def test_an_order_goes_on(parser):
    tree = parser.tree("SELECT a FROM t ORDER BY b DESC LIMIT 3")
    made = with_query(tree, ordered_further(query_of(tree), [("t", "x y")]))
    assert parser.text(made) == 'SELECT a FROM t ORDER BY b DESC, t."x y" ASC NULLS LAST LIMIT 3'
    window = parser.node("row_number() OVER (ORDER BY b)")
    query = with_query(tree, {**query_of(tree), "select_list": [ordered_further(window, [("x",)])]})
    assert "OVER (ORDER BY b, x ASC NULLS LAST" in parser.text(query)


def test_samples_without_a_seed(parser):
    for text, right in (("", True), (" REPEATABLE (7)", False)):
        tree = parser.tree(f"SELECT 1 FROM t USING SAMPLE reservoir(10 ROWS){text}")
        assert any(map(sample_has_no_seed, walk(tree))) is right
        tree = parser.tree(f"SELECT 1 FROM t TABLESAMPLE reservoir(10 ROWS){text}")
        assert any(map(sample_has_no_seed, walk(tree))) is right
    assert not any(map(sample_has_no_seed, walk(parser.tree("SELECT 1 FROM t"))))


def test_a_tree_is_the_statement_again(parser):
    sql = "WITH c AS (SELECT a FROM t) SELECT DISTINCT ON (a) x.a, CASE WHEN a > 1 THEN 2 END AS k FROM c AS x ORDER BY a"
    tree = parser.tree(sql)
    assert parser.says(parser.text(tree), tree)
    assert not parser.says("SELECT 1", tree)
    assert rebuilt(tree, lambda node: node) is tree
    assert sum(map(is_query, walk(tree))) == 2
    assert sum(map(is_query, walk([select_of(query_of(tree)).columns], without=is_query))) == 0
    assert len(list(children(query_of(tree)))) < len(list(walk(query_of(tree))))


@pytest.mark.parametrize(
    "node",
    [
        {"class": "OF_TOMORROW", "type": "OF_TOMORROW", "alias": ""},
        {"class": "OPERATOR", "type": "OF_TOMORROW", "children": []},
        {"class": "COMPARISON", "type": "COMPARE_OF_TOMORROW", "left": {}, "right": {}},
        {"class": "CONSTANT", "type": "VALUE_CONSTANT", "literal": {"kind": "OF_TOMORROW", "text": "1"}},
    ],
    ids=lambda n: f"{n['class']} {n['type']}",
)
def test_nothing_is_said_of_an_expression_that_is_not_known(node):
    assert expression_of(node) is None


def test_what_is_not_known_may_depend_on_the_order_of_rows(parser):
    assert is_known_expression({"class": "OF_TOMORROW"}) is False
    assert not is_known({"type": "NEW_NODE"})
    assert not is_known({"type": "NEW_REF", "alias": ""})
    assert all(
        map(
            is_known,
            walk(parser.tree("SELECT a, max(b) FROM s.t, u WHERE c GROUP BY ALL ORDER BY 1 LIMIT 2")),
        )
    )
    assert type(relation_of({"type": "NEW_REF", "alias": "x"})) is Relation
