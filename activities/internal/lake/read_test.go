package lake

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// fataler is what tests and rapid have in common.
type fataler interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// readRow prints a row as the source's rows print.
func readRow(b *datafile.Batch, i int) string {
	parts := make([]string, len(b.Cols))
	for n, c := range b.Cols {
		switch {
		case !c.Valid[i]:
			parts[n] = null
		case c.Type.Kind == schema.String:
			parts[n] = string(c.At(i))
		default:
			parts[n] = fmt.Sprint(c.I64[i])
		}
	}
	return strings.Join(parts, "|")
}

// readHistory prints the position and operation of every change in history, in
// order.
func readHistory(t fataler, ctx context.Context, snap *deltalog.Snapshot) []string {
	type line struct {
		at change.Position
		op string
	}
	var lines []line
	o := deltalog.ReadOptions{Columns: []string{batch.OpColumn, batch.EpochColumn, batch.CommitLSNColumn, batch.OrdinalColumn}}
	for b, err := range snap.Read(ctx, o) {
		if err != nil {
			t.Fatal(err)
		}
		at, err := positionsOf(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Rows() {
			if op := string(at.op.At(i)); op != "r" {
				lines = append(lines, line{at.at(i), op})
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = fmt.Sprintf("%s %s", l.at, l.op)
	}
	return out
}
