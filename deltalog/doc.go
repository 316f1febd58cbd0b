// Package deltalog reads and writes Delta Lake tables: their transaction log,
// their data files and their deletion vectors.
//
// Rows are columns of package datafile: of all types, nested to any depth. A
// table's columns are found in its files by name or as its column mapping says;
// columns that are younger than a file are NULL, and types that have been
// widened since are read as what they are now. [Snapshot.Read] takes columns and
// conditions, and passes over files that have no row for them.
//
// It follows the protocol as published at
// https://github.com/delta-io/delta/blob/master/PROTOCOL.md. It reads JSON
// commits and checkpoints of one or many parts, with and without sidecars, and it
// writes JSON commits, single-part checkpoints, those with sidecars where a table
// asks for them, and deletion vectors. Files of compacted commits are passed over:
// they hold nothing that the commits do not. A table that needs a feature outside
// that is refused, and the error names the feature; nothing is ever read or
// written by guessing.
//
// [Table.Append], [Table.Overwrite], [Table.Delete], [Table.SetSchema] and
// [Table.SetProperties] are one commit each, tried again for as long as what others
// commit leaves that right. [OpenAt], [OpenAtTime], [Snapshot.History] and
// [Table.Changes] look back. What tables have by their properties and features is
// kept up: deletion vectors, in-commit timestamps, the change data feed, ids of
// rows, statistics of the columns that a table is clustered by, widened types.
// Tables with constraints, generated columns, identity columns, invariants or
// column defaults are read; writing them needs SQL and is refused.
//
// [Open] and [Create] give a [Table], which follows the head of the log. A
// [Snapshot] is one version of it: immutable, in memory, sharing what did not
// change with the versions before. [Table.Commit] writes the version after a
// snapshot with a single conditional write: in the steady state a commit lists
// nothing and reads nothing.
//
// An [Upserter] replaces and takes away single rows at a cost that follows the
// changes, within partitions and across them. Rows keep their ids, and the change
// data feed tells updates from rows that come and go. [Table.Maintain] keeps a table fast to read while others write to it:
// it compacts, writes checkpoints and deletes what is no longer needed, when that
// is due. [Fsck] tells what is wrong with a table.
//
// Other writers on the same table are welcome as long as they, too, create
// commit files only where there are none. Versions of the log may be cleaned
// away by others once they are an hour old.
package deltalog
