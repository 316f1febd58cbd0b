package deltalog_test

import (
	"context"
	"fmt"
	"log"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// A table whose columns go by ids holds structs. A column is renamed, and rows
// are read by a condition on a field.
func ExampleSnapshot_Read() {
	ctx := context.Background()
	long, text := schema.Type{Kind: schema.Long}, schema.Type{Kind: schema.String}
	columns := &schema.Schema{Fields: []schema.Field{
		{Name: "city", Type: text, Nullable: true},
		{Name: "census", Type: schema.Type{Kind: schema.Struct, Fields: []schema.Field{
			{Name: "year", Type: long, Nullable: true},
			{Name: "people", Type: long, Nullable: true},
		}}, Nullable: true},
	}}
	table, err := deltalog.Create(ctx, store.NewMemory(), deltalog.CreateOptions{
		Schema: columns, Properties: map[string]string{deltalog.PropertyColumnMapping: "id"},
	})
	if err != nil {
		log.Fatal(err)
	}
	rows := datafile.NewBatch(columns)
	for _, c := range []struct {
		name   string
		people int64
	}{{"Bern", 134_000}, {"Thun", 44_000}, {"Basel", 173_000}} {
		rows.Cols[0].AppendString(c.name)
		rows.Cols[1].Fields[0].AppendInt(2020)
		rows.Cols[1].Fields[1].AppendInt(c.people)
		rows.Cols[1].EndStruct()
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

	fields := append([]schema.Field(nil), table.Snapshot().Metadata().Schema.Fields...)
	fields[0].Name = "town"
	renamed, err := table.Snapshot().Metadata().WithSchema(&schema.Schema{Fields: fields})
	if err != nil {
		log.Fatal(err)
	}
	snap, won, err := table.Commit(ctx, &deltalog.Commit{Operation: "RENAME COLUMN", Metadata: renamed})
	if err != nil || !won {
		log.Fatal(won, err)
	}
	for b, err := range snap.Read(ctx, deltalog.ReadOptions{
		Columns: []string{"town"},
		Where:   []deltalog.Condition{{Column: "census.people", Op: deltalog.OpGreater, Value: "100000"}},
	}) {
		if err != nil {
			log.Fatal(err)
		}
		for row := range b.Rows() {
			fmt.Println(string(b.Cols[0].At(row)))
		}
	}
	// Output:
	// Bern
	// Basel
}
