package deltalog_test

import (
	"context"
	"fmt"
	"os"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

func ExampleUpserter() {
	if err := upsertPeople(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 Ada
	// 2 Grace Hopper
}

func upsertPeople(ctx context.Context) error {
	people := &schema.Schema{Fields: []schema.Field{
		{Name: "id", Type: schema.Type{Kind: schema.Long}, Nullable: true},
		{Name: "name", Type: schema.Type{Kind: schema.String}, Nullable: true},
	}}
	table, err := deltalog.Create(ctx, store.NewMemory(), deltalog.CreateOptions{
		Schema: people, Properties: map[string]string{deltalog.PropertyDeletionVectors: "true"},
	})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "index")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	u, err := deltalog.OpenUpserter(ctx, table, dir, deltalog.UpserterOptions{Keys: []string{"id"}})
	if err != nil {
		return err
	}
	defer func() { _ = u.Close() }()

	put := func(names map[int64]string, ids ...int64) error {
		rows := datafile.NewBatch(people)
		var keys [][]byte
		for i, id := range ids {
			rows.Cols[0].AppendInt(id)
			rows.Cols[1].AppendString(names[id])
			keys = append(keys, datafile.AppendKey(nil, rows.Cols[:1], i))
		}
		up := u.Begin()
		if err := up.Put(ctx, rows, keys); err != nil {
			return err
		}
		_, err := up.Commit(ctx, deltalog.CommitExtras{})
		return err
	}
	if err := put(map[int64]string{1: "Ada", 2: "Grace"}, 1, 2); err != nil {
		return err
	}
	if err := put(map[int64]string{2: "Grace Hopper"}, 2); err != nil {
		return err
	}
	names := map[int64]string{}
	for b, err := range table.Snapshot().Read(ctx, deltalog.ReadOptions{}) {
		if err != nil {
			return err
		}
		for row := range b.Rows() {
			names[b.Cols[0].I64[row]] = string(b.Cols[1].At(row))
		}
	}
	for id := int64(1); id <= 2; id++ {
		fmt.Println(id, names[id])
	}
	return nil
}
