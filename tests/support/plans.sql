-- What a plan may be asked, one statement a line: each depends on ties, on the order of rows, or on the zone unless it is made not to.
SELECT sample_id, NDVI FROM tied QUALIFY row_number() OVER (PARTITION BY location_id ORDER BY cloud_cover) <= 2
SELECT sample_id, NDVI FROM tied ORDER BY cloud_cover LIMIT 1000
SELECT sample_id, NDVI FROM tied ORDER BY cloud_cover DESC, lon LIMIT 500 OFFSET 700
SELECT sample_id, NDVI FROM tied WHERE lat > 80 ORDER BY season
SELECT sample_id, NDVI FROM tied LIMIT 100
SELECT sample_id, NDVI FROM tied WHERE NDVI.mean > 0.5 LIMIT 100 OFFSET 50
SELECT sample_id, NDVI FROM tied LIMIT 1%
SELECT DISTINCT ON (location_id) sample_id, NDVI FROM tied ORDER BY location_id, cloud_cover
SELECT DISTINCT ON (location_id) sample_id, NDVI FROM tied
SELECT sample_id, NDVI, ntile(7) OVER (ORDER BY cloud_cover) AS seventh FROM tied WHERE lat > 60
SELECT sample_id, NDVI, lag(sample_id) OVER (PARTITION BY cell_id ORDER BY lon) AS before FROM tied WHERE lat > 60
SELECT sample_id, NDVI, first_value(sample_id) OVER (PARTITION BY cell_id ORDER BY lon) AS f FROM tied WHERE lat > 60
SELECT sample_id, NDVI, last_value(sample_id) OVER (PARTITION BY cell_id ORDER BY lon) AS l FROM tied WHERE lat > 60
SELECT sample_id, NDVI, nth_value(lat, 3) OVER (PARTITION BY cell_id ORDER BY lon ROWS 5 PRECEDING) AS v FROM tied
SELECT sample_id, NDVI, sum(lat) OVER (ORDER BY cloud_cover ROWS 9 PRECEDING) AS s FROM tied WHERE lon > 150
SELECT sample_id, NDVI FROM tied QUALIFY row_number() OVER (PARTITION BY location_id) = 1
SELECT sample_id, NDVI FROM (SELECT * FROM tied ORDER BY cloud_cover) QUALIFY row_number() OVER () <= 50
SELECT t.sample_id, NDVI FROM tied t JOIN (SELECT location_id, cloud_cover FROM tied ORDER BY lon LIMIT 9) k USING (location_id)
WITH best AS (SELECT sample_id, row_number() OVER (PARTITION BY cell_id ORDER BY hilbert) AS r FROM tied) SELECT sample_id, NDVI FROM tied WHERE sample_id IN (SELECT sample_id FROM best WHERE r <= 3)
SELECT sample_id, NDVI, avg(cloud_cover / 3) OVER (PARTITION BY cell_id) AS weight FROM tied
SELECT t.sample_id, NDVI, w AS weight FROM tied t JOIN (SELECT cell_id, sum(ln(lat + 91.5)) AS w FROM tied GROUP BY cell_id) USING (cell_id)
SELECT sample_id, NDVI FROM tied WHERE sample_id IN (SELECT first(sample_id) FROM tied GROUP BY location_id)
SELECT sample_id, NDVI FROM tied WHERE sample_id IN (SELECT arg_min(sample_id, cloud_cover) FROM tied GROUP BY location_id)
SELECT sample_id, NDVI FROM tied WHERE sample_id IN (SELECT any_value(sample_id) FROM tied GROUP BY location_id)
SELECT sample_id, NDVI FROM tied WHERE sample_id IN (SELECT unnest(list(sample_id)[:2]) FROM tied GROUP BY location_id)
SELECT sample_id, NDVI FROM tied WHERE sample_id IN (SELECT unnest(max_by(sample_id, lon, 2)) FROM tied GROUP BY cell_id)
SELECT sample_id, NDVI FROM tied WHERE lon IN (SELECT mode(lon) FROM tied GROUP BY location_id)
SELECT sample_id, NDVI, (SELECT string_agg(DISTINCT season, ',') FROM tied) AS names FROM tied WHERE lat > 85
SELECT sample_id, NDVI FROM tied WHERE lat < (SELECT approx_quantile(lat, 0.1) FROM tied)
SELECT sample_id, NDVI FROM tied WHERE lat < (SELECT reservoir_quantile(lat, 0.4, 64) FROM tied)
SELECT sample_id, NDVI FROM tied WHERE lon IN (SELECT unnest(approx_top_k(lon, 3)) FROM tied)
SELECT sample_id, NDVI FROM tied USING SAMPLE reservoir(100 ROWS) REPEATABLE (7)
SELECT sample_id, NDVI FROM tied TABLESAMPLE bernoulli(5 PERCENT) REPEATABLE (7)
SELECT sample_id, NDVI FROM tied USING SAMPLE system(30 PERCENT) REPEATABLE (7)
SELECT a.sample_id, NDVI, b.lon AS other FROM tied a POSITIONAL JOIN (SELECT lon FROM tied WHERE lat > 0) b WHERE NDVI IS NOT NULL
SELECT k.sample_id, t.NDVI, t.sample_id AS other FROM (SELECT sample_id, hilbert AS at FROM tied WHERE lon > 170) k ASOF JOIN tied t ON k.at >= t.hilbert
SELECT sample_id, NDVI FROM (SELECT * FROM tied WHERE lon = 3 UNION ALL SELECT * FROM tied WHERE lon = 4) LIMIT 20
SELECT sample_id, NDVI FROM tied WHERE location_id IN (SELECT location_id FROM tied EXCEPT SELECT location_id FROM tied WHERE lon = 7 LIMIT 30)
WITH RECURSIVE r AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT sample_id, NDVI FROM tied, r WHERE hilbert = n
SELECT sample_id, NDVI, unnest([3, 1, 2]) AS k FROM tied WHERE lat = 3 ORDER BY cloud_cover
SELECT sample_id, NDVI, [lon, lat] AS place, {'s': split} AS s FROM tied, range(2) WHERE lat = 3
SELECT season, split FROM tied WHERE lat = 3
SELECT DISTINCT season COLLATE NOCASE AS s FROM tied
SELECT t.sample_id, NDVI FROM tied t JOIN mine USING (location_id) ORDER BY n LIMIT 77
SELECT sample_id, NDVI FROM tied WHERE cell_id = (SELECT cell_id FROM tied GROUP BY cell_id ORDER BY count(*) // 1000 LIMIT 1)
SELECT sample_id, NDVI FROM tied WHERE hour(S2_time) BETWEEN 9 AND 11
SELECT sample_id, NDVI FROM tied WHERE month(S2_time) = 7 AND dayofweek(S2_time) = 0
SELECT sample_id, NDVI FROM tied WHERE S2_time >= '2020-04-08 14:00:00'
SELECT sample_id, NDVI FROM tied WHERE S2_time < TIMESTAMP '2020-04-08 14:00:00'
SELECT sample_id, NDVI, S2_time::DATE AS day FROM tied WHERE S2_time::DATE = '2020-07-01'
SELECT sample_id, NDVI, S2_time, S2_time::VARCHAR AS text FROM tied WHERE lat = 3
SELECT sample_id, NDVI, date_trunc('day', S2_time) AS day, strftime(S2_time, '%A %B %H %Z') AS words FROM tied WHERE lat = 3
SELECT sample_id, NDVI, S2_time AT TIME ZONE 'Asia/Tokyo' AS there, timezone_hour(S2_time) AS z FROM tied WHERE lat = 3
SELECT sample_id, NDVI, make_timestamptz(2020, 7, 1, 12, 0, 0) AS noon, time_bucket(INTERVAL 1 MONTH, S2_time) AS b FROM tied WHERE lat = 3
SELECT sample_id, NDVI FROM tied WHERE upper(season) = 'SUMMER' AND cell_id ILIKE 'CELL1%' AND 7 / 2 > 3
SELECT sample_id, NDVI, format('{:,}', hilbert * 1000) AS f, printf('%.3f', lon / 7) AS p FROM tied WHERE lat = 3 ORDER BY season
