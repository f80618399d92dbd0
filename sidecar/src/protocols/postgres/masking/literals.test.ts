import { expect, test } from "vitest";
import { withoutLiterals } from "./literals.ts";

// Left: what PostgreSQL 18 prints.
test.each([
  ["'123-45-6789'::text", "'***'"],
  ["E'a\\\\b''c'::text", "'***'"],
  ["'it''s'::character varying(20)", "'***'"],
  ["42", "'***'"],
  ["'-42'::integer", "'***'"],
  ["'9000000000'::bigint", "'***'"],
  ["1.5e-07", "'***'"],
  ["(12)::numeric(10,2)", "('***')::numeric(10,2)"],
  ["'{a,b}'::text[]", "'***'"],
  ["'a'::public.\"Odd type\"", "'***'"],
  ["FOR VALUES FROM (MINVALUE) TO ('2020-01-01')", "FOR VALUES FROM (MINVALUE) TO ('***')"],
  ["FOR VALUES IN ('a', 'b''c', NULL)", "FOR VALUES IN ('***', '***', NULL)"],
  ["FOR VALUES WITH (modulus 4, remainder 1)", "FOR VALUES WITH (modulus '***', remainder '***')"],
  ["CHECK (ssn::text = 'x'::text OR 12345 > id2)", "CHECK (ssn::text = '***' OR '***' > id2)"],
  ["CASE WHEN a::text IS NULL THEN 12345 END", "CASE WHEN a::text IS NULL THEN '***' END"],
  [
    "CREATE INDEX \"o'1\" ON public.t2 USING btree (id) WHERE (a = 'x'::text)",
    "CREATE INDEX \"o'1\" ON public.t2 USING btree (id) WHERE (a = '***')",
  ],
  ["ARRAY['a'::text, 'b'::text]", "ARRAY['***', '***']"],
  ["B'101'::\"bit\"", "B'***'"],
  ["'cut in the midd", "'***'"],
  ["E'cut \\", "'***'"],
])("no literal is left of %s", (printed, shown) => {
  expect(withoutLiterals(printed)).toBe(shown);
});

test.each([
  "nextval('public.cust_id_seq'::regclass)",
  "nextval('\"Odd''s\"'::regclass)",
  "''::text",
  "0",
  "(0)::numeric(12,2)",
  "'{}'::text[]",
  "now()",
  "CURRENT_TIMESTAMP",
  "gen_random_uuid()",
  "DEFAULT",
  "false",
  "FOREIGN KEY (cust_1) REFERENCES public.t2(id) ON DELETE CASCADE",
])("nothing is hidden of %s", (printed) => {
  expect(withoutLiterals(printed)).toBe(printed);
});
