-- The demo's data: a shop with customers, their orders, and what the staff earns.
CREATE TABLE customers (
  id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  name text NOT NULL,
  email text NOT NULL UNIQUE,
  city text NOT NULL
);
INSERT INTO customers (name, email, city)
SELECT (ARRAY['Ada', 'Grace', 'Edsger', 'Barbara', 'Alan', 'Radia', 'Donald', 'Frances'])[1 + n % 8] || ' ' || n,
       lower((ARRAY['Ada', 'Grace', 'Edsger', 'Barbara', 'Alan', 'Radia', 'Donald', 'Frances'])[1 + n % 8]) || n || '@example.com',
       (ARRAY['Brno', 'Lyon', 'Porto', 'Graz', 'Turku'])[1 + n % 5]
FROM generate_series(1, 200) AS n;

CREATE TABLE orders (
  id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  customer_id int NOT NULL REFERENCES customers,
  amount numeric(10, 2) NOT NULL,
  placed_on date NOT NULL
);
INSERT INTO orders (customer_id, amount, placed_on)
SELECT 1 + n % 200, 5 + (n * 37 % 9500) / 100.0, date '2026-01-01' + n % 300
FROM generate_series(1, 1000) AS n;

CREATE SCHEMA hr;
CREATE TABLE hr.salaries (employee text PRIMARY KEY, monthly numeric(10, 2) NOT NULL);
INSERT INTO hr.salaries VALUES ('Margaret', 7100), ('Kurt', 6900);
ANALYZE;
