package deltalog_test

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// A table that is written to often gets many small files. Maintain makes few of
// them, whenever it is worth that.
func ExampleTable_Maintain() {
	ctx := context.Background()
	table, err := deltalog.Create(ctx, store.NewMemory(), deltalog.CreateOptions{Schema: measurements()})
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range 40 {
		if err := appendMeasurement(ctx, table, int64(n)); err != nil {
			fmt.Println(err)
			return
		}
		done, err := table.Maintain(ctx, deltalog.MaintainOptions{})
		if err != nil {
			fmt.Println(err)
			return
		}
		if done.Compact {
			fmt.Println("compacted after", n+1, "files")
		}
	}
	rows, _ := table.Snapshot().Rows()
	fmt.Println(rows, "rows in", table.Snapshot().NumFiles(), "files")
	// Output:
	// compacted after 18 files
	// compacted after 35 files
	// 40 rows in 6 files
}

// Fsck says in words what is wrong with a table: here, a file was deleted.
func ExampleFsck() {
	ctx := context.Background()
	st := store.NewMemory()
	table, err := deltalog.Create(ctx, st, deltalog.CreateOptions{Schema: measurements()})
	if err == nil {
		err = appendMeasurement(ctx, table, 1)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	for f := range table.Snapshot().Files() {
		_ = st.Delete(ctx, f.Path)
	}
	found, err := deltalog.Fsck(ctx, st, deltalog.FsckOptions{})
	for _, f := range found {
		fmt.Println(f.Problem)
	}
	fmt.Println(err)
	// Output:
	// the data file is missing, and with it 1 rows
	// <nil>
}

func measurements() *schema.Schema {
	return &schema.Schema{Fields: []schema.Field{{Name: "value", Type: schema.Type{Kind: schema.Long}, Nullable: true}}}
}

func appendMeasurement(ctx context.Context, table *deltalog.Table, value int64) error {
	rows := datafile.NewBatch(measurements())
	rows.Cols[0].AppendInt(value)
	w, err := table.NewFile(ctx, deltalog.FileOptions{})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := w.Write(rows); err != nil {
		return err
	}
	f, err := w.Close()
	if err != nil {
		return err
	}
	_, err = table.CommitAppend(ctx, &deltalog.Commit{Operation: "WRITE", Add: []*deltalog.File{f}}, nil)
	return err
}
