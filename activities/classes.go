package activities

import (
	"errors"

	"go.temporal.io/api/serviceerror"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/lake/pgtype"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

var (
	// ErrSlotMoved tells that a slot was confirmed beyond what Kafka
	// acknowledged: somebody else moved it, and changes are lost.
	ErrSlotMoved = errors.New("the slot was moved by others")
	// ErrNotCaughtUp tells that the lake did not reach a position in time.
	ErrNotCaughtUp = errors.New("the lake is not caught up")
)

// class says what one class of errors means: its code and remedy, whether it
// parks, and then whether the whole database or the one table.
type class struct {
	class    error
	code     Code
	park     bool
	database bool
	remedy   string
}

// classes is the taxonomy: the first that errors.Is finds decides.
var classes = []class{
	{pgsource.ErrAuth, "SOURCE_AUTH", true, true, "set the password that the fleet file refers to where the worker runs, restart the worker, then: millrace resume DB"},
	{pgsource.ErrPrivilege, "PERMISSION_DENIED", true, true, "grant what is missing (millrace validate --connect prints the SQL), then: millrace resume DB"},
	{pgsource.ErrWALLevel, "WAL_LEVEL", true, true, "ALTER SYSTEM SET wal_level = logical; restart PostgreSQL; then: millrace resume DB"},
	{pgsource.ErrNoFreeSlot, "NO_FREE_SLOT", true, true, "raise max_replication_slots and max_wal_senders or drop slots that nobody reads, then: millrace resume DB"},
	{pgsource.ErrSlotLost, "SLOT_LOST", true, true, "changes were lost at the source: millrace remove DB --yes, then millrace apply, which copies every table again"},
	{ErrSlotMoved, "SLOT_MOVED", true, true, "changes were lost at the source: millrace remove DB --yes, then millrace apply, which copies every table again"},
	{pgsource.ErrIdentityChanged, "SOURCE_IDENTITY_CHANGED", true, true, "point the fleet file at the right server, or: millrace remove DB --yes --force, then millrace apply"},
	{pgsource.ErrPublicationMissing, "PUBLICATION_MISSING", true, true, "millrace resume DB makes the publications again"},
	{pgsource.ErrConfig, "SOURCE_CONFIG", true, true, "correct url: in the fleet file, then: millrace apply"},
	{pgsource.ErrNoDatabase, "NO_DATABASE", true, true, "correct url: in the fleet file, then: millrace apply"},
	{pgsource.ErrVersion, "SOURCE_VERSION", true, true, "upgrade the server, then: millrace resume DB"},
	{pgsource.ErrSlotMissing, "SLOT_LOST", true, true, "changes were lost at the source: millrace remove DB --yes, then millrace apply, which copies every table again"},
	{pgsource.ErrTableGone, "TABLE_GONE", true, false, ""},
	{pgsource.ErrSuperseded, "SUPERSEDED", false, true, ""},
	{pgsource.ErrBlocked, "SOURCE_BLOCKED", false, true, "end the transaction that stays open"},
	{pgsource.ErrLocked, "SOURCE_LOCKED", false, false, ""},
	{pgsource.ErrSnapshotGone, CodeSnapshotGone, false, false, ""},
	{pgsource.ErrRewritten, "TABLE_REWRITTEN", false, false, ""},
	{pgsource.ErrSlotActive, "SLOT_ACTIVE", false, true, ""},
	{pgsource.ErrUnreachable, "SOURCE_UNREACHABLE", false, true, "check that the server runs and that the worker can reach it"},
	{topic.ErrTopicSettings, "TOPIC_SETTINGS", true, true, "change the setting as said, then: millrace resume DB"},
	{topic.ErrDenied, "KAFKA_DENIED", true, true, "grant the worker's user access to the topics, then: millrace resume DB"},
	{topic.ErrFenced, "KAFKA_FENCED", true, true, "another deployment mirrors the same database into the same topic: stop it, then: millrace resume DB"},
	{topic.ErrTailLost, "KAFKA_GAP", true, true, "records are gone from the topic: millrace remove DB --yes, then millrace apply, which copies every table again"},
	{topic.ErrStreamChanged, "KAFKA_GAP", true, true, "the topic was made again: millrace remove DB --yes, then millrace apply, which copies every table again"},
	{topic.ErrUnreachable, "KAFKA_UNREACHABLE", false, true, "check that the brokers run and that the worker can reach them"},
	{pgtype.ErrUnrepresentable, "UNREPRESENTABLE_VALUE", true, false, "correct the value at the source, or give the column a cast in the fleet file (columns: {schema.table.column: string}) and apply it"},
	{pgtype.ErrMalformed, "MALFORMED_VALUE", true, false, "report this: the source sent a value that its type does not have"},
	{batch.ErrOrder, "HISTORY_DISORDER", true, false, "millrace resume DB"},
	{lake.ErrSchemaIncompatible, "SCHEMA_INCOMPATIBLE", true, false, "millrace resume DB copies the table again with its shape of now"},
	{lake.ErrRowNotFound, "LATEST_DIVERGED", true, false, "millrace resume DB copies the table again"},
	{lake.ErrDisorder, "HISTORY_DISORDER", true, false, "millrace resume DB copies the table again"},
	{lake.ErrUnwritable, "LAKE_UNWRITABLE", true, true, "give the worker's user the right to write below lake:, then: millrace resume DB"},
	{lake.ErrCopyGone, "COPY_REPLACED", false, false, ""},
	{fleet.ErrSecret, "SECRET_MISSING", true, true, "set it where the worker runs and restart the worker, then: millrace resume DB"},
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
			Code: "KAFKA_GAP", Message: err.Error(), Remedy: "records are gone from the topic: millrace resume DB copies the table again",
		}}
	}
	for _, c := range classes {
		if !errors.Is(err, c.class) {
			continue
		}
		f := Failure{Reason: Reason{Code: c.code, Message: err.Error(), Remedy: c.remedy}, Park: c.park, Database: c.database}
		var source *pgsource.Error
		var setting *topic.SettingError
		switch {
		case errors.As(err, &source) && source.Remedy != "":
			f.Reason.Remedy = source.Remedy
		case errors.As(err, &setting) && setting.Remedy != "":
			f.Reason.Remedy = setting.Remedy
		}
		return f
	}
	return Failure{Reason: Reason{Code: CodeInternal, Message: err.Error()}, Database: true}
}

// notFound tells that Temporal does not know what was asked for.
func notFound(err error) bool {
	var nf *serviceerror.NotFound
	return errors.As(err, &nf)
}
