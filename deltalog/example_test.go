package deltalog_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// A table is created, filled, and one of its rows is deleted with a deletion
// vector.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	st, err := store.OpenURI("file://" + dir)
	if err != nil {
		log.Fatal(err)
	}
	columns := &schema.Schema{Fields: []schema.Field{
		{Name: "id", Type: schema.Type{Kind: schema.Long}, Nullable: true},
		{Name: "name", Type: schema.Type{Kind: schema.String}, Nullable: true},
	}}
	table, err := deltalog.Create(ctx, st, deltalog.CreateOptions{
		Schema: columns, Properties: map[string]string{deltalog.PropertyDeletionVectors: "true"},
	})
	if err != nil {
		log.Fatal(err)
	}

	rows := datafile.NewBatch(columns)
	for id, name := range []string{"ann", "bob", "cyn"} {
		rows.Cols[0].AppendInt(int64(id))
		rows.Cols[1].AppendString(name)
	}
	w, err := table.NewFile(ctx, deltalog.FileOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer w.Abort()
	if err := w.Write(rows); err != nil {
		log.Fatal(err)
	}
	file, err := w.Close()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := table.CommitAppend(ctx, &deltalog.Commit{Operation: "WRITE", Add: []*deltalog.File{file}}, nil); err != nil {
		log.Fatal(err)
	}

	vectors, err := table.WriteVectors(ctx, []*roaring64.Bitmap{roaring64.BitmapOf(1)})
	if err != nil {
		log.Fatal(err)
	}
	snap, won, err := table.Commit(ctx, &deltalog.Commit{
		Operation: "DELETE", Remove: []*deltalog.File{file}, Add: []*deltalog.File{file.WithVector(vectors[0])},
	})
	if err != nil || !won {
		log.Fatal(won, err)
	}
	for b, err := range snap.Read(ctx, deltalog.ReadOptions{Columns: []string{"name"}}) {
		if err != nil {
			log.Fatal(err)
		}
		for row := range b.Rows() {
			fmt.Println(string(b.Cols[0].At(row)))
		}
	}
	fmt.Println("version", snap.Version())
	// Output:
	// ann
	// cyn
	// version 2
}
