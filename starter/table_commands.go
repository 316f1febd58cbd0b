package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/starter/inspect"
)

type tableCommand struct {
	Info       tableInfoCommand       `cmd:"" help:"What the table is: version, rows, columns, features, properties."`
	Cat        tableCatCommand        `cmd:"" help:"The rows, as JSON lines, CSV or Parquet."`
	Files      tableFilesCommand      `cmd:"" help:"The data files, with rows and deleted rows."`
	Checksum   tableChecksumCommand   `cmd:"" help:"The number of rows and a checksum that does not depend on their order."`
	Log        tableLogCommand        `cmd:"" help:"The commits, the newest first."`
	History    tableHistoryCommand    `cmd:"" help:"The versions that can be asked for by their time, the newest first."`
	Changes    tableChangesCommand    `cmd:"" help:"The rows that versions inserted and deleted, from the change data feed."`
	Compact    tableCompactCommand    `cmd:"" help:"Write small files, and files with many deleted rows, anew."`
	Checkpoint tableCheckpointCommand `cmd:"" help:"Write what the newest version holds into one file of the log."`
	Vacuum     tableVacuumCommand     `cmd:"" help:"Delete files that are no longer in the table."`
	Fsck       tableFsckCommand       `cmd:"" help:"Read everything back, and say what is wrong."`
}

// Help shows examples.
func (tableCommand) Help() string {
	return `Reads and tends any Delta table by its URI or path; the fleet file is not needed. millrace status shows the URIs of mirrored tables.

Examples:

  millrace table info file:///var/lib/lake/shop/public/orders/latest
  millrace table cat /var/lib/lake/shop/public/orders/history --version 7 | head
  millrace table log ./orders/latest --json`
}

// tableFlags are what every look into a table needs.
type tableFlags struct {
	URI       string `arg:"" name:"uri" help:"URI or path of the table."`
	Version   *int64 `xor:"at" placeholder:"N" help:"Version to look at; the newest unless given."`
	Timestamp string `xor:"at" placeholder:"TIME" help:"Look at the version of this time, such as 2024-02-29T12:00:00Z."`
}

func (t *tableFlags) open(a *app) (*inspect.View, error) {
	at, err := t.at()
	if err != nil {
		return nil, err
	}
	return inspect.Open(a.ctx, t.URI, at)
}

func (t *tableFlags) at() (inspect.At, error) {
	var at inspect.At
	if t.Version != nil && *t.Version < 0 {
		return at, usageError("--version needs a number from 0")
	}
	at.Version = (*deltalog.Version)(t.Version)
	if t.Timestamp == "" {
		return at, nil
	}
	var err error
	if at.Time, err = inspect.ParseTime(t.Timestamp); err != nil {
		return at, usageError("--timestamp: " + err.Error())
	}
	return at, nil
}

type tableInfoCommand struct{ tableFlags }

// Help shows examples.
func (*tableInfoCommand) Help() string {
	return `Examples:

  millrace table info file:///var/lib/lake/shop/public/orders/latest
  millrace table info ./orders/latest --json | jq .domains`
}

// Run describes the table.
func (c *tableInfoCommand) Run(a *app) error {
	v, err := c.open(a)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(v.Info())
	}
	printInfo(a.stdout, v.Info())
	return nil
}

type tableCatCommand struct {
	tableFlags
	Format  string   `default:"json" enum:"json,csv,parquet" help:"json, csv or parquet."`
	Columns []string `placeholder:"A,B" help:"Columns to show, in this order; all unless given."`
	Where   string   `placeholder:"COND" help:"Show rows for which all of these hold: COLUMN = 7 AND COLUMN >= 'x' AND COLUMN IS NOT NULL."`
	Limit   *int64   `placeholder:"N" help:"How many rows to show; all unless given."`
}

// Help shows examples.
func (*tableCatCommand) Help() string {
	return `Integers and decimals are numbers with all their digits, NaN and infinities are strings, binary is base64, and timestamps are ISO 8601, ending in Z unless they have no zone. In CSV an empty field is NULL and "" an empty string. Rows that a deletion vector hides are not shown.

--where compares columns with literals by =, !=, <, <=, >, >=, IS NULL and IS NOT NULL, and joins comparisons by AND. Text, dates, times and base64 are in 'quotes', names of columns in ` + "`backticks`" + ` where they need to be.

Examples:

  millrace table cat ./orders/latest --where 'id = 7'
  millrace table cat ./orders/latest --columns id,total --where "at >= '2024-02-29' AND total > 9.99" --format csv
  millrace table cat ./orders/history --version 7 --format parquet > orders.parquet`
}

// Run writes the rows.
func (c *tableCatCommand) Run(a *app) error {
	o := inspect.CatOptions{Format: inspect.Format(c.Format), Columns: c.Columns, Where: c.Where, Limit: -1}
	switch {
	case c.Limit != nil && *c.Limit < 0:
		return usageError("--limit needs a number from 0")
	case c.Limit != nil:
		o.Limit = *c.Limit
	}
	if a.json && o.Format != inspect.JSON {
		return usageError("--json and --format " + c.Format + " contradict each other")
	}
	v, err := c.open(a)
	if err != nil {
		return err
	}
	return v.Cat(a.ctx, a.stdout, o)
}

type tableFilesCommand struct{ tableFlags }

// Help shows examples.
func (*tableFilesCommand) Help() string {
	return `Example:

  millrace table files ./orders/latest --version 7`
}

// Run lists the files.
func (c *tableFilesCommand) Run(a *app) error {
	v, err := c.open(a)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(v.Files())
	}
	printFiles(a.stdout, v.Files())
	return nil
}

type tableLogCommand struct {
	tableFlags
	Limit int `placeholder:"N" help:"How many commits to show; all unless given."`
}

// Help shows examples.
func (*tableLogCommand) Help() string {
	return `Goes back as far as the log still holds its commits.

Examples:

  millrace table log ./orders/latest --limit 10
  millrace table log ./orders/latest --json | jq '.[] | select(.removed > 0)'`
}

// Run lists the commits.
func (c *tableLogCommand) Run(a *app) error {
	if c.Limit < 0 {
		return usageError("--limit needs a number from 0")
	}
	v, err := c.open(a)
	if err != nil {
		return err
	}
	entries, err := v.Log(a.ctx, c.Limit)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(entries)
	}
	printLog(a.stdout, entries)
	return nil
}

// printInfo writes what a table is.
func printInfo(w io.Writer, in *inspect.Info) {
	t := columns(w)
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	rows := "unknown"
	if in.Rows != nil {
		rows = thousands(*in.Rows)
	}
	field("table", in.URI)
	field("name", in.Name)
	field("description", in.Description)
	field("id", in.ID)
	field("version", strconv.FormatInt(int64(in.Version), 10))
	field("committed", strings.TrimSpace(in.Time+" "+in.Operation))
	field("rows", rows)
	field("files", fmt.Sprintf("%s (%s)", thousands(int64(in.Files)), size(in.Bytes)))
	field("protocol", fmt.Sprintf("reader %d, writer %d", in.MinReader, in.MinWriter))
	field("features", strings.Join(in.Features, ", "))
	field("partitioned by", strings.Join(in.PartitionColumns, ", "))
	flush(t)
	fmt.Fprintln(w)
	t = columns(w)
	fmt.Fprintln(t, "COLUMN\tTYPE")
	for _, c := range in.Columns {
		null := ""
		if !c.Nullable {
			null = " not null"
		}
		fmt.Fprintf(t, "%s\t%s%s\n", c.Name, c.Type, null)
	}
	flush(t)
	printPairs(w, "PROPERTY", in.Properties)
	txns := make(map[string]string, len(in.Txns))
	for app, version := range in.Txns {
		txns[app] = strconv.FormatInt(version, 10)
	}
	printPairs(w, "TXN", txns)
	printPairs(w, "DOMAIN", in.Domains)
}

// printPairs writes a table of two columns, if there is anything in it.
func printPairs(w io.Writer, title string, pairs map[string]string) {
	if len(pairs) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := columns(w)
	fmt.Fprintf(t, "%s\tVALUE\n", title)
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		fmt.Fprintf(t, "%s\t%s\n", k, pairs[k])
	}
	flush(t)
}

// printFiles writes a line for each data file.
func printFiles(w io.Writer, files []inspect.File) {
	t := columns(w)
	fmt.Fprintln(t, "FILE\tROWS\tDELETED\tSIZE\tWRITTEN\tPARTITION")
	for i := range files {
		f := &files[i]
		rows := "-"
		if f.Rows != nil {
			rows = thousands(*f.Rows)
		}
		partition := "-"
		if len(f.Partition) > 0 {
			if b, err := json.Marshal(f.Partition); err == nil {
				partition = string(b)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Path, rows, thousands(f.Deleted), size(f.Bytes), dash(f.Time), partition)
	}
	flush(t)
}

// printLog writes a line for each commit.
func printLog(w io.Writer, entries []inspect.Entry) {
	t := columns(w)
	fmt.Fprintln(t, "VERSION\tTIME\tOPERATION\tADDED\tREMOVED\tROWS\tALSO")
	for i := range entries {
		e := &entries[i]
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%d\t%s\t%s\n", e.Version, dash(e.Time), dash(e.Operation), e.Added, e.Removed,
			thousands(e.Rows), dash(strings.Join(e.Changed, ", ")))
	}
	flush(t)
}
