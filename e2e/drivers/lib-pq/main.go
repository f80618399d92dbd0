// lib/pq through the gateway: each check prints `ok <what holds>`; the first that fails ends the program.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lib/pq"
)

const endless = "SELECT count(*) FROM generate_series(1, 100000000000)"

func main() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()

	c := connect(ctx, "")
	ok("connects with a verified certificate and a token as password")

	rows := must(c.QueryContext(ctx, "SELECT 1; SELECT 2"))
	expect(rows.Next() && !rows.Next() && rows.NextResultSet() && rows.Next(), "two results")
	check(rows.Close())
	ok("simple statements")

	expect(scan[string](ctx, c, "SELECT name FROM customers WHERE id = $1", 1) == "Ada", "the name")
	ok("parameters")

	b := connect(ctx, "binary_parameters=yes")
	expect(string(scan[[]byte](ctx, b, "SELECT $1::bytea", []byte{0, 255})) == "\x00\xff", "the bytes")
	ok("binary parameters and results")

	byID := must(c.PrepareContext(ctx, "SELECT id FROM customers WHERE id = $1"))
	for number := range 7 {
		var id int
		check(byID.QueryRowContext(ctx, 1+number%3).Scan(&id))
		expect(id == 1+number%3, "the id")
	}
	check(byID.Close())
	ok("prepared statements")

	refused(ctx, c, "DELETE FROM orders")
	refused(ctx, c, "SELECT * FROM payroll WHERE customer_id = $1", 1)
	expect(scan[string](ctx, c, "SELECT 'usable'") == "usable", "usable")
	ok("a refusal is 42501 and the connection stays usable")

	before := count(ctx, c)
	tx := must(c.BeginTx(ctx, nil))
	must(tx.ExecContext(ctx, "INSERT INTO orders (customer_id, amount) VALUES ($1, $2)", 1, 1))
	refused(ctx, tx, "DELETE FROM orders")
	_, err := tx.ExecContext(ctx, "SELECT 1")
	expect(sqlstate(err) == "25P02", "25P02")
	expect(tx.Commit() != nil, "COMMIT tells that it rolled back")
	expect(count(ctx, c) == before, "the insert is undone")
	ok("a refusal aborts the transaction")

	tx = must(c.BeginTx(ctx, nil))
	must(tx.ExecContext(ctx, "INSERT INTO orders (customer_id, amount) VALUES (1, 1)"))
	must(tx.ExecContext(ctx, "SAVEPOINT b"))
	refused(ctx, tx, "DELETE FROM orders")
	must(tx.ExecContext(ctx, "ROLLBACK TO b"))
	expect(count(ctx, tx) == before+1, "the savepoint's work is there")
	check(tx.Rollback())
	ok("a savepoint survives a refusal behind it")

	tx = must(c.BeginTx(ctx, nil))
	in := must(tx.PrepareContext(ctx, pq.CopyIn("orders", "customer_id", "amount")))
	for number := range 1000 {
		must(in.ExecContext(ctx, 1, number))
	}
	must(in.ExecContext(ctx))
	check(in.Close())
	expect(count(ctx, tx) == before+1000, "the rows are in")
	check(tx.Rollback())
	ok("copy in")

	short, cut := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err = c.ExecContext(short, endless)
	cut()
	expect(sqlstate(err) == "57014", "57014")
	expect(scan[int](ctx, connect(ctx, ""), "SELECT 1") == 1, "a new connection works")
	ok("cancel")

	_, err = open("not-a-token", "").Conn(ctx)
	expect(strings.HasPrefix(sqlstate(err), "28"), "a refusal at login")
	expect(!strings.Contains(err.Error(), "not-a-token"), "no secret in the text")
	ok("a wrong token is refused")
}

func open(token, more string) *sql.DB {
	return must(sql.Open("postgres", fmt.Sprintf(
		"host=%s port=%s user=%s dbname=%s sslmode=verify-full sslrootcert=%s password=%s %s",
		os.Getenv("SALLYPORT_HOST"), os.Getenv("SALLYPORT_PORT"), os.Getenv("SALLYPORT_USER"),
		os.Getenv("SALLYPORT_DATABASE"), os.Getenv("SALLYPORT_CA"), token, more)))
}

func connect(ctx context.Context, more string) *sql.Conn {
	return must(open(os.Getenv("SALLYPORT_TOKEN"), more).Conn(ctx))
}

type runner interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

func refused(ctx context.Context, c runner, statement string, values ...any) {
	_, err := c.ExecContext(ctx, statement, values...)
	expect(sqlstate(err) == "42501", "refused: "+statement)
}

func scan[T any](ctx context.Context, c runner, statement string, values ...any) T {
	var value T
	check(c.QueryRowContext(ctx, statement, values...).Scan(&value))
	return value
}

func count(ctx context.Context, c runner) int {
	return scan[int](ctx, c, "SELECT count(*) FROM orders")
}

func sqlstate(err error) string {
	var failure *pq.Error
	if errors.As(err, &failure) {
		return string(failure.Code)
	}
	return fmt.Sprint(err)
}

func ok(what string) { fmt.Println("ok", what) }

func expect(holds bool, what string) {
	if !holds {
		panic("does not hold: " + what)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
