package deltalog

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/store"
)

// BenchmarkUpsert changes rows of a table of a million: 10,000 at a time, half
// of them new.
func BenchmarkUpsert(b *testing.B) {
	for _, pattern := range []string{"uniform", "recent"} {
		b.Run(pattern, func(b *testing.B) {
			const base, size = 1_000_000, 10_000
			st, err := store.NewLocal(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			u, err := OpenUpserter(b.Context(), newTestTable(b, st), b.TempDir(), UpserterOptions{Keys: []string{"id"}})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = u.Close() }()
			next := int64(0)
			upsert := func(ids []int64) {
				up := u.Begin()
				rows := datafile.NewBatch(idName())
				for _, id := range ids {
					rows.Cols[0].AppendInt(id)
					rows.Cols[1].AppendString(fmt.Sprintf("name of %d and then some", id))
				}
				if err := up.Put(b.Context(), rows, keysOf(ids...)); err != nil {
					b.Fatal(err)
				}
				if _, err := up.Commit(b.Context(), CommitExtras{}); err != nil {
					b.Fatal(err)
				}
			}
			for next < base {
				ids := make([]int64, base/10)
				for i := range ids {
					ids[i] = next
					next++
				}
				upsert(ids)
			}
			ids := make([]int64, 0, size)
			for b.Loop() {
				ids = ids[:0]
				for range size / 2 {
					old := rand.Int64N(base)
					if pattern == "recent" {
						old = next - 1 - rand.Int64N(50_000)
					}
					ids = append(ids, old, next)
					next++
				}
				upsert(ids)
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
