"""Conditions on the columns of relations: comparisons, boxes, times, pixels and subqueries in nested AND, OR and NOT."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from support.differential.bed import Bed
from support.differential.rows import POLYGONS, PREDICATES, SCHEMA
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema

__all__ = ["Conditions", "Rel"]


COLUMNS = {
    "samples": {f.name.lower() for f in samples_schema(SCHEMA)},
    "tiles": {f.name.lower() for f in tiles_schema(SCHEMA)},
    "shards": {f.name.lower() for f in shards_schema(SCHEMA)},
    "pick": {"sample_id", "lon", "split", "rank", "at"},
}


@dataclass(frozen=True)
class Rel:
    """A relation that a FROM clause names; ``table`` is None where rows are not those of one table."""

    alias: str
    level: str
    table: str | None

    @property
    def ids(self) -> list[str]:
        keys = {
            "samples": ["sample_id"],
            "tiles": ["sample_id", "tile"],
            "shards": ["part", "shard"],
            "pick": ["rank"],
        }
        return [f"{self.alias}.{c}" for c in keys[self.level]]


@dataclass
class Conditions:
    """A maker of conditions; ``shape`` collects what they are made of."""

    bed: Bed
    rng: np.random.Generator
    shape: set[str] = field(default_factory=set)
    n_names: int = 0

    # ------------------------------------------------------------ choices

    def one(self, *choices: object) -> str:
        return str(choices[int(self.rng.integers(len(choices)))])

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def name(self) -> str:
        self.n_names += 1
        if self.chance(0.06):
            return self.one("ndvi", "samples", "world", "season") + str(self.n_names % 2 or "")
        return f"t{self.n_names}"

    # ------------------------------------------------------------ columns and constants

    def column(self, rel: Rel, column: str, rels: list[Rel]) -> str:
        """A column, qualified or, where no other relation has one of the name, not; in any case of letters, quoted or not."""
        if self.chance(0.1):
            column = column.upper() if self.chance(0.5) else ".".join(f'"{c}"' for c in column.split("."))
        root = column.split(".")[0].strip('"').lower()
        others = [r for r in rels if r is not rel]
        if not any(root in COLUMNS[r.level] for r in others) and self.chance(0.3 if others else 0.5):
            return column
        alias = rel.alias
        if self.chance(0.1):
            alias = f'"{alias}"' if self.chance(0.5) else alias.upper()
        return f"{alias}.{column}"

    def number(self, rel: Rel, column: str) -> str:
        value = float(self.rng.choice(self.bed.numbers[rel.level][column]))
        if column in ("hilbert", "tile", "rank", "shard", "n_samples"):
            near = int(value) + int(self.rng.integers(-2, 3))
            return self.one(near, near, f"{near}.0", f"{near - 1}.5", f"{float(near)!r}::DOUBLE")
        kind = self.one("exact", "exact", "near", "float32", "short", "whole")
        if kind == "near":
            value = float(np.nextafter(value, np.inf if self.chance(0.5) else -np.inf))
        elif kind == "float32":
            value = float(np.float32(value))
        elif kind == "short":
            value = round(value, 2)
        elif kind == "whole":
            return str(round(value))
        text = format(value, ".17g") if kind == "exact" else repr(value)
        return text if "e" in text or "." in text or self.chance(0.5) else f"{text}.0"

    # ------------------------------------------------------------ conditions

    def condition(self, rels: list[Rel], depth: int = 2) -> str:
        """A condition on some relations."""
        kinds = ["number"] * 5 + ["text"] * 2 + ["time", "box", "pixels", "odd", "odd", "null"]
        kinds += ["tree"] * 6 if depth > 0 else []
        kinds += ["subquery"] * 2 if depth > 1 else []
        kind = self.one(*kinds)
        if kind == "tree":
            parts = [f"({self.condition(rels, depth - 1)})" for _ in range(int(self.rng.integers(1, 4)))]
            text = f" {self.one('AND', 'OR')} ".join(parts)
            if not self.chance(0.4):
                return text
            self.shape.add("not")
            return f"NOT ({text})"
        rel = rels[int(self.rng.integers(len(rels)))]
        if kind == "subquery":
            return self.subquery(rel, rels, depth)
        if kind in ("time", "box", "pixels") and (rel.level not in ("samples", "tiles") or rel.table is None):
            kind = "number"
        if kind == "pixels":
            return self.pixels(rel)
        if kind == "box":
            return self.box(rel, rels)
        if kind == "time" and rel.level == "samples":
            return self.time(rel, rels)
        if kind == "text":
            return self.text(rel, rels)
        return self.comparison(rel, rels, odd=kind == "odd", null=kind == "null")

    def comparison(self, rel: Rel, rels: list[Rel], *, odd: bool, null: bool) -> str:
        column = self.one(*self.bed.numbers[rel.level])
        c = self.column(rel, column, rels)
        v, w = self.number(rel, column), self.number(rel, column)
        if null:
            return self.one(f"{c} IS NULL", f"{c} IS NOT NULL", f"{c} = NULL", f"({c} > {v}) IS NULL")
        if odd:
            self.shape.add("odd")
            return self.one(
                f"abs({c}) > abs({v})",
                f"-{c} < {v}",
                f"{c} + 1 > {v}",
                f"{c} IS NOT DISTINCT FROM {v}",
                f"{c} IS DISTINCT FROM {v}",
                f"coalesce({c}, {v}) >= {w}",
                f"CASE WHEN {c} > {v} THEN true WHEN {c} IS NULL THEN false ELSE {c} < {w} END",
                f"CASE {c} WHEN {v} THEN 1 ELSE 0 END = 0",
                f"({c} > {v}) = ({c} > {w})",
                f"({c} > {v}) IS NOT TRUE",
                f"({c} > {v}) IS FALSE",
                f"{c}::DOUBLE > {v}",
                f"try_cast({c} AS DOUBLE) <= {v}",
                f"greatest({c}, {v}) > {w}",
                f"{c} > ALL (SELECT unnest([{v}, {w}]))",
                f"if({c} > {v}, {c} > {w}, NULL)",
                f"({c} > {v}) OR NULL",
                f"NOT ({c} > {v} AND NULL)",
            )
        if self.chance(0.04):
            self.shape.add("long list")
            many = ", ".join(self.number(rel, column) for _ in range(int(self.rng.choice([70, 130]))))
            return f"{c} {self.one('IN', 'NOT IN')} ({many})"
        form = self.one("op", "op", "op", "mirrored", "between", "not between", "in", "not in")
        if form in ("between", "not between", "in", "not in"):
            self.shape.add(form)
        op = self.one("<", "<=", ">", ">=", "=", "!=", "<>")
        return {
            "op": f"{c} {op} {v}",
            "mirrored": f"{v} {op} {c}",
            "between": f"{c} BETWEEN {v} AND {w}",
            "not between": f"{c} NOT BETWEEN {v} AND {w}",
            "in": f"{c} IN ({v}, {w}{self.one('', ', NULL')})",
            "not in": f"{c} NOT IN ({v}, {w}{self.one('', '', ', NULL')})",
        }[form]

    def text(self, rel: Rel, rels: list[Rel]) -> str:
        column = self.one(*self.bed.texts[rel.level])
        c = self.column(rel, column, rels)
        v, w = (self.one(*self.bed.texts[rel.level][column]) for _ in range(2))
        op = self.one("=", "=", "!=", "<", ">=", ">")
        if self.chance(0.05):
            self.shape.add("long list")
            many = [self.one(*self.bed.texts[rel.level][column], "", "s'9", "é") for _ in range(130)]
            listed = ", ".join("'" + m.replace("'", "''") + "'" for m in many)
            return f"{c} {self.one('IN', 'NOT IN')} ({listed})"
        return self.one(
            f"{c} {op} '{v}'",
            f"'{v}' {op} {c}",
            f"{c} IN ('{v}', '{w}')",
            f"{c} NOT IN ('{v}', '{w}')",
            f"{c} LIKE '{v[:3]}%'",
            f"{c} NOT LIKE '%{v[-2:]}'",
            f"{c} BETWEEN '{v}' AND '{w}'",
            f"NOT ({c} BETWEEN '{v}' AND '{w}')",
            f"lower({c}) = '{v}'",
            f"starts_with({c}, '{v[:2]}')",
        )

    def time(self, rel: Rel, rels: list[Rel]) -> str:
        self.shape.add("time")
        c = self.column(rel, "S2_time", rels)
        day = np.datetime64("2020-01-01") + int(self.rng.integers(0, 360))
        hour = f"{int(self.rng.integers(0, 24)):02d}:30:00"
        literal = self.one(
            f"'{day}'",
            f"'{day} {hour}'",
            f"TIMESTAMPTZ '{day} {hour}'",
            f"'{day}T{hour}+02:00'::TIMESTAMPTZ",
            f"DATE '{day}'",
            f"TIMESTAMP '{day} {hour}'",
        )
        return self.one(
            f"{c} {self.one('<', '<=', '>', '>=', '!=')} {literal}",
            f"{c} BETWEEN {literal} AND '2020-12-31'",
            f"NOT {c} < {literal}",
            f"month({c}) > {int(self.rng.integers(1, 13))}",
        )

    def box(self, rel: Rel, rels: list[Rel]) -> str:
        lon, lat = self.column(rel, "lon", rels), self.column(rel, "lat", rels)
        if rel.level == "samples" and rel.table and self.chance(0.3):
            self.shape.add("polygon")
            k = int(self.rng.integers(len(POLYGONS)))
            ours = f"intersects_polygon({rel.alias}.footprint, '{POLYGONS[k]}')"
            return f"{{{{{ours}||poly({k}, '{rel.table}/' || {rel.alias}.sample_id)}}}}"
        west, east = (int(v) for v in self.rng.integers(-180, 181, 2))
        south, north = sorted(int(v) for v in self.rng.integers(-90, 91, 2))
        self.shape.add("box" if west <= east else "box across the date line")
        return f"within_bbox({lon}, {lat}, {west}, {south}, {east}.5, {north})"

    def pixels(self, rel: Rel) -> str:
        self.shape.add("pixels")
        k = int(self.rng.integers(len(PREDICATES)))
        name, quantifier, op, constant, share_op, share = PREDICATES[k]
        if rel.level == "tiles" and self.chance(0.5):  # each tile that is open is a read
            return self.comparison(rel, [rel, rel], odd=False, null=False)
        ours = f"pixels_{quantifier}({rel.alias}.{name}, '{op} {constant}')"
        if share_op is not None:
            ours += f" {share_op} {share}"
        row = f"'{rel.table}/' || {rel.alias}.sample_id"
        if rel.level == "tiles":
            row += f" || '/' || {rel.alias}.tile"
        return (
            f"{{{{{ours}||px({k}, {row})}}}}"
            if rel.level == "samples"
            else f"{{{{{ours}||px_tile({k}, {row})}}}}"
        )

    def base(self) -> tuple[str, Rel]:
        """Draw something to name in a FROM clause."""
        raise NotImplementedError

    def subquery(self, rel: Rel, rels: list[Rel], depth: int) -> str:
        text, inner = self.base()
        where = self.condition([inner], depth - 1)
        key = self.shared_key(rel, inner)
        column = self.one(*self.bed.numbers[inner.level])
        mine = self.one(*self.bed.numbers[rel.level])
        form = self.one("in", "not in", "exists", "not exists", "scalar", "count", "any")
        if key is None and form != "scalar":
            form = "scalar"
        self.shape.add(f"subquery: {form}")
        if form == "scalar":
            found = mine if mine in self.bed.numbers[inner.level] else column
            value = f"(SELECT {self.one('min', 'max')}({inner.alias}.{found}) FROM {text} WHERE {where})"
            return f"{rel.alias}.{mine} {self.one('<', '>', '>=')} {value}"
        outer, within = f"{rel.alias}.{key}", f"{inner.alias}.{key}"
        return {
            "in": f"{outer} IN (SELECT {within} FROM {text} WHERE {where})",
            "not in": f"{outer} NOT IN (SELECT {within} FROM {text} WHERE {where})",
            "any": f"{outer} = ANY (SELECT {within} FROM {text} WHERE {where})",
            "exists": f"EXISTS (SELECT 1 FROM {text} WHERE {within} = {outer} AND ({where}))",
            "not exists": f"NOT EXISTS (SELECT 1 FROM {text} WHERE {within} = {outer} AND ({where}))",
            "count": f"(SELECT count(*) FROM {text} WHERE {within} = {outer} AND ({where})) {self.one('> 0', '= 0', '< 2')}",
        }[form]

    def shared_key(self, a: Rel, b: Rel) -> str | None:
        """A column that both have, to join by."""
        columns = {
            "samples": ["sample_id", "part", "split"],
            "tiles": ["sample_id", "part", "split"],
            "shards": ["part"],
            "pick": ["sample_id", "split"],
        }
        both = [c for c in columns[a.level] if c in columns[b.level]]
        if not both:
            return None
        few = {"shards", "pick"} & {a.level, b.level}
        return both[0] if not few or self.chance(0.7) else self.one(*both)
