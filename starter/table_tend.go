package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/starter/inspect"
)

type tableHistoryCommand struct {
	tableFlags
	Limit int `placeholder:"N" help:"How many versions to show; all unless given."`
}

// Help shows examples.
func (*tableHistoryCommand) Help() string {
	return `A version can be looked at by its number or by any time from its own to that of the next.

Examples:

  millrace table history ./orders/latest --limit 10
  millrace table cat ./orders/latest --timestamp 2024-02-29T12:00:00Z`
}

// Run lists the versions.
func (c *tableHistoryCommand) Run(a *app) error {
	if c.Limit < 0 {
		return usageError("--limit needs a number from 0")
	}
	v, err := c.open(a)
	if err != nil {
		return err
	}
	all, err := v.History(a.ctx, c.Limit)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(all)
	}
	t := columns(a.stdout)
	fmt.Fprintln(t, "VERSION\tTIME\tOPERATION\tENGINE")
	for _, p := range all {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", p.Version, p.Time, dash(p.Operation), dash(p.Engine))
	}
	flush(t)
	return nil
}

type tableChangesCommand struct {
	URI     string   `arg:"" name:"uri" help:"URI or path of the table."`
	From    int64    `required:"" placeholder:"N" help:"First version."`
	To      *int64   `placeholder:"N" help:"Last version; the newest unless given."`
	Columns []string `placeholder:"A,B" help:"Columns to show, in this order; all unless given."`
	Format  string   `default:"json" enum:"json,csv,parquet" help:"json, csv or parquet."`
}

// Help shows examples.
func (*tableChangesCommand) Help() string {
	return `Each row has, besides the table's columns, _change_type (insert, delete, update_preimage or update_postimage), _commit_version and _commit_timestamp. The table has to have had delta.enableChangeDataFeed in these versions.

Example:

  millrace table changes ./orders/latest --from 7 | jq 'select(._change_type == "delete")'`
}

// Run writes the changes.
func (c *tableChangesCommand) Run(a *app) error {
	if a.json && c.Format != string(inspect.JSON) {
		return usageError("--json and --format " + c.Format + " contradict each other")
	}
	t, err := inspect.OpenTable(a.ctx, c.URI)
	if err != nil {
		return err
	}
	to := t.Snapshot().Version()
	if c.To != nil {
		to = deltalog.Version(*c.To)
	}
	if c.From < 0 || deltalog.Version(c.From) > to {
		return usageError(fmt.Sprintf("--from %d is not in versions 0 to %d", c.From, to))
	}
	last, err := deltalog.OpenAt(a.ctx, t.Store(), to)
	if err != nil {
		return fmt.Errorf("changes of %s: %w", c.URI, err)
	}
	shown, err := inspect.SelectColumns(last.Metadata().Schema, c.Columns)
	if err != nil {
		return fmt.Errorf("changes of %s: %w", c.URI, err)
	}
	shown = &schema.Schema{Fields: append(slices.Clone(shown.Fields),
		schema.Field{Name: deltalog.ColumnChangeType, Type: schema.Type{Kind: schema.String}, Nullable: true},
		schema.Field{Name: deltalog.ColumnCommitVersion, Type: schema.Type{Kind: schema.Long}, Nullable: true},
		schema.Field{Name: deltalog.ColumnCommitTime, Type: schema.Type{Kind: schema.Timestamp}, Nullable: true},
	)}
	out := bufio.NewWriterSize(a.stdout, 1<<16)
	rows := t.Changes(a.ctx, deltalog.Version(c.From), to, deltalog.ReadOptions{Columns: c.Columns})
	if err := inspect.WriteRows(out, inspect.Format(c.Format), shown, rows); err != nil {
		return errors.Join(fmt.Errorf("changes of %s: %w", c.URI, err), out.Flush())
	}
	return out.Flush()
}

type tableCompactCommand struct {
	URI         string   `arg:"" name:"uri" help:"URI or path of the table."`
	TargetBytes int64    `name:"target-bytes" placeholder:"N" help:"Size that files are to have; 256 MiB unless given."`
	ClusterBy   []string `name:"cluster-by" placeholder:"A,B" help:"Sort the rows of each file by these columns."`
}

// Help shows examples.
func (*tableCompactCommand) Help() string {
	return `Rows stay the same, and others may write meanwhile. The files that were written anew stay until millrace table vacuum.

Example:

  millrace table compact ./orders/latest --target-bytes 134217728`
}

// Run compacts the table.
func (c *tableCompactCommand) Run(a *app) error {
	if c.TargetBytes < 0 {
		return usageError("--target-bytes needs a number from 0")
	}
	t, err := inspect.OpenTable(a.ctx, c.URI)
	if err != nil {
		return err
	}
	if isHistory(t.Snapshot().Metadata()) {
		return fmt.Errorf("compact %s: it is a history of Millrace, whose files stand in the order of their changes: the worker merges them by itself", c.URI)
	}
	done, err := t.Compact(a.ctx, deltalog.CompactOptions{TargetBytes: c.TargetBytes, ClusterBy: c.ClusterBy})
	if err != nil {
		return fmt.Errorf("compact %s: %w", c.URI, err)
	}
	if a.json {
		return a.print(struct {
			Version      deltalog.Version `json:"version"`
			Commits      int              `json:"commits"`
			Removed      int              `json:"removed"`
			Added        int              `json:"added"`
			RemovedBytes int64            `json:"removed_bytes"`
			AddedBytes   int64            `json:"added_bytes"`
		}{t.Snapshot().Version(), done.Commits, done.Removed, done.Added, done.RemovedBytes, done.AddedBytes})
	}
	if done.Commits == 0 {
		a.printf("nothing to compact at version %d\n", t.Snapshot().Version())
		return nil
	}
	a.printf("wrote %s (%s) anew as %s (%s), version %d\n", count(done.Removed, "file"), size(done.RemovedBytes),
		count(done.Added, "file"), size(done.AddedBytes), t.Snapshot().Version())
	return nil
}

// isHistory tells whether a table is one of those in which Millrace keeps
// changes.
func isHistory(m *deltalog.Metadata) bool {
	return m.Property("millrace.key", "") != "" && strings.EqualFold(m.Property(deltalog.PropertyAppendOnly, ""), "true")
}

type tableCheckpointCommand struct {
	URI string `arg:"" name:"uri" help:"URI or path of the table."`
}

// Help shows examples.
func (*tableCheckpointCommand) Help() string {
	return `Readers then need not replay the log before it.

Example:

  millrace table checkpoint ./orders/latest`
}

// Run writes a checkpoint.
func (c *tableCheckpointCommand) Run(a *app) error {
	t, err := inspect.OpenTable(a.ctx, c.URI)
	if err != nil {
		return err
	}
	if err := t.Checkpoint(a.ctx); err != nil {
		return fmt.Errorf("checkpoint %s: %w", c.URI, err)
	}
	if a.json {
		return a.print(map[string]deltalog.Version{"version": t.Snapshot().Version()})
	}
	a.printf("version %d has a checkpoint\n", t.Snapshot().Version())
	return nil
}

type tableVacuumCommand struct {
	URI       string        `arg:"" name:"uri" help:"URI or path of the table."`
	Retention time.Duration `placeholder:"DURATION" help:"How long files stay that are no longer in the table, such as 240h; what the table says unless given."`
	Full      bool          `help:"List the whole table, and delete what the log does not know too."`
	DryRun    bool          `name:"dry-run" help:"Delete nothing; say what would be."`
	Force     bool          `help:"Allow less retention than the table asks for."`
}

// Help shows examples.
func (*tableVacuumCommand) Help() string {
	return `Versions older than the retention can no longer be read afterwards. Less than the table's own retention is refused without --force: writers would lose the files that they have not committed yet.

Examples:

  millrace table vacuum ./orders/latest --full --dry-run
  millrace table vacuum ./orders/latest --retention 240h`
}

// Run deletes files.
func (c *tableVacuumCommand) Run(a *app) error {
	if c.Retention < 0 {
		return usageError("--retention needs a duration such as 240h")
	}
	t, err := inspect.OpenTable(a.ctx, c.URI)
	if err != nil {
		return err
	}
	done, err := t.Vacuum(a.ctx, deltalog.VacuumOptions{Retention: c.Retention, Full: c.Full, DryRun: c.DryRun, Force: c.Force})
	if err != nil {
		return fmt.Errorf("vacuum %s: %w", c.URI, err)
	}
	if a.json {
		names := done.Names
		if names == nil {
			names = []string{}
		}
		return a.print(struct {
			DryRun bool     `json:"dry_run"`
			Files  []string `json:"files"`
			Bytes  int64    `json:"bytes"`
		}{c.DryRun, names, done.Bytes})
	}
	verb := "deleted"
	if c.DryRun {
		verb = "would delete"
		for _, name := range done.Names {
			a.printf("%s\n", name)
		}
	}
	a.printf("%s %s (%s)\n", verb, count(len(done.Names), "file"), size(done.Bytes))
	return nil
}

type tableFsckCommand struct {
	URI   string `arg:"" name:"uri" help:"URI or path of the table."`
	Quick bool   `help:"Open data files without reading their rows."`
}

// Help shows examples.
func (*tableFsckCommand) Help() string {
	return `Looks for versions that are missing or cannot be read, checkpoints that are not what the log makes, missing and orphaned files, damaged deletion vectors, and statistics that do not hold. The exit status is 1 where something is wrong. Nothing is changed.

Example:

  millrace table fsck ./orders/latest --json`
}

// Run looks the table through.
func (c *tableFsckCommand) Run(a *app) error {
	st, err := inspect.OpenStore(a.ctx, c.URI)
	if err != nil {
		return err
	}
	findings, err := deltalog.Fsck(a.ctx, st, deltalog.FsckOptions{Quick: c.Quick})
	if err != nil {
		return fmt.Errorf("fsck %s: %w", c.URI, err)
	}
	if a.json {
		type finding struct {
			File    string `json:"file,omitempty"`
			Problem string `json:"problem"`
			Remedy  string `json:"remedy,omitempty"`
		}
		list := []finding{}
		for _, f := range findings {
			list = append(list, finding(f))
		}
		err = a.print(list)
	} else {
		for _, f := range findings {
			a.printf("%s\n", strings.TrimSpace(f.String()))
		}
		if len(findings) == 0 {
			a.printf("nothing is wrong\n")
		}
	}
	if err == nil && len(findings) > 0 {
		return status(exitError)
	}
	return err
}
