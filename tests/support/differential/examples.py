"""Statements chosen by hand: one for each form of a condition and each operator, and what pruning must leave alone.

``<far>`` and the like stand for values of the bed, see :func:`filled`.
"""

from __future__ import annotations

from support.differential.bed import Bed
from support.differential.grammar import Statement
from support.differential.rows import POLYGONS

__all__ = ["KEPT", "OLD", "PRUNED", "filled"]


def filled(bed: Bed, text: str) -> Statement:
    """The statement of a text, with the largest values of the bed's columns in their places."""
    samples, tiles = bed.numbers["samples"], bed.numbers["tiles"]
    values = {
        "<north>": samples["lat"][-1],
        "<mean of a tile>": tiles["NDVI.mean"][-1],
        "<share of a tile>": tiles["LULC.share.trees"][-1],
    }
    for name, value in values.items():
        text = text.replace(name, repr(value))
    moments = bed.truth.execute("SELECT min(S2_time)::VARCHAR FROM tm GROUP BY part ORDER BY part").fetchall()
    text = text.replace("<moment>", moments[-1][0]).replace("<day>", moments[-1][0][:10])
    text = text.replace("<east>", POLYGONS[2]).replace("<west>", POLYGONS[3])
    return Statement(text, frozenset())


PRUNED = {
    "centre of no footprint": "SELECT sample_id FROM tm WHERE lat >= <north>",
    "mean of a tile": "SELECT sample_id, tile FROM tm.tiles WHERE NDVI.mean >= <mean of a tile>",
    "share of a tile": "SELECT sample_id, tile FROM tm.tiles WHERE LULC.share.trees >= <share of a tile> AND lon > 0",
    "first of a list": "SELECT sample_id FROM tm WHERE part IN ('part-5', 'part-1') AND lon < 0",
    "either side": "SELECT x.sample_id FROM tm AS x JOIN tm.tiles AS y USING (sample_id) WHERE x.lon > 100 AND y.tile = 1",
    # every form of a condition that is understood
    "greater": "SELECT sample_id FROM tm WHERE lon > 150",
    "less": "SELECT sample_id FROM tm WHERE NDVI.mean < -0.2",
    "mirrored": "SELECT sample_id FROM tm WHERE 'part-2' >= part",
    "equal": "SELECT sample_id FROM tm WHERE season = 'summer'",
    "not equal": "SELECT sample_id FROM tm WHERE part != 'part-0'",
    "and": "SELECT sample_id FROM tm WHERE season = 'summer' AND lon > 100 AND stem LIKE '%1%'",
    "or": "SELECT sample_id FROM tm WHERE part = 'part-1' OR part = 'part-3'",
    "not": "SELECT sample_id FROM tm WHERE NOT lon < 170",
    "not and": "SELECT sample_id FROM tm WHERE NOT (part < 'part-5' AND season = 'autumn') AND lon > 160",
    "not or": "SELECT sample_id FROM tm WHERE NOT (part > 'part-1' OR season = 'spring')",
    "between": "SELECT sample_id FROM tm WHERE hilbert BETWEEN 9007199254741000 AND 9007199254741010",
    "not between": "SELECT sample_id FROM tm WHERE part NOT BETWEEN 'part-1' AND 'part-4'",
    "in": "SELECT sample_id FROM tm WHERE part IN ('part-2', 'part-5')",
    "box": "SELECT sample_id FROM tm WHERE within_bbox(lon, lat, -175, -90, -160, 90)",
    "box across the date line": "SELECT sample_id FROM tm WHERE within_bbox(lon, lat, 178, -90, -178, 90)",
    "not equal of a box": "SELECT sample_id FROM tm WHERE NOT (bbox.west > -170)",
    "time": "SELECT sample_id FROM tm WHERE S2_time >= '2020-11-20T00:00:00+00:00'",
    "time without a zone": "SELECT sample_id FROM tm WHERE S2_time < '2020-02-10 12:00:00'",
    "time by a cast": "SELECT sample_id FROM tm WHERE S2_time > TIMESTAMPTZ '2020-12-01'",
    "date": "SELECT sample_id FROM tm WHERE S2_time < DATE '2020-02-01'",
    "brackets": "SELECT sample_id FROM tm WHERE S2L2A['B08'].max > 5900",
    "share of a class": "SELECT sample_id FROM tm WHERE LULC.share.water > 0.9",
    "tiles": "SELECT sample_id, tile FROM tm.tiles WHERE NDVI.max < -0.3",
    "case of letters": 'SELECT SAMPLE_ID FROM TM WHERE "Lon" > 150 AND ndvi.MEAN > 0',
    "pixels": "SELECT sample_id FROM tm WHERE {{pixels_any(tm.S2L2A.B08, '>= 5000')||px(3, 'tm/' || tm.sample_id)}}",
    "pixels in between": (
        "SELECT sample_id FROM tm WHERE {{pixels_share(tm.NDVI, '> 0.3') > 0.5||px(16, 'tm/' || tm.sample_id)}} AND lon > 0"
    ),
    "all pixels": "SELECT sample_id FROM tm WHERE {{pixels_all(tm.NDVI, '> 0.0')||px(10, 'tm/' || tm.sample_id)}} AND lon > -60",
    "one value in between": (
        "SELECT sample_id FROM tm WHERE {{pixels_any(tm.S2L2A.B08, '= 1200')||px(2, 'tm/' || tm.sample_id)}} AND lon < 0"
    ),
    "no pixel of a value": (
        "SELECT sample_id FROM tm WHERE {{pixels_all(tm.S2L2A.B04, '!= 900')||px(6, 'tm/' || tm.sample_id)}} AND lon < 0"
    ),
    "codes up to four": (
        "SELECT sample_id FROM tm WHERE {{pixels_all(tm.LULC, '<= 4')||px(27, 'tm/' || tm.sample_id)}} AND lon > 0"
    ),
    "a small share": (
        "SELECT sample_id FROM tm WHERE {{pixels_share(tm.NDVI, '> 0.2') <= 0.1||px(17, 'tm/' || tm.sample_id)}} AND lon < 0"
    ),
    "pixels of a class": (
        "SELECT sample_id FROM tm WHERE {{pixels_any(tm.LULC, '= 1')||px(21, 'tm/' || tm.sample_id)}} AND lon > 0"
    ),
    # joins
    "inner": "SELECT x.sample_id FROM tm AS x JOIN sw AS y USING (sample_id) WHERE x.lon > 150 AND y.lon < 0",
    "on of an inner join": "SELECT x.sample_id FROM tm AS x JOIN sw AS y ON x.sample_id = y.sample_id AND x.lon > 150",
    "cross": "SELECT x.sample_id, rank FROM tm AS x, pick WHERE x.lon > 175",
    "left": "SELECT x.sample_id FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id WHERE x.lon > 150",
    "right of a left join": (
        "SELECT x.sample_id FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id WHERE y.lon > 150"
    ),
    "on of a left join": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x LEFT JOIN sw AS y"
        " ON x.sample_id = y.sample_id AND y.lon > 170"
    ),
    "full": "SELECT x.sample_id FROM tm AS x FULL JOIN sw AS y ON x.sample_id = y.sample_id WHERE x.lon > 150",
    "semi": "SELECT sample_id FROM tm AS x SEMI JOIN sw AS y ON x.sample_id = y.sample_id WHERE lon > 100",
    "on of a semi join": "SELECT sample_id FROM tm AS x SEMI JOIN sw AS y ON x.sample_id = y.sample_id AND y.part = 'part-1'",
    "anti": "SELECT sample_id FROM tm AS x ANTI JOIN sw AS y ON x.sample_id = y.sample_id WHERE lon > 100",
    "on of an anti join": "SELECT sample_id FROM tm AS x ANTI JOIN sw AS y ON x.sample_id = y.sample_id AND y.part = 'part-1'",
    "left of an asof join": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x ASOF JOIN sw AS y ON x.S2_time >= y.S2_time WHERE x.lon > 150"
    ),
    "shared name of two tables": (
        "SELECT sample_id FROM tm JOIN tm.tiles USING (sample_id, part) WHERE part = 'part-2' AND tile = 1"
    ),
    "lateral": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x, LATERAL"
        " (SELECT * FROM sw AS i WHERE i.sample_id = x.sample_id AND i.lon < -100) AS y WHERE x.lon > 0"
    ),
    "subquery": "SELECT sample_id FROM tm WHERE sample_id IN (SELECT sample_id FROM sw WHERE sw.lon > 120)",
    "correlated": (
        "SELECT sample_id FROM tm WHERE EXISTS (SELECT 1 FROM sw WHERE sw.sample_id = tm.sample_id AND sw.lon > 120)"
    ),
    "window": "SELECT sample_id FROM tm WHERE lon > 120 QUALIFY row_number() OVER (PARTITION BY season ORDER BY sample_id) = 1",
    "group": "SELECT season, count(*) AS n FROM tm WHERE lon > 120 GROUP BY season HAVING count(*) > 1",
    "set": "SELECT sample_id FROM tm WHERE lon > 150 EXCEPT SELECT sample_id FROM tm WHERE lon > 170",
    "twice": "SELECT x.sample_id FROM tm AS x, tm AS y WHERE x.sample_id = y.sample_id AND x.lon > 150 AND y.lon > 160",
}


KEPT = {
    "pixels of a row that a join made up": (
        "SELECT rank, t.sample_id FROM pick LEFT JOIN tm AS t ON pick.sample_id = t.sample_id"
        " JOIN sw AS s ON pick.split = s.split AND s.part = 'part-1'"
        " WHERE NOT {{pixels_any(t.NDVI, '<= -0.2')||px(8, 'tm/' || t.sample_id)}}"
    ),
    "not in": "SELECT sample_id FROM tm WHERE part NOT IN ('part-0', 'part-1')",
    "not in a box": "SELECT sample_id FROM tm WHERE NOT within_bbox(lon, lat, -175, -90, -174, 90)",
    "table inside of a pivot": (
        "SELECT q.train FROM (PIVOT (FROM tm SELECT split, sample_id) ON split IN ('train', 'val') USING count(*)) AS q"
    ),
    "table of a pivot": "SELECT count(*) AS n FROM (UNPIVOT tm ON lon, lat INTO NAME n VALUE v) AS q WHERE q.v > 80",
    "polygons at the date line": (
        "SELECT sample_id FROM tm WHERE {{intersects_polygon(tm.footprint, '<east>')||poly(2, 'tm/' || tm.sample_id)}}"
        " UNION ALL SELECT sample_id FROM tm WHERE {{intersects_polygon(footprint, '<west>')||poly(3, 'tm/' || sample_id)}}"
    ),
    "on of a right join": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x RIGHT JOIN sw AS y ON x.sample_id = y.sample_id AND y.part = 'part-1'"
    ),
    "other side of an on": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id AND x.lon > 150"
    ),
    "other side of an on of an anti join": (
        "SELECT sample_id FROM tm AS x ANTI JOIN sw AS y ON x.sample_id = y.sample_id AND x.lon > 150"
    ),
    "right of an asof join": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x ASOF JOIN sw AS y ON x.S2_time >= y.S2_time"
        " WHERE y.split = 'train' AND y.lon > 0"
    ),
    "right of an asof join of a registered table": (
        "SELECT k.rank, t.sample_id FROM pick AS k ASOF JOIN tm AS t ON k.at >= t.S2_time WHERE t.split = 'val'"
    ),
    "right of an anti join": (
        "SELECT sample_id FROM tm ANTI JOIN sw AS y ON y.part = 'part-2' WHERE part = 'part-5'"
        " UNION ALL SELECT sample_id FROM tm ANTI JOIN tm AS y ON y.split = 'nowhere' WHERE part = 'part-5'"
    ),
    "right of a semi join": "SELECT sample_id FROM sw SEMI JOIN tm AS t ON t.part = 'part-4' WHERE sw.part = 'part-1'",
    "unqualified name of a semi join": "SELECT sample_id FROM sw SEMI JOIN tm ON tm.part = 'part-4' WHERE part = 'part-1'",
    "positional": (
        "SELECT t.sample_id, c.sample_id AS s FROM tm AS t POSITIONAL JOIN sw AS c"
        " WHERE t.split = 'val' AND c.sample_id IS NOT NULL"
    ),
    "below a positional join": (
        "SELECT t.sample_id FROM (tm AS t JOIN sw AS c ON t.sample_id = c.sample_id) POSITIONAL JOIN pick WHERE t.lon > 0"
    ),
    "box with named arguments": (
        "SELECT sample_id FROM tm WHERE within_bbox(lat := lat, lon := lon, west := -180, south := -10, east := -170, north := 9)"
    ),
    "columns of a full join made one": (
        "SELECT sample_id, x.part AS p, y.part AS q FROM tm AS x FULL JOIN sw AS y USING (sample_id) WHERE sample_id > 's0200'"
    ),
    "using of another type": (
        "SELECT tm.sample_id FROM (SELECT * FROM (VALUES ('<moment>')) AS v(S2_time)) AS q JOIN tm"
        " USING (S2_time) WHERE S2_time > '<day>' AND S2_time < '<day>T00:00:00'"
    ),
    "two levels": (
        "SELECT sample_id FROM tm WHERE part = 'part-1' UNION ALL SELECT sample_id FROM tm.tiles WHERE part = 'part-2'"
    ),
    "unqualified name of two tables before a semi join": (
        "SELECT sw.sample_id FROM sw JOIN pick ON pick.rank = 3 SEMI JOIN tm ON tm.part = 'part-4' WHERE part = 'part-1'"
    ),
    "natural join with a table of another type": (
        "SELECT count(*) AS n FROM tm NATURAL JOIN (SELECT sample_id, hilbert::VARCHAR AS hilbert FROM tm) AS q"
        " WHERE hilbert > '9007199254741'"
    ),
    "alias of the select list": "SELECT lat AS far, sample_id FROM tm WHERE far > 50",
    "alias that is a column, too": "SELECT lat AS lon, sample_id FROM tm WHERE lon > 150",
    "common table of the table's name": "WITH tm AS (SELECT * FROM sw) SELECT sample_id FROM tm WHERE lon > 150",
    "table under the name of another": "SELECT tm.sample_id FROM sw AS tm, tm AS sw WHERE tm.lon > 150 AND sw.lon < -170",
    "alias of a struct": "SELECT bbox.sample_id FROM tm AS bbox WHERE bbox.west < -170",
    "alias of a modality": "SELECT NDVI.sample_id FROM tm AS NDVI WHERE NDVI.mean > 0.4 AND NDVI.lon > 100",
    "renamed columns": "SELECT a FROM tm AS t(a, b, lon) WHERE lon > 'v'",
    "outer name in an inner scope": (
        "SELECT sample_id FROM tm WHERE 1 = (SELECT count(*) FROM pick WHERE pick.sample_id = tm.sample_id AND cloud_cover < 2)"
    ),
    "wanted by one mention only": "SELECT x.sample_id FROM tm AS x, tm AS y WHERE x.sample_id = y.sample_id AND x.lon > 150",
    "null-safe": (
        "SELECT x.sample_id FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id"
        " WHERE y.lon IS NOT DISTINCT FROM NULL"
    ),
    "not true": "SELECT sample_id FROM tm WHERE (lon > 150) IS NOT TRUE",
    "or with what is not understood": "SELECT sample_id FROM tm WHERE lon > 170 OR abs(lat) > 50",
    "anti join by a left join": (
        "SELECT x.sample_id FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id AND y.lon > 0 WHERE y.sample_id IS NULL"
    ),
    "integers beyond the floats": (
        "SELECT sample_id FROM tm WHERE hilbert < 9007199254740993.0 OR hilbert = 9007199254740995::DOUBLE"
    ),
    "equal sides of a box": "SELECT count(*) AS n FROM tm WHERE within_bbox(lon, lat, 10.00000000000000001, -90, 10, 90)",
    "pivot": "SELECT * FROM (PIVOT (SELECT season, split FROM tm WHERE lon > 0) ON split IN ('train', 'val') USING count(*))",
    "aggregate with a filter": "SELECT count(*) FILTER (WHERE lon > 150) AS n, count(*) AS m FROM tm",
    "sample of all rows, then a condition": "SELECT count(*) AS n FROM (SELECT * FROM tm WHERE lon > 0) AS q",
}


OLD = {
    "beyond": "SELECT sample_id FROM tm WHERE lon > 100",
    "up to": "SELECT sample_id FROM tm WHERE cloud_cover <= 1",
    "below": "SELECT sample_id FROM tm WHERE cloud_cover < 0.1",
    "not below": "SELECT sample_id FROM tm WHERE NOT lat < 50",
    "mean": "SELECT sample_id, S1GRD.vv.max AS high FROM tm WHERE S1GRD.vv.mean > -15",
    "tiles": "SELECT sample_id, tile FROM tm.tiles WHERE lon >= 170",
    "extremes": "SELECT max(lon) AS a, max(cloud_cover) AS b, count(lat) AS c FROM tm",
    "order": "SELECT sample_id, cloud_cover FROM tm ORDER BY cloud_cover DESC, sample_id LIMIT 5",
    "shards": "SELECT part, shard FROM tm.shards WHERE max_cloud_cover > 0.9",
    "new columns": "SELECT count(*) AS n FROM {{(SELECT * FROM tm.shards WHERE min_lon IS NULL)||tm.shards}} AS q",
    "box": "SELECT sample_id FROM tm WHERE within_bbox(lon, lat, 100, -90, 180, 90)",
    "any pixel": "SELECT sample_id FROM tm WHERE {{pixels_any(tm.S1GRD.vv, '< -20')||px(12, 'tm/' || tm.sample_id)}}",
    "all pixels": "SELECT sample_id FROM tm WHERE {{pixels_all(tm.S1GRD.vh, '< -10')||px(14, 'tm/' || tm.sample_id)}}",
    "not all pixels": (
        "SELECT sample_id FROM tm WHERE NOT {{pixels_all(tm.S1GRD.vh, '>= -25')||px(15, 'tm/' || tm.sample_id)}}"
    ),
}
