package activities

import "strings"

// Code is the stable name of why something is parked or waits. Codes are part
// of the product's interface: they never change their meaning.
type Code string

// Reason says why a database or table does not go on, and what mends it.
type Reason struct {
	Code Code `json:"code"`
	// Message is one sentence for people. It holds no row values and no secrets.
	Message string `json:"message"`
	// Remedy is the SQL, setting or command that mends it. {db} in it stands for
	// the database's name in the fleet file.
	Remedy string `json:"remedy,omitempty"`
	// Since is when it was first seen, in RFC 3339.
	Since string `json:"since,omitempty"`
}

// For returns the reason with a remedy for one database.
func (r Reason) For(database string) Reason {
	r.Remedy = strings.ReplaceAll(r.Remedy, "{db}", database)
	return r
}

// Parked returns the reason as that of a database that parks, or of one of its
// tables: the last line of its remedy is the command that makes it go on.
func (r Reason) Parked(database, table string) Reason {
	r = r.For(database)
	command := "millrace resume " + database
	if table != "" {
		r.Remedy = strings.ReplaceAll(r.Remedy, "{table}", ShellWord(table))
		if command = "millrace unpark " + database + " " + ShellWord(table); CopiesAgain(r.Code) {
			command += " --yes"
		}
	}
	switch last := r.Remedy[strings.LastIndexByte(r.Remedy, '\n')+1:]; {
	case r.Remedy == "":
		r.Remedy = command
	case !strings.HasPrefix(last, "millrace "):
		r.Remedy += "\n" + command
	}
	return r
}

// ShellWord makes a word that a shell reads as it stands.
func ShellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:@%,", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Codes that are not tied to one stage.
const (
	CodeInternal      Code = "INTERNAL"
	CodeNoWorker      Code = "NO_WORKER"
	CodeWorkerLost    Code = "WORKER_LOST"
	CodeSnapshotGone  Code = "SNAPSHOT_GONE"
	CodeTableRenamed  Code = "TABLE_RENAMED"
	CodeKafkaCorrupt  Code = "KAFKA_CORRUPT"
	CodeSchemaUnknown Code = "SCHEMA_UNKNOWN"
)

// Failure is what the worker makes of an activity's error, once, at the edge:
// it travels as the details of an application error whose type is the code.
type Failure struct {
	Reason Reason `json:"reason"`
	// Park tells that trying again cannot help until somebody acts.
	Park bool `json:"park,omitempty"`
	// Database tells that it concerns the whole database, not one table.
	Database bool `json:"database,omitempty"`
	// Anew tells that this step cannot succeed by being repeated: its caller
	// has to begin again further up.
	Anew bool `json:"anew,omitempty"`
}
