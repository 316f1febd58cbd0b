package lake

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/store"
)

// Peek returns what the tables of t in a lake say about themselves, and what
// their stream rested on, without making anything. Where there are none, the
// phase is Waiting.
func Peek(ctx context.Context, root, database string, t *change.Table, o MirrorOptions) (State, *change.Ground, error) {
	st, err := store.OpenURI(root)
	if err != nil {
		return State{}, nil, fmt.Errorf("open lake: %w", err)
	}
	m := &Mirror{table: &table{}, casts: o.Casts, shape: t}
	if m.history.Table, err = peekAt(ctx, st, database, t, "history"); err != nil || m.history.Table == nil {
		return State{Phase: Waiting}, nil, err
	}
	latest, err := peekAt(ctx, st, database, t, "latest")
	if err != nil {
		return State{}, nil, err
	}
	if latest != nil {
		m.latest.Store(&side{Table: latest})
	}
	return m.State(), m.Ground(), nil
}

// peekAt opens one table; nil where there is none.
func peekAt(ctx context.Context, root store.Store, database string, t *change.Table, name string) (*deltalog.Table, error) {
	st, err := root.Sub(pathPart(database) + "/" + tablePath(t) + "/" + name)
	if err != nil {
		return nil, err
	}
	table, err := deltalog.Open(ctx, st)
	if errors.Is(err, deltalog.ErrNotTable) {
		return nil, nil
	}
	return table, wrapIf("open "+st.URI(), err)
}
