package deltalog_test

import (
	"context"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

var orders = &schema.Schema{Fields: []schema.Field{
	{Name: "id", Type: schema.Type{Kind: schema.Long}, Nullable: true},
	{Name: "city", Type: schema.Type{Kind: schema.String}, Nullable: true},
}}

// order makes a batch of orders from one city.
func order(city string, ids ...int64) *datafile.Batch {
	b := datafile.NewBatch(orders)
	for _, id := range ids {
		b.Cols[0].AppendInt(id)
		b.Cols[1].AppendString(city)
	}
	return b
}

func must(snap *deltalog.Snapshot, err error) *deltalog.Snapshot {
	if err != nil {
		log.Fatal(err)
	}
	return snap
}

func show(snap *deltalog.Snapshot) {
	var rows []string
	for b, err := range snap.Read(context.Background(), deltalog.ReadOptions{Columns: []string{"id", "city"}}) {
		if err != nil {
			log.Fatal(err)
		}
		for row := range b.Rows() {
			rows = append(rows, fmt.Sprint(b.Cols[0].I64[row], " ", string(b.Cols[1].At(row))))
		}
	}
	slices.Sort(rows)
	fmt.Println("version", snap.Version(), rows)
}

// Rows are appended, deleted and overwritten.
func ExampleTable_Append() {
	ctx := context.Background()
	table, err := deltalog.Create(ctx, store.NewMemory(), deltalog.CreateOptions{
		Schema:           orders,
		PartitionColumns: []string{"city"},
		Properties:       map[string]string{deltalog.PropertyDeletionVectors: "true"},
	})
	if err != nil {
		log.Fatal(err)
	}
	show(must(table.Append(ctx, order("Rome", 1, 2), order("Oslo", 3))))
	snap, n, err := table.Delete(ctx, []string{"id"}, func(b *datafile.Batch, row int) bool {
		return b.Column("id").I64[row] == 2
	})
	fmt.Println(n, "deleted")
	show(must(snap, err))
	show(must(table.Overwrite(ctx, order("Bern", 9))))
	// Output:
	// version 1 [1 Rome 2 Rome 3 Oslo]
	// 1 deleted
	// version 2 [1 Rome 3 Oslo]
	// version 3 [9 Bern]
}

// Columns are added and widened, and properties set; no file is written anew.
func ExampleTable_SetSchema() {
	ctx := context.Background()
	table, err := deltalog.Create(ctx, store.NewMemory(), deltalog.CreateOptions{
		Schema: &schema.Schema{Fields: []schema.Field{{Name: "n", Type: schema.Type{Kind: schema.Integer}, Nullable: true}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	must(table.SetProperties(ctx, map[string]string{deltalog.PropertyTypeWidening: "true"}))
	snap := must(table.SetSchema(ctx, &schema.Schema{Fields: []schema.Field{
		{Name: "note", Type: schema.Type{Kind: schema.String}, Nullable: true},
		{Name: "n", Type: schema.Type{Kind: schema.Long}, Nullable: true},
	}}))
	for _, f := range snap.Metadata().Schema.Fields {
		fmt.Println(f.Name, f.Type)
	}
	fmt.Println(snap.Protocol().WriterFeatures)
	// Output:
	// note string
	// n long
	// [appendOnly invariants typeWidening]
}

// A table with a change data feed tells what happened to its rows.
func ExampleTable_Changes() {
	ctx := context.Background()
	table, err := deltalog.Create(ctx, store.NewMemory(), deltalog.CreateOptions{
		Schema: orders, Properties: map[string]string{deltalog.PropertyChangeDataFeed: "true"},
	})
	if err != nil {
		log.Fatal(err)
	}
	must(table.Append(ctx, order("Rome", 1, 2)))
	if _, _, err := table.Delete(ctx, nil, func(b *datafile.Batch, row int) bool { return b.Column("id").I64[row] == 2 }); err != nil {
		log.Fatal(err)
	}
	for b, err := range table.Changes(ctx, 1, 2, deltalog.ReadOptions{Columns: []string{"id"}}) {
		if err != nil {
			log.Fatal(err)
		}
		for row := range b.Rows() {
			fmt.Println(b.Column(deltalog.ColumnCommitVersion).I64[row], string(b.Column(deltalog.ColumnChangeType).At(row)), b.Cols[0].I64[row])
		}
	}
	// Output:
	// 1 insert 1
	// 1 insert 2
	// 2 delete 2
}

// A table is read as it was.
func ExampleOpenAtTime() {
	ctx := context.Background()
	st := store.NewMemory()
	table, err := deltalog.Create(ctx, st, deltalog.CreateOptions{
		Schema: orders, Properties: map[string]string{deltalog.PropertyInCommitTimestamps: "true"},
	})
	if err != nil {
		log.Fatal(err)
	}
	must(table.Append(ctx, order("Rome", 1)))
	snap := must(table.Overwrite(ctx, order("Oslo", 2)))
	for e, err := range snap.History(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Version, e.Info.Operation)
	}
	show(must(deltalog.OpenAtTime(ctx, st, snap.Info().Time().Add(-time.Millisecond))))
	// Output:
	// 2 WRITE
	// 1 WRITE
	// 0 CREATE TABLE
	// version 1 [1 Rome]
}
