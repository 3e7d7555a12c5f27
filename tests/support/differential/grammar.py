"""Statements from a number: joins of all kinds, nested conditions, subqueries, windows, set operations.

A statement is written once. Where the bank's own functions and handles have to be said in plain SQL for the truth, the text holds
both, as ``{{ours||truth}}``. Every outcome is fixed by the statement: ranks and limits order by keys that are unique.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np

from support.differential.bed import Bed
from support.differential.conditions import Conditions, Rel

__all__ = ["Statement", "statement"]

_BOTH = re.compile(r"\{\{(.*?)\|\|(.*?)\}\}", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """One question: as the bank and as plain DuckDB are asked it; ``shape`` says what it is made of."""

    text: str
    shape: frozenset[str]

    @property
    def ours(self) -> str:
        return _BOTH.sub(lambda m: m[1], self.text)

    @property
    def truth(self) -> str:
        return _BOTH.sub(lambda m: m[2], self.text)


@dataclass
class _Maker(Conditions):
    """A maker of one statement; ``common`` are its common tables, and ``known`` their names."""

    common: list[str] = field(default_factory=list)
    known: list[Rel] = field(default_factory=list)

    def base(self) -> tuple[str, Rel]:
        """A table, maybe with conditions in a subquery of its own or under a name of WITH."""
        level = self.one("samples", "samples", "samples", "tiles", "shards", "pick")
        table = None if level == "pick" else self.one("tm", "tm", "sw")
        alias = self.name()
        spelled = "pick" if table is None else f"{table}.{level}"
        if level == "samples" and self.chance(0.6):
            spelled = self.one(str(table), f"main.{table}", f'"{table}"', str(table).upper())
        rel = Rel(alias, level, table)
        kind = self.one("table", "table", "table", "subquery", "subquery", "with", "with", "again")
        if kind == "subquery":
            inner = replace(rel, alias=self.name())
            self.shape.add("derived")
            return (
                f"(SELECT * FROM {spelled} AS {inner.alias} WHERE {self.condition([inner], 1)}) AS {alias}",
                rel,
            )
        if kind == "with":
            inner = replace(rel, alias=self.name())
            name = self.one(f"w{len(self.common)}", f"w{len(self.common)}", f"WORLD{len(self.common)}")
            self.shape.add("with")
            how = self.one("AS", "AS", "AS MATERIALIZED", "AS NOT MATERIALIZED")
            self.common.append(
                f"{name} {how} (SELECT * FROM {spelled} AS {inner.alias} WHERE {self.condition([inner], 0)})"
            )
            self.known.append(replace(rel, alias=name))
            return f"{name} AS {alias}", rel
        if kind == "again" and self.known:
            chosen = self.known[int(self.rng.integers(len(self.known)))]
            self.shape.add("with, used again")
            return f"{chosen.alias} AS {alias}", replace(chosen, alias=alias)
        return f"{spelled} AS {alias}", rel

    def source(self, n_joins: int) -> tuple[str, list[Rel]]:
        """A FROM clause and the relations whose columns it shows."""
        text, first = self.base()
        rels = [first]
        for _ in range(n_joins):
            text, rels = self.joined(text, rels)
        return text, rels

    def joined(self, text: str, rels: list[Rel]) -> tuple[str, list[Rel]]:
        other, right = self.base()
        left = rels[int(self.rng.integers(len(rels)))]
        key = self.shared_key(left, right)
        kinds = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"] * 3
        kinds += ["lateral", "lateral left", "comma", "POSITIONAL JOIN", "ASOF JOIN", "ASOF LEFT JOIN"]
        kinds += ["using", "using left", "using full", "natural"]
        kind = self.one(*kinds)
        if key is None and kind not in ("POSITIONAL JOIN",):
            kind = "small"
        if kind == "POSITIONAL JOIN" and ("JOIN" in text or "SELECT" in text + other):
            kind = "JOIN" if key else "small"  # rows of joins and subqueries come in any order
        if kind.startswith("ASOF") and not (
            left.level in ("samples", "pick") and right.level in ("samples", "pick")
        ):
            kind = "LEFT JOIN"
        if kind.startswith("using") and (len(rels) > 1 or key is None):
            kind = "JOIN"
        self.shape.add(kind)
        on = f"{left.alias}.{key} = {right.alias}.{key}"
        more = f" AND ({self.condition([left, right], 1)})" if self.chance(0.4) else ""
        if kind in ("small", "comma"):
            few = replace(right, alias=self.name())
            order = f"{', '.join(right.ids)} LIMIT {self.one(1, 2, 3)}"
            rows = (
                f"(SELECT * FROM {other} WHERE {self.condition([right], 0)} ORDER BY {order}) AS {few.alias}"
            )
            comma = kind == "comma" and " JOIN " not in text
            return f"{text}{', ' if comma else ' CROSS JOIN '}{rows}", [*rels, few]
        if kind == "POSITIONAL JOIN":
            return f"{text} POSITIONAL JOIN {other}", [*rels, right]
        if kind.startswith("ASOF"):
            time = {"samples": "S2_time", "pick": "at"}
            at = f"{left.alias}.{time[left.level]} >= {right.alias}.{time[right.level]}"
            return f"{text} {kind} {other} ON {at}", [*rels, right]
        if kind.startswith("lateral"):
            inner = replace(right, alias=self.name())
            where = f"{right.alias}.{key} = {left.alias}.{key} AND ({self.condition([right], 1)})"
            query = f"LATERAL (SELECT * FROM {other} WHERE {where}) AS {inner.alias}"
            join = f"CROSS JOIN {query}" if kind == "lateral" else f"LEFT JOIN {query} ON true"
            return f"{text} {join}", [*rels, inner]
        if kind.startswith("using"):
            join = {"using": "JOIN", "using left": "LEFT JOIN", "using full": "FULL JOIN"}[kind]
            return f"{text} {join} {other} USING ({key})", [*rels, right]
        if kind == "natural":
            inner = replace(right, alias=self.name())
            columns = f"{key}, {right.ids[-1]} AS k{self.n_names}"
            part = f"(SELECT {columns} FROM {other} WHERE {self.condition([right], 1)})"
            way = self.one("NATURAL JOIN", "NATURAL LEFT JOIN")
            if len(rels) > 1:
                return f"{text} JOIN {other} ON {on}{more}", [*rels, right]
            return f"{text} {way} {part} AS {inner.alias}", rels
        shown = rels if kind in ("SEMI JOIN", "ANTI JOIN") else [*rels, right]
        return f"{text} {kind} {other} ON {on}{more}", shown

    # ------------------------------------------------------------ statements

    def handle(self, rels: list[Rel]) -> str:
        """A column of tensors, if some relation has one."""
        some = [r for r in rels if r.level in ("samples", "tiles") and r.table]
        if not some:
            return ""
        rel = some[int(self.rng.integers(len(some)))]
        h = f"{rel.alias}.{self.one('NDVI', 'S2L2A', 'LULC', 'S1GRD')}"
        fields = ["key", "offset", "length", *(["y0", "x0"] if rel.level == "tiles" else [])]
        packed = ", ".join(f"'{f}': {h}.ref.\"{f}\"" for f in fields)
        self.shape.add("handle")
        return f", {{{{{h}||CASE WHEN {h}.ref.key IS NULL THEN NULL ELSE {{{packed}}} END}}}} AS h0"

    def select(self, rels: list[Rel]) -> str:
        listed = [c for rel in rels for c in rel.ids]
        return ", ".join(f"{c} AS c{i}" for i, c in enumerate(listed))

    def query(self) -> str:
        n_joins = int(self.rng.choice([0, 0, 1, 1, 1, 2]))
        text, rels = self.source(n_joins)
        where = f" WHERE {self.condition(rels)}" if self.chance(0.9) else ""
        ids = ", ".join(c for rel in rels for c in rel.ids)
        rel = rels[0]
        group = {"samples": "season", "tiles": "season", "shards": "part", "pick": "split"}[rel.level]
        group, body = f"{rel.alias}.{group}", f" FROM {text}{where}"
        number = f"{rel.alias}.{self.one(*self.bed.numbers[rel.level])}"
        form = self.one(
            *["plain"] * 6,
            *(
                "group",
                "aggregate",
                "distinct",
                "distinct on",
                "qualify",
                "limit",
                "over",
                "case",
                "set",
                "set",
            ),
            *("nested", "recursive", "pivot", "unnest", "having"),
        )
        if form in ("recursive", "pivot", "unnest") and (rel.level != "samples" or rel.table is None):
            form = "plain"
        self.shape.add(form)
        if form == "plain":
            return f"SELECT {self.select(rels)}{self.handle(rels)}{body}"
        if form == "group":
            some = f"count(*) FILTER (WHERE {self.condition(rels, 1)})"
            return f"SELECT {group} AS c0, count(*) AS n, {some} AS some, min({number}) AS low{body} GROUP BY ALL"
        if form == "having":
            return f"SELECT {group} AS c0, max({number}) AS high{body} GROUP BY {group} HAVING count(*) > {self.one(1, 3, 20)}"
        if form == "aggregate":
            some = f"bool_or({self.condition(rels, 1)})"
            return f"SELECT count(*) AS n, min({number}) AS low, max({number}) AS high, {some} AS b{body}"
        if form == "distinct":
            return f"SELECT DISTINCT {group} AS c0, {number} > {self.one(0, 0.5, 100)} AS c1{body}"
        if form == "distinct on":
            listed = f"{group} AS g, {self.select(rels)}{self.handle(rels)}"
            return f"SELECT DISTINCT ON ({group}) {listed}{body} ORDER BY {group}, {ids}"
        if form == "qualify":
            k, way = self.one(1, 2, 5), self.one("ASC", "DESC")
            rank = f"rank() OVER (PARTITION BY {group} ORDER BY {number} {way}, {ids})"
            return f"SELECT {self.select(rels)}{self.handle(rels)}{body} QUALIFY {rank} <= {k}"
        if form == "limit":
            more = f" OFFSET {self.one(1, 7)}" if self.chance(0.4) else ""
            return f"SELECT {self.select(rels)}{self.handle(rels)}{body} ORDER BY {ids} LIMIT {self.one(1, 5, 40)}{more}"
        if form == "over":
            return f"SELECT {self.select(rels)}, count(*) OVER (PARTITION BY {group}) AS n, max({number}) OVER () AS high{body}"
        if form == "case":
            return f"SELECT CASE WHEN {self.condition(rels, 1)} THEN {rel.ids[0]} END AS c0{body}"
        if form == "nested":
            inner = f"SELECT {self.select(rels)}, {number} AS v{body}"
            return f"SELECT * FROM ({inner}) AS q WHERE q.v {self.one('<', '>', 'IS DISTINCT FROM')} {self.one(0, 0.4, 50)}"
        if form == "recursive":
            other, right = self.base()
            if self.shared_key(rel, right) != "sample_id":
                return f"SELECT {self.select(rels)}{body}"
            joined = f"r JOIN {other} ON {right.alias}.sample_id = r.id"
            where = f"r.i < 2 AND ({self.condition([right], 1)})"
            step = f"SELECT r.i + 1, {right.alias}.sample_id FROM {joined} WHERE {where}"
            self.common.append(f"r(i, id) AS (SELECT 0, {rel.alias}.sample_id{body} UNION ALL {step})")
            return "SELECT i, id FROM r"
        if form == "pivot":
            inner = f"SELECT {group} AS g, {rel.alias}.split AS s{body}"
            return f"SELECT * FROM (PIVOT ({inner}) ON s IN ('train', 'val') USING count(*))"
        if form == "unnest":
            return f"SELECT {rel.ids[0]} AS c0, unnest({rel.alias}.modalities) AS m{body}"
        first = f"SELECT {rel.ids[0]} AS c0{body}"
        other, more_rels = self.source(0)
        second = f"SELECT {more_rels[0].ids[0]} AS c0 FROM {other} WHERE {self.condition(more_rels, 1)}"
        if rel.level == "pick" or more_rels[0].level == "pick":
            first, second = (s.replace(" AS c0", "::VARCHAR AS c0", 1) for s in (first, second))
        return f"{first} {self.one('UNION', 'UNION ALL', 'EXCEPT', 'EXCEPT ALL', 'INTERSECT')} {second}"


def statement(bed: Bed, number: int) -> Statement:
    """The statement of a number."""
    maker = _Maker(bed, np.random.default_rng(number))
    text = maker.query()
    if maker.common:
        recursive = "RECURSIVE " if "recursive" in maker.shape else ""
        text = f"WITH {recursive}{', '.join(maker.common)} {text}"
    return Statement(text, frozenset(maker.shape))
