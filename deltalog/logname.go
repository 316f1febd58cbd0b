package deltalog

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	logDir = "_delta_log/"
	// logPrefix begins the names of all files of versions: they have twenty
	// digits, and no version needs the first.
	logPrefix = logDir + "0"
	// hintName is the file that tells where the newest checkpoint may be.
	hintName = logDir + "_last_checkpoint"
	// sidecarDir holds the files that checkpoints refer to.
	sidecarDir = logDir + "_sidecars/"
)

// commitName returns the name of a version's commit.
func commitName(v Version) string { return fmt.Sprintf("%s%020d.json", logDir, v) }

// checkpointRef points at a checkpoint.
type checkpointRef struct {
	version Version // negative means none
	parts   int     // 0 means one file without part numbers
	// unique tells checkpoints of one version apart, where they are named so:
	// by a UUID and the ending json or parquet, with a dot between.
	unique string
	bytes  int64 // of all parts; 0 means unknown
	// logBytes is what [Snapshot].logBytes was at the checkpoint.
	logBytes int64
}

// noCheckpoint points nowhere.
var noCheckpoint = checkpointRef{version: -1}

// names returns the names of the checkpoint's files.
func (c checkpointRef) names() []string {
	if c.unique != "" {
		return []string{fmt.Sprintf("%s%020d.checkpoint.%s", logDir, c.version, c.unique)}
	}
	if c.parts == 0 {
		return []string{fmt.Sprintf("%s%020d.checkpoint.parquet", logDir, c.version)}
	}
	names := make([]string, c.parts)
	for i := range names {
		names[i] = fmt.Sprintf("%s%020d.checkpoint.%010d.%010d.parquet", logDir, c.version, i+1, c.parts)
	}
	return names
}

// logFile is what the name of a file in the log says.
type logFile struct {
	version Version
	commit  bool
	// part counts from 1 in a checkpoint of many parts; part and parts are 0
	// in one of a single file.
	checkpoint  bool
	part, parts int
	// unique is that of checkpointRef.
	unique string
}

// parseLogName reads a name of the log; anything but a commit or a checkpoint is
// not ok. That goes for compacted commits too: they hold nothing that the commits
// do not, and there are writers that read tables with them wrong.
func parseLogName(name string) (f logFile, ok bool) {
	name, ok = strings.CutPrefix(name, logDir)
	digits, rest, found := strings.Cut(name, ".")
	v, good := digitsOf(digits, 20)
	if !ok || !found || !good {
		return f, false
	}
	f.version = Version(v)
	switch parts := strings.Split(rest, "."); {
	case rest == "json":
		f.commit = true
		return f, true
	case rest == "checkpoint.parquet":
		f.checkpoint = true
		return f, true
	case len(parts) == 3 && parts[0] == "checkpoint" && parts[1] != "" && (parts[2] == "json" || parts[2] == "parquet"):
		f.checkpoint, f.unique = true, parts[1]+"."+parts[2]
		return f, true
	case len(parts) == 4 && parts[0] == "checkpoint" && parts[3] == "parquet":
		part, good1 := digitsOf(parts[1], 10)
		n, good2 := digitsOf(parts[2], 10)
		f.checkpoint, f.part, f.parts = true, int(part), int(n)
		return f, good1 && good2 && part >= 1 && part <= n
	}
	return f, false
}

func digitsOf(s string, n int) (int64, bool) {
	if len(s) != n || strings.ContainsAny(s, "+-") {
		return 0, false
	}
	v, err := strconv.ParseInt(s, 10, 64)
	return v, err == nil
}
