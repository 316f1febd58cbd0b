package lake

import (
	"context"
	"fmt"
)

// Purge deletes everything below the database's folder, and returns its URI.
// Nobody may write there meanwhile. It may be called again after a failure. On a
// disk, folders stay behind without files.
func (l *Lake) Purge(ctx context.Context) (uri string, err error) {
	st, err := l.root.Sub(pathPart(l.cfg.Database))
	if err != nil {
		return "", err
	}
	for object, err := range st.List(ctx, "", "") {
		if err == nil {
			err = st.Delete(ctx, object.Name)
		}
		if err != nil {
			return "", fmt.Errorf("purge %s: %w: %w", st.URI(), ErrUnwritable, err)
		}
	}
	return st.URI(), nil
}
