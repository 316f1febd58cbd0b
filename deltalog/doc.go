// Package deltalog reads and writes Delta Lake tables: their transaction log,
// their data files and their deletion vectors.
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
// An [Upserter] replaces and takes away single rows at a cost that follows the
// changes. [Table.Maintain] keeps a table fast to read while others write to it:
// it compacts, writes checkpoints and deletes what is no longer needed, when that
// is due. [Fsck] tells what is wrong with a table.
//
// Other writers on the same table are welcome as long as they, too, create
// commit files only where there are none. Versions of the log may be cleaned
// away by others once they are an hour old.
package deltalog
