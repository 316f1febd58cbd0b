package activities

import (
	"errors"
	"fmt"
	"syscall"

	"go.temporal.io/api/serviceerror"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/lake/pgtype"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/topic"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/s3"
)

var (
	// ErrSlotMoved tells that a slot was confirmed beyond what Kafka
	// acknowledged: somebody else moved it, and changes are lost.
	ErrSlotMoved = errors.New("the slot was moved by others")
	// ErrNotCaughtUp tells that the lake did not reach a position in time.
	ErrNotCaughtUp = errors.New("the lake is not caught up")
)

// act is what an error asks for.
type act byte

const (
	retry act = iota // try the step again
	anew             // begin again further up: the step itself cannot succeed
	park             // stop until somebody acts
)

// class says what one class of errors means: its code and remedy, what is to be
// done, and whether it concerns the whole database or one table. What parks gets
// the command that goes on as the last line of its remedy ([Reason.Parked]),
// unless the remedy ends with one of its own.
type class struct {
	class    error
	code     Code
	act      act
	database bool
	remedy   string
}

// again is the remedy where only a new epoch helps.
const again = "every table is to be copied again:\nmillrace unpark {db} --new-epoch --yes"

// classes is the taxonomy: the first that errors.Is finds decides.
var classes = []class{
	{syscall.ENOSPC, "DISK_FULL", retry, true, "free space on that disk"},
	{syscall.EDQUOT, "DISK_FULL", retry, true, "free space on that disk"},
	{pgsource.ErrAuth, "SOURCE_AUTH", park, true, "set the password that the fleet file refers to where the worker runs, restart the worker"},
	{pgsource.ErrPrivilege, "PERMISSION_DENIED", park, true, "grant what is missing (millrace doctor {db} prints the SQL)"},
	{pgsource.ErrWALLevel, "WAL_LEVEL", park, true, "ALTER SYSTEM SET wal_level = logical; restart PostgreSQL"},
	{pgsource.ErrNoFreeSlot, "NO_FREE_SLOT", park, true, "raise max_replication_slots and max_wal_senders or drop slots that nobody reads"},
	{pgsource.ErrSlotLost, "SLOT_LOST", park, true, "changes were lost at the source: " + again},
	{ErrSlotMoved, "SLOT_MOVED", park, true, "changes were lost at the source: " + again},
	{pgsource.ErrIdentityChanged, "SOURCE_IDENTITY_CHANGED", park, true, "point the fleet file at the right server and apply it; or, to mirror the one that answers, drop the slot at the other where that still runs, and copy every table again:\nmillrace unpark {db} --new-epoch --yes"},
	{pgsource.ErrPublicationMissing, "PUBLICATION_MISSING", park, true, "changes were lost at the source: " + again},
	{pgsource.ErrConfig, "SOURCE_CONFIG", park, true, "correct url: in the fleet file\nmillrace apply {db}"},
	{pgsource.ErrNoDatabase, "NO_DATABASE", park, true, "correct url: in the fleet file\nmillrace apply {db}"},
	{pgsource.ErrNoTables, "SOURCE_NO_TABLES", park, true, "correct tables: in the fleet file\nmillrace apply {db}"},
	{pgsource.ErrVersion, "SOURCE_VERSION", park, true, "upgrade the server"},
	{ErrNotCaughtUp, "NOT_CAUGHT_UP", park, true, ""},
	{pgsource.ErrSlotMissing, "SLOT_LOST", park, true, "changes were lost at the source: " + again},
	{pgsource.ErrTableGone, "TABLE_GONE", park, false, ""},
	{pgsource.ErrSuperseded, "SUPERSEDED", retry, true, ""},
	{pgsource.ErrBlocked, "SOURCE_BLOCKED", retry, true, "end the transaction that stays open"},
	{pgsource.ErrLocked, "SOURCE_LOCKED", retry, false, ""},
	{pgsource.ErrSnapshotGone, CodeSnapshotGone, anew, false, ""},
	{pgsource.ErrRewritten, "TABLE_REWRITTEN", anew, false, ""},
	{pgsource.ErrSlotActive, "SLOT_ACTIVE", retry, true, ""},
	{pgsource.ErrUnreachable, "SOURCE_UNREACHABLE", retry, true, "check that the server runs and that the worker can reach it"},
	{topic.ErrTopicSettings, "TOPIC_SETTINGS", park, true, "change the setting as said"},
	{topic.ErrTopicMissing, "TOPIC_MISSING", park, true, "if kafka.brokers or topic_prefix was changed, change it back and apply it; otherwise the topic is gone, and changes with it: " + again},
	{topic.ErrRecord, "MALFORMED_RECORD", park, true, "others write into the topic: " + again},
	{topic.ErrDenied, "KAFKA_DENIED", park, true, "grant the worker's user access to the topics"},
	{topic.ErrFenced, "KAFKA_FENCED", park, true, "another deployment mirrors the same database into the same topic: stop it"},
	{topic.ErrRecordTooLarge, "RECORD_TOO_LARGE", park, false, "raise max.message.bytes of the topic: the table is copied again"},
	{topic.ErrDiverged, "KAFKA_DIVERGED", park, true, "the topic holds other changes than the WAL: " + again},
	{topic.ErrTailLost, "KAFKA_GAP", park, true, "records are gone from the topic: " + again},
	{topic.ErrStreamChanged, "KAFKA_GAP", park, true, "the topic was made again: " + again},
	{topic.ErrUnreachable, "KAFKA_UNREACHABLE", retry, true, "check that the brokers run and that the worker can reach them"},
	{pgtype.ErrUnrepresentable, "UNREPRESENTABLE_VALUE", park, false, "correct the value at the source, or give the column a cast in the fleet file (casts: {column: string} in a rule for the table)\nmillrace apply {db}"},
	{pgtype.ErrCast, "CAST_UNKNOWN", park, false, "correct casts: in the fleet file\nmillrace apply {db}"},
	{change.ErrTuple, "MALFORMED_VALUE", park, false, "report this: the source sent a row that is none"},
	{pgtype.ErrMalformed, "MALFORMED_VALUE", park, false, "report this: the source sent a value that its type does not have"},
	{batch.ErrOrder, "HISTORY_DISORDER", park, false, "the table is copied again"},
	{lake.ErrSchemaIncompatible, "SCHEMA_INCOMPATIBLE", park, false, "the table is copied again with its shape of now"},
	{lake.ErrRowNotFound, "LATEST_DIVERGED", park, false, "the table is copied again"},
	{lake.ErrDisorder, "HISTORY_DISORDER", park, false, "the table is copied again"},
	{deltalog.ErrRowNotFound, "LATEST_DIVERGED", park, false, "the table is copied again"},
	{deltalog.ErrDuplicateKey, "LATEST_DIVERGED", park, false, "the table is copied again"},
	{deltalog.ErrCorrupt, "LAKE_CORRUPT", park, false, "restore the file, or move the table's folder away"},
	{datafile.ErrCorrupt, "LAKE_CORRUPT", park, false, "restore the file, or move the table's folder away"},
	{deltalog.ErrUnsupported, "LAKE_UNSUPPORTED", park, false, "others changed the table: undo that, or move its folder away"},
	{s3.ErrUnavailable, "LAKE_UNREACHABLE", retry, true, "check that the store runs and that the worker can reach it"},
	{s3.ErrCredentials, "LAKE_AUTH", park, true, "correct the keys that lake: refers to, or AWS's own settings, where the worker runs, and restart the worker"},
	{s3.ErrNoBucket, "LAKE_CONFIG", park, true, "create the bucket, or correct lake: in the fleet file and apply it"},
	{store.ErrUnconditional, "LAKE_CONFIG", park, true, "name a store that honours If-None-Match under lake: in the fleet file\nmillrace apply {db}"},
	{s3.ErrRegion, "LAKE_CONFIG", park, true, "correct lake: in the fleet file\nmillrace apply {db}"},
	{lake.ErrConfig, "LAKE_CONFIG", park, true, "correct lake: in the fleet file\nmillrace apply {db}"},
	{s3.ErrDenied, "LAKE_UNWRITABLE", park, true, "grant the worker's credentials what is missing"},
	{lake.ErrUnwritable, "LAKE_UNWRITABLE", park, true, "give the worker's user the right to write below lake:"},
	{lake.ErrCopyGone, "COPY_REPLACED", anew, false, ""},
	{lake.ErrCopyIncomplete, "COPY_REPLACED", anew, false, ""},
	{lake.ErrNotCopied, "NOT_COPIED", anew, false, ""},
	{fleet.ErrSecret, "SECRET_MISSING", park, true, "set it where the worker runs and restart the worker"},
}

// Classify says what an error means to a workflow: its code, its remedy, and
// whether trying again can help.
func Classify(err error) Failure {
	var with *Reasoned
	if errors.As(err, &with) {
		f := with.Failure
		if f.Reason.Message == "" {
			f.Reason.Message = err.Error()
		}
		return f
	}
	var gap *topic.Gap
	if errors.As(err, &gap) {
		return Failure{Park: true, Reason: Reason{
			Code: "KAFKA_GAP", Message: err.Error(), Remedy: "records are gone from the topic: the table is copied again",
		}}
	}
	for _, c := range classes {
		if !errors.Is(err, c.class) {
			continue
		}
		return Failure{
			Reason: Reason{Code: c.code, Message: err.Error(), Remedy: remedy(err, &c)},
			Park:   c.act == park, Anew: c.act == anew, Database: c.database,
		}
	}
	return Failure{Reason: Reason{Code: CodeInternal, Message: err.Error()}, Database: true}
}

// CopiesAgain tells that what parked a table is mended by a new copy: resuming
// it starts one.
func CopiesAgain(c Code) bool {
	switch c {
	case "KAFKA_GAP", "RECORD_TOO_LARGE", "SCHEMA_INCOMPATIBLE", "LATEST_DIVERGED", "HISTORY_DISORDER", "TABLE_RENAMED",
		"UNREPRESENTABLE_VALUE":
		return true
	}
	return false
}

// Unreadable tells that what parked a database, or a table, is what the topic holds
// or lacks: whoever reads it from before that meets it again.
func Unreadable(c Code) bool {
	switch c {
	case "MALFORMED_RECORD", "KAFKA_DIVERGED", "KAFKA_GAP", "TOPIC_MISSING", CodeSchemaUnknown, CodeKafkaCorrupt:
		return true
	}
	return false
}

// remedy is the class's own, made precise by what the error knows of its object.
func remedy(err error, c *class) string {
	var source *pgsource.Error
	var setting *topic.SettingError
	var value *batch.ConvertError
	switch {
	case errors.As(err, &value) && errors.Is(err, pgtype.ErrUnrepresentable):
		return fmt.Sprintf("correct the value at the source, or read the column as text: rules: [{tables: %s, casts: {%s: string}}] under {db}: in the fleet file; then:\nmillrace apply {db}", value.Table, value.Column)
	case errors.As(err, &source) && source.Code == "SLOT_FOREIGN":
		return source.Remedy + "\n" + again
	case errors.As(err, &source) && source.Remedy != "" && c.act != park:
		return source.Remedy
	case errors.As(err, &source) && source.Remedy != "" && !errors.Is(err, pgsource.ErrSlotLost) && !errors.Is(err, pgsource.ErrSlotMissing):
		return source.Remedy
	case errors.As(err, &setting) && setting.Remedy != "":
		return setting.Remedy
	}
	return c.remedy
}

// notFound tells that Temporal does not know what was asked for.
func notFound(err error) bool {
	var nf *serviceerror.NotFound
	return errors.As(err, &nf)
}
