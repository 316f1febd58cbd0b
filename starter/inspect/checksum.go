package inspect

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/rowsum"
)

// Sum is the checksum of a version of a table, as package rowsum defines it.
type Sum struct {
	Rows     int64  `json:"rows"`
	Checksum string `json:"checksum"`
}

// Checksum reads all live rows.
func (v *View) Checksum(ctx context.Context) (Sum, error) {
	s := v.snapshot
	sum, err := rowsum.Of(ctx, s.Metadata().Schema, s.Read(ctx, deltalog.ReadOptions{}))
	if err != nil {
		return Sum{}, advise(v.uri, fmt.Errorf("checksum: %w", err))
	}
	return Sum{Rows: sum.Rows, Checksum: sum.String()}, nil
}
