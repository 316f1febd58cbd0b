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
// commits and classic checkpoints of one or many parts, and it writes JSON
// commits, single-part checkpoints and deletion vectors. A table that needs a
// feature outside that is refused, and the error names the feature; nothing is
// ever read or written by guessing.
//
// [Open] and [Create] give a [Table], which follows the head of the log. A
// [Snapshot] is one version of it: immutable, in memory, sharing what did not
// change with the versions before. [Table.Commit] writes the version after a
// snapshot with a single conditional write: in the steady state a commit lists
// nothing and reads nothing.
//
// Other writers on the same table are welcome as long as they, too, create
// commit files only where there are none. Versions of the log may be cleaned
// away by others once they are an hour old.
package deltalog
