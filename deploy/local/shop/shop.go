// Package shop is a small database under traffic, for the demo and for tests:
// customers, products, orders, order lines with a composite key, an event log
// without any key, and documents with large TOASTed text.
//
// Load is seeded: the same seed makes the same statements in the same order on
// each connection.
package shop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Schema makes the tables.
const Schema = `
CREATE TABLE customers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL UNIQUE, name varchar(80) NOT NULL,
  country char(2) NOT NULL, credit numeric(12,2) NOT NULL DEFAULT 0, vip boolean NOT NULL DEFAULT false,
  tags text[], born date, joined timestamptz NOT NULL DEFAULT now());
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
CREATE TABLE products (
  sku text PRIMARY KEY, title text NOT NULL, price numeric(10,2) NOT NULL, weight real, stock int NOT NULL,
  colour colour, attributes jsonb, added timestamp NOT NULL DEFAULT now(),
  gross numeric(12,2) GENERATED ALWAYS AS (price * 1.2) STORED);
CREATE TABLE orders (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), customer_id bigint NOT NULL, placed timestamptz NOT NULL DEFAULT now(),
  status text NOT NULL, total numeric(12,2) NOT NULL, note text);
CREATE TABLE order_lines (
  order_id uuid NOT NULL, line int NOT NULL, sku text NOT NULL, quantity smallint NOT NULL, price numeric(10,2) NOT NULL,
  PRIMARY KEY (order_id, line));
CREATE TABLE event_log (at timestamptz NOT NULL, kind text NOT NULL, payload jsonb);
ALTER TABLE event_log REPLICA IDENTITY FULL;
CREATE TABLE documents (id int PRIMARY KEY, title text NOT NULL, body text NOT NULL, scan bytea, revision int NOT NULL);
ALTER TABLE documents ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE carts (id int PRIMARY KEY, content jsonb NOT NULL);
`

// Tables are the tables of Schema.
var Tables = []string{"public.carts", "public.customers", "public.documents", "public.event_log", "public.order_lines", "public.orders", "public.products"}

// Fill puts about 24 thousand rows times scale into the tables.
func Fill(ctx context.Context, conn *pgx.Conn, scale int) error {
	for _, stmt := range []string{
		fmt.Sprintf(`INSERT INTO customers (email, name, country, credit, vip, tags, born)
			SELECT 'c' || i || '@example.com', 'Customer ' || i, (ARRAY['DE','FR','JP','BR'])[1 + i %% 4], i * 1.25, i %% 50 = 0,
				CASE WHEN i %% 3 = 0 THEN ARRAY['new', 'a,b "quoted"', NULL] END, date '1950-01-01' + (i %% 20000)::int
			FROM generate_series(1, %d) i`, 5000*scale),
		fmt.Sprintf(`INSERT INTO products (sku, title, price, weight, stock, colour, attributes)
			SELECT 'SKU-' || i, 'Product ' || i, (i %% 1000) + 0.99, i / 7.0, i %% 100, (ARRAY['red','green','blue']::colour[])[1 + i %% 3],
				jsonb_build_object('i', i, 'size', ARRAY[i, i + 1])
			FROM generate_series(1, %d) i`, 2000*scale),
		fmt.Sprintf(`INSERT INTO orders (customer_id, status, total, note)
			SELECT 1 + i %% %d, (ARRAY['placed','paid','sent'])[1 + i %% 3], i * 0.5, CASE WHEN i %% 5 = 0 THEN 'gift ' || i END
			FROM generate_series(1, %d) i`, 5000*scale, 4000*scale),
		`INSERT INTO order_lines SELECT o.id, l, 'SKU-' || (1 + l * 7), l, l * 1.5 FROM orders o, generate_series(1, 2) l`,
		fmt.Sprintf(`INSERT INTO event_log SELECT now() - i * interval '1 second', 'view', jsonb_build_object('n', i %% 100)
			FROM generate_series(1, %d) i`, 4000*scale),
		fmt.Sprintf(`INSERT INTO documents SELECT i, 'Document ' || i, string_agg(md5((i * 1000 + j)::text), '' ORDER BY j), decode(md5(i::text), 'hex'), 1
			FROM generate_series(1, %d) i, generate_series(1, 150) j GROUP BY i`, 200*scale),
		`INSERT INTO carts SELECT i, '{"items": []}' FROM generate_series(1, 500) i`,
		`ANALYZE`,
	} {
		if _, err := conn.Exec(ctx, stmt); err != nil {
			return fmt.Errorf("fill the shop: %w", err)
		}
	}
	return nil
}

// Load is seeded traffic on the shop.
type Load struct {
	// URL is the database's address.
	URL string
	// Seed fixes what is done.
	Seed uint64
	// Connections work side by side; zero means 2.
	Connections int
	// Rate is transactions per second over all connections; zero means as many
	// as go.
	Rate int

	done atomic.Int64
	rows atomic.Int64
}

// Transactions returns how many were committed, Rows how many rows they
// changed, about.
func (l *Load) Transactions() int64 { return l.done.Load() }

// Rows returns how many rows the committed transactions changed, about.
func (l *Load) Rows() int64 { return l.rows.Load() }

// Run works until ctx ends. A connection that is lost is made again, so that
// the server may be restarted meanwhile.
func (l *Load) Run(ctx context.Context) error {
	n := l.Connections
	if n == 0 {
		n = 2
	}
	var wait sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wait.Go(func() {
			w := &worker{load: l, rng: rand.New(rand.NewPCG(l.Seed, uint64(i))), id: i, of: n}
			errs[i] = w.run(ctx)
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

type worker struct {
	load   *Load
	rng    *rand.Rand
	id, of int
	next   int
}

func (w *worker) run(ctx context.Context) error {
	var tick *time.Ticker
	if w.load.Rate > 0 {
		tick = time.NewTicker(time.Second * time.Duration(w.of) / time.Duration(w.load.Rate))
		defer tick.Stop()
	}
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			c, err := pgx.Connect(ctx, w.load.URL)
			if err != nil {
				select { // the server may be starting
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			conn = c
		}
		rows, err := w.step(ctx, conn)
		switch {
		case err == nil:
			w.load.done.Add(1)
			w.load.rows.Add(rows)
		case conn.IsClosed() || ctx.Err() != nil || errors.Is(err, pgx.ErrNoRows):
		case retryable(err):
		default:
			return fmt.Errorf("load: %w", err)
		}
		if tick != nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}
	return nil
}

// retryable are the errors of a healthy database under concurrent load, or of
// one that is stopping.
func retryable(err error) bool {
	text := err.Error()
	for _, code := range []string{"40001", "40P01", "23505", "57P01", "57P02", "57P03"} {
		if strings.Contains(text, "SQLSTATE "+code) {
			return true
		}
	}
	return false
}

// step is one transaction.
func (w *worker) step(ctx context.Context, conn *pgx.Conn) (rows int64, err error) {
	r := w.rng
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	exec := func(sql string, args ...any) {
		if err != nil {
			return
		}
		tag, e := tx.Exec(ctx, sql, args...)
		rows += tag.RowsAffected()
		err = e
	}
	w.next++
	customer := 1 + r.IntN(5000)
	switch n := r.IntN(100); {
	case n < 30: // an order over several tables
		var id string
		if err := tx.QueryRow(ctx, `INSERT INTO orders (customer_id, status, total) VALUES ($1, 'placed', $2) RETURNING id::text`,
			customer, float64(r.IntN(100000))/100).Scan(&id); err != nil {
			return 0, err
		}
		rows++
		for line := range 1 + r.IntN(4) {
			exec(`INSERT INTO order_lines VALUES ($1::text::uuid, $2, $3, $4, 9.99)`, id, line+1, fmt.Sprintf("SKU-%d", 1+r.IntN(2000)), 1+r.IntN(5))
		}
		exec(`UPDATE products SET stock = stock - 1 WHERE sku = $1`, fmt.Sprintf("SKU-%d", 1+r.IntN(2000)))
		exec(`INSERT INTO event_log VALUES (now(), 'order', jsonb_build_object('customer', $1::int))`, customer)
	case n < 50: // an update
		exec(`UPDATE orders SET status = 'paid', total = total + 1 WHERE id = (SELECT id FROM orders WHERE customer_id = $1 LIMIT 1)`, customer)
		exec(`UPDATE customers SET credit = credit + 0.01, tags = array_append(tags, 'x') WHERE id = $1`, customer)
	case n < 58: // delete an order with its lines
		exec(`WITH o AS (DELETE FROM orders WHERE id = (SELECT id FROM orders WHERE customer_id = $1 LIMIT 1) RETURNING id)
			DELETE FROM order_lines WHERE order_id IN (SELECT id FROM o)`, customer)
	case n < 64: // a primary key changes
		exec(`UPDATE products SET sku = sku || '-' || $2::int WHERE sku = $1`, fmt.Sprintf("SKU-%d", 1+r.IntN(2000)), w.next)
		exec(`UPDATE documents SET id = $2 WHERE id = $1`, 1+r.IntN(200), 1000+w.next*w.of+w.id)
	case n < 74: // large text stays where it is, or changes
		exec(`UPDATE documents SET revision = revision + 1 WHERE id = $1`, 1+r.IntN(200))
		if r.IntN(3) == 0 {
			exec(`UPDATE documents SET body = repeat(md5($2::int::text), 150) WHERE id = $1`, 1+r.IntN(200), w.next)
		}
	case n < 82: // equal rows, and rows without a key that go
		exec(`INSERT INTO event_log VALUES (date_trunc('minute', now()), 'ping', NULL), (date_trunc('minute', now()), 'ping', NULL)`)
		exec(`DELETE FROM event_log WHERE ctid = (SELECT ctid FROM event_log WHERE kind = 'view' LIMIT 1)`)
		exec(`UPDATE event_log SET payload = '{"seen": true}' WHERE ctid = (SELECT ctid FROM event_log WHERE kind = 'ping' LIMIT 1)`)
	case n < 90: // savepoints
		exec(`INSERT INTO customers (email, name, country) VALUES ($1, 'Kept', 'DE')`, fmt.Sprintf("k%d-%d-%d@example.com", w.load.Seed, w.id, w.next))
		exec(`SAVEPOINT a`)
		exec(`UPDATE customers SET name = 'Undone' WHERE id < 50`)
		exec(`ROLLBACK TO SAVEPOINT a`)
		exec(`UPDATE customers SET name = 'Done ' || $2::int WHERE id = $1`, customer, w.next)
	case n < 98: // all of it undone
		exec(`INSERT INTO orders (customer_id, status, total) VALUES ($1, 'undone', 1)`, customer)
		exec(`DELETE FROM carts`)
		return 0, err
	default: // carts are emptied at once, now and then
		if r.IntN(6) == 0 {
			exec(`TRUNCATE carts`)
		}
		exec(`INSERT INTO carts SELECT i, jsonb_build_object('n', $1::int) FROM generate_series($1::int, $1::int + 20) i ON CONFLICT (id) DO UPDATE SET content = EXCLUDED.content`, 1+r.IntN(1000))
	}
	if err != nil {
		return 0, err
	}
	return rows, tx.Commit(ctx)
}
