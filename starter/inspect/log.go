package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/store"
)

// Entry is one commit of a table.
type Entry struct {
	Version   deltalog.Version `json:"version"`
	Time      string           `json:"time"`
	Operation string           `json:"operation"`
	// Added and Removed count files, Rows the rows in those added, where the
	// log tells.
	Added   int   `json:"added"`
	Removed int   `json:"removed"`
	Rows    int64 `json:"rows"`
	// Changed names what else the commit set: protocol, metadata, txn …,
	// domain ….
	Changed    []string          `json:"changed"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Engine     string            `json:"engine,omitempty"`
}

// Log lists the commits up to the view's version, the newest first, as far back
// as the log still holds them, and at most limit. Zero means all.
func (v *View) Log(ctx context.Context, limit int) ([]Entry, error) {
	entries := []Entry{}
	for n := v.snapshot.Version(); n >= 0 && (limit == 0 || len(entries) < limit); n-- {
		name := fmt.Sprintf("_delta_log/%020d.json", n)
		b, err := v.store.Get(ctx, name)
		if errors.Is(err, store.ErrNotExist) {
			break // cleaned away, with all before it
		}
		if err != nil {
			return nil, fmt.Errorf("read commit %d: %w", n, err)
		}
		e, err := parseCommit(n, b)
		if err != nil {
			return nil, advise(v.uri, fmt.Errorf("read commit %d: %s: %w", n, name, err))
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// line is one action of a commit.
type line struct {
	CommitInfo *deltalog.CommitInfo `json:"commitInfo"`
	Add        *struct {
		Stats string `json:"stats"`
	} `json:"add"`
	Remove   *struct{} `json:"remove"`
	Protocol *struct{} `json:"protocol"`
	Metadata *struct{} `json:"metaData"`
	Txn      *struct {
		AppID   string `json:"appId"`
		Version int64  `json:"version"`
	} `json:"txn"`
	Domain *struct {
		Name    string `json:"domain"`
		Removed bool   `json:"removed"`
	} `json:"domainMetadata"`
}

func parseCommit(n deltalog.Version, b []byte) (Entry, error) {
	e := Entry{Version: n, Changed: []string{}}
	for text := range bytes.Lines(b) {
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return e, fmt.Errorf("%w: %w", deltalog.ErrCorrupt, err)
		}
		switch {
		case l.CommitInfo != nil:
			e.Time, e.Operation = stamp(l.CommitInfo.Time()), l.CommitInfo.Operation
			e.Parameters, e.Engine = l.CommitInfo.Parameters, l.CommitInfo.Engine
		case l.Add != nil:
			e.Added++
			var stats struct {
				Rows int64 `json:"numRecords"`
			}
			if json.Unmarshal([]byte(l.Add.Stats), &stats) == nil {
				e.Rows += stats.Rows
			}
		case l.Remove != nil:
			e.Removed++
		case l.Protocol != nil:
			e.Changed = append(e.Changed, "protocol")
		case l.Metadata != nil:
			e.Changed = append(e.Changed, "metadata")
		case l.Txn != nil:
			e.Changed = append(e.Changed, fmt.Sprintf("txn %s=%d", l.Txn.AppID, l.Txn.Version))
		case l.Domain != nil && l.Domain.Removed:
			e.Changed = append(e.Changed, "domain "+l.Domain.Name+" removed")
		case l.Domain != nil:
			e.Changed = append(e.Changed, "domain "+l.Domain.Name)
		}
	}
	return e, nil
}
