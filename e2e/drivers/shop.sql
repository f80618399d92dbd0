-- What the driver scripts work on.
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO customers VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger');
CREATE TABLE orders (
  id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  customer_id int NOT NULL REFERENCES customers,
  amount numeric NOT NULL
);
INSERT INTO orders (customer_id, amount) SELECT 1 + n % 3, n FROM generate_series(1, 100) AS n;
CREATE TABLE arrivals (id int, name text);
CREATE TABLE payroll (customer_id int REFERENCES customers, salary int);
INSERT INTO payroll VALUES (1, 1000);
