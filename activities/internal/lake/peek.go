package lake

import (
	"context"
	"errors"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog"
)

// Peek returns what the tables of t say about themselves, and what their stream
// rested on, without making anything. Where there are none, the phase is
// Waiting.
func (l *Lake) Peek(ctx context.Context, t *change.Table, o MirrorOptions) (State, *change.Ground, error) {
	m := &Mirror{table: &table{}, casts: o.Casts, shape: t}
	var err error
	if m.history.Table, err = l.peekAt(ctx, t, "history"); err != nil || m.history.Table == nil {
		return State{Phase: Waiting}, nil, err
	}
	latest, err := l.peekAt(ctx, t, "latest")
	if err != nil {
		return State{}, nil, err
	}
	if latest != nil {
		m.latest.Store(&side{Table: latest})
	}
	return m.State(), m.Ground(), nil
}

// peekAt opens one table; nil where there is none.
func (l *Lake) peekAt(ctx context.Context, t *change.Table, name string) (*deltalog.Table, error) {
	st, err := l.root.Sub(pathPart(l.cfg.Database) + "/" + tablePath(t) + "/" + name)
	if err != nil {
		return nil, err
	}
	table, err := deltalog.Open(ctx, st)
	if errors.Is(err, deltalog.ErrNotTable) {
		return nil, nil
	}
	return table, wrapIf("open "+st.URI(), err)
}
