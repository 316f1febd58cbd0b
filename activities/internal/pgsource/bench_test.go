package pgsource

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/pgsource/pgoutput"
)

// benchRows is the size of the table of the benchmarks: ten mixed columns, some
// 200 bytes a row.
const benchRows = 500_000

const benchTable = `CREATE TABLE bench (id bigint PRIMARY KEY, account int, amount numeric(18,2), at timestamptz, day date,
	active bool, ratio float8, kind smallint, code uuid, note text)`

const benchInsert = `INSERT INTO bench SELECT g, g %% 100000, (g * 7 %% 1000000) / 100.0, '2024-01-01'::timestamptz + g * interval '1 second',
	'2024-01-01'::date + g %% 365, g %% 2 = 0, g / 7.0, g %% 100, md5(g::text)::uuid, repeat(md5(g::text), 3)
	FROM generate_series(%d, %d) g`

// cpu is the processor time that this process has used, children left out.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// figures reports rows per second and the client's CPU seconds per million rows.
func figures(b *testing.B, rows int64, used time.Duration) {
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(used.Seconds()*1e6/float64(rows), "cpu-s/Mrow")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkStream drains a slot that holds one load of the table.
func BenchmarkStream(b *testing.B) {
	for _, per := range []int{1, 1000} {
		b.Run(fmt.Sprintf("rows-per-transaction-%d", per), func(b *testing.B) {
			s := newSource(b)
			s.exec(benchTable)
			s.publish("public.*")
			if _, err := s.db.EnsureSlot(b.Context(), "shop", 1); err != nil {
				b.Fatal(err)
			}
			total := benchRows
			if per == 1 {
				total /= 5
			}
			s.exec(fmt.Sprintf(`CREATE PROCEDURE load() LANGUAGE plpgsql AS $$ BEGIN
				FOR i IN 0..%d LOOP EXECUTE format('%s', i * %d + 1, (i + 1) * %d); COMMIT; END LOOP; END $$`,
				total/per-1, escapeFormat(benchInsert), per, per))
			s.exec("CALL load()")
			if _, err := s.db.EmitMarker(b.Context(), "end", ""); err != nil {
				b.Fatal(err)
			}
			runtime.GC()
			var rows int64
			var used time.Duration
			for b.Loop() {
				st := s.stream("")
				before := cpu()
				var m pgoutput.Message
				for m.Kind != pgoutput.Logical {
					if _, err := st.Next(&m, time.Second); err != nil {
						b.Fatal(err)
					}
					if m.Kind == pgoutput.Insert {
						rows++
					}
				}
				used += cpu() - before
				_ = st.Close()
				eventually(b, "the slot is free", func() bool {
					slot, err := s.db.Slot(b.Context(), SlotName("shop", 1))
					return err == nil && !slot.Active
				})
			}
			figures(b, rows, used)
		})
	}
}

func escapeFormat(s string) string {
	out := ""
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\'':
			out += "''"
		case s[i] == '%' && i+1 < len(s) && s[i+1] == 'd':
			out += "%s"
			i++
		default:
			out += string(s[i])
		}
	}
	return out
}

// nowhere counts bytes.
type nowhere int64

func (n *nowhere) Write(b []byte) (int, error) {
	*n += nowhere(len(b))
	return len(b), nil
}

// BenchmarkCopy reads the table: raw by pgx's CopyTo, which is the limit that
// others are measured against, and as tuples under a cut.
func BenchmarkCopy(b *testing.B) {
	s := newSource(b)
	s.exec(benchTable)
	s.exec(fmt.Sprintf(benchInsert, 1, benchRows))
	s.exec("VACUUM ANALYZE bench")
	table := s.table("public.bench")
	cut, err := s.db.Cut(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer cut.Close()
	b.Run("raw", func(b *testing.B) {
		conn := connectRaw(b, s.server.URL(s.name))
		defer conn.Close(b.Context())
		var rows int64
		before := cpu()
		for b.Loop() {
			var n nowhere
			tag, err := conn.PgConn().CopyTo(b.Context(), &n, "COPY bench TO STDOUT (FORMAT binary)")
			if err != nil {
				b.Fatal(err)
			}
			rows += tag.RowsAffected()
		}
		figures(b, rows, cpu()-before)
	})
	for name, text := range map[string][]bool{"tuples": nil, "tuples-two-printed": {2: true, 8: true}} {
		b.Run(name, func(b *testing.B) {
			chunks, err := s.db.Plan(b.Context(), cut.Snapshot, table, 32<<20)
			if err != nil {
				b.Fatal(err)
			}
			var rows int64
			before := cpu()
			for b.Loop() {
				for _, c := range chunks {
					n, err := s.db.CopyChunk(b.Context(), cut.Snapshot, table, c, text, func(*change.Tuple) error { return nil })
					if err != nil {
						b.Fatal(err)
					}
					rows += n
				}
			}
			figures(b, rows, cpu()-before)
		})
	}
	b.Run("text", func(b *testing.B) {
		var rows int64
		before := cpu()
		for b.Loop() {
			err := s.db.ReadTable(b.Context(), cut.Snapshot, table, func(*change.Tuple) error { rows++; return nil })
			if err != nil {
				b.Fatal(err)
			}
		}
		figures(b, rows, cpu()-before)
	})
}
