package inspect

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/deltalog"
)

// Past is a version that the table had.
type Past struct {
	Version   deltalog.Version `json:"version"`
	Time      string           `json:"time"`
	Operation string           `json:"operation,omitempty"`
	Engine    string           `json:"engine,omitempty"`
}

// History lists the versions up to the view's, the newest first, as far back as
// the log still holds them, and at most limit. Zero means all.
func (v *View) History(ctx context.Context, limit int) ([]Past, error) {
	all := []Past{}
	for e, err := range v.snapshot.History(ctx) {
		if err != nil {
			return nil, advise(v.uri, fmt.Errorf("read history: %w", err))
		}
		p := Past{Version: e.Version, Time: stamp(e.Time)}
		if e.Info != nil {
			p.Operation, p.Engine = e.Info.Operation, e.Info.Engine
		}
		if all = append(all, p); len(all) == limit {
			break
		}
	}
	return all, nil
}
