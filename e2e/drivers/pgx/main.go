// pgx through the gateway: each check prints `ok <what holds>`; the first that fails ends the program.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const endless = "SELECT count(*) FROM generate_series(1, 100000000000)"

func main() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()

	c := must(pgx.ConnectConfig(ctx, settings(os.Getenv("SALLYPORT_TOKEN"))))
	defer c.Close(ctx)
	ok("connects with a verified certificate and a token as password")

	results := must(c.PgConn().Exec(ctx, "SELECT 1; SELECT 2").ReadAll())
	expect(len(results) == 2, "two results")
	ok("simple statements")

	expect(scan[string](ctx, c, "SELECT name FROM customers WHERE id = $1", 1) == "Ada", "the name")
	ok("parameters")

	at := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
	var flag bool
	var big int64
	var raw []byte
	var when time.Time
	var list []int32
	check(c.QueryRow(ctx, "SELECT $1::bool, $2::int8, $3::bytea, $4::timestamptz, $5::int[]",
		true, int64(1)<<40, []byte{0, 255}, at, []int32{1, 2, 3}).Scan(&flag, &big, &raw, &when, &list))
	expect(flag && big == 1<<40 && bytes.Equal(raw, []byte{0, 255}) && when.Equal(at) && len(list) == 3, "the values")
	ok("binary parameters and results")

	must(c.Prepare(ctx, "by_id", "SELECT id FROM customers WHERE id = $1"))
	for number := range 7 {
		expect(scan[int](ctx, c, "by_id", 1+number%3) == 1+number%3, "the id")
	}
	ok("prepared statements")

	refused(ctx, c, "DELETE FROM orders")
	refused(ctx, c, "SELECT * FROM payroll WHERE customer_id = $1", 1)
	expect(scan[string](ctx, c, "SELECT 'usable'") == "usable", "usable")
	ok("a refusal is 42501 and the connection stays usable")

	before := count(ctx, c)
	tx := must(c.Begin(ctx))
	must(tx.Exec(ctx, "INSERT INTO orders (customer_id, amount) VALUES ($1, $2)", 1, 1))
	refused(ctx, c, "DELETE FROM orders")
	expect(c.PgConn().TxStatus() == 'E', "an aborted transaction")
	_, err := c.Exec(ctx, "SELECT 1")
	expect(sqlstate(err) == "25P02", "25P02")
	expect(errors.Is(tx.Commit(ctx), pgx.ErrTxCommitRollback), "COMMIT answers ROLLBACK")
	expect(count(ctx, c) == before, "the insert is undone")
	ok("a refusal aborts the transaction")

	tx = must(c.Begin(ctx))
	must(tx.Exec(ctx, "INSERT INTO orders (customer_id, amount) VALUES (1, 1)"))
	inner := must(tx.Begin(ctx))
	refused(ctx, c, "DELETE FROM orders")
	check(inner.Rollback(ctx))
	expect(count(ctx, c) == before+1, "the savepoint's work is there")
	check(tx.Rollback(ctx))
	ok("a savepoint survives a refusal behind it")

	batch := &pgx.Batch{}
	batch.Queue("INSERT INTO orders (customer_id, amount) VALUES ($1, 1)", 1)
	batch.Queue("DELETE FROM orders")
	batch.Queue("INSERT INTO orders (customer_id, amount) VALUES ($1, 1)", 1)
	expect(sqlstate(c.SendBatch(ctx, batch).Close()) == "42501", "the batch is refused")
	expect(count(ctx, c) == before, "nothing of the batch is kept")
	ok("a refusal in a pipeline undoes what stood before it")

	var out bytes.Buffer
	must(c.PgConn().CopyTo(ctx, &out, "COPY (SELECT id, name FROM customers ORDER BY id) TO STDOUT"))
	expect(strings.HasPrefix(out.String(), "1\tAda\n"), "the rows")
	ok("copy out")

	tx = must(c.Begin(ctx))
	copied := must(tx.CopyFrom(ctx, pgx.Identifier{"orders"}, []string{"customer_id", "amount"},
		pgx.CopyFromSlice(1000, func(i int) ([]any, error) { return []any{1, i}, nil })))
	expect(copied == 1000 && count(ctx, c) == before+1000, "the rows are in")
	check(tx.Rollback(ctx))
	ok("copy in")

	var rows bytes.Buffer
	must(c.PgConn().CopyTo(ctx, &rows, "COPY customers (id, name) TO STDOUT BINARY"))
	tx = must(c.Begin(ctx))
	must(c.PgConn().CopyFrom(ctx, &rows, "COPY arrivals FROM STDIN BINARY"))
	expect(scan[string](ctx, c, "SELECT name FROM arrivals WHERE id = $1", 1) == "Ada", "the name")
	check(tx.Rollback(ctx))
	ok("binary copy out and in again")

	go func() {
		time.Sleep(300 * time.Millisecond)
		_ = c.PgConn().CancelRequest(ctx)
	}()
	_, err = c.PgConn().Exec(ctx, endless).ReadAll()
	expect(sqlstate(err) == "57014", "57014")
	expect(scan[int](ctx, c, "SELECT 1") == 1, "usable after the cancel")
	ok("cancel")

	_, err = pgx.ConnectConfig(ctx, settings("not-a-token"))
	expect(strings.HasPrefix(sqlstate(err), "28"), "a refusal at login")
	expect(!strings.Contains(err.Error(), "not-a-token"), "no secret in the text")
	ok("a wrong token is refused")
}

func settings(token string) *pgx.ConnConfig {
	config := must(pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=%s dbname=%s sslmode=verify-full",
		os.Getenv("SALLYPORT_HOST"), os.Getenv("SALLYPORT_PORT"), os.Getenv("SALLYPORT_USER"), os.Getenv("SALLYPORT_DATABASE"))))
	roots := x509.NewCertPool()
	expect(roots.AppendCertsFromPEM(must(os.ReadFile(os.Getenv("SALLYPORT_CA")))), "a certificate authority")
	config.TLSConfig = &tls.Config{RootCAs: roots, ServerName: os.Getenv("SALLYPORT_HOST")}
	config.Password = token
	return config
}

func refused(ctx context.Context, c *pgx.Conn, statement string, values ...any) {
	_, err := c.Exec(ctx, statement, values...)
	expect(sqlstate(err) == "42501", "refused: "+statement)
}

func scan[T any](ctx context.Context, c *pgx.Conn, statement string, values ...any) T {
	var value T
	check(c.QueryRow(ctx, statement, values...).Scan(&value))
	return value
}

func count(ctx context.Context, c *pgx.Conn) int {
	return scan[int](ctx, c, "SELECT count(*) FROM orders")
}

func sqlstate(err error) string {
	var failure *pgconn.PgError
	if errors.As(err, &failure) {
		return failure.Code
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
