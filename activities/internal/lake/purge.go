package lake

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Purge deletes everything below a database's folder of a lake, and returns its
// URI. Nobody may write there meanwhile. It may be called again after a failure.
// On a disk, folders stay behind without files.
func Purge(ctx context.Context, root, database string) (uri string, err error) {
	st, err := store.OpenURI(root)
	if err != nil {
		return "", fmt.Errorf("open lake: %w", err)
	}
	if st, err = st.Sub(pathPart(database)); err != nil {
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
