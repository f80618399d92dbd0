/** Runs analysis before anybody waits for it: the first long statement would else pay for compiling all of it. */
import { MaskedColumnSet } from "./masking/masked-columns.ts";
import { analyseSql } from "./sql/analyse.ts";
import { staticNames } from "./static-names.ts";

/** How often: V8 compiles code that has run some dozen times; more is not worth a later start. */
const rounds = 10;

/** Analyses statements of the usual kinds, lineage included; the parser must be loaded. */
export function warmSqlAnalysis(): void {
  const names = staticNames(["public.a(id, b, c, d)", "public.e(id, f, g)"]);
  const masked = new MaskedColumnSet(["public.a.c"]);
  for (let round = 0; round < rounds; round += 1) {
    analyseSql(statements(round), names, { masked });
  }
}

const statements = (
  round: number,
) => `WITH ${Array.from({ length: 4 }, (_, at) => step(round * 10 + at)).join(",\n")}
SELECT s.*, count(*) OVER (PARTITION BY s.id ORDER BY s.n DESC) AS k, (SELECT max(g) FROM e WHERE e.f = s.id) AS m
FROM s${round * 10} s LEFT JOIN e USING (id) WHERE s.b IN ('x', 'y') AND e.g IS NOT NULL OR NOT EXISTS (SELECT 1 FROM e)
UNION ALL SELECT 1, 'x', 'y', 2, 3, 4, now(), NULL LIMIT 10 OFFSET ${round};
INSERT INTO e (id, f) VALUES (${round}, 1), (2, 3) ON CONFLICT (id) DO UPDATE SET f = excluded.f RETURNING *;
UPDATE e SET f = f + 1 FROM a WHERE a.id = e.id AND a.b BETWEEN 'k' AND 'm';
DELETE FROM e WHERE id = $1 AND g LIKE '%${round}'`;

const step = (at: number) => `s${at} AS (
  SELECT a.id AS id, a.b AS b, upper(a.c) AS c, sum(e.g)::int AS n, COALESCE(a.d, 'none') || '-' AS d,
    CASE WHEN e.f > ${at} THEN 'high' ELSE lower(a.b) END AS level, to_jsonb(a) ->> 'b' AS j
  FROM a JOIN e ON e.f = a.id WHERE e.g > ${at} AND a.d <> 'v' GROUP BY a.id, a.b, e.f HAVING count(*) > 1 ORDER BY 1)`;
