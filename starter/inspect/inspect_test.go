package inspect

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// shelf makes a table: version 1 appends three rows, version 2 hides the second.
func shelf(t *testing.T) string {
	t.Helper()
	ctx := t.Context()
	dir := t.TempDir()
	st, err := store.OpenURI(dir)
	if err != nil {
		t.Fatal(err)
	}
	sch := &schema.Schema{Fields: []schema.Field{
		{Name: "id", Type: kind(schema.Long), Nullable: true},
		{Name: "title", Type: kind(schema.String), Nullable: true},
	}}
	table, err := deltalog.Create(ctx, st, deltalog.CreateOptions{
		Schema: sch, Name: "books", Properties: map[string]string{deltalog.PropertyDeletionVectors: "true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := table.NewFile(ctx, deltalog.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := datafile.NewBatch(sch)
	for i, title := range []string{"Emma", "Ulysses", "Dune"} {
		b.Cols[0].AppendInt(int64(i + 1))
		b.Cols[1].AppendString(title)
	}
	if err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	f, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, won, err := table.Commit(ctx, &deltalog.Commit{Operation: "WRITE", Add: []*deltalog.File{f}}); err != nil || !won {
		t.Fatal(won, err)
	}
	vectors, err := table.WriteVectors(ctx, []*roaring64.Bitmap{roaring64.BitmapOf(1)})
	if err != nil {
		t.Fatal(err)
	}
	_, won, err := table.Commit(ctx, &deltalog.Commit{
		Operation: "DELETE", Remove: []*deltalog.File{f}, Add: []*deltalog.File{f.WithVector(vectors[0])},
	})
	if err != nil || !won {
		t.Fatal(won, err)
	}
	return dir
}

func TestCatShowsLiveRowsOfAVersion(t *testing.T) {
	dir := shelf(t)
	for version, want := range map[deltalog.Version]string{
		-1: "{\"id\":1,\"title\":\"Emma\"}\n{\"id\":3,\"title\":\"Dune\"}\n",
		1:  "{\"id\":1,\"title\":\"Emma\"}\n{\"id\":2,\"title\":\"Ulysses\"}\n{\"id\":3,\"title\":\"Dune\"}\n",
		0:  "",
	} {
		at := At{Version: &version}
		if version < 0 {
			at = At{}
		}
		v, err := Open(t.Context(), dir, at)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := v.Cat(t.Context(), &out, CatOptions{Limit: -1}); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("version %d: got\n%s", version, out.String())
		}
	}
}

func TestFilesAndLogOfATableOfOurs(t *testing.T) {
	v, err := Open(t.Context(), "file://"+shelf(t), At{})
	if err != nil {
		t.Fatal(err)
	}
	files := v.Files()
	if len(files) != 1 || *files[0].Rows != 3 || files[0].Deleted != 1 {
		t.Errorf("files: %+v", files)
	}
	entries, err := v.Log(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 || entries[0].Operation != "DELETE" || entries[0].Removed != 1 || entries[1].Rows != 3 || entries[0].Time == "" {
		t.Errorf("log: %+v", entries)
	}
	if in := v.Info(); in.Version != 2 || *in.Rows != 2 || in.Name != "books" {
		t.Errorf("info: %+v", in)
	}
}

func TestFolderAboveATableNamesTheTable(t *testing.T) {
	dir := t.TempDir()
	st, err := store.OpenURI(dir + "/latest")
	if err != nil {
		t.Fatal(err)
	}
	sch := &schema.Schema{Fields: []schema.Field{{Name: "id", Type: kind(schema.Long), Nullable: true}}}
	if _, err := deltalog.Create(t.Context(), st, deltalog.CreateOptions{Schema: sch}); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), dir, At{})
	if !errors.Is(err, deltalog.ErrNotTable) || !strings.Contains(err.Error(), dir+"/latest") {
		t.Errorf("got %v", err)
	}
}

func TestWriterThatFailsEndsCat(t *testing.T) {
	v, err := Open(t.Context(), shelf(t), At{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Cat(t.Context(), closed{}, CatOptions{Limit: -1}); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
}

var errClosed = errors.New("closed")

type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, errClosed }
